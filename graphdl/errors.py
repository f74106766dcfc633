"""The errors that graphdl raises: each derives from GraphError and from the built-in that fits."""

from __future__ import annotations

import numpy as np


class GraphError(Exception):
    """Base of every error that graphdl raises on purpose."""


class ShapeError(GraphError, ValueError):
    """Shapes, axes or sizes that do not fit each other."""


class AxisError(GraphError, ValueError, IndexError):
    """An axis that the array does not have."""


class DtypeError(GraphError, TypeError):
    """A dtype that an operation or a graph cannot take."""


class PythonIntError(GraphError, OverflowError):
    """A Python integer that the dtype of the arrays it meets cannot hold."""


class ArgumentError(GraphError, ValueError):
    """A static argument that is out of its range."""


class ConcreteValueError(GraphError, TypeError):
    """Python needs the value of an array that is only being traced."""


class LeakError(GraphError, RuntimeError):
    """A traced value was used after its trace had ended."""


class GradientError(GraphError, TypeError):
    """Something that has no gradient was asked for one."""


class GradientShapeError(GradientError, ShapeError):
    """The gradient of something that is not a scalar: both a TypeError and a ValueError."""


class GradientMismatch(GradientError, AssertionError):
    """A gradient that is not the slope of its function, as `check_grads` has found.

    argument: the name of the argument by which it is wrong. index: of an element where it is.
    gradient, difference: the derivative by that element, and what finite differences say.
    """

    def __init__(
        self,
        message: str,
        argument: str = "",
        index: tuple[int, ...] = (),
        gradient: complex = 0.0,
        difference: complex = 0.0,
    ) -> None:
        super().__init__(message)
        self.argument, self.index = argument, index
        self.gradient, self.difference = gradient, difference


class UnsupportedError(GraphError, NotImplementedError, TypeError):
    """A NumPy function or argument that cannot be traced."""


class GraphIndexError(GraphError, IndexError):
    """An index out of bounds."""


class NonFiniteError(GraphError, FloatingPointError):
    """A NaN or an infinity came about in a program that is checked for them.

    op: the name of the op that made it, "argument" where it was given. value: what it made. index:
    of which element. operands: what it made that of. kernel: the name of the kernel.
    """

    def __init__(
        self,
        message: str,
        op: str = "",
        value: float = float("nan"),
        index: tuple[int, ...] = (),
        operands: tuple[str, ...] = (),
        kernel: str = "",
    ) -> None:
        super().__init__(message)
        self.op, self.value, self.index = op, value, index
        self.operands, self.kernel = operands, kernel


class GraphLinAlgError(GraphError, np.linalg.LinAlgError):
    """A matrix that is singular, or not positive definite, or whose iteration did not converge."""


class GraphIndexArrayError(GraphIndexError, DtypeError):
    """An index array of floats: an IndexError, as in NumPy, and a matter of dtypes."""


class GraphIndexShapeError(GraphIndexError, ShapeError):
    """Index arrays that do not broadcast: an IndexError, as in NumPy, and a matter of shapes."""


class StepsMemoryError(GraphError, MemoryError):
    """No memory is left for what the gradient of a loop keeps of its steps."""


class DeviceError(GraphError, RuntimeError):
    """A GPU, its driver or a package that it needs is missing, or a device has failed."""


class DeviceMemoryError(DeviceError, MemoryError):
    """The memory of a GPU does not suffice."""


class FileError(GraphError, ValueError):
    """A file that is damaged, or is none that `gd.load` reads."""


class UnrolledLoopWarning(UserWarning):
    """A Python loop on traced values has put its body into the graph very many times."""


class RandomConstantWarning(UserWarning):
    """A traced function has drawn random numbers from a hidden state: they become constants."""


class StaleConstantWarning(UserWarning):
    """What a compiled function reads by name has changed: its calls go on with the old value."""


class MemoryBudgetWarning(UserWarning):
    """A program takes more memory than the budget that it was compiled with."""


class VerificationError(GraphError, AssertionError):
    """A compiler pass broke a graph: a defect of graphdl, please report it."""
