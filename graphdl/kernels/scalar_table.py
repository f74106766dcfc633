"""All scalar operations that generated kernels may call, by name."""

from typing import Final

from graphdl.kernels.arithmetic import ARITHMETIC
from graphdl.kernels.elementary import ELEMENTARY
from graphdl.kernels.half_scalars import HALF_SCALARS
from graphdl.kernels.randomness import RANDOM
from graphdl.kernels.rejection import REJECTION
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.special_functions import SPECIAL_FUNCTIONS

SCALARS: Final[dict[str, Scalar]] = (
    ELEMENTARY | ARITHMETIC | HALF_SCALARS | RANDOM | REJECTION | SPECIAL_FUNCTIONS
)
