"""Linear algebra of complex matrices as they lie in memory: real arrays with one more axis, of 2.

graphdl.compiler.split_complex puts these ops in the place of those of complex numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.ops import linalg, spectral
from graphdl.ops.complex_numbers import PART, WHOLE
from graphdl.ops.op import Op
from graphdl.types import TensorType


def _paired(op: Op) -> Op:
    """The op on complex numbers as programs have them: real arrays with one more axis, of 2."""

    def pair(type: TensorType) -> TensorType:
        is_complex = type.dtype in PART
        return TensorType(PART[type.dtype], (*type.shape, 2)) if is_complex else type

    def whole(type: TensorType) -> TensorType:
        is_pair = type.dtype in WHOLE
        return TensorType(WHOLE[type.dtype], type.shape[:-1]) if is_pair else type

    def infer(*types: TensorType, **attrs: Any) -> TensorType:
        return pair(op.infer(*map(whole, types), **attrs))

    def evaluate(*arrays: Any, **attrs: Any) -> Any:
        given = (
            np.ascontiguousarray(x).view(WHOLE[x.dtype])[..., 0] if x.dtype in WHOLE else x
            for x in arrays
        )
        result = op.evaluate(*given, **attrs)
        if op.results is not None:  # packed: the bytes are the same
            return result
        type = pair(linalg.type_of(result))
        return np.ascontiguousarray(result).view(type.dtype).reshape(type.shape)

    def result_types(*types: TensorType, **attrs: Any) -> list[TensorType]:
        assert op.results is not None
        return [pair(type) for type in op.results(*map(whole, types), **attrs)]

    return Op(
        op.name,
        op.family,
        infer,
        evaluate,
        results=result_types if op.results is not None else None,
        failure=op.failure,
        no_gradient="gradients are taken before complex numbers become pairs",
    )


#: The name of an op -> the op of that name on pairs of real numbers.
PAIRED = {
    op.name: _paired(op)
    for op in (
        linalg.cholesky, linalg.solve_triangular, linalg.lu, linalg.solve, linalg.qr, linalg.eigh,
        linalg.svd, linalg.expm, spectral.eig,
    )
}  # fmt: skip
