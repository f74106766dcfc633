"""What makes a function of keys callable anywhere: in a trace it builds graph, outside it compiles.

A sampler's arguments are arrays (the key, the parameters of a distribution), which are traced, and
static ones (a shape, a dtype, an axis), of which each combination is compiled once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from graphdl.api import Compiled
from graphdl.errors import DtypeError, ShapeError
from graphdl.numpy_functions.arguments import integers
from graphdl.ops import movement, random
from graphdl.tracing import TracedArray, as_traced, broadcast_shapes, current_trace, locate
from graphdl.types import Dtype, Shape, TensorType, as_dtype, is_half, kind_of

F = TypeVar("F", bound=Callable[..., Any])

FLOAT = np.dtype(np.float64)
U32, U64, I64 = np.dtype(np.uint32), np.dtype(np.uint64), np.dtype(np.int64)
KEY = TensorType(U32, (2,))

#: The second half of the counter, by what the bits are for. The streams of one key never meet.
BITS, SPLIT, FOLD = range(3)


def shape_of(shape: Any) -> Shape:
    """A static shape: an integer or a sequence of them, none negative."""
    sizes = integers(shape, "a shape")
    if any(size < 0 for size in sizes):
        raise locate(ShapeError(f"gd.random: shape {sizes} has a negative size"))
    return sizes


def float_dtype(dtype: Any) -> Dtype:
    wanted = as_dtype(dtype)
    if kind_of(wanted) != "f" or is_half(wanted):
        hint = f"; cast them, as in x.astype({wanted.name!r})" if is_half(wanted) else ""
        raise locate(DtypeError(f"gd.random: samples are float32 or float64, not {wanted}{hint}"))
    return wanted


#: How the static arguments of these names are made comparable, which also checks them.
_STATIC: dict[str, Callable[[Any], Any]] = {
    "shape": lambda shape: None if shape is None else shape_of(shape),
    "num": lambda num: shape_of(num),
    "dtype": as_dtype,
    "axis": lambda axis: axis if axis is None else integers(axis, "an axis")[0],
    "replace": bool,
    "independent": bool,
}


@functools.lru_cache(maxsize=1024)
def _compiled(
    f: Callable[..., Any], names: tuple[str, ...], static: tuple[tuple[str, Any], ...]
) -> Compiled:
    def build(*arrays: Any) -> Any:
        return f(**dict(zip(names, arrays, strict=True)), **dict(static))

    build.__name__ = f.__name__
    parameter = inspect.Parameter
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return Compiled(build)


def sampler(*, numbers: str = "") -> Callable[[F], F]:
    """Decorator: the function as users call it.

    `numbers` names an argument of which a Python integer is static: it stands for a range.
    """

    def decorate(f: F) -> F:
        signature = inspect.signature(f)

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            for name in _STATIC.keys() & given.keys():
                given[name] = _STATIC[name](given[name])
            if current_trace() is not None:
                return f(**given)
            static: dict[str, Any] = {}
            arrays: dict[str, Any] = {}
            for name, value in given.items():
                fixed = name in _STATIC or (name == numbers and type(value) is int)
                (static if fixed else arrays)[name] = value
            return _compiled(f, tuple(arrays), tuple(static.items()))(*arrays.values())

        return call  # type: ignore[return-value]

    return decorate


def traced(value: Any) -> TracedArray:
    """A value of the running trace, a Python number as a weak one."""
    trace = current_trace()
    assert trace is not None
    result = as_traced(value, trace)
    if type(value) in (bool, int, float):
        result.weak = True
    return result


def key_words(key: Any) -> tuple[Any, Any]:
    """The two words of a key, after a look at its type."""
    value = traced(key)
    if value.type != KEY:
        raise locate(
            DtypeError(
                f"gd.random: a key is {KEY}, not {value.type}; make one with gd.random.key(seed), "
                f"several with gd.random.split(key, n), and take one of them, keys[i], or gd.vmap"
            )
        )
    return value[0], value[1]


def repeated(value: Any, shape: Shape) -> Any:
    return movement.broadcast(value, shape=shape, dims=()) if shape else value


def counted(shape: Shape) -> Any:
    """The number of each element, as uint64."""
    size = int(np.prod(shape, dtype=np.int64))
    index = traced(0).apply_op(movement.iota, (), {"size": size, "dtype": U64})
    return movement.reshape(index, shape=shape) if len(shape) != 1 else index


def words(key: Any, shape: Shape, stream: int = BITS, first: Any = 0, wide: bool = False) -> Any:
    """Uniform uint32, or uint64 where `wide`: element i is word i, or pair i, of a stream."""
    key0, key1 = key_words(key)
    start = traced(first).astype(U64)
    operands = (key0, key1, start, traced(np.uint64(stream) << np.uint64(32)))
    op = random.philox_wide if wide else random.philox
    return op(*(repeated(operand, shape) for operand in operands), counted(shape))


def common_shape(shape: Shape | None, *parameters: Any) -> Shape:
    """The shape of samples: that asked for, to which the parameters must broadcast, or theirs."""
    shapes = [np.shape(value) for value in parameters]
    if shape is None:
        return broadcast_shapes("gd.random", shapes)
    if broadcast_shapes("gd.random", [shape, *shapes]) != shape:
        raise locate(
            ShapeError(f"gd.random: parameters of shapes {shapes} do not broadcast to {shape}")
        )
    return shape


def parameter(value: Any, dtype: Dtype) -> Any:
    """A parameter of a distribution in the dtype of its samples."""
    return traced(value).astype(dtype)


def promoted(values: Sequence[Any], dtype: Any) -> list[Any]:
    wanted = float_dtype(dtype)
    return [parameter(value, wanted) for value in values]
