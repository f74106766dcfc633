"""NumPy's functions on traced values, composed of ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.ops import contraction, movement, pointwise, reduction
from graphdl.tracing import (
    TracedArray,
    as_traced,
    broadcast_shapes,
    broadcast_to,
    call_op,
    cast,
    dtype_of,
    implements,
    shape_of,
)
from graphdl.types import as_dtype


@implements(np.where)
def where(condition: Any, x: Any, y: Any) -> Any:
    dtypes = [d for d in (dtype_of(x), dtype_of(y))]
    dtype = as_dtype(np.result_type(*[d(0) if isinstance(d, type) else d for d in dtypes]))
    return call_op(pointwise.select, (condition, x, y), (np.dtype(bool), dtype, dtype))


@implements(np.zeros_like)
def zeros_like(x: Any, dtype: Any = None) -> Any:
    return broadcast_to(as_traced(np.zeros((), dtype or x.dtype), x.owner), x.shape)


@implements(np.ones_like)
def ones_like(x: Any, dtype: Any = None) -> Any:
    return broadcast_to(as_traced(np.ones((), dtype or x.dtype), x.owner), x.shape)


@implements(np.sum)
def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if x.dtype.kind in "bi":
        x = cast(x, np.dtype(np.int64))
    axes = tuple(range(x.ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    out = reduction.sum_(x, axes=tuple(sorted(axes))) if axes else x
    if keepdims:
        out = np.reshape(out, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    return out


@implements(np.max)
def max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    axes = tuple(range(x.ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    out = reduction.max_(x, axes=tuple(sorted(axes)))
    if keepdims:
        out = np.reshape(out, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    return out


@implements(np.reshape)
def reshape(x: Any, shape: Any, order: str = "C") -> Any:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if -1 in shape:
        known = -int(np.prod(shape))
        shape = tuple(x.size // known if n == -1 else n for n in shape)
    return x if shape == x.shape else movement.reshape(x, shape=shape)


@implements(np.transpose)
def transpose(x: Any, axes: Any = None) -> Any:
    perm = tuple(range(x.ndim))[::-1] if axes is None else tuple(int(a) % x.ndim for a in axes)
    return movement.transpose(x, perm=perm)


@implements(np.matmul)
def matmul(a: Any, b: Any) -> Any:
    dtype = pointwise.resolve(np.add, (dtype_of(a), dtype_of(b)))[0]
    trace = a.owner if isinstance(a, TracedArray) else b.owner
    a, b = (cast(as_traced(v, trace), dtype) for v in (a, b))
    na, nb = a.ndim, b.ndim
    batch = broadcast_shapes("np.matmul", [a.shape[:-2], b.shape[:-2]])
    k = len(batch)
    if na > 2:
        a = broadcast_to(a, (*batch, *a.shape[-2:]))
    if nb > 2:
        b = broadcast_to(b, (*batch, *b.shape[-2:]))
    la = (*range(k if na > 2 else 0), *((100,) if na > 1 else ()), 101)
    lb = (*range(k if nb > 2 else 0), 101, *((102,) if nb > 1 else ()))
    lo = (*range(k), *((100,) if na > 1 else ()), *((102,) if nb > 1 else ()))
    return contraction.product(a, b, la, lb, lo)
