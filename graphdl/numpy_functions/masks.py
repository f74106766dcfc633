"""x[mask] with a traced mask: a selection that has no shape, but can be written back or reduced.

How many elements a mask selects is not known while tracing. So `x[mask]` keeps all of x and the
mask, and elementwise operations are done on all elements. Then `x[mask] *= 2`,
`x[mask] = y[mask] + 1` and `x[mask].sum()` are what they are in NumPy; anything that needs the
selected elements one behind the other is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from graphdl.errors import ConcreteValueError, GraphError, GraphIndexError, ShapeError
from graphdl.ops import movement, pointwise
from graphdl.tracing import (
    TracedArray,
    broadcast_to,
    cast,
    is_weak,
    locate,
    shape_of,
    user_source,
    where_text,
)
from graphdl.types import Shape, kind_of


def traced_mask(index: Any) -> TracedArray | None:
    """The traced boolean array in an index, if there is one."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, TracedArray) and part.dtype == np.bool_ and part.ndim:
            return part
    return None


class Selection(np.lib.mixins.NDArrayOperatorsMixin):
    """x[mask]: `array` is all of x, whose axes from `axis` on are those of `mask`."""

    __array_priority__ = 2000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any, mask: TracedArray, axis: int) -> None:
        self.array = array
        self.mask = mask.fresh()
        self.axis = axis
        self.source = user_source()

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim) - self.mask.ndim + 1

    def whole_mask(self) -> Any:
        """The mask, with axes of size one for those that it does not cover."""
        before, after = self.axis, self.array.ndim - self.axis - self.mask.ndim
        return np.reshape(self.mask, (1,) * before + self.mask.shape + (1,) * after)

    def operand(self, value: Any) -> Any:
        """What meets the selection elementwise, as what meets the whole array."""
        if isinstance(value, Selection):
            same = (value.mask.node, value.axis, value.array.shape)
            if same != (self.mask.node, self.axis, self.array.shape):
                self._needs_shape("Selections by different masks")
            return value.array
        shape = shape_of(value)
        if is_weak(value) or shape == ():
            return value
        return spread(value, self.axis, self.mask, self.array.ndim)

    def _gated(self, value: Any) -> Any:
        """The same value, which only the selected elements give a gradient.

        An operation on all elements meets some that the mask is there to leave out: log at 0 has
        the slope inf, and 0 * inf is NaN. What comes back from those stops here.
        """
        if not isinstance(value, TracedArray) or not value.type.is_inexact:
            return value
        mask = self.whole_mask()
        shape = np.broadcast_shapes(value.shape, self.array.shape)
        whole = broadcast_to(value, shape)
        return pointwise.select(broadcast_to(mask, shape), whole, pointwise.stop_gradient(whole))

    def _needs_shape(self, what: str = "x[mask] as an array") -> NoReturn:
        raise locate(
            ConcreteValueError(
                f"{what}: {refusal(self.array.shape, self.mask)}"
                f"{where_text(self.source, 'it was selected at')}"
            )
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if method != "__call__" or kwargs or ufunc.nout != 1 or ufunc.signature:
            self._needs_shape(f"np.{ufunc.__name__}")
        try:
            result = ufunc(*(self._gated(self.operand(value)) for value in inputs))
        except GraphError as error:
            raise locate(error) from error.__cause__
        if out is not None:  # x[mask] += 1
            result = cast(result, self.dtype)
        return Selection(result, self.mask, self.axis)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        reduced = _REDUCTIONS.get(func)
        if reduced is None or not args or not isinstance(args[0], Selection):
            self._needs_shape(f"np.{func.__name__}")
        return reduced(args[0], *args[1:], **kwargs)

    def astype(self, dtype: Any, **kwargs: Any) -> Selection:
        return Selection(self.array.astype(dtype, **kwargs), self.mask, self.axis)

    def copy(self, order: str = "C") -> Selection:
        """The same elements, whatever is assigned into x later."""
        return Selection(self.array.fresh(), self.mask, self.axis)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._needs_shape()

    def __len__(self) -> NoReturn:
        self._needs_shape("len(x[mask])")

    def __getitem__(self, index: Any) -> NoReturn:
        self._needs_shape("x[mask][...]")

    def __iter__(self) -> NoReturn:
        self._needs_shape("for ... in x[mask]")

    @property
    def shape(self) -> NoReturn:
        self._needs_shape("x[mask].shape")

    @property
    def size(self) -> NoReturn:
        self._needs_shape("x[mask].size (np.sum(mask) counts)")


def refusal(shape: Shape, mask: Any) -> str:
    return (
        f"indexing shape {shape} with a traced boolean mask of shape {mask.shape} gives a "
        f"shape that depends on values. Write np.where(mask, x, 0) and reduce that (or give "
        f"the reduction where=mask), or index with integers"
    )


def spread(value: Any, axis: int, mask: Any, ndim: int) -> Any:
    """An array that broadcasts against x[mask] as one that broadcasts against x.

    Its axis of the selected elements, if it has one, has to be of size one.
    """
    shape = shape_of(value)
    selected = ndim - mask.ndim + 1
    if len(shape) > selected:
        raise ShapeError(f"shape {shape} does not broadcast to the {selected} axes of x[mask]")
    padded = (1,) * (selected - len(shape)) + shape
    if padded[axis] != 1:
        raise ConcreteValueError(
            f"values of shape {shape} for the elements that a traced mask of shape {mask.shape} "
            f"selects: how many those are depends on values. Write np.where(mask, new, x) with "
            f"`new` of the shape of x, or select them by the same mask: x[mask] = y[mask]"
        )
    whole = (*padded[:axis], *(1,) * mask.ndim, *padded[axis + 1 :])
    if isinstance(value, TracedArray):
        return movement.reshape(value, shape=whole)
    return np.reshape(value, whole)


def select(x: TracedArray, index: Any) -> Selection:
    """x[index] where the index holds one traced mask and slices, or integers beside it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    masks = [i for i, part in enumerate(parts) if traced_mask(part) is not None]
    (at,) = masks[:1]
    mask = parts[at]
    integers = [i for i, part in enumerate(parts) if isinstance(part, (int, np.integer))]
    basic = all(
        part is Ellipsis or isinstance(part, slice) or i in masks or i in integers
        for i, part in enumerate(parts)
    )
    together = sorted([*integers, at])
    if len(masks) > 1 or not basic or together != list(range(together[0], together[-1] + 1)):
        raise ConcreteValueError(refusal(x.shape, mask))
    if parts[0] is Ellipsis and at:  # then the axes are counted from the end
        axis = x.ndim - sum(parts[i].ndim if i == at else 1 for i in range(at, len(parts)))
    else:
        axis = sum(1 for i in range(at) if i not in integers)
        if Ellipsis in parts[:at]:
            raise ConcreteValueError(refusal(x.shape, mask))
    view = x[(*parts[:at], *(slice(None),) * mask.ndim, *parts[at + 1 :])]
    axis -= sum(1 for i in integers if i < at) if parts[0] is Ellipsis else 0
    covered = view.shape[axis : axis + mask.ndim]
    if covered != mask.shape:
        raise GraphIndexError(
            f"a boolean index of shape {mask.shape} does not match axes {axis} to "
            f"{axis + mask.ndim - 1} of shape {view.shape}, which have sizes {covered}"
        )
    return Selection(view, mask, axis)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction of x[mask] as one of x with where=mask."""

    def reduced(x: Selection, axis: Any = None, **kwargs: Any) -> Any:
        axes: Any = None
        if axis is not None:
            if axis not in (x.axis, x.axis - x.ndim):
                x._needs_shape(f"np.{function.__name__}(x[mask], axis={axis})")
            axes = tuple(range(x.axis, x.axis + x.mask.ndim))
        if function in (np.max, np.min) and "initial" not in kwargs:
            kwargs["initial"] = _extreme(x.dtype, largest=function is np.min)
        return function(x.array, axis=axes, where=x.whole_mask(), **kwargs)

    return reduced


def _extreme(dtype: np.dtype[Any], largest: bool) -> Any:
    if kind_of(dtype) == "f":
        return dtype.type(np.inf if largest else -np.inf)
    if kind_of(dtype) == "b":
        return np.bool_(largest)
    info = np.iinfo(dtype)
    return info.max if largest else info.min


_REDUCTIONS: dict[Any, Callable[..., Any]] = {
    function: _reduction(function)
    for function in (np.sum, np.prod, np.mean, np.var, np.std, np.max, np.min, np.any, np.all)
}
for _function, _reduced in list(_REDUCTIONS.items()):
    setattr(Selection, _function.__name__, _reduced)
