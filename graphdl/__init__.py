"""graphdl: NumPy code as compiled, differentiable graphs."""

from graphdl import data, losses, nn, optim, visualize
from graphdl import numpy_functions as _numpy_functions
from graphdl.api import (
    Compiled,
    compile,
    cond,
    custom_jvp,
    custom_vjp,
    fori_loop,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    map,
    scan,
    set_num_threads,
    stop_gradient,
    switch,
    trace,
    value_and_grad,
    vjp,
    vmap,
    while_loop,
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
    "cond",
    "custom_jvp",
    "custom_vjp",
    "data",
    "fori_loop",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "losses",
    "map",
    "nn",
    "optim",
    "scan",
    "set_num_threads",
    "spec",
    "stop_gradient",
    "switch",
    "trace",
    "value_and_grad",
    "visualize",
    "vjp",
    "vmap",
    "while_loop",
]
del _numpy_functions
