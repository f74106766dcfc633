"""graphdl: NumPy code as compiled, differentiable graphs."""

from graphdl import data, linalg, losses, nn, numpy, optim, random, special, visualize
from graphdl import numpy_functions as _numpy_functions
from graphdl.api import (
    Compiled,
    checkpoint,
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
    ArgumentError,
    AxisError,
    ConcreteValueError,
    DtypeError,
    GradientError,
    GradientMismatch,
    GraphError,
    GraphIndexError,
    GraphLinAlgError,
    LeakError,
    PythonIntError,
    ShapeError,
    UnrolledLoopWarning,
    UnsupportedError,
)
from graphdl.executable import Executable
from graphdl.graph import Graph
from graphdl.numpy_functions import top_k
from graphdl.rebinding import STAND_INS
from graphdl.sparse import sparse_hessian, sparse_jacobian
from graphdl.testing import check_grads
from graphdl.types import spec
from graphdl.user_op import op

STAND_INS.update({"numpy": numpy, "scipy.special": special, "scipy.linalg": linalg})

__version__ = "0.1.0"
__all__ = [
    "ArgumentError",
    "AxisError",
    "Compiled",
    "ConcreteValueError",
    "DtypeError",
    "Executable",
    "GradientError",
    "GradientMismatch",
    "Graph",
    "GraphError",
    "GraphIndexError",
    "GraphLinAlgError",
    "LeakError",
    "PythonIntError",
    "ShapeError",
    "UnrolledLoopWarning",
    "UnsupportedError",
    "check_grads",
    "checkpoint",
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
    "linalg",
    "losses",
    "map",
    "nn",
    "numpy",
    "op",
    "optim",
    "random",
    "scan",
    "set_num_threads",
    "sparse_hessian",
    "sparse_jacobian",
    "spec",
    "special",
    "stop_gradient",
    "switch",
    "top_k",
    "trace",
    "value_and_grad",
    "visualize",
    "vjp",
    "vmap",
    "while_loop",
]
del _numpy_functions
