"""gd.op: a function that Numba compiles, as an op of graphs."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl import transforms
from graphdl.errors import ArgumentError, DtypeError, GradientError, GraphError, ShapeError
from graphdl.kernels import user
from graphdl.ops import control, pointwise
from graphdl.ops.op import Op
from graphdl.tracing import (
    TracedArray,
    as_traced,
    call_op,
    cast,
    current_trace,
    dtype_of,
    is_weak,
    locate,
    trace_of,
)
from graphdl.types import Dtype, TensorType

Function = Callable[..., Any]


class UserOp:
    """A function of the user's as an op: made by `gd.op`.

    In a traced function a call builds graph; elsewhere it calls the function.
    """

    def __init__(self, function: Any, result: Function | None, vjp: Function | None) -> None:
        functools.update_wrapper(self, function.py_func)
        self._user = user.registered(function)
        self._result = result
        self._rule = vjp
        self._op = self._scalar() if result is None else self._of_arrays()
        self._raises = self._exception()

    def __repr__(self) -> str:
        return f"<op {self._user.name}>"

    def __call__(self, *args: Any) -> Any:
        args = self._completed(args)
        if current_trace() is None:
            return self._op(*map(np.asarray, args)) if self._result is None else self._called(args)
        try:
            return self._pointwise(args) if self._result is None else self._applied(args)
        except GraphError as error:
            raise locate(error) from error.__cause__

    def _completed(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, and the defaults of those that are not given."""
        code = self._user.function.py_func
        defaults = code.__defaults__ or ()
        names = list(inspect.signature(code).parameters)
        results = 0 if self._result is None else len(names) - len(args)
        missing = len(names) - len(args) - results
        if missing < 0 or missing > len(defaults):
            raise locate(
                ArgumentError(
                    f"gd.op({self._user.name}) takes {len(names)} arguments, not {len(args)}"
                )
            )
        return (*args, *defaults[len(defaults) - missing :])

    # --- scalar functions ---------------------------------------------------------------------

    def _scalar(self) -> Op:
        def infer(*operands: TensorType) -> TensorType:
            if any(operand.shape != operands[0].shape for operand in operands):
                raise ShapeError(f"{self._user.name}: operands of different shapes")
            dtypes = tuple(operand.dtype.name for operand in operands)
            return TensorType(np.dtype(_code().result_dtype(self._user, dtypes)), operands[0].shape)

        return Op(
            self._user.name,
            "pointwise",
            infer,
            lambda *operands: _code().evaluate(self._user, *operands),
            self._pulled,
            symbol=self._user.symbol,
        )

    def _exception(self) -> Op:
        """Whether the scalar function raises an exception, for each element."""
        return Op(
            f"{self._user.name}_raises",
            "pointwise",
            lambda *operands: TensorType(np.dtype(bool), operands[0].shape),
            lambda *operands: np.zeros(operands[0].shape, bool),  # the function itself has raised
            lambda g, out, *inputs: [None] * len(inputs),
            symbol=user.RAISED_BY + self._user.symbol,
        )

    def _pointwise(self, args: tuple[Any, ...]) -> Any:
        dtypes = _promoted(args)
        value = call_op(self._op, args, dtypes, f"gd.op({self._user.name})")
        if _code().may_raise(self._user, tuple(dtype.name for dtype in dtypes)):
            operands = [TracedArray(x, value.owner) for x in value.node.inputs]
            value = pointwise.watch(value, self._raises(*operands), name=self._user.name)
        floats = [dtype for dtype in dtypes if dtype.kind == "f"]
        if value.dtype == np.float64 and floats and np.float64 not in floats:
            return cast(value, np.result_type(*floats))
        return value

    # --- functions of arrays ------------------------------------------------------------------

    def _of_arrays(self) -> Op:
        return Op(
            self._user.name,
            "user",
            lambda *operands: control.packed_type(self._declared(*operands)),
            lambda *operands: control.pack(*self._computed(operands)),
            self._pulled_of_several,
            results=self._declared,
            failure=pointwise.watch.failure,
            symbol=self._user.symbol,
        )

    def _declared(self, *operands: TensorType) -> list[TensorType]:
        """The types of the results."""
        assert self._result is not None
        declared = self._result(*operands)
        found = [declared] if isinstance(declared, TensorType) else list(declared)
        if not found or not all(isinstance(type, TensorType) for type in found):
            raise DtypeError(
                f"gd.op({self._user.name}): result= has to return gd.spec(shape, dtype), or a "
                f"tuple of them, not {declared!r:.60}"
            )
        return found

    def _is_one(self, operands: Sequence[TensorType]) -> bool:
        """Whether there is one result, outside of a tuple."""
        assert self._result is not None
        return isinstance(self._result(*operands), TensorType)

    def _applied(self, args: tuple[Any, ...]) -> Any:
        trace = trace_of(args)
        values = [as_traced(arg, trace) for arg in args]
        if not values:
            raise ArgumentError(f"gd.op({self._user.name}) was called without an argument")
        packed = values[0].apply_op(self._op, tuple(values), {})
        types = [value.type for value in values]
        found = control.items(packed, self._declared(*types))
        return found[0] if self._is_one(types) else tuple(found)

    def _called(self, args: tuple[Any, ...]) -> Any:
        operands = tuple(map(np.asarray, args))
        found = self._computed(operands)[0]
        types = [TensorType(x.dtype, x.shape) for x in operands]
        return found[0] if self._is_one(types) else tuple(found)

    def _computed(self, operands: Sequence[Any]) -> tuple[list[Any], list[TensorType]]:
        """The results of a call from Python, and what was declared of them."""
        declared = self._declared(*(TensorType(x.dtype, x.shape) for x in operands))
        given = [np.ascontiguousarray(x) if x.ndim else x[()] for x in operands]
        if user.writes_results(self._user, len(operands), len(declared)):
            found = [np.zeros(type.shape, type.dtype) for type in declared]
            self._user.function(*given, *found)
            return found, declared
        result = self._user.function(*given)
        found = [np.asarray(x) for x in (result if isinstance(result, tuple) else (result,))]
        for array, type in zip(found, declared, strict=False):
            if array.shape != type.shape or array.dtype != type.dtype:
                raise ShapeError(
                    f"gd.op({self._user.name}) returned {TensorType(array.dtype, array.shape)}, "
                    f"but result= says {type}"
                )
        return found, declared

    # --- gradients ----------------------------------------------------------------------------

    def _pulled_of_several(self, gs: Sequence[Any], outs: Sequence[Any], *inputs: Any) -> Any:
        """The rule of a function of arrays, whose results are packed."""
        every = [np.zeros_like(o) if g is None else g for g, o in zip(gs, outs, strict=True)]
        if self._is_one([value.type for value in inputs]):
            return self._pulled(every[0], outs[0], *inputs)
        return self._pulled(tuple(every), tuple(outs), *inputs)

    def _pulled(self, g: Any, out: Any, *inputs: Any) -> list[Any]:
        """A cotangent, or None, for each input."""
        if self._rule is None:
            return self._derived(g, inputs)
        given = self._rule(g, out, *inputs)
        parts = given if isinstance(given, (tuple, list)) else (given,)
        if len(parts) != len(inputs):
            raise locate(
                ShapeError(
                    f"the rule of gd.op({self._user.name}) must return {len(inputs)} cotangents, "
                    f"one for each argument, not {len(parts)}"
                )
            )
        return [self._fitted(part, x) for part, x in zip(parts, inputs, strict=True)]

    def _fitted(self, part: Any, x: TracedArray) -> Any:
        if part is None or not x.type.is_float:
            return None
        if np.shape(part) != x.shape:
            raise locate(
                ShapeError(
                    f"the rule of gd.op({self._user.name}) returned a cotangent of shape "
                    f"{np.shape(part)} for an argument of shape {x.shape}"
                )
            )
        return cast(as_traced(part, x.owner), x.dtype)

    def _derived(self, g: Any, inputs: Sequence[TracedArray]) -> list[Any]:
        """The cotangents by tracing the Python function."""
        if self._result is not None:
            raise locate(
                GradientError(
                    f"gd.op({self._user.name}) has no gradient: a function of arrays needs a rule, "
                    f"vjp=lambda g, out, *inputs: cotangents"
                )
            )
        sought = [i for i, x in enumerate(inputs) if x.type.is_float]
        f = _traceable(self._user.function)

        def of_floats(*floats: Any) -> Any:
            values: list[Any] = list(inputs)
            for i, x in zip(sought, floats, strict=True):
                values[i] = x
            return f(*values)

        try:
            out, pull_back = transforms.vjp(of_floats, *(inputs[i] for i in sought))
            parts = pull_back(g.astype(out.dtype))
        except (GraphError, TypeError, AttributeError) as error:
            raise locate(
                GradientError(
                    f"gd.op({self._user.name}) has no rule for its gradient, and none can be "
                    f"derived, since its code does not run on arrays "
                    f"({str(error).splitlines()[0]}); give vjp=lambda g, out, *inputs: cotangents"
                )
            ) from error
        found: list[Any] = [None] * len(inputs)
        for i, part in zip(sought, parts, strict=True):
            found[i] = part
        return found


def _promoted(args: Sequence[Any]) -> list[Dtype]:
    """The dtypes that a scalar function is compiled for: Python numbers take that of the arrays."""
    strong = [dtype_of(arg) for arg in args if not is_weak(arg)]
    found = []
    for arg in args:
        own = dtype_of(arg)
        if isinstance(own, type) and strong:
            own = np.result_type(*strong, own(1))
        found.append(np.dtype(own))
    return found


def _code() -> Any:
    # Imported here because it loads Numba, as the user's function has, but no other part of graphdl
    from graphdl.kernels.cpu import user_code

    return user_code


# --- the Python function on arrays ------------------------------------------------------------

#: What NumPy calls functions of the module `math`.
_MATH = {
    name: getattr(np, {"pow": "power", "fabs": "fabs"}.get(name, name))
    for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "pow",
                 "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh",
                 "asinh", "acosh", "atanh", "hypot", "floor", "ceil", "trunc", "copysign", "fabs",
                 "isnan", "isinf", "isfinite")
}  # fmt: skip
_MATH |= {name: getattr(math, name) for name in ("pi", "e", "tau", "inf", "nan")}
_BUILTINS = {"min": np.minimum, "max": np.maximum}


def _traceable(function: Any) -> Function:
    """The Python function of one that Numba compiles, with names that work on arrays."""
    python = function.py_func
    names = {
        name: _on_arrays(value)
        for name, value in python.__globals__.items()
        if name in python.__code__.co_names
    }
    for name, value in _BUILTINS.items():
        names.setdefault(name, value)
    cells = tuple(
        types.CellType(_on_arrays(cell.cell_contents)) for cell in python.__closure__ or ()
    )
    names["__builtins__"] = builtins
    copy = types.FunctionType(python.__code__, names, python.__name__, None, cells)
    copy.__defaults__ = python.__defaults__
    return copy


def _on_arrays(value: Any) -> Any:
    if value is math:
        return types.SimpleNamespace(**_MATH)
    if hasattr(value, "py_func"):
        return _traceable(value)
    if getattr(value, "__module__", "") == "math":
        return _MATH.get(getattr(value, "__name__", ""), value)
    return value


def op(
    f: Function | None = None, *, result: Function | None = None, vjp: Function | None = None
) -> Any:
    """A function that Numba compiles, as an op of graphs: also as a decorator.

    Without `result`, f is a function of numbers that returns a number: a pointwise op of arrays,
    with NumPy's broadcasting. It is compiled into the kernels that it becomes part of, beside other
    pointwise ops, vectorised where LLVM can do that, and `math.exp` and the like are graphdl's own.
    Division by zero is NumPy's; where f raises, so does the program, without the reason (a function
    that may raise is called twice for each element where LLVM cannot join the calls). Python
    numbers take the dtype of the arrays, and a float64 that comes of float32 alone is rounded back.

    With `result`, f is a function of arrays, compiled by Numba as it is and called by programs. It
    gets C-contiguous arrays, which it must not change, and numbers in the place of 0-d ones, and
    returns an array, or a tuple, or takes the arrays to write to as its last arguments. vmap
    calls it for each example. Where it raises, so does the program, without the reason.

    Args:
        f: what `numba.njit` has made, or a Python function for it. The kernel cache knows f by its
            code and by all that this refers to; where that has no telling (a function of a module
            of yours by its name there), kernels are compiled in each process anew.
        result: (type of each argument) -> `gd.spec(shape, dtype)` of the result, or a tuple.
        vjp: the gradient rule, `vjp(g, out, *args)` -> a cotangent for each argument, None for
            zero, written with NumPy's names, so that it has a gradient as well. Of several results,
            `g` and `out` are tuples. Without it a function of numbers is differentiated by tracing
            its Python code on arrays, which works where that has no `if` and no loop on values.

    Raises:
        GraphError: f raises an exception when a program runs.
        DtypeError: Numba cannot compile f for the dtypes of a call.
        GradientError: a gradient is asked for, and there is no rule and none can be derived.
        ShapeError: cotangents or results that are not of the shapes that they must have.

    >>> import math, numba, numpy as np, graphdl as gd
    >>> @gd.op
    ... @numba.njit
    ... def bump(x, width):
    ...     return math.exp(-(x / width) ** 2)
    >>> gd.compile(lambda x: bump(x, 2.0) + 1)(np.array([0.0, 2.0]))
    array([2.        , 1.36787944])
    >>> gd.grad(lambda x: np.sum(bump(x, 2.0)))(np.array([0.0, 2.0]))
    array([-0.        , -0.36787944])

    A branch needs a rule, and so does a function of arrays:

    >>> @gd.op(vjp=lambda g, out, x: g * np.where(x > 0, 1.0, 0.1))
    ... @numba.njit
    ... def leaky(x):
    ...     return x if x > 0 else 0.1 * x
    >>> gd.grad(lambda x: np.sum(leaky(x)))(np.array([-1.0, 2.0]))
    array([0.1, 1. ])
    >>> @numba.njit
    ... def smooth(x, a, out):
    ...     out[0] = x[0]
    ...     for i in range(1, len(x)):
    ...         out[i] = a * out[i - 1] + (1 - a) * x[i]
    >>> smooth = gd.op(smooth, result=lambda x, a: x)
    >>> gd.compile(lambda x: smooth(x, 0.5) * 2)(np.array([1.0, 3.0, 2.0]))
    array([2., 4., 4.])
    """
    if f is None:
        return functools.partial(op, result=result, vjp=vjp)
    if not hasattr(f, "py_func"):
        if not isinstance(f, types.FunctionType):
            raise TypeError(f"gd.op takes a function that numba.njit has made, not {f!r:.60}")
        import numba  # 0.5 s, which a user who writes such functions has paid already

        f = numba.njit(f)
    return UserOp(f, result, vjp)


__all__ = ["UserOp", "op"]
