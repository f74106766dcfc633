"""Classes of the user's as trees: their objects are arguments, results and gradients like dicts.

The names and the meaning of the arguments are JAX's (jax.tree_util); optree keeps the classes.

An object that is a tree has to be of its own class, so no shadow (graphdl.shadows) can stand for it
in a trace, with copies of its methods. Instead the methods of a registered class ask themselves
whether a trace runs.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import optree
from msgspec import Struct

from graphdl import shadows
from graphdl.errors import ArgumentError, DtypeError
from graphdl.rebinding import is_written_by_user, rebound
from graphdl.tracing import current_trace
from graphdl.trees import NAMESPACE

Kind = TypeVar("Kind", bound=type)


class Fields(Struct, frozen=True):
    """What of an object is a tree.

    data: attributes that are trees. static: attributes that are part of how an object nests.
    make: the object of the values of both, in that order. are_stored: whether they are read without
    running code of the class.
    """

    data: tuple[str, ...]
    static: tuple[str, ...]
    make: Callable[..., Any]
    are_stored: bool


_fields: dict[type, Fields] = {}


def fields_of(kind: type) -> Fields | None:
    """What of the objects of a class is a tree, if `register_dataclass` knows it."""
    return _fields.get(kind)


def register_dataclass(
    cls: Kind,
    data_fields: Sequence[str] | None = None,
    meta_fields: Sequence[str] | None = None,
) -> Kind:
    """Let objects of a dataclass be arguments, results and parts of them.

    Fields are trees of arrays; those of `field(metadata={"static": True})` are static: a function
    is compiled anew for each value of theirs. A gradient by an object is an object of the same
    class, with the gradients in its fields.

    Objects that are made of traced arrays, of gradients or of results get their fields and nothing
    else: neither `__init__` nor `__post_init__` run, which may ask for values or refuse a gradient.
    What `__post_init__` computes therefore has to be a field as well, field(init=False), which
    travels with the others, or a property.

    Args:
        cls: a dataclass, frozen or not, with or without slots; or any other class written in
            Python, with its fields named here.
        data_fields: the attributes that are trees, by default those that are not static.
        meta_fields: the static ones, by default those with the metadata. Their values have to be
            hashable, and equal where they mean the same.

    Returns:
        The class, so that it can be a decorator. A class that derives from it is another one.

    Raises:
        ArgumentError: names that are no fields of the dataclass, or not all of them; a class that
            is registered already.
        DtypeError: no dataclass, and no `data_fields`; or, when an object is used, a static field
            that is not hashable.

    >>> import dataclasses, numpy as np, graphdl as gd
    >>> @gd.register_dataclass
    ... @dataclasses.dataclass(frozen=True)
    ... class Line:
    ...     slope: float
    ...     offset: float
    ...     name: str = dataclasses.field(default="", metadata={"static": True})
    >>> def loss(line, x, y):
    ...     return np.mean((line.slope * x + line.offset - y) ** 2)
    >>> x = np.arange(4.0)
    >>> line = gd.grad(loss)(Line(1.0, 0.0, "first"), x, 2 * x)
    >>> line.name, float(line.slope), float(line.offset)
    ('first', -7.0, -3.0)
    """
    if not isinstance(cls, type):
        raise DtypeError(f"gd.register_dataclass takes a class, not {cls!r:.60}")
    data, static = _named(cls, data_fields, meta_fields)
    make = _maker(cls, (*data, *static))
    count = len(data)

    def taken_apart(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[str, ...]]:
        fixed = tuple(getattr(value, name) for name in static)
        _check_hashable(cls, static, fixed)
        return tuple(getattr(value, name) for name in data), fixed, data

    def put_together(fixed: tuple[Any, ...], children: Iterable[Any]) -> Any:
        return make(*children, *fixed)

    _register(cls, taken_apart, put_together, optree.GetAttrEntry)
    _fields[cls] = Fields(data, static, make, _are_stored(cls, (*data, *static), count))
    return cls


def register_pytree_node(
    cls: Kind,
    flatten: Callable[[Any], tuple[Iterable[Any], Hashable]],
    unflatten: Callable[[Any, Any], Any],
) -> Kind:
    """Let objects of a class be arguments, results and parts of them, whatever they hold.

    For what is no dataclass; calls with such objects take some 20 us more than with dataclasses.

    Args:
        cls: a class. Those that derive from it are others.
        flatten: of an object, the trees in it, and what is static of it: hashable, and equal where
            it means the same.
        unflatten: of what is static and the trees in a tuple, an object. The trees may be of traced
            arrays, of gradients, or of anything else, so it should ask for no values.

    Returns:
        The class.

    Raises:
        ArgumentError: a class that is registered already.

    >>> import numpy as np, graphdl as gd
    >>> class Polynomial:
    ...     def __init__(self, *coefficients):
    ...         self.coefficients = coefficients
    ...     def __call__(self, x):
    ...         return sum(c * x**i for i, c in enumerate(self.coefficients))
    >>> _ = gd.register_pytree_node(
    ...     Polynomial, lambda p: (p.coefficients, None), lambda _, parts: Polynomial(*parts)
    ... )
    >>> slope = gd.grad(lambda p, x: p(x))(Polynomial(1.0, 2.0, 3.0), 10.0)
    >>> [float(c) for c in slope.coefficients]
    [1.0, 10.0, 100.0]
    """
    if not isinstance(cls, type):
        raise DtypeError(f"gd.register_pytree_node takes a class, not {cls!r:.60}")

    def taken_apart(value: Any) -> tuple[Iterable[Any], Any]:
        children, fixed = flatten(value)
        _check_hashable(cls, ("what `flatten` returns second",), (fixed,))
        return children, fixed

    _register(cls, taken_apart, unflatten, optree.AutoEntry)
    return cls


def _register(
    cls: type, flatten: Callable[..., Any], unflatten: Callable[..., Any], entries: type
) -> None:
    if optree.register_pytree_node.get(cls, namespace=NAMESPACE) is not None:
        raise ArgumentError(f"{cls.__name__} is a tree already: a class is registered once")
    optree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        path_entry_type=entries,
        namespace=NAMESPACE,
    )
    _let_methods_trace(cls)


def _let_methods_trace(cls: type) -> None:
    """Make the methods of a class run as their copies inside of a trace."""
    fields = getattr(cls, "__dataclass_fields__", {})
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(shadows.own_items(base))
    for name, item in found.items():
        if name not in fields and any(_rebinds(part) is not part for part in shadows.inside(item)):
            setattr(cls, name, shadows.copied(item, _rebinds))


def _rebinds(method: Any) -> Any:
    """A function that is itself outside of traces, and its copy inside; all else as it is."""
    if not isinstance(method, types.FunctionType) or not is_written_by_user(method):
        return method
    if method.__code__.co_filename == "<string>":  # which a decorator has written
        return method

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        return (method if trace is None else rebound(method, trace))(*args, **kwargs)

    return called


def _named(
    cls: type, data: Sequence[str] | None, static: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields that are trees, and those that are static."""
    if "__dataclass_fields__" not in vars(cls):
        if data is None:
            raise DtypeError(
                f"{cls.__name__} is no dataclass: write @gd.register_dataclass above @dataclass, "
                f"name the attributes in data_fields= and meta_fields=, or use "
                f"gd.register_pytree_node"
            )
        return tuple(data), tuple(static or ())
    fields = dataclasses.fields(cls)
    known = [field.name for field in fields]
    if static is None:
        marked = (field.name for field in fields if field.metadata.get("static", False))
        static = [name for name in marked if name not in (data or ())]
    if data is None:
        data = [name for name in known if name not in static]
    if sorted((*data, *static)) != sorted(known):
        raise ArgumentError(
            f"data_fields={list(data)} and meta_fields={list(static)} have to name each field of "
            f"{cls.__name__} once: {known}"
        )
    return tuple(data), tuple(static)


def _maker(cls: type, names: tuple[str, ...]) -> Callable[..., Any]:
    """The function of the values of the fields that makes an object, also of a frozen class."""
    new, assign = object.__new__, object.__setattr__
    try:
        new(cls)
    except TypeError as error:
        raise DtypeError(
            f"objects of {cls.__name__} cannot be made from their fields alone ({error}): use "
            f"gd.register_pytree_node"
        ) from None

    def make(*values: Any) -> Any:
        made: Any = new(cls)
        for name, value in zip(names, values, strict=True):
            assign(made, name, value)
        return made

    return make


def _check_hashable(cls: type, names: Sequence[str], values: Sequence[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        try:
            hash(value)
        except TypeError:
            raise DtypeError(
                f"{cls.__name__}: {name} is static, so it has to be hashable; it is a "
                f"{type(value).__name__}. Arrays belong in fields that are not static, lists in "
                f"tuples"
            ) from None


def _are_stored(cls: type, names: Sequence[str], data: int) -> bool:
    """Whether attributes are what an object's dict or slots hold; static ones may hide methods."""
    read: Any = cls.__getattribute__
    if read is not object.__getattribute__ or hasattr(cls, "__getattr__"):
        return False
    for i, name in enumerate(names):
        found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        if isinstance(found, types.MemberDescriptorType):
            continue
        if hasattr(type(found), "__set__") or (i < data and hasattr(type(found), "__get__")):
            return False
    return True
