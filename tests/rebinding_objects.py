"""Classes, objects and containers of functions, which tests of tracing reach in several ways."""

import abc
import dataclasses
import functools
from collections import OrderedDict, defaultdict
from typing import ClassVar, NamedTuple

import numpy as np


def first_only(x):
    y = np.zeros(len(x))
    y[0] = x[0]
    return y


def tripled(x):
    y = np.empty(len(x))
    y[:] = 3 * x
    return y


FUNCTIONS = {"first": first_only, "nested": [(tripled,), {"f": first_only}], "calls": 0}
ORDERED = OrderedDict(a=first_only, b=tripled)
DEFAULT = defaultdict(lambda: tripled, a=first_only)
CHOSEN = frozenset([first_only])
made = []


class Base(abc.ABC):
    subclasses: ClassVar[list] = []

    def __init_subclass__(cls, **kwargs):
        Base.subclasses.append(cls)

    @abc.abstractmethod
    def go(self, x): ...

    def shared(self, x):
        y = np.zeros(len(x))
        y[1:] = x[1:]
        return y


class Derived(Base):
    table: ClassVar[dict] = {"f": tripled}
    count = 0
    other = functools.partialmethod(lambda self, x, f: f(x), f=first_only)

    def __init__(self, scale, f=None):
        self.scale, self.f, self.fs = scale, f, [f, tripled]
        self.start = np.zeros(3)
        self.start[0] = scale

    def go(self, x):
        Derived.count += 1
        return self.f(x) + self.fs[1](x) + self.table["f"](x) + self.start * x

    def shared(self, x):
        return super().shared(x) + 1

    @staticmethod
    def static(x):
        return first_only(x) * 2

    @classmethod
    def of_class(cls, x):
        return cls(x[0], cls.static).go(x)

    @property
    def scaled(self):
        return lambda x: first_only(x) * self.scale

    @functools.cached_property
    def cached(self):
        return lambda x: tripled(x) * self.scale

    @classmethod
    def is_of(cls, other):
        return isinstance(other, cls)


class Slotted:
    __slots__ = ("f", "scale")

    def __init__(self, scale, f):
        self.scale, self.f = scale, f

    def go(self, x):
        self.scale += 1
        y = np.zeros(len(x))
        y[::2] = x[::2]
        return self.f(x) * y


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: object

    def go(self, x):
        return self.inner.go(x) + first_only(x)


class Rule(NamedTuple):
    start: object
    update: object


derived = Derived(2.0, first_only)
frozen = Frozen(derived)
rule = Rule(first_only, lambda x: tripled(x) + 1)
