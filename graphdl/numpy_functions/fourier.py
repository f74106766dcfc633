"""np.fft: discrete Fourier transforms of any length, composed of products with small matrices.

A length n = a b is done by transforms of length a, factors and transforms of length b, all along
the first axis; the results of the first stand behind those of the second, and so in order
(Stockham: W. T. Cochran et al., "What is the fast Fourier transform?", 1967), with no transpose
at the end. Lengths up to `_SMALL` are one product with the matrix of the transform. Of real
numbers, `rfft` computes half of the sums in each step and joins the conjugates of the others at
the end. A prime length beyond `_SMALL` is a convolution with a chirp (L. I. Bluestein, 1970), by
transforms of a power of two. All are ordinary ops, so they have gradients and batches of their
own and fuse with what stands around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, AxisError, ShapeError
from graphdl.numpy_functions.arguments import (
    as_float,
    axes_of,
    axis_of,
    integer,
    integers,
    lift_one,
    require,
    sliced,
)
from graphdl.numpy_functions.manipulation import moveaxis
from graphdl.tracing import implements
from graphdl.types import is_half

Array = np.ndarray[Any, Any]
#: Lengths up to this are one product with a matrix: n^2 multiplications, at the speed of those.
_SMALL = 64


# --- one transform along the first axis -----------------------------------------------------------


@lru_cache(maxsize=256)
def _roots(n: int, rows: int, columns: int, sign: int) -> Array:
    """exp(sign 2 pi i j k / n) for j in range(rows), k in range(columns); the angle reduced."""
    angles = np.outer(np.arange(rows), np.arange(columns)) % n * (2 * math.pi / n)
    found: Array = np.cos(angles) + sign * 1j * np.sin(angles)
    return found


def _factor(n: int) -> int:
    """The divisor of n nearest to its root from below among those up to `_SMALL`, or 1."""
    candidates = [a for a in range(2, min(_SMALL, math.isqrt(n)) + 1) if n % a == 0]
    return candidates[-1] if candidates else 1


def _constant(values: Array, like: Any) -> Array:
    """Complex numbers of the precision of an array."""
    single = like.dtype in (np.float32, np.complex64) or is_half(like.dtype)
    return values.astype(np.complex64 if single else np.complex128)


def _beside(values: Array, x: Any) -> Array:
    """Numbers for the first axes of x, with one axis of length 1 for each of its others."""
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def _first_step(x: Any, a: int, found: int, sign: int) -> Any:
    """Transforms of length a of which each takes every b-th row of x, times the factors.

    Element (j2, k1, ...) of the result is k1 of the transform of the rows b j1 + j2; only
    k1 < `found` are computed. So what is left are transforms of length b along the first axis.
    """
    n = x.shape[0]
    b = n // a
    parts = np.reshape(x, (a, b, *x.shape[1:]))
    first = np.tensordot(_constant(_roots(a, found, a, sign), x), parts, 1)
    return np.swapaxes(first * _beside(_constant(_roots(n, found, b, sign), x), first), 0, 1)


def _transform(x: Any, sign: int) -> Any:
    """The sums of x[j] exp(sign 2 pi i j k / n) over the first axis, not scaled."""
    n = x.shape[0]
    if n <= _SMALL:
        return np.tensordot(_constant(_roots(n, n, n, sign), x), x, 1)
    a = _factor(n)
    if a == 1:
        return _by_chirp(x, sign)
    second = _transform(_first_step(x, a, a, sign), sign)  # (b, a, ...): k = k1 + a k2
    return np.reshape(second, x.shape)


def _half_transform(x: Any) -> Any:
    """Elements 0 to n // 2 of the transform of real numbers along the first axis.

    Element n - k is the conjugate of element k: so only k1 <= a / 2 are computed, and what is at
    a - k1 and k2 lies at k1 and b - 1 - k2.
    """
    n = x.shape[0]
    count = n // 2 + 1
    if n <= _SMALL:
        return np.tensordot(_constant(_roots(n, count, n, -1), x), x, 1)
    a = _factor(n)
    if a == 1:
        return _by_chirp(x, -1)[:count]
    b, rows = n // a, -(-count // a)
    second = _transform(_first_step(x, a, a // 2 + 1, -1), -1)
    mirrored = sliced(second, 1, 1, (a - 1) // 2)[b - rows :]
    back = np.conjugate(np.flip(mirrored, (0, 1)))
    whole = np.concatenate([second[:rows], back], axis=1)
    return np.reshape(whole, (rows * a, *x.shape[1:]))[:count]


@lru_cache(maxsize=64)
def _chirp(n: int, sign: int) -> tuple[Array, Array]:
    """exp(sign pi i k^2 / n), and the transform of its conjugate, wound around a power of two."""
    k = np.arange(n, dtype=np.int64)
    angles = k * k % (2 * n) * (math.pi / n)
    chirp = np.cos(angles) + sign * 1j * np.sin(angles)
    size = 1 << (2 * n - 2).bit_length()
    kernel = np.zeros(size, np.complex128)
    kernel[:n] = np.conj(chirp)
    kernel[size - n + 1 :] = np.conj(chirp[:0:-1])
    return chirp, np.fft.fft(kernel) / size


def _by_chirp(x: Any, sign: int) -> Any:
    """j k = (j^2 + k^2 - (k - j)^2) / 2 makes a convolution of the sums."""
    n = x.shape[0]
    chirp, kernel = (_constant(values, x) for values in _chirp(n, sign))
    inside = _resized(x * _beside(chirp, x), 0, kernel.size)
    found = _transform(_transform(inside, -1) * _beside(kernel, x), 1)
    return found[:n] * _beside(chirp, x)


def _resized(x: Any, axis: int, n: int) -> Any:
    """x cut off or padded with zeros to n elements along an axis."""
    axis %= x.ndim
    if n <= x.shape[axis]:
        return sliced(x, axis, 0, n)
    return np.pad(x, [(0, n - x.shape[axis] if i == axis else 0) for i in range(x.ndim)])


def _length(n: Any, default: int) -> int:
    count = default if n is None else integer(n, "n")
    if count < 1:
        raise ShapeError(f"invalid number of points ({count}); n must be at least 1")
    return count


def _scale(n: int, norm: str | None, inverse: bool) -> float:
    """The factor of a transform of length n."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise ArgumentError(f"norm={norm!r} is none of 'backward', 'ortho', 'forward'")
    if norm == "ortho":
        return 1 / math.sqrt(n)
    return 1 / n if inverse == (norm != "forward") else 1.0


def _along(x: Any, n: int, axis: int, norm: str | None, inverse: bool) -> Any:
    """A complex transform along one axis."""
    first = moveaxis(_resized(x, axis, n), axis, 0)
    return _placed(_transform(first, 1 if inverse else -1), axis, _scale(n, norm, inverse))


def _placed(found: Any, axis: int, factor: float) -> Any:
    """A result of transforms along the first axis: scaled, with that axis where it belongs."""
    return moveaxis(found if factor == 1 else found * factor, 0, axis)


def _numbers(a: Any) -> Any:
    x = as_float(lift_one(a))
    if x.ndim == 0:
        raise AxisError("takes an array with at least one axis, not a number")
    return x


# --- NumPy's functions ----------------------------------------------------------------------------


@implements(np.fft.fft)
def fft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a)
    place = axis_of(axis, x.shape)
    return _along(x, _length(n, x.shape[place]), place, norm, inverse=False)


@implements(np.fft.ifft)
def ifft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a)
    place = axis_of(axis, x.shape)
    return _along(x, _length(n, x.shape[place]), place, norm, inverse=True)


@implements(np.fft.rfft)
def rfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a).real
    place = axis_of(axis, x.shape)
    count = _length(n, x.shape[place])
    found = _half_transform(moveaxis(_resized(x, place, count), place, 0))
    return _placed(found, place, _scale(count, norm, inverse=False))


@implements(np.fft.irfft)
def irfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    """The other half of the numbers is the conjugate of the half that is given, reversed."""
    x = _numbers(a)
    place = axis_of(axis, x.shape)
    count = _length(n, 2 * (x.shape[place] - 1))
    half = _resized(x, place, count // 2 + 1)
    mirrored = (count - 1) // 2
    if mirrored:
        back = np.conjugate(np.flip(sliced(half, place, 1, mirrored), place))
        half = np.concatenate([half, back], axis=place)
    return _along(half, count, place, norm, inverse=True).real


_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def _swapped(norm: Any) -> Any:
    return _SWAPPED.get(norm, norm)


@implements(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    return irfft(np.conjugate(_numbers(a)), n, axis, _swapped(norm))


@implements(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: Any = -1, norm: Any = None, out: None = None) -> Any:
    return np.conjugate(rfft(a, n, axis, _swapped(norm)))


def _sizes(x: Any, s: Any, axes: Any, half: bool = False) -> list[tuple[int, int]]:
    """The axes to transform, in order, and how many points along each."""
    if axes is None:
        count = x.ndim if s is None else len(integers(s, "s"))
        axes = range(-count, 0)
    places = [axis_of(axis, x.shape) for axis in axes]
    if s is None:
        sizes = [x.shape[place] for place in places]
        if half and sizes:
            sizes[-1] = 2 * (sizes[-1] - 1)
    else:
        given = integers(s, "s")
        require(len(given) == len(places), f"s={given} and axes {tuple(axes)} differ in length")
        sizes = [x.shape[p] if n == -1 else n for n, p in zip(given, places, strict=True)]
    require(bool(places), "at least one axis is needed")
    return list(zip(places, sizes, strict=True))


def _over(x: Any, pairs: Sequence[tuple[int, int]], norm: Any, inverse: bool) -> Any:
    for place, n in reversed(pairs):
        x = _along(x, _length(n, n), place, norm, inverse)
    return x


@implements(np.fft.fftn)
def fftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a)
    return _over(x, _sizes(x, s, axes), norm, inverse=False)


@implements(np.fft.ifftn)
def ifftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a)
    return _over(x, _sizes(x, s, axes), norm, inverse=True)


@implements(np.fft.rfftn)
def rfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a).real
    *others, (place, n) = _sizes(x, s, axes)
    return _over(rfft(x, n, place, norm), others, norm, inverse=False)


@implements(np.fft.irfftn)
def irfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: None = None) -> Any:
    x = _numbers(a)
    *others, (place, n) = _sizes(x, s, axes, half=True)
    for other, count in others:
        x = _along(x, _length(count, count), other, norm, inverse=True)
    return irfft(x, n, place, norm)


_LAST_TWO = (-2, -1)
implements(np.fft.fft2)(
    lambda a, s=None, axes=_LAST_TWO, norm=None, out=None: fftn(a, s, axes, norm)
)
implements(np.fft.ifft2)(
    lambda a, s=None, axes=_LAST_TWO, norm=None, out=None: ifftn(a, s, axes, norm)
)
implements(np.fft.rfft2)(
    lambda a, s=None, axes=_LAST_TWO, norm=None, out=None: rfftn(a, s, axes, norm)
)
implements(np.fft.irfft2)(
    lambda a, s=None, axes=_LAST_TWO, norm=None, out=None: irfftn(a, s, axes, norm)
)


@implements(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Any:
    value = lift_one(x)
    places = axes_of(axes, value.shape)
    return np.roll(value, [value.shape[axis] // 2 for axis in places], places)


@implements(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Any:
    value = lift_one(x)
    places = axes_of(axes, value.shape)
    return np.roll(value, [-(value.shape[axis] // 2) for axis in places], places)
