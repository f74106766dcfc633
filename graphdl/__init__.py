"""graphdl: NumPy code as compiled, differentiable graphs."""

from graphdl import data, losses, nn, optim, visualize
from graphdl import numpy_functions as _numpy_functions
from graphdl.api import (
    Compiled,
    compile,
    custom_jvp,
    custom_vjp,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    set_num_threads,
    stop_gradient,
    trace,
    value_and_grad,
    vjp,
    vmap,
)
from graphdl.errors import (
    AxisError,
    ConcreteValueError,
    DtypeError,
    GradientError,
    GraphError,
    GraphIndexError,
    LeakError,
    ShapeError,
    UnsupportedError,
)
from graphdl.executable import Executable
from graphdl.graph import Graph
from graphdl.testing import check_grads
from graphdl.types import spec

__version__ = "0.1.0"
__all__ = [
    "AxisError",
    "Compiled",
    "ConcreteValueError",
    "DtypeError",
    "Executable",
    "GradientError",
    "Graph",
    "GraphError",
    "GraphIndexError",
    "LeakError",
    "ShapeError",
    "UnsupportedError",
    "check_grads",
    "compile",
    "custom_jvp",
    "custom_vjp",
    "data",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "losses",
    "nn",
    "optim",
    "set_num_threads",
    "spec",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "visualize",
    "vjp",
    "vmap",
]
del _numpy_functions
