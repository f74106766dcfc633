"""graphdl: NumPy code as compiled, differentiable graphs."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphdl import data, losses, visualize
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
    DeviceError,
    DeviceMemoryError,
    DtypeError,
    FileError,
    GradientError,
    GradientMismatch,
    GraphError,
    GraphIndexError,
    GraphLinAlgError,
    LeakError,
    MemoryBudgetWarning,
    NonFiniteError,
    PythonIntError,
    RandomConstantWarning,
    ShapeError,
    StaleConstantWarning,
    UnrolledLoopWarning,
    UnsupportedError,
)
from graphdl.executable import Executable, load
from graphdl.graph import Graph
from graphdl.numpy_functions import top_k
from graphdl.registration import register_dataclass, register_pytree_node
from graphdl.scopes import scope
from graphdl.trees import tree_leaves, tree_map
from graphdl.types import spec

if TYPE_CHECKING:
    from graphdl import debug, linalg, nn, numpy, optim, random, special
    from graphdl.device import Array, device_get, device_put, stream
    from graphdl.sparse import sparse_hessian, sparse_jacobian
    from graphdl.testing import check_grads
    from graphdl.user_op import op

__version__ = "0.1.0"
__all__ = [
    "ArgumentError",
    "Array",
    "AxisError",
    "Compiled",
    "ConcreteValueError",
    "DeviceError",
    "DeviceMemoryError",
    "DtypeError",
    "Executable",
    "FileError",
    "GradientError",
    "GradientMismatch",
    "Graph",
    "GraphError",
    "GraphIndexError",
    "GraphLinAlgError",
    "LeakError",
    "MemoryBudgetWarning",
    "NonFiniteError",
    "PythonIntError",
    "RandomConstantWarning",
    "ShapeError",
    "StaleConstantWarning",
    "UnrolledLoopWarning",
    "UnsupportedError",
    "check_grads",
    "checkpoint",
    "compile",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "data",
    "debug",
    "device_get",
    "device_put",
    "fori_loop",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linalg",
    "load",
    "losses",
    "map",
    "nn",
    "numpy",
    "op",
    "optim",
    "random",
    "register_dataclass",
    "register_pytree_node",
    "scan",
    "scope",
    "set_num_threads",
    "sparse_hessian",
    "sparse_jacobian",
    "spec",
    "special",
    "stop_gradient",
    "stream",
    "switch",
    "top_k",
    "trace",
    "tree_leaves",
    "tree_map",
    "value_and_grad",
    "visualize",
    "vjp",
    "vmap",
    "while_loop",
]
del _numpy_functions

#: What is imported when it is first used, and the module that has it: a process that trains a
#: network has no use for sparse Jacobians, and starts without them.
_LATER = {
    "debug": "graphdl.debug",
    "linalg": "graphdl.linalg",
    "nn": "graphdl.nn",
    "numpy": "graphdl.numpy",
    "optim": "graphdl.optim",
    "random": "graphdl.random",
    "special": "graphdl.special",
    "Array": "graphdl.device",
    "device_get": "graphdl.device",
    "device_put": "graphdl.device",
    "stream": "graphdl.device",
    "check_grads": "graphdl.testing",
    "op": "graphdl.user_op",
    "sparse_hessian": "graphdl.sparse",
    "sparse_jacobian": "graphdl.sparse",
}


def __getattr__(name: str) -> Any:
    where = _LATER.get(name)
    if where is None:
        text = f"module 'graphdl' has no attribute {name!r}"
        # the name, so that Python adds "Did you mean: ...?"
        raise AttributeError(text, name=name, obj=sys.modules[__name__])
    module = import_module(where)
    # A submodule is an attribute of its package as soon as it is imported.
    value = globals().setdefault(name, getattr(module, name, module))
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
