"""NumPy with creation functions that know of traces: `import graphdl.numpy as np`.

NumPy asks a traced value what `np.sin(x)` is, but nobody about `np.zeros(3)`, `np.arange(3)` or
`np.array([a, b])`: they make arrays of NumPy, which cannot hold traced values. Those of this module
make traced arrays while a trace runs, and NumPy's arrays otherwise; all other names are NumPy's.

Traced functions need no import of it: where they, and the functions that they call, name `numpy`,
tracing puts this module in its place (see graphdl.rebinding).

A traced array that depends on no argument, such as np.arange(3), has a known value: `if`, `int()`,
`range()`, indices and sizes take it.

>>> import numpy as np, graphdl as gd
>>> def running_maximum(x):
...     y = np.zeros(len(x))
...     y[0] = x[0]
...     for i in range(1, len(x)):
...         y[i] = np.maximum(y[i - 1], x[i])
...     return y
>>> gd.compile(running_maximum)(np.array([1.0, 3.0, 2.0]))
array([1., 3., 3.])
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as _np

from graphdl.errors import ConcreteValueError, GraphError
from graphdl.likeness import Like, like
from graphdl.listing import listing, of_module
from graphdl.numpy_functions.assignment import value_of
from graphdl.tracing import (
    HANDLERS,
    TracedArray,
    as_traced,
    as_traced_results,
    cast,
    current_trace,
    locate,
)
from graphdl.tracing import broadcast_to as _repeated  # np.broadcast_to is another one
from graphdl.trees import flatten, unflatten
from graphdl.types import as_dtype
from graphdl.vectorizing import INSTANCES as INSTANCES
from graphdl.vectorizing import vectorize as vectorize

#: NumPy's functions whose results are arrays to write into.
_CREATING = (
    "zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "geomspace", "eye",
    "identity", "zeros_like", "ones_like", "empty_like", "full_like", "tri", "tril", "triu",
    "diag", "diagflat", "vander", "indices", "meshgrid", "fromiter", "stack", "vstack", "hstack",
    "dstack", "column_stack", "concatenate", "block", "tile", "repeat", "bartlett", "blackman",
    "hamming", "hanning", "kaiser",
)  # fmt: skip
#: Those that make an array of anything: np.array([a, b]) with traced a, b.
_CONVERTING = (
    "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "copy",
    "asarray_chkfinite",
)  # fmt: skip
#: The types of numbers, which cast when they are called. (np.bool_ cannot have subclasses.)
_SCALARS = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64", "int_", "uint", "intp", "uintp", "intc", "uintc", "short", "ushort", "byte",
    "ubyte", "long", "ulong", "longlong", "ulonglong", "single", "double",
)  # fmt: skip


def _creating(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        try:
            result = original(*args, **kwargs)
        except TypeError as error:
            given = _nested([*args, *kwargs.values()])
            if original.__name__ in _SIZED and any(isinstance(x, TracedArray) for x in given):
                raise locate(ConcreteValueError(_sized(original.__name__))) from error
            raise
        return result if trace is None else as_traced_results(result, trace)

    return create


#: Of these, those whose arguments are sizes and bounds, which NumPy asks for their values.
_SIZED = ("zeros", "ones", "empty", "arange", "eye", "identity", "tri", "indices")


def _sized(name: str) -> str:
    return (
        f"np.{name}: the shape of its result depends on values of traced arrays. Shapes are "
        f"static: give Python ints, such as x.shape[0], or make an array of the largest size and "
        f"choose with np.where(np.arange(size) < n, x, 0)"
    )


def _converting(original: Callable[..., Any]) -> Callable[..., Any]:
    keeps = original.__name__.startswith("as")

    @functools.wraps(original)
    def convert(a: Any, *args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace is None:
            return original(a, *args, **kwargs)
        if not any(isinstance(leaf, TracedArray) for leaf in _nested(a)):
            return as_traced_results(original(a, *args, **kwargs), trace)
        dtype = kwargs.get("dtype", args[0] if args and original is not _np.copy else None)
        try:
            made = a if isinstance(a, TracedArray) else HANDLERS[_np.array](a)
            if dtype is not None:
                made = cast(made, as_dtype(dtype))
            ndmin = kwargs.get("ndmin", 0)
            made = made[(None,) * (ndmin - made.ndim)] if made.ndim < ndmin else made
        except GraphError as error:
            raise locate(error) from error.__cause__
        if made is a and not a.weak and (keeps or kwargs.get("copy", True) is not True):
            return a
        result = TracedArray(made.node, made.owner)
        result.is_array = True
        return result

    return convert


def _nested(a: Any) -> list[Any]:
    """The items of nested lists and tuples."""
    return flatten(a)[0] if isinstance(a, (list, tuple)) else [a]


@listing
def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **kwargs: Any) -> Any:
    """np.full; the value may be traced.

    >>> import graphdl.numpy as np
    >>> np.full(2, 7)
    array([7, 7])
    """
    trace = current_trace()
    if not isinstance(fill_value, TracedArray) or trace is None:
        return _creating(_np.full)(shape, fill_value, dtype, order, **kwargs)
    sizes = _np.empty(shape, _np.int8).shape
    kind = fill_value.dtype if dtype is None else as_dtype(dtype)
    result = _repeated(value_of(fill_value, kind, fill_value), sizes).fresh()
    result.is_array = True
    return result


@listing
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """np.roll; the shift may be traced where the array is not.

    >>> import graphdl.numpy as np
    >>> np.roll([1, 2, 3], 1)
    array([3, 1, 2])
    """
    trace = current_trace()
    if trace is not None and any(isinstance(step, TracedArray) for step in _nested(shift)):
        a = a if isinstance(a, TracedArray) else as_traced(_np.asarray(a), trace)
    return _creating(_np.roll)(a, shift, axis)


def fromfunction(
    function: Callable[..., Any], shape: Any, *, dtype: Any = float, like: Any = None, **kwargs: Any
) -> Any:
    """np.fromfunction: `function` of the indices of each axis, which are traced in a trace.

    >>> import graphdl.numpy as np
    >>> np.fromfunction(lambda i, j: i + j, (2, 2))
    array([[0., 1.],
           [1., 2.]])
    """
    return function(*_creating(_np.indices)(shape, dtype=dtype), **kwargs)


class ndenumerate:
    """np.ndenumerate: pairs of an index and an element, which is traced in a traced array.

    >>> import graphdl.numpy as np
    >>> list(np.ndenumerate([[1, 2]])) == [((0, 0), 1), ((0, 1), 2)]
    True
    """

    def __init__(self, arr: Any) -> None:
        array = _converting(_np.asarray)(arr)
        self._pairs = ((index, array[index]) for index in _np.ndindex(array.shape))

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], Any]]:
        return self._pairs

    def __next__(self) -> tuple[tuple[int, ...], Any]:
        return next(self._pairs)


class _Grid:
    """np.mgrid, np.ogrid, np.r_ and np.c_: arrays made by an index."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getitem__(self, index: Any) -> Any:
        trace = current_trace()
        if trace is None:
            return self._original[index]
        leaves, tree = flatten(index if isinstance(index, tuple) else (index,))
        if self._original in (_np.r_, _np.c_) and any(isinstance(x, TracedArray) for x in leaves):
            join = _np.hstack if self._original is _np.r_ else _np.column_stack
            return join(unflatten(tree, leaves))
        return as_traced_results(self._original[index], trace)


def _scalar(original: type) -> type:
    """np.float64 and the like: a cast of traced values; else NumPy's type."""

    def new(cls: type, x: Any = 0, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, (list, tuple)) and current_trace() is not None:
            x = _converting(_np.array)(x)
        return x.astype(original) if isinstance(x, TracedArray) else original(x, *args, **kwargs)

    made: type = like(original, new, lambda instance: False)
    return made


class ndarray(_np.ndarray, metaclass=Like):
    """np.ndarray, of which traced arrays count as instances.

    >>> import numpy, graphdl.numpy as np
    >>> isinstance(numpy.ones(2), np.ndarray)
    True
    """

    shadowed = _np.ndarray
    takes = staticmethod(lambda instance: isinstance(instance, TracedArray))

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _creating(_np.ndarray)(*args, **kwargs)


def __getattr__(name: str) -> Any:
    # Not kept as a name of this module: NumPy's `any`, `max` and `sum` would hide Python's here.
    found = _LISTING.get(name)
    return getattr(_np, name) if found is None else found


def __dir__() -> list[str]:
    return dir(_np)


def _fill(module: dict[str, Any]) -> list[str]:
    """Put the functions of NumPy that know of traces into this module; their names."""
    for name in _CREATING:
        if name not in module:
            module[name] = listing(_creating(getattr(_np, name)))
    for name in _CONVERTING:
        module[name] = _converting(getattr(_np, name))
    for name in ("mgrid", "ogrid", "r_", "c_"):
        module[name] = _Grid(getattr(_np, name))
    types: dict[type, type] = {}
    for name in _SCALARS:
        original = getattr(_np, name)
        module[name] = types.setdefault(original, _scalar(original))
    return [
        *_CREATING,
        *_CONVERTING,
        *_SCALARS,
        "roll",
        "fromfunction",
        "ndenumerate",
        "vectorize",
        "mgrid",
        "ogrid",
        "r_",
        "c_",
    ]


_OWN = [*_fill(sys.modules[__name__].__dict__), "ndarray"]
#: All other functions that can be traced.
_LISTING = {name: listing(f) for name, f in of_module(_np).items() if name not in _OWN}
__all__ = [*_OWN, *_LISTING]
