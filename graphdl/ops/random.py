"""Random numbers: pointwise ops whose result is a function of a key and a counter, and no state.

`philox` is Philox4x32-10: 128 bits of counter, (block, stream), to four words of 32 bits. Salmon,
Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op
from graphdl.types import Dtype, TensorType

_U32, _U64 = np.dtype(np.uint32), np.dtype(np.uint64)
_ROUNDS = 10


def _infer(name: str, wanted: tuple[Dtype, ...], result: Dtype) -> Callable[..., TensorType]:
    """The type rule of operands of one shape and of these dtypes."""

    def infer(*types: TensorType) -> TensorType:
        if len(types) != len(wanted):
            raise TypeError(f"takes {len(wanted)} operands, not {len(types)}")
        if any(type.shape != types[0].shape for type in types):
            raise ShapeError(f"{name}: operands of shapes {[type.shape for type in types]} differ")
        if tuple(type.dtype for type in types) != wanted:
            raise DtypeError(
                f"{name}: operands must be {tuple(map(str, wanted))}, "
                f"not {tuple(str(type.dtype) for type in types)}"
            )
        return TensorType(result, types[0].shape)

    return infer


def _halves(values: Any) -> tuple[Any, Any]:
    """The upper and the lower 32 bits of 64."""
    return (values >> np.uint64(32)).astype(np.uint32), values.astype(np.uint32)


def philox4x32(counter: Sequence[Any], key: Sequence[Any]) -> list[Any]:
    """The four words of each block, in NumPy: four counters and two keys, arrays of uint32."""
    c0, c1, c2, c3 = (np.asarray(word, np.uint32) for word in counter)
    k0, k1 = (np.asarray(word, np.uint32) for word in key)
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            high0, low0 = _halves(c0.astype(np.uint64) * np.uint64(0xD2511F53))
            high1, low1 = _halves(c2.astype(np.uint64) * np.uint64(0xCD9E8D57))
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0, k1 = k0 + np.uint32(0x9E3779B9), k1 + np.uint32(0xBB67AE85)
    return [c0, c1, c2, c3]


def _words(key0: Any, key1: Any, block: Any, stream: Any) -> Any:
    counter = [*reversed(_halves(block)), *reversed(_halves(stream))]
    return np.stack(philox4x32(counter, (key0, key1)))


def _word(key0: Any, key1: Any, first: Any, stream: Any, index: Any) -> Any:
    words = _words(key0, key1, first + (index >> np.uint64(2)), stream)
    place = (index & np.uint64(3)).astype(np.int64)
    return np.take_along_axis(words, place[None], 0)[0]


def _pair(key0: Any, key1: Any, first: Any, stream: Any, index: Any) -> Any:
    words = _words(key0, key1, first + (index >> np.uint64(1)), stream).astype(np.uint64)
    late = (index & np.uint64(1)) != 0
    low, high = (np.where(late, words[i + 2], words[i]) for i in (0, 1))
    return low | (high << np.uint64(32))


_COUNTED = (_U32, _U32, _U64, _U64, _U64)
_BITS = "its result is not a float"

#: (key0, key1, first, stream, index): word number `index` of the blocks (first, stream),
#: (first + 1, stream), ..., as uint32.
philox = Op("philox", "pointwise", _infer("philox", _COUNTED, _U32), _word, None, _BITS)
#: The same in pairs of words, as uint64: the first word is the lower half.
philox_wide = Op(
    "philox_wide", "pointwise", _infer("philox_wide", _COUNTED, _U64), _pair, None, _BITS
)
