"""Movement: the same elements at other places, and the values that come from nowhere.

`slice` and `pad` are each other's transpose; `broadcast` is the only op that repeats elements, so
no gradient rule elsewhere ever mentions it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import AxisError, DtypeError, ShapeError
from graphdl.graph import Literal
from graphdl.ops.op import Op
from graphdl.types import Dtype, Shape, TensorType, as_dtype

Ints = tuple[int, ...]


def _infer_reshape(x: TensorType, *, shape: Shape) -> TensorType:
    if math.prod(shape) != x.size:
        raise ShapeError(f"reshape: {x} has {x.size} elements, shape {shape} {math.prod(shape)}")
    return TensorType(x.dtype, shape)


reshape: Op = Op(
    "reshape",
    "movement",
    _infer_reshape,
    lambda x, *, shape: np.reshape(x, shape),
    lambda g, out, x, *, shape: (reshape(g, shape=x.shape),),
)


def _infer_transpose(x: TensorType, *, perm: Ints) -> TensorType:
    if sorted(perm) != list(range(x.ndim)):
        raise AxisError(f"transpose: {perm} is no permutation of the axes of {x}")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in perm))


def _inverse(perm: Ints) -> Ints:
    return tuple(perm.index(axis) for axis in range(len(perm)))


transpose: Op = Op(
    "transpose",
    "movement",
    _infer_transpose,
    lambda x, *, perm: np.transpose(x, perm),
    lambda g, out, x, *, perm: (transpose(g, perm=_inverse(perm)),),
)


def _infer_broadcast(x: TensorType, *, shape: Shape, dims: Ints) -> TensorType:
    fits = (
        len(dims) == x.ndim
        and list(dims) == sorted(set(dims))
        and all(0 <= dim < len(shape) for dim in dims)
    )
    if not fits or tuple(shape[dim] for dim in dims) != x.shape:
        raise ShapeError(f"broadcast: {x} does not fit axes {dims} of shape {shape}")
    return TensorType(x.dtype, shape)


def _broadcast(x: Any, *, shape: Shape, dims: Ints) -> Any:
    places = [1] * len(shape)
    for dim, size in zip(dims, x.shape, strict=True):
        places[dim] = size
    return np.broadcast_to(x.reshape(places), shape)


def _broadcast_rule(g: Any, out: Any, x: Any, *, shape: Shape, dims: Ints) -> tuple[Any]:
    repeated = tuple(axis for axis in range(len(shape)) if axis not in dims)
    return (np.sum(g, axis=repeated) if repeated else g,)


#: Repeat x along new axes; axis number i of x becomes axis dims[i] of the result.
broadcast = Op("broadcast", "movement", _infer_broadcast, _broadcast, _broadcast_rule)


def check_window(name: str, shape: Shape, starts: Ints, sizes: Ints, steps: Ints) -> None:
    if not len(shape) == len(starts) == len(sizes) == len(steps):
        raise ShapeError(f"{name}: starts {starts}, sizes {sizes}, steps {steps} for shape {shape}")
    for size, start, count, step in zip(shape, starts, sizes, steps, strict=True):
        last = start + (count - 1) * step
        if step == 0 or (count and not (0 <= start < size and 0 <= last < size)):
            raise ShapeError(f"{name}: elements {start}, {start + step}, ... {last} of {size}")


def window(starts: Ints, sizes: Ints, steps: Ints) -> tuple[slice, ...]:
    """The Python slices that select `sizes` elements from `starts` by `steps`."""
    result = []
    for start, size, step in zip(starts, sizes, steps, strict=True):
        stop = start + size * step
        result.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
    return tuple(result)


def _infer_slice(x: TensorType, *, starts: Ints, sizes: Ints, steps: Ints) -> TensorType:
    check_window("slice", x.shape, starts, sizes, steps)
    return TensorType(x.dtype, sizes)


#: Element i of the result is element starts + i * steps of x; steps may be negative.
slice_ = Op(
    "slice",
    "movement",
    _infer_slice,
    lambda x, *, starts, sizes, steps: x[window(starts, sizes, steps)],
    lambda g, out, x, *, starts, sizes, steps: (
        pad(g, np.zeros((), g.dtype), shape=x.shape, starts=starts, steps=steps),
    ),
)


def _infer_pad(
    x: TensorType, fill: TensorType, *, shape: Shape, starts: Ints, steps: Ints
) -> TensorType:
    check_window("pad", shape, starts, x.shape, steps)
    if fill != TensorType(x.dtype, ()):
        raise DtypeError(f"pad: fills {x} with {fill}")
    return TensorType(x.dtype, shape)


def _pad(x: Any, fill: Any, *, shape: Shape, starts: Ints, steps: Ints) -> Any:
    result = np.full(shape, fill, x.dtype)
    result[window(starts, x.shape, steps)] = x
    return result


def _pad_rule(
    g: Any, out: Any, x: Any, fill: Any, *, shape: Shape, starts: Ints, steps: Ints
) -> tuple[Any, Any]:
    inner = slice_(g, starts=starts, sizes=x.shape, steps=steps)
    return inner, np.sum(g) - np.sum(inner)


#: The array of `shape` that is `fill` but for the elements starts + i * steps, which are x.
pad: Op = Op("pad", "movement", _infer_pad, _pad, _pad_rule)


def _infer_concatenate(*types: TensorType, axis: int) -> TensorType:
    first = types[0]
    if not 0 <= axis < first.ndim:
        raise AxisError(f"concatenate: axis {axis} of {first}")
    for other in types[1:]:
        rest = other.shape[:axis] + other.shape[axis + 1 :]
        if other.ndim != first.ndim or rest != first.shape[:axis] + first.shape[axis + 1 :]:
            raise ShapeError(f"concatenate: {first} and {other} differ beyond axis {axis}")
        if other.dtype != first.dtype:
            raise DtypeError(f"concatenate: {first} and {other}")
    total = sum(type.shape[axis] for type in types)
    return TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _concatenate_rule(g: Any, out: Any, *xs: Any, axis: int) -> list[Any]:
    parts, start = [], 0
    for x in xs:
        starts = tuple(start if i == axis else 0 for i in range(x.ndim))
        parts.append(slice_(g, starts=starts, sizes=x.shape, steps=(1,) * x.ndim))
        start += x.shape[axis]
    return parts


concatenate = Op(
    "concatenate",
    "movement",
    _infer_concatenate,
    lambda *xs, axis: np.concatenate(xs, axis),
    _concatenate_rule,
)

#: x, not to be had before the other operands are computed: what is made of `after` is never one
#: with what is made of x itself. So it can be computed anew, and late, in a backward pass.
after = Op(
    "after",
    "movement",
    lambda x, *others: x,
    lambda x, *others: x,
    lambda g, out, x, *others: (g, *(None for _ in others)),
)

constant = Op(
    "constant",
    "constant",
    lambda *, value: TensorType(value.array.dtype, value.array.shape),
    lambda *, value: value.array,
    lambda g, out, *, value: (),
)


def _infer_iota(*, size: int, dtype: Dtype) -> TensorType:
    return TensorType(as_dtype(dtype), (size,))


#: 0, 1, 2, ...
iota = Op(
    "iota",
    "constant",
    _infer_iota,
    lambda *, size, dtype: np.arange(size).astype(dtype),
    lambda g, out, *, size, dtype: (),
)


#: A number of elements, such as a mean divides by. Unlike a constant it is no part of the text of a
#: kernel and nothing is concluded from its value, so that any batch size has the same kernels.
extent = Op(
    "extent",
    "constant",
    lambda *, size, dtype: TensorType(as_dtype(dtype), ()),
    lambda *, size, dtype: np.asarray(size).astype(dtype),  # which wraps, as sums do
    lambda g, out, *, size, dtype: (),
)


#: Memory of which nothing is read before it is written: what updates that replace all of it, part
#: by part, begin with. It costs nothing. (The interpreter has to begin with something: zeros.)
blank: Op = Op(
    "blank",
    "constant",
    lambda *, shape, dtype: TensorType(as_dtype(dtype), shape),
    lambda *, shape, dtype: np.zeros(shape, dtype),
    lambda g, out, *, shape, dtype: (),
)


def literal(value: Any) -> dict[str, Literal]:
    """The attributes of a `constant` node that holds `value`."""
    return {"value": Literal(value)}
