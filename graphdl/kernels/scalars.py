"""All scalar operations that generated kernels may call, by name."""

from typing import Final

from graphdl.kernels.arithmetic import ARITHMETIC
from graphdl.kernels.elementary import ELEMENTARY
from graphdl.kernels.randomness import RANDOM
from graphdl.kernels.scalar import Scalar

SCALARS: Final[dict[str, Scalar]] = ELEMENTARY | ARITHMETIC | RANDOM
