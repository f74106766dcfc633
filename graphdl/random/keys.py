"""Keys: how they are made, and the bits that follow from one."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import DtypeError
from graphdl.random.sampler import FOLD, SPLIT, U32, U64, sampler, traced, words
from graphdl.tracing import TracedArray, locate
from graphdl.types import Dtype, Shape, kind_of


def key(seed: Any) -> Any:
    """The key of a seed: a uint32 array of shape (2,), its low and its high 32 bits.

    `seed` is an integer; of Python integers the lowest 64 bits count. Raises DtypeError for
    anything else.

    >>> import graphdl as gd
    >>> gd.random.key(2**32 + 5)
    array([5, 1], dtype=uint32)
    """
    if isinstance(seed, TracedArray):
        _check_integer("a seed", seed)
        wide: Any = seed.astype(U64)
        return np.stack([wide.astype(U32), (wide >> 32).astype(U32)])
    array = np.asarray(seed & 0xFFFFFFFFFFFFFFFF if type(seed) is int else seed)
    _check_integer("a seed", array)
    number = int(array.astype(np.uint64))
    return np.array([number & 0xFFFFFFFF, number >> 32], U32)


def _check_integer(what: str, value: Any) -> None:
    if value.shape != () or kind_of(value.dtype) not in "iu":
        raise locate(
            DtypeError(f"gd.random: {what} is one integer, not {value.dtype}{list(value.shape)}")
        )


@sampler()
def split(key: Any, num: Any = 2) -> Any:
    """`num` new keys, independent of each other and of what is drawn from `key`.

    Args:
        key: uint32[2].
        num: how many: a number, or a shape.

    Returns:
        uint32[num, 2]; iterating over it gives keys.

    >>> import graphdl as gd
    >>> first, second = gd.random.split(gd.random.key(0))
    >>> first
    array([768504805, 323543615], dtype=uint32)
    """
    return words(key, (*num, 2), SPLIT)


@sampler()
def fold_in(key: Any, data: Any) -> Any:
    """The key that follows from a key and an integer, such as the number of a step.

    >>> import graphdl as gd
    >>> key = gd.random.key(0)
    >>> gd.random.fold_in(key, 1)
    array([3130575500, 1684424915], dtype=uint32)
    """
    number = traced(data)
    _check_integer("what is folded in", number)
    return words(key, (2,), FOLD, first=number)


@sampler()
def bits(key: Any, shape: Shape = (), dtype: Dtype = U32) -> Any:
    """Uniform random bits as unsigned integers.

    The words of Philox4x32-10 for the key and the counters (i, 0, 0, 0), i = 0, 1, ..., are the
    elements in order; as uint64 they are taken in pairs, the first word as the lower half; as uint8
    and uint16 the upper bits are left out. Raises DtypeError for another dtype.

    >>> import graphdl as gd
    >>> gd.random.bits(gd.random.key(0), (4,))
    array([1713891541, 3781805453, 3159862348, 2600524760], dtype=uint32)
    """
    if kind_of(dtype) != "u":
        raise locate(DtypeError(f"gd.random.bits gives unsigned integers, not {dtype}"))
    if dtype == U64:
        return words(key, shape, wide=True)
    return words(key, shape).astype(dtype)
