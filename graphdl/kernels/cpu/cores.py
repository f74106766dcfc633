"""The cores by name: kernels that call an epilogue, their addresses, and what they do in Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cpu import convolution, depthwise, loading, product

#: For each kind: its LLVM IR by dtype, "f32" or "f64", and symbol; and the same by NumPy.
_KINDS: dict[str, tuple[Callable[[str, str], str], Callable[..., None]]] = {
    "product": (product.core_ir, product.core_in_python),
    "convolve": (convolution.convolve_ir, convolution.convolve_in_python),
    "filter_gradient": (
        convolution.filter_gradient_ir,
        convolution.filter_gradient_in_python,
    ),
    "depthwise": (depthwise.depthwise_ir, depthwise.depthwise_in_python),
    "depthwise_gradient": (
        depthwise.depthwise_gradient_ir,
        depthwise.depthwise_gradient_in_python,
    ),
}


@cache
def address(core: str) -> int:
    """The address of a core by its name, such as "product f32"."""
    symbol, found = code(core)
    return loading.load({symbol: found})[symbol]


@cache
def code(core: str) -> tuple[str, bytes]:
    """The symbol of a core, and the object file that defines it."""
    return product.core_object(_text(core))


def _text(core: str) -> Callable[[str], str]:
    kind, dtype = core.split()
    text, _ = _KINDS[kind]
    return lambda symbol: text(dtype, symbol)


def in_python(
    core: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of that name does, by NumPy; see `product.core_in_python`."""
    kind, dtype = core.split()
    _KINDS[kind][1](dtype, table, lo, hi, epilogue)
