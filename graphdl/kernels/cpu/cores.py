"""The cores by name: kernels that call an epilogue, their addresses, and what they do in Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cpu import convolution, depthwise, product

#: For each kind: its address, and the same by NumPy, both by the dtype, "f32" or "f64".
_KINDS: dict[str, tuple[Callable[[str], int], Callable[..., None]]] = {
    "product": (product.core_address, product.core_in_python),
    "convolve": (convolution.convolve_address, convolution.convolve_in_python),
    "filter_gradient": (
        convolution.filter_gradient_address,
        convolution.filter_gradient_in_python,
    ),
    "depthwise": (depthwise.depthwise_address, depthwise.depthwise_in_python),
    "depthwise_gradient": (
        depthwise.depthwise_gradient_address,
        depthwise.depthwise_gradient_in_python,
    ),
}


def address(core: str) -> int:
    """The address of a core by its name, such as "product f32"."""
    kind, dtype = core.split()
    return _KINDS[kind][0](dtype)


def in_python(
    core: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of that name does, by NumPy; see `product.core_in_python`."""
    kind, dtype = core.split()
    _KINDS[kind][1](dtype, table, lo, hi, epilogue)
