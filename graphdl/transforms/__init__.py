"""Functions of functions: they run inside a trace and build graph.

graphdl.api gives users the same names, which also compile themselves when they are called with
real arrays.
"""

from graphdl.transforms import along
from graphdl.transforms.checkpoint import checkpoint
from graphdl.transforms.common import name_of, positions_of
from graphdl.transforms.custom import custom_jvp, custom_vjp, stop_gradient
from graphdl.transforms.forward import hvp, jvp
from graphdl.transforms.jacobians import hessian, jacobian
from graphdl.transforms.loops import cond, fori_loop, map, scan, switch, while_loop
from graphdl.transforms.reverse import grad, value_and_grad, vjp
from graphdl.transforms.vectorise import vmap

__all__ = [
    "along",
    "checkpoint",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "fori_loop",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "map",
    "name_of",
    "positions_of",
    "scan",
    "stop_gradient",
    "switch",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
