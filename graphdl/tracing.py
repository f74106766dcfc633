"""The traced value: an array without values, which writes down what is done to it.

`TracedArray` answers to Python's operators, to NumPy's ufuncs (`__array_ufunc__`), to NumPy's
functions (`__array_function__`, looked up in `HANDLERS`, which graphdl.numpy_functions fills) and
to the methods and attributes of an array. Every operation becomes a node of the graph, together
with the line of the user's code that asked for it.

A traced array is a place for a value, as an array of NumPy is: what is assigned into it replaces
the node that it holds. A view of it is the chain of slices, transposes and reshapes that leads
there; it reads the node that its array holds now, and writes through to it. The graph knows
nothing of all this: it only has the nodes.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import optree

from graphdl import unrolling
from graphdl.errors import (
    ArgumentError,
    ConcreteValueError,
    DtypeError,
    GraphError,
    LeakError,
    PythonIntError,
    ShapeError,
    UnsupportedError,
)
from graphdl.graph import Node, Scope, Source, intern, reference
from graphdl.graph import Op as AnyOp
from graphdl.ops import complex_numbers, movement, pointwise, views
from graphdl.ops.op import Op, node_of
from graphdl.ops.views import Step
from graphdl.trees import flatten, unflatten
from graphdl.types import DTYPES, Dtype, Shape, TensorType, as_dtype, kind_of

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_INTERNAL = (
    _PACKAGE,
    os.path.dirname(np.__file__) + os.sep,
    os.path.dirname(optree.__file__) + os.sep,  # its tree_map calls back
    "<__array_function__",
)
_USERS = (os.path.join(_PACKAGE, "examples"), os.path.join(_PACKAGE, "cli"))
_is_internal: dict[str, bool] = {}


def _belongs(file: str) -> bool:
    """Whether a file is one of graphdl, NumPy, SciPy or optree."""
    internal = _is_internal.get(file)
    if internal is None:
        internal = (file.startswith(_INTERNAL) and not file.startswith(_USERS)) or _is_scipys(file)
        _is_internal[file] = internal
    return internal


def _is_scipys(file: str) -> bool:
    scipy = sys.modules.get("scipy")  # nothing of it runs before it is imported
    place = getattr(scipy, "__file__", None)
    return place is not None and file.startswith(os.path.dirname(place) + os.sep)


def user_source(scopes: tuple[Scope, ...] = ()) -> Source | None:
    """The innermost line of code that is none of graphdl, NumPy, SciPy and optree."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not _belongs(file):
            return Source(file, frame.f_lineno, frame.f_code.co_name, scopes)
        frame = frame.f_back
    return None


def where_text(source: Source | None, what: str = "at") -> str:
    """`at file:line: the code there`, a line to end an error message with."""
    if source is None:
        return ""
    code = linecache.getline(source.file, source.line).strip()
    return f"\n  {what} {source}" + (f": {code}" if code else "")


def locate(error: GraphError, source: Source | None = None) -> GraphError:
    """Add the user's line to an error's message, once."""
    if not getattr(error, "located", False):
        error.located = True  # type: ignore[attr-defined]
        source = source or user_source()
        error.args = (f"{error.args[0] if error.args else ''}{where_text(source)}",)
    return error


class Trace:
    """One run of a user's function on traced values: whether it still runs, and its lines."""

    __slots__ = (
        "alive", "blocks", "called_by", "constants", "function", "is_users", "memo",
        "memory_budget", "repeats", "scope", "sources", "standin", "token",
    )  # fmt: skip

    def __init__(
        self, function: str, memory_budget: int | None = None, is_users: bool = False
    ) -> None:
        self.alive = True
        self.function = function
        #: Whether a function of the user's is running, or else a pass, which no line asked for.
        self.is_users = is_users
        #: How many bytes the gradient of a loop may keep of its steps.
        self.memory_budget = memory_budget
        #: The bodies of loops, branches and maps that are being traced, the innermost last.
        self.scope: tuple[str, ...] = ()
        #: The blocks of `gd.scope` that are being traced, the innermost last.
        self.blocks: tuple[Scope, ...] = ()
        self.sources: dict[Node, Source] = {}
        #: The nodes that depend on no argument, and what they are, as far as anybody asked.
        self.constants: dict[Node, np.ndarray[Any, Any] | None] = {}
        #: How often each line has made an operation, until there has been a warning.
        self.repeats: dict[tuple[Source, AnyOp], int] | None = {}
        #: The identity of the frame that calls what is traced.
        self.called_by = 0
        #: Whatever lives as long as the trace: graphdl.rebinding keeps its copies here.
        self.memo: dict[str, Any] = {}
        #: The line to use instead of the caller's, while a gradient rule runs.
        self.standin: Source | None = None
        #: A number that is there when all effects so far have happened; None before the first. See
        #: graphdl.transforms.effects.
        self.token: TracedArray | None = None

    @contextmanager
    def at(self, source: Source | None) -> Iterator[None]:
        """Credit the nodes made meanwhile to `source`."""
        before, self.standin = self.standin, source
        try:
            yield
        finally:
            self.standin = before

    def known(self, node: Node) -> np.ndarray[Any, Any] | None:
        """The value of a node that depends on no argument; None of any other."""
        if node not in self.constants:
            return None
        pending = [node]
        while pending:
            at = pending[-1]
            missing = [operand for operand in at.inputs if self.constants[operand] is None]
            if missing:
                pending += missing
                continue
            pending.pop()
            if self.constants[at] is None:
                operands = [self.constants[operand] for operand in at.inputs]
                with np.errstate(all="ignore"):
                    result = np.array(reference(at, operands))
                result.flags.writeable = False
                self.constants[at] = result
        return self.constants[node]

    @contextmanager
    def inside(self, what: str) -> Iterator[None]:
        """Trace the body of a loop, a branch or a map: arrays from outside stay as they are."""
        before, self.scope = self.scope, (*self.scope, f"{what} {next(_places)}")
        try:
            yield
        finally:
            self.scope = before

    @contextmanager
    def block(self, name: str) -> Iterator[None]:
        """Trace a block of `gd.scope`."""
        before, self.blocks = self.blocks, (*self.blocks, Scope(name))
        try:
            yield
        finally:
            self.blocks = before

    def record(self, node: Node) -> None:
        first = node.inputs[0] if node.inputs else None
        if (first is None and node.op.family == "constant") or (
            first in self.constants
            and node.op is not pointwise.variable
            and all(operand in self.constants for operand in node.inputs)
        ):
            self.constants.setdefault(node)
        if node not in self.sources:
            source = self.standin or (user_source(self.blocks) if self.is_users else None)
            if source is not None:
                self.sources[node] = source
                if self.repeats is not None and self.standin is None:
                    self._count(node, source)

    def _count(self, node: Node, source: Source) -> None:
        if node.op.family in ("constant", "movement") or self.repeats is None:
            return
        key = (source, node.op)
        self.repeats[key] = count = self.repeats.get(key, 0) + 1
        if count > unrolling.MAX_REPEATS:
            self.repeats = None  # one warning is enough
            frame = sys._getframe(2)
            unrolling.warn(frame, lambda at: not _belongs(at.f_code.co_filename), self.called_by)


class _Stack(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_stack = _Stack()


def current_trace() -> Trace | None:
    """The trace that runs in this thread, if one does."""
    return _stack.traces[-1] if _stack.traces else None


@contextmanager
def tracing(function: str, memory_budget: int | None = None) -> Iterator[Trace]:
    """Run the body as a trace; its traced values are dead afterwards."""
    trace = Trace(function, memory_budget, is_users=True)
    trace.called_by = id(sys._getframe(2))  # behind this generator and contextlib
    _stack.traces.append(trace)
    try:
        yield trace
    finally:
        _stack.traces.pop()
        trace.alive = False


#: NumPy function -> its implementation on traced values.
HANDLERS: dict[Any, Callable[..., Any]] = {}
#: (ufunc, method) -> its implementation, for np.add.reduce and the like.
METHOD_HANDLERS: dict[tuple[np.ufunc, str], Callable[..., Any]] = {}

#: The name of a ufunc of scipy.special -> its implementation. By name: SciPy takes 0.1 s to import.
SPECIAL_HANDLERS: dict[str, Callable[..., Any]] = {}
#: NumPy function -> the position of its argument `out`.
_OUT_POSITION: dict[Any, int] = {}

_WEAK = (bool, int, float, complex)
#: NumPy without its annotations, which know no traced values.
_numpy: Any = np


def is_weak(value: Any) -> bool:
    """Whether NEP 50 lets the other operands decide the dtype: a Python scalar, traced or not."""
    return type(value) in _WEAK or (isinstance(value, TracedArray) and value.weak)


def dtype_of(value: Any) -> Dtype | type:
    """What `value` brings to promotion: its dtype, or its Python type if weak."""
    if isinstance(value, TracedArray):
        if value.weak:
            return {"b": bool, "i": int, "f": float, "c": complex}[kind_of(value.dtype)]
        return value.dtype
    if type(value) in _WEAK:
        return type(value)
    return as_dtype(np.asarray(value).dtype)


def shape_of(value: Any) -> Shape:
    return value.shape if isinstance(value, TracedArray) else np.shape(value)


def broadcast_shapes(name: str, shapes: Sequence[Shape]) -> Shape:
    """NumPy's broadcasting of shapes, with an error that names the operation."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        texts = " and ".join(map(str, shapes))
        raise ShapeError(f"{name}: operands of shapes {texts} do not broadcast together") from None


def as_traced(value: Any, trace: Trace, dtype: Dtype | None = None) -> TracedArray:
    """A traced value as it is; an array or a number as a constant of the graph."""
    if isinstance(value, TracedArray):
        value.check_alive()
        return value
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value) if dtype is None else np.asarray(value, dtype)
        literal = movement.literal(array)
    except OverflowError as error:
        raise PythonIntError(f"Python integer {value} is out of bounds for {dtype}") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, GraphError):
            raise
        what = repr(value)
        raise DtypeError(
            f"cannot make an array of {type(value).__name__} "
            f"{what if len(what) <= 60 else what[:57] + '...'}"
        ) from error
    node = node_of(movement.constant, (), literal)
    trace.record(node)
    return TracedArray(node, trace)


def broadcast_to(x: Any, shape: Shape) -> Any:
    """x repeated to `shape` by NumPy's rules, through the `broadcast` op."""
    if x.shape == shape:
        return x
    new = len(shape) - x.ndim
    if new < 0 or any(a not in (b, 1) for a, b in zip(x.shape, shape[new:], strict=True)):
        raise ShapeError(f"shape {x.shape} does not broadcast to {shape}")
    dims = tuple(new + i for i, size in enumerate(x.shape) if size == shape[new + i])
    kept = tuple(shape[dim] for dim in dims)
    if x.shape != kept:
        x = movement.reshape(x, shape=kept)
    return movement.broadcast(x, shape=shape, dims=dims)


def cast(x: Any, dtype: Dtype) -> Any:
    """x as `dtype`; nothing where it is already."""
    return x if x.dtype == dtype else pointwise.cast(x, dtype=dtype)


def call_op(op: Op, operands: Sequence[Any], dtypes: Sequence[Dtype], name: str = "") -> Any:
    """A pointwise op on operands cast to `dtypes` and broadcast against each other."""
    trace = trace_of(operands)
    shape = broadcast_shapes(name or f"np.{op.name}", [shape_of(x) for x in operands])
    values = [
        broadcast_to(cast(as_traced(x, trace, dtype if type(x) in _WEAK else None), dtype), shape)
        for x, dtype in zip(operands, dtypes, strict=True)
    ]
    return op(*values)


_COMPARISONS = (
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
)  # fmt: skip


def call_ufunc(ufunc: np.ufunc, *operands: Any) -> Any:
    """A ufunc with one result, with NumPy's promotion and broadcasting."""
    op = pointwise.UFUNCS[ufunc]
    loop = pointwise.resolve(ufunc, tuple(dtype_of(x) for x in operands))[: ufunc.nin]
    if ufunc in _COMPARISONS:
        operands = _within_range(ufunc, operands)
        loop = pointwise.resolve(ufunc, tuple(dtype_of(x) for x in operands))[: ufunc.nin]
    result = call_op(op, operands, loop)
    if ufunc is np.power and loop[1].kind == "i" and _has_negative(operands[1]):
        raise ArgumentError(
            "np.power: integers to negative integer powers are not allowed; make the base a float"
        )
    return result


def _has_negative(value: Any) -> bool:
    return not isinstance(value, TracedArray) and bool(np.any(np.asarray(value) < 0))


def _within_range(ufunc: np.ufunc, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Comparisons with a Python integer beyond the array's dtype are decided by 0 against it."""
    for i, value in enumerate(operands):
        other = operands[1 - i]
        if type(value) is int and isinstance(other, TracedArray) and kind_of(other.dtype) in "iu":
            info = np.iinfo(other.dtype)
            if not info.min <= value <= info.max:
                # all values of the dtype compare alike, so 0 stands for them, and +-1 for `value`
                stand_in = np.int8(1 if value > 0 else -1)
                zeros = broadcast_to(as_traced(np.int8(0), other.owner), other.shape)
                return (zeros, stand_in)[:: -1 if i == 0 else 1]
    return operands


def trace_of(values: Sequence[Any]) -> Trace:
    """The trace that the traced ones of `values` belong to."""
    for value in values:
        if isinstance(value, TracedArray):
            value.check_alive()
            return value.owner
    trace = current_trace()
    if trace is None:
        raise GraphError("no trace is running")
    return trace


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as what NumPy's `functions` do to traced values."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        positional = [
            name
            for name, parameter in inspect.signature(implementation).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        for function in functions:
            HANDLERS[function] = implementation
            if "out" in positional:
                _OUT_POSITION[function] = positional.index("out")
        return implementation

    return register


def _name(function: Any) -> str:
    module = getattr(function, "__module__", "") or ""
    prefix = module.replace("numpy", "np", 1) + "." if module.startswith("numpy") else "np."
    return prefix + getattr(function, "__name__", str(function))


class TracedArray:
    """A value in a trace: it has a dtype and a shape, but no numbers.

    `weak` marks a Python scalar that was handed to the traced function: NEP 50 lets the arrays
    that it meets decide the dtype. `is_array` marks what NumPy makes an array and not a number,
    of which a 0-d one is a rare case: `x += 1` changes an array, and makes a new number.
    """

    __slots__ = (
        "_node", "_parent", "_root", "_scope", "_step", "_version", "is_array", "owner", "weak",
    )  # fmt: skip
    __array_priority__ = 1000.0

    def __init__(self, node: Node, trace: Trace, weak: bool = False) -> None:
        self._node = node
        self.owner = trace
        self.weak = weak
        self.is_array = len(node.type.shape) > 0
        self._scope = trace.scope
        #: The array that this is a view of, the step that leads here, and where all views end.
        self._parent: TracedArray | None = None
        self._step: Step | None = None
        self._root = self
        #: How often the root had been written when `_node` was looked up, or the root itself was.
        self._version = 0

    # --- what it is -------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The value that it holds now."""
        if self._version != self._root._version:
            self._look_up()
        return self._node

    def _look_up(self) -> None:
        """Follow the way from the root to this view again, since the root was written."""
        outdated = []
        at: TracedArray = self
        while at._parent is not None and at._version != self._root._version:
            outdated.append(at)
            at = at._parent
        node = at._node
        for view in reversed(outdated):
            assert view._step is not None
            node = node_of(view._step.op, (node,), view._step.attrs)
            self.owner.record(node)
            view._node, view._version = node, self._root._version

    def _steps(self) -> list[Step]:
        """The way from the root to this view."""
        found = []
        at: TracedArray = self
        while at._parent is not None:
            assert at._step is not None
            found.append(at._step)
            at = at._parent
        return found[::-1]

    def fresh(self) -> TracedArray:
        """The same value in an array of its own."""
        result = TracedArray(self.node, self.owner, self.weak)
        result.is_array = self.is_array
        return result

    def view_by(self, node: Node, op: Op, attrs: dict[str, Any]) -> TracedArray:
        """The array that one movement op makes of this one; a view where NumPy makes one."""
        step = Step(op, attrs, self.shape, node.type.shape)
        if op is movement.reshape and self._parent is not None:
            steps = [*self._steps(), step]
            if views.strides_of(self._root._node.type.shape, steps) is None:
                return TracedArray(node, self.owner)
        return self._followed_by(step, node)

    def joined_for_diagonal(self, node: Node, shape: Shape) -> TracedArray:
        """`node`, this array with its last two axes as one, as a view wherever these lie in memory:
        a slice along the diagonal has to follow at once, which is a view of any array."""
        return self._followed_by(Step(movement.reshape, {"shape": shape}, self.shape, shape), node)

    def _followed_by(self, step: Step, node: Node) -> TracedArray:
        """The view that one more step leads to."""
        result = TracedArray(node, self.owner)
        result._parent, result._step, result._root = self, step, self._root
        result._version = self._root._version
        return result

    def assign(self, value: TracedArray) -> None:
        """Replace all elements by those of a value of the same shape and dtype."""
        root = self._root
        if root._scope != self.owner.scope:
            inner = next(iter(self.owner.scope[len(root._scope) :]), "a function").split()[0]
            raise UnsupportedError(
                f"the body of gd.{inner} assigns into an array ({root.type}) from outside of it; "
                f"take it as an argument and return it as a result (for a loop: in the carry)"
                f"{root.made_at}"
            )
        if self._parent is not None:
            value = views.written(root.fresh(), self._steps(), value)
        root._node = value.node
        root._version += 1

    @property
    def type(self) -> TensorType:
        return self._node.type

    @property
    def dtype(self) -> Dtype:
        return self._node.type.dtype

    @property
    def shape(self) -> Shape:
        return self._node.type.shape

    @property
    def ndim(self) -> int:
        return len(self._node.type.shape)

    @property
    def size(self) -> int:
        return self._node.type.size

    @property
    def nbytes(self) -> int:
        return self._node.type.nbytes

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def is_constant(self) -> bool:
        """Whether it is a constant, or one that is repeated."""
        node = self.node
        while node.op is movement.broadcast or node.op is movement.reshape:
            node = node.inputs[0]
        return node.op.family == "constant"

    def __repr__(self) -> str:
        return f"TracedArray({self.type})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Iterator[TracedArray]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __hash__(self) -> int:
        value = self.known()
        if self.is_array or value is None:
            raise TypeError("a traced array is not hashable, as NumPy's arrays are not")
        return hash(value.item())

    def check_alive(self) -> None:
        if not self.owner.alive:
            raise locate(
                LeakError(
                    f"a traced value ({self.type}) of {self.owner.function!r} was used after its "
                    f"trace had ended; return it as a result instead of keeping it in a global, "
                    f"an attribute or a closure{self.made_at}"
                )
            )

    @property
    def made_at(self) -> str:
        """The line where it was made, to go into a message.

        Nothing where that is not known, or is the line that runs, which messages name anyway.
        """
        source = self.owner.sources.get(self.node)
        return "" if source == user_source() else where_text(source, "it was made at")

    # --- building graph -----------------------------------------------------------------------

    def apply_op(self, op: Op, args: tuple[Any, ...], attrs: dict[str, Any]) -> TracedArray:
        """Make the node of `op`: the way of every operation into the graph."""
        trace = self.owner
        try:
            inputs = tuple(as_traced(arg, trace).node for arg in args)
            node = node_of(op, inputs, attrs)
            if node.type.is_complex or any(operand.type.is_complex for operand in inputs):
                _check_complex(op, node)
        except GraphError as error:
            raise locate(error) from error.__cause__
        trace.record(node)
        is_view = op in views.VIEWING and args[0] is self
        return self.view_by(node, op, attrs) if is_view else TracedArray(node, trace)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        for value in inputs:  # x[mask] knows what to do with a traced array, not the reverse
            if getattr(value, "__array_priority__", 0.0) > self.__array_priority__:
                return NotImplemented
        try:
            return _call_ufunc_method(ufunc, method, inputs, kwargs)
        except GraphError as error:
            raise locate(error) from error.__cause__

    def __array_function__(
        self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        handler = HANDLERS.get(func)
        name = _name(func)
        try:
            args, kwargs, out = _without_out(func, args, kwargs)
            try:
                if handler is None:
                    raise UnsupportedError(unsupported(name))
                result = handler(*args, **kwargs)
            except (UnsupportedError, ConcreteValueError):
                result = _concretely(func, args, kwargs, self.owner)
                if result is NotImplemented:
                    raise
            if out is not None:
                return write_out(name, out, result)
            return result if func in VIEWING_FUNCTIONS else _owned(result)
        except GraphError as error:
            raise locate(_named(error, name)) from error.__cause__

    def __getitem__(self, index: Any) -> Any:
        try:
            self.check_alive()
            return HANDLERS[operator.getitem](self, index)  # see graphdl.numpy_functions.assignment
        except GraphError as error:
            raise locate(error) from error.__cause__

    def __setitem__(self, index: Any, value: Any) -> None:
        try:
            self.check_alive()
            HANDLERS[operator.setitem](self, index, value)
        except GraphError as error:
            raise locate(error) from error.__cause__

    # --- what has no answer while tracing, unless no argument has a part in it -----------------

    def known(self) -> np.ndarray[Any, Any] | None:
        """Its values where they depend on no argument, as those of np.arange(3) do; else None."""
        self.check_alive()
        return self.owner.known(self.node)

    def _needs_value(self, what: str, instead: str) -> NoReturn:
        raise locate(
            ConcreteValueError(
                f"{what} needs the value of an array, but {self.type} is only being traced. "
                f"{instead}{self.made_at}"
            )
        )

    def __bool__(self) -> bool:
        value = self.known()
        if value is not None:
            return bool(value)
        self._needs_value(*_decided_by(user_source()))

    def __float__(self) -> float:
        value = self.known()
        if value is not None:
            return float(value)
        self._needs_value(
            "float()",
            "Keep the 0-d array: arithmetic on it works as on a number. Where it is assigned into "
            f"an array of NumPy: that cannot hold traced values. {CREATE_TRACED}; or build the "
            f"array with np.stack.",
        )

    def __int__(self) -> int:
        value = self.known()
        if value is not None:
            return int(value)
        self._needs_value("int()", "Write x.astype(np.int64), or pass a static number instead.")

    def __complex__(self) -> complex:
        value = self.known()
        if value is not None:
            return complex(value)
        self._needs_value("complex()", "Keep the 0-d array.")

    def __index__(self) -> int:
        value = self.known()
        if value is not None:
            return operator.index(value[()])
        self._needs_value(
            "`range`, the index of a list, a size or an axis",
            "Shapes are static: pass a Python int, such as x.shape[0]. Write gd.fori_loop(0, n, "
            "body, init) to repeat, np.stack(items)[i] to choose from a list.",
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        value = self.known()
        if value is not None:
            return np.array(value, dtype)
        if _asks_for_vectorize(sys._getframe(1)):
            self._needs_value(
                "np.vectorize, which calls a Python function for each number,",
                "Call the function on the whole array, with NumPy's functions, and with "
                "np.where(c, a, b) instead of `if`; or write gd.vmap(f)(x), or "
                "gd.op(numba.njit(f))(x) for a function of numbers with branches and loops.",
            )
        library = _library_that_asks(sys._getframe(1))
        if library is not None:
            self._needs_value(
                f"{library}, which computes with NumPy's arrays only,",
                "Write what it does with NumPy's functions, or with those of scipy.special and "
                "scipy.linalg that docs/coverage.md lists; or call it outside of the traced "
                "function and pass its result as an argument.",
            )
        self._needs_value(
            "Conversion to a plain NumPy array (np.array, np.asarray, assignment into an array)",
            "Use np.stack or np.concatenate to build arrays of traced values; to index a plain "
            "array by a traced one, make the plain array an argument of the function. An array "
            f"that is assigned into: {CREATE_TRACED[0].lower()}{CREATE_TRACED[1:]}.",
        )

    def __round__(self, digits: int | None = None) -> Any:
        if self.shape:
            raise TypeError(f"round() takes a number, not {self.type}; write np.round(x)")
        return self._whole(np.rint) if digits is None else _numpy.round(self, digits)

    def __floor__(self) -> Any:
        return self._whole(np.floor)

    def __ceil__(self) -> Any:
        return self._whole(np.ceil)

    def __trunc__(self) -> Any:
        return self._whole(np.trunc)

    def _whole(self, ufunc: np.ufunc) -> TracedArray:
        """Rounded to a Python integer."""
        return TracedArray(cast(ufunc(self), np.dtype(np.int64)).node, self.owner, weak=True)

    def item(self, *args: Any) -> Any:
        value = self.known()
        if value is not None:
            return value.item(*args)
        self._needs_value(".item()", "Keep the 0-d array: arithmetic on it works as on a number.")

    def tolist(self) -> Any:
        value = self.known()
        if value is not None:
            return value.tolist()
        self._needs_value(".tolist()", "Keep the array.")

    def __format__(self, spec: str) -> str:
        if spec:
            value = self.known()
            if value is not None:
                return format(value[()], spec)
            self._needs_value(
                f"Formatting with {spec!r}",
                'Write gd.debug.print("x = {}", x), which prints when the compiled function runs, '
                "or return the value and print it outside.",
            )
        return repr(self)

    # --- methods and attributes of an array ---------------------------------------------------

    @property
    def T(self) -> Any:
        return _numpy.transpose(self)

    @property
    def mT(self) -> Any:
        return _numpy.matrix_transpose(self)

    @property
    def real(self) -> Any:
        """The real parts, as a view: what is written into it changes this array."""
        return self._part(complex_numbers.real) if self.type.is_complex else self

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> Any:
        """The imaginary parts, as a view; zeros for real numbers."""
        if self.type.is_complex:
            return self._part(complex_numbers.imag)
        return _numpy.zeros_like(self)

    @imag.setter
    def imag(self, value: Any) -> None:
        if not self.type.is_complex:
            raise locate(DtypeError(f"an array of {self.dtype} has no imaginary part to set"))
        self.imag[...] = value

    def _part(self, op: Op) -> TracedArray:
        return self.view_by(op(self).node, op, {})

    @property
    def flat(self) -> Any:
        return _numpy.ravel(self)

    @flat.setter
    def flat(self, values: Any) -> None:
        self[...] = _numpy.reshape(_numpy.broadcast_to(values, (self.size,)), self.shape)

    def astype(self, dtype: Any, **kwargs: Any) -> TracedArray:
        """This array as `dtype`; `copy`, `order`, `casting` as in NumPy, where they can matter."""
        try:
            wanted = as_dtype(dtype)
            casting = kwargs.get("casting", "unsafe")
            if not np.can_cast(self.dtype, wanted, casting):
                raise DtypeError(f"cannot cast {self.dtype} to {wanted} by the rule {casting!r}")
        except GraphError as error:
            raise locate(_named(error, "astype")) from error.__cause__
        result = TracedArray(cast(self, wanted).node, self.owner)
        result.is_array = self.is_array
        return result

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        target = shape[0] if len(shape) == 1 else shape
        return _numpy.reshape(self, target, order=order)

    def transpose(self, *axes: Any) -> Any:
        order = axes[0] if len(axes) == 1 else (axes or None)
        return _numpy.transpose(self, order)

    def copy(self, order: str = "C") -> TracedArray:
        result = TracedArray(self.node, self.owner)
        result.is_array = self.is_array
        return result

    def __copy__(self) -> TracedArray:
        return self.fresh()

    def __deepcopy__(self, memo: Any) -> TracedArray:
        return self.fresh()

    def view(self, *args: Any, **kwargs: Any) -> Any:
        """This array under another name, which writes through to it."""
        if args or kwargs:
            raise locate(
                UnsupportedError(
                    "x.view(dtype) reads the bytes of an array anew, which is not traced; write "
                    "x.astype(dtype) to convert the values, x.real and x.imag for the parts of "
                    "complex numbers"
                )
            )
        return _numpy.reshape(self, self.shape) if self.shape == () else self[...]

    def __getattr__(self, name: str) -> Any:
        # what no array has stays Python's AttributeError, as `hasattr` wants it
        text = f"{type(self).__name__!r} object has no attribute {name!r}"
        if name in _OF_ARRAYS:
            text = (
                f"x.{name} of a traced array: {self.type} has no values, bytes or addresses while "
                f"it is being traced{where_text(user_source())}"
            )
        raise AttributeError(text)

    def flatten(self, order: str = "C") -> Any:
        return _numpy.ravel(self, order=order).fresh()

    def fill(self, value: Any) -> None:
        self[...] = value

    def sort(self, axis: Any = -1, **kwargs: Any) -> None:
        self[...] = _numpy.sort(self, axis, **kwargs)

    def partition(self, kth: Any, axis: Any = -1, **kwargs: Any) -> None:
        self[...] = _numpy.partition(self, kth, axis, **kwargs)

    def put(self, indices: Any, values: Any, mode: str = "raise") -> None:
        _numpy.put(self, indices, values, mode)

    def clip(self, min: Any = None, max: Any = None, out: None = None) -> Any:
        return np.clip(self, min, max, out)

    def dot(self, other: Any) -> Any:
        return _numpy.dot(self, other)

    def compress(self, condition: Any, axis: Any = None) -> Any:
        return _numpy.compress(condition, self, axis)

    def conj(self) -> Any:
        return complex_numbers.conjugate(self) if self.type.is_complex else self

    conjugate = conj


#: Attributes of NumPy's arrays. Not those by which libraries ask what kind of an array it is.
_OF_ARRAYS = frozenset(name for name in dir(np.ndarray) if not name.startswith("_"))


def _check_complex(op: Op, node: Node) -> None:
    """Refuse an op that cannot be split into real ones."""
    if op.name in complex_numbers.TAKE_COMPLEX or op.family in ("control", "custom"):
        return
    given = ", ".join(str(operand.type) for operand in node.inputs)
    raise DtypeError(
        f"{op.name} of ({given}) takes no complex numbers; use np.real(z), np.imag(z) or np.abs(z)"
    )


def _without_out(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """The arguments of a NumPy function but for `out`, and that."""
    position = _OUT_POSITION.get(func, len(args))
    out = kwargs.get("out")
    if position < len(args):
        out, args = args[position], (*args[:position], None, *args[position + 1 :])
    kwargs = {name: value for name, value in kwargs.items() if name != "out"}
    return args, kwargs, out[0] if isinstance(out, tuple) and len(out) == 1 else out


def write_out(name: str, out: Any, result: Any, where: Any = True) -> Any:
    """Write what a function computes into `out`, which it returns."""
    if isinstance(out, tuple):
        pairs = zip(out, result, strict=True)
        return tuple(y if x is None else write_out(name, x, y, where) for x, y in pairs)
    if not isinstance(out, TracedArray):
        raise UnsupportedError(
            f"{name}: out= is an array of NumPy, which cannot hold traced values. "
            f"{CREATE_TRACED}; or use the returned value"
        )
    result = as_traced(result, out.owner)
    if result.shape != out.shape and broadcast_shapes(name, [result.shape, out.shape]) != out.shape:
        raise ShapeError(f"{name}: out= is {out.type} for a result {result.type}")
    if not np.can_cast(result.dtype, out.dtype, "same_kind"):
        raise DtypeError(
            f"{name}: cannot cast the result {result.type} to out= of {out.dtype} by the rule "
            f"'same_kind'"
        )
    if where is not True:
        result = _numpy.where(where, result, out)
    out[...] = result
    return out


#: What to write where an array of NumPy should take traced values.
CREATE_TRACED = (
    "Make it inside of the traced function: there np.zeros, np.empty, np.array and the like make "
    "traced arrays. Where tracing could not put graphdl.numpy in the place of numpy, write `import "
    "graphdl.numpy as np` in that file"
)

#: The functions of NumPy whose results may be views of their arguments; all others return arrays
#: of their own.
VIEWING_FUNCTIONS: set[Any] = set()


def _concretely(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace
) -> Any:
    """What cannot be traced, on arrays that depend on no argument; else NotImplemented."""
    leaves, tree = flatten((args, kwargs))
    values = [leaf.known() if isinstance(leaf, TracedArray) else leaf for leaf in leaves]
    if any(a is None and b is not None for a, b in zip(values, leaves, strict=True)):
        return NotImplemented
    plain_args, plain_kwargs = unflatten(tree, values)
    return as_traced_results(func(*plain_args, **plain_kwargs), trace)


def as_traced_results(result: Any, trace: Trace) -> Any:
    """The arrays of a result that graphs can hold as traced arrays, which can be written."""
    if type(result) in (tuple, list):
        return type(result)(as_traced_results(part, trace) for part in result)
    if not isinstance(result, np.ndarray) or result.dtype.newbyteorder("=") not in DTYPES:
        return result
    made = as_traced(result, trace).fresh()
    made.is_array = True
    return made


def _owned(result: Any) -> Any:
    """A result of a function as arrays of its own."""
    if isinstance(result, TracedArray):
        return result.fresh()
    if type(result) in (tuple, list):
        return type(result)(map(_owned, result))
    return result


def _named(error: GraphError, name: str) -> GraphError:
    """The error with the name of NumPy's function in front, unless it names one."""
    text = str(error.args[0]) if error.args else ""
    if not getattr(error, "located", False) and not text.startswith(("np.", "gd.")):
        error.args = (f"{name}: {text}",)
    return error


_MASKED = (
    "np.where(mask, x, 0), which keeps the shape, or np.argsort(~mask, kind='stable'), which puts "
    "the positions where the mask holds first"
)
_UNIQUE = (
    "np.sort(x), of which elements that differ from the one before are the unique ones, or "
    "np.bincount(x, minlength=n), which counts whole numbers"
)
_MEMBERS = "np.isin(x, y), which marks the common elements"
#: What to write instead of functions whose result has a shape that depends on values.
_SHAPED_BY_VALUES = {
    **dict.fromkeys(("np.nonzero", "np.flatnonzero", "np.argwhere", "np.extract"), _MASKED),
    **{
        f"np.{name}": _UNIQUE
        for name in ("unique", "unique_all", "unique_counts", "unique_inverse", "unique_values")
    },
    **{f"np.{name}": _MEMBERS for name in ("union1d", "intersect1d", "setdiff1d", "setxor1d")},
    "np.trim_zeros": "a slice with static bounds, or np.where(mask, x, 0)",
}


def _asks_for_vectorize(frame: FrameType) -> bool:
    """Whether np.vectorize wants to have an array, seen from where that is converted."""
    at: FrameType | None = frame
    while at is not None and at.f_globals.get("__name__", "").startswith("numpy."):
        if at.f_code.co_name.startswith("_vectorize_call"):
            return True
        at = at.f_back
    return False


def _library_that_asks(frame: FrameType) -> str | None:
    """The package of SciPy whose code the user's line calls, seen from a conversion."""
    at: FrameType | None = frame
    found = None
    while at is not None and _belongs(at.f_code.co_filename):
        module = str(at.f_globals.get("__name__"))
        if module.startswith("scipy."):
            found = ".".join(module.split(".")[:2])
        at = at.f_back
    return found


def _decided_by(source: Source | None) -> tuple[str, str]:
    """What asks whether a traced value is true, and what to write instead."""
    code = "" if source is None else linecache.getline(source.file, source.line).strip()
    if code.startswith("assert "):
        return "`assert`", (
            "Shapes and dtypes are known here, values only when the compiled function runs: return "
            "the condition as a result and assert outside, or find NaN and infinities by "
            'gd.compile(f, checks="nan").'
        )
    return "`if`, `while`, `and`, `or` or `not`", (
        "Write np.where(condition, a, b) to choose between values, gd.cond(condition, f, g, x) "
        "to run one of two functions, gd.while_loop to repeat, `&`, `|`, `~` to combine "
        "conditions, or decide outside of the traced function."
    )


def unsupported(name: str) -> str:
    """Why a function of NumPy cannot be traced, and what to write instead."""
    what, instead = f"{name} cannot be traced", _SHAPED_BY_VALUES.get(name)
    if instead is not None:
        what = f"{what}: the shape of its result depends on values"
    write = instead or "it with functions that can (graphdl.numpy_functions lists them)"
    return f"{what}; write {write}, or compute it outside of the traced function"


def _method(name: str) -> Callable[..., Any]:
    """The array method that does what NumPy's function of that name does."""
    function = getattr(np, name)

    def method(self: TracedArray, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"np.{name}(self, ...)"
    return method


for _attribute in (
    "sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "argmax", "argmin", "cumsum",
    "cumprod", "ravel", "squeeze", "swapaxes", "repeat", "round", "take", "diagonal",
    "trace", "argsort", "argpartition", "nonzero", "searchsorted", "choose",
):  # fmt: skip
    setattr(TracedArray, _attribute, _method(_attribute))


def _operator(ufunc: np.ufunc, reflected: bool = False) -> Callable[..., Any]:
    def method(self: TracedArray, other: Any) -> Any:
        if other is None or isinstance(other, (str, bytes, dict, set)):
            return NotImplemented
        if self.weak and is_weak(other):
            return _python_arithmetic(ufunc, *((other, self) if reflected else (self, other)))
        return ufunc(other, self) if reflected else ufunc(self, other)

    method.__name__ = ufunc.__name__
    return method


def _python_arithmetic(ufunc: np.ufunc, *operands: Any) -> Any:
    """Python numbers among themselves: the results are Python numbers too, weak in promotion."""
    if ufunc not in _ON_BOOLS:
        operands = tuple(_as_python_int(value) for value in operands)
    result = ufunc(*operands)
    for part in result if isinstance(result, tuple) else (result,):
        part.weak = True
    return result


#: What Python computes on bools as such; all else takes them as integers.
_ON_BOOLS = (*_COMPARISONS, np.bitwise_and, np.bitwise_or, np.bitwise_xor)


def _as_python_int(value: Any) -> Any:
    """A Python bool, traced or not, as an integer."""
    if isinstance(value, TracedArray) and value.dtype == np.bool_:
        return pointwise.cast(value, dtype=np.dtype(np.int64))
    return int(value) if isinstance(value, bool) else value


def _power(self: TracedArray, exponent: Any) -> Any:
    """x ** exponent with NumPy's shortcuts, which are exact where pow need not be."""
    if type(exponent) in (int, float) and self.type.is_inexact and not self.weak:
        if exponent in _SHORTCUTS:
            return _SHORTCUTS[exponent](self)
    elif type(exponent) is int and exponent == 2 and not self.weak:
        return np.square(self)
    return _plain_power(self, exponent)


_SHORTCUTS: dict[float, Any] = {
    -1: np.reciprocal, 0.5: np.sqrt, 1: np.positive, 2: np.square,
}  # fmt: skip
_plain_power = _operator(np.power)


def _unary(ufunc: np.ufunc) -> Callable[[Any], Any]:
    return lambda self: _python_arithmetic(ufunc, self) if self.weak else ufunc(self)


def _in_place(method: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """x += y: into the place of x, in its dtype and shape. A number is a new one instead."""

    def in_place(self: TracedArray, other: Any) -> Any:
        result = method(self, other)
        if self.weak or result is NotImplemented:
            return result
        if result.shape != self.shape:
            raise locate(ShapeError(f"in-place {name}: {self.type} cannot hold {result.type}"))
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise locate(DtypeError(f"in-place {name}: {result.dtype} does not fit {self.dtype}"))
        if not self.is_array:
            return cast(result, self.dtype)
        try:
            self.assign(cast(result, self.dtype))
        except GraphError as error:
            raise locate(error) from error.__cause__
        return self

    return in_place


for _symbol, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "lshift": np.left_shift, "rshift": np.right_shift, "divmod": np.divmod,
}.items():  # fmt: skip
    _function = _power if _ufunc is np.power else _operator(_ufunc)
    setattr(TracedArray, f"__{_symbol}__", _function)
    setattr(TracedArray, f"__r{_symbol}__", _operator(_ufunc, reflected=True))
    if _ufunc is not np.divmod:
        setattr(TracedArray, f"__i{_symbol}__", _in_place(_function, _ufunc.__name__))
for _symbol, _ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}.items():  # fmt: skip
    setattr(TracedArray, f"__{_symbol}__", _operator(_ufunc))
for _symbol, _ufunc in {
    "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert,
}.items():  # fmt: skip
    setattr(TracedArray, f"__{_symbol}__", _unary(_ufunc))


def _call_ufunc_method(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What NumPy asks through `__array_ufunc__`: a call, or reduce, accumulate, outer, at."""
    inputs = tuple(
        _without_list(x) if type(x) in (list, tuple) and (method != "at" or i == 2) else x
        for i, x in enumerate(inputs)  # not the index of np.add.at, which may be a tuple
    )
    out = kwargs.pop("out", None) or (None,)
    if any(place is not None for place in out):
        where = kwargs.pop("where", True) if method == "__call__" else True
        casting = kwargs.get("casting", "same_kind")
        result = _call_without_out(ufunc, method, inputs, kwargs)
        if casting == "unsafe":
            result = _cast_to(result, out)
        name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        return write_out(name, out[0] if len(out) == 1 else out, result, where)
    return _call_without_out(ufunc, method, inputs, kwargs)


def _without_list(value: list[Any] | tuple[Any, ...]) -> Any:
    """A list with traced values in it as a traced array; any other as it is."""
    if any(isinstance(leaf, TracedArray) for leaf in flatten(value)[0]):
        return HANDLERS[np.array](value)
    return value


def _cast_to(result: Any, out: tuple[Any, ...]) -> Any:
    """Results in the dtypes of the arrays that take them."""
    results = result if isinstance(result, tuple) else (result,)
    pairs = zip(results, out, strict=True)
    made = tuple(x if y is None else cast(as_traced(x, trace_of(out)), y.dtype) for x, y in pairs)
    return made if isinstance(result, tuple) else made[0]


def _call_without_out(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A ufunc whose results are new arrays."""
    if not any(isinstance(x, TracedArray) for x in inputs):
        return getattr(ufunc, method)(*inputs, **kwargs)  # it was out= that is traced
    if method != "__call__":
        return _call_method(ufunc, method, inputs, kwargs)
    dtype = kwargs.pop("dtype", None)
    where = kwargs.pop("where", True)
    for name in ("out", "casting", "order", "subok"):
        kwargs.pop(name, None)
    if kwargs:
        raise UnsupportedError(
            f"np.{ufunc.__name__}: argument {next(iter(kwargs))!r} is not traced"
        )
    if where is not True:
        raise UnsupportedError(
            f"np.{ufunc.__name__}(..., where=...) leaves elements undefined; "
            f"use np.where(mask, {ufunc.__name__}(...), other)"
        )
    handler = HANDLERS.get(ufunc)
    if handler is not None:
        return handler(*inputs) if dtype is None else handler(*inputs, dtype=dtype)
    if ufunc not in pointwise.UFUNCS:
        return _call_other(ufunc, inputs, dtype)
    if dtype is not None:
        loop = pointwise.resolve(ufunc, tuple(dtype_of(x) for x in inputs), as_dtype(dtype))
        return call_op(pointwise.UFUNCS[ufunc], inputs, loop[: ufunc.nin])
    return call_ufunc(ufunc, *inputs)


def _call_other(ufunc: np.ufunc, inputs: tuple[Any, ...], dtype: Any) -> Any:
    """A ufunc that is not NumPy's: one of scipy.special, or unknown."""
    name = ufunc.__name__
    if getattr(sys.modules.get("scipy.special"), name, None) is not ufunc:
        raise UnsupportedError(unsupported(f"np.{name}"))
    if name not in SPECIAL_HANDLERS or dtype is not None:
        raise UnsupportedError(unsupported(f"scipy.special.{name}"))
    try:
        return SPECIAL_HANDLERS[name](*inputs)
    except GraphError as error:
        raise _named(error, f"scipy.special.{name}") from error.__cause__


def _call_method(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """np.add.reduce(x) and the like."""
    name = f"np.{ufunc.__name__}.{method}"
    if method == "outer":
        a, b = inputs
        trace = trace_of(inputs)
        spread = _numpy.reshape(as_traced(a, trace), (*shape_of(a), *(1,) * len(shape_of(b))))
        return ufunc(spread, b, **kwargs)
    handler = METHOD_HANDLERS.get((ufunc, method))
    if handler is None:
        known = sorted(f"np.{u.__name__}" for u, m in METHOD_HANDLERS if m == method)
        hint = f"; those that can: {', '.join(known)}" if known else ""
        raise UnsupportedError(f"{name} cannot be traced{hint}")
    try:
        return handler(*inputs, **kwargs)
    except GraphError as error:
        raise _named(error, name) from error.__cause__


def new_input(type: TensorType, position: int, trace: Trace, weak: bool = False) -> TracedArray:
    """A traced argument."""
    return TracedArray(
        intern(INPUT, (), (("position", position), ("trace", id(trace))), type), trace, weak
    )


_places = itertools.count(1_000_000)  # beyond the positions of arguments


def new_placeholder(type: TensorType, trace: Trace) -> TracedArray:
    """A value that stands for another in a piece of the trace: one example, one step of a loop."""
    return new_input(type, next(_places), trace)


def _no_reference(**attrs: Any) -> NoReturn:
    raise GraphError("an input has no value of its own")


INPUT = Op("input", "input", lambda **attrs: NotImplemented, _no_reference)

__all__ = [
    "CREATE_TRACED",
    "HANDLERS",
    "INPUT",
    "METHOD_HANDLERS",
    "SPECIAL_HANDLERS",
    "VIEWING_FUNCTIONS",
    "Trace",
    "TracedArray",
    "as_traced",
    "as_traced_results",
    "broadcast_shapes",
    "broadcast_to",
    "call_op",
    "call_ufunc",
    "cast",
    "current_trace",
    "dtype_of",
    "implements",
    "is_weak",
    "locate",
    "new_input",
    "new_placeholder",
    "shape_of",
    "trace_of",
    "tracing",
    "user_source",
    "where_text",
]
