"""graphdl: NumPy code as compiled, differentiable graphs."""

from graphdl import numpy_functions as _numpy_functions
from graphdl.api import trace
from graphdl.errors import GraphError
from graphdl.graph import Graph
from graphdl.types import spec

__version__ = "0.1.0"
__all__ = ["Graph", "GraphError", "spec", "trace"]
del _numpy_functions
