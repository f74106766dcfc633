"""The names of dtypes in the text of kernels: `f32_at(address)`, `i64(x)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SUFFIXES: Mapping[str, str] = {
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "b1": "bool",
}


def numba_types(types: Any) -> dict[str, Any]:
    """The Numba type of each dtype; `types` is Numba's module of them, or numba-cuda's."""
    return {
        dtype: types.boolean if dtype == "bool" else getattr(types, dtype)
        for dtype in SUFFIXES.values()
    }
