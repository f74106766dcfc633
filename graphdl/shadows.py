"""Shadows: classes and objects of the user's whose methods are copies of theirs.

The shadow of a class derives from it and from the shadows of its bases, so that `super()` in a
method leads to the copy of the base's method. It takes the place of the class in a copied function:
instances of the class count as instances of the shadow, and what is assigned to the shadow is
assigned to the class. The shadow of an object is an instance of the shadow of its class, with the
attributes of the object itself, which are looked up as their copies.

What a copy is, and of what one is needed, graphdl.rebinding knows: here it is a function `of`.
"""

from __future__ import annotations

import abc
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import optree

from graphdl.likeness import Likeness
from graphdl.trees import NAMESPACE

Of = Callable[[Any], Any]

#: Methods that are none of a traced function's business.
_LIFE_CYCLE = ("__new__", "__init_subclass__", "__del__", "__getattribute__")
#: Names in a class that are no attributes of the user's.
_OF_PYTHON = ("__dict__", "__weakref__", "__module__", "__doc__", "__slots__", "__annotations__")
_MISSING = object()


class _Likeness(Likeness):
    """What the classes of shadows have in common."""

    def __setattr__(cls, name: str, value: Any) -> None:
        setattr(cls.shadowed, name, value)
        type.__setattr__(cls, name, value)


class _Plain(_Likeness, type):
    pass


class _Abstract(_Likeness, abc.ABCMeta):
    def __subclasscheck__(cls, subclass: type) -> bool:
        """What the class says. It asks each of its subclasses in turn, and so its shadow again."""
        if id(cls) in _asked.classes:
            return False
        _asked.classes.add(id(cls))
        try:
            return issubclass(subclass, cls.shadowed)
        finally:
            _asked.classes.discard(id(cls))


class _Asked(threading.local):
    """The shadows that ask their classes about a subclass in this thread."""

    def __init__(self) -> None:
        self.classes: set[int] = set()


_asked = _Asked()


#: The class of a class -> that of its shadow. Others may do anything when a class is made.
_KINDS: dict[type, type] = {type: _Plain, abc.ABCMeta: _Abstract}


def is_shadow(value: Any) -> bool:
    """Whether a value is the shadow of a class, or an instance of one."""
    return isinstance(value if isinstance(value, type) else type(value), _Likeness)


def can_be_shadowed(kind: type) -> bool:
    """Not exceptions, which `except` finds by what they are, nor what optree knows as a tree."""
    if type(kind) not in _KINDS or issubclass(kind, (BaseException, tuple)):
        return False
    return optree.register_pytree_node.get(kind, namespace=NAMESPACE) is None


def own_items(kind: type) -> Iterator[tuple[str, Any]]:
    """The attributes of a class itself that may lead to functions."""
    for name, item in vars(kind).items():
        if name not in _LIFE_CYCLE and name not in _OF_PYTHON:
            yield name, item


def inside(item: Any) -> list[Any]:
    """The functions inside an attribute of a class; else the attribute."""
    if isinstance(item, (staticmethod, classmethod)):
        return [item.__func__]
    if isinstance(item, property):
        return [f for f in (item.fget, item.fset, item.fdel) if f is not None]
    if isinstance(item, functools.cached_property):
        return [item.func]
    if isinstance(item, functools.partialmethod):
        return [item.func, *item.args, *item.keywords.values()]
    return [item]


def copied(item: Any, of: Of) -> Any:
    """An attribute of a class with the copies of the functions inside."""
    if isinstance(item, (staticmethod, classmethod)):
        return type(item)(of(item.__func__))
    if isinstance(item, property):
        get, set_, delete = (f and of(f) for f in (item.fget, item.fset, item.fdel))
        return type(item)(get, set_, delete, item.__doc__)
    if isinstance(item, functools.cached_property):
        made: Any = functools.cached_property(of(item.func))
        made.attrname = item.attrname
        return made
    if isinstance(item, functools.partialmethod):
        given = {name: of(value) for name, value in item.keywords.items()}
        return functools.partialmethod(of(item.func), *map(of, item.args), **given)
    return of(item)


def shadow_class(kind: type, of: Of, bases: tuple[type, ...]) -> type:
    """A shadow without methods yet; `bases` are the shadows of the bases that have one."""
    # in front, so that making a subclass runs no code of the user's
    quiet = type("quiet", (), {"__slots__": (), "__init_subclass__": _pass})
    namespace: dict[str, Any] = {
        "__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__,
        "__qualname__": kind.__qualname__, "shadowed": kind,
    }  # fmt: skip
    if hasattr(kind, "__del__"):
        namespace["__del__"] = _pass  # the object is still there when its shadow goes
    if "__hash__" in vars(kind):
        namespace["__hash__"] = kind.__hash__
    made: type = _KINDS[type(kind)](kind.__name__, (quiet, kind, *bases), namespace)
    return made


@classmethod  # type: ignore[misc]
def _pass(cls: Any, *args: Any, **kwargs: Any) -> None:
    """Nothing, of a class or of an object."""


def fill(shadow: type, kind: type, of: Of) -> None:
    """Give a shadow the copies of what the class has itself."""
    for name, item in own_items(kind):
        made = copied(item, of) if any(of(part) is not part for part in inside(item)) else item
        if made is not item:
            type.__setattr__(shadow, name, made)


class _Attribute:
    """An attribute of objects that is looked up as its copy."""

    def __init__(self, name: str, of: Of, of_class: Any) -> None:
        self.name, self.of, self.of_class = name, of, of_class

    def __get__(self, instance: Any, kind: type) -> Any:
        found = _MISSING if instance is None else vars(instance).get(self.name, _MISSING)
        if found is _MISSING:
            found = self.of_class
        if found is _MISSING:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self.name!r}")
        return self.of(found)

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.name] = value

    def __delete__(self, instance: Any) -> None:
        del vars(instance)[self.name]


class _Slot:
    """A slot of one object, read and written there."""

    def __init__(self, descriptor: Any, of: Of, owner: Any) -> None:
        self.descriptor, self.of, self.owner = descriptor, of, owner

    def __get__(self, instance: Any, kind: type) -> Any:
        return self.of(self.descriptor.__get__(self.owner, type(self.owner)))

    def __set__(self, instance: Any, value: Any) -> None:
        self.descriptor.__set__(self.owner, value)

    def __delete__(self, instance: Any) -> None:
        self.descriptor.__delete__(self.owner)


def slots_of(kind: type) -> dict[str, Any]:
    """The slots of instances, by name."""
    return {
        name: item
        for base in reversed(kind.__mro__)
        for name, item in vars(base).items()
        if isinstance(item, types.MemberDescriptorType)
    }


def shadow_object(value: Any, shadow: type, of: Of) -> Any:
    """An instance of `shadow` that has the attributes of `value`; TypeError if none can be."""
    kind = type(value)
    slots = slots_of(kind)
    if slots:  # an instance of a class of its own, which knows the object
        names = {name: _Slot(slot, of, value) for name, slot in slots.items()}
        own = {"__slots__": (), "__module__": kind.__module__, "shadowed": kind, **names}
        shadow = type(shadow)(kind.__name__, (shadow,), own)
    made: Any = object.__new__(shadow)
    if hasattr(value, "__dict__"):
        object.__setattr__(made, "__dict__", value.__dict__)
    return made


def watch(shadow: type, value: Any, of: Of) -> None:
    """Look up those attributes of an object as their copies that have one."""
    for name, item in list(getattr(value, "__dict__", {}).items()):
        if of(item) is not item and not isinstance(vars(shadow).get(name), _Attribute):
            of_class = getattr(type(value), name, _MISSING)
            if not hasattr(of_class, "__set__"):
                type.__setattr__(shadow, name, _Attribute(name, of, of_class))
