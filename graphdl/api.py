"""What users call: trace, compile, and the transformations that compile themselves."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from time import perf_counter
from typing import Any, overload

import numpy as np

from graphdl import transforms
from graphdl.captured import CALLS, Captured, captured_by, warn_of_changes
from graphdl.collecting import uncollected
from graphdl.errors import (
    ArgumentError,
    DtypeError,
    GradientError,
    LeakError,
    UnsupportedError,
)
from graphdl.executable import Executable
from graphdl.graph import Graph
from graphdl.kernels.cpu import pool
from graphdl.kernels.cpu.entry import prepare
from graphdl.native_loops import with_native_loops
from graphdl.rebinding import hand_over
from graphdl.tracing import TracedArray, as_traced, current_trace, locate, new_input, tracing
from graphdl.transforms import custom_jvp, custom_vjp, effects
from graphdl.transforms.common import called
from graphdl.trees import (
    flatten,
    how_to_register,
    leaf_names,
    leaf_type,
    leaves_of,
    refuse_special,
    unflatten,
)
from graphdl.types import kind_of

Function = Callable[..., Any]


def trace(f: Function, *args: Any, **kwargs: Any) -> Graph:
    """The graph of `f` for arguments of these shapes and dtypes.

    Args:
        f: a function of arrays, written in NumPy.
        args: arrays, Python scalars, None, trees of them, or `gd.spec(shape, dtype)` in the place
            of an array.

    Raises:
        GraphError: of the kind that fits, naming the line of `f`: shapes that do not fit, a dtype
            that a graph does not hold, a Python `if` on a traced value, no array as result ...

    >>> import numpy as np, graphdl as gd
    >>> graph = gd.trace(lambda x: np.sum(x * x), gd.spec((3,), "float32"))
    >>> float(graph.evaluate(np.ones(3, "float32")))
    3.0
    """
    return _traced(f, args, kwargs, None)


def _traced(
    f: Function, args: tuple[Any, ...], kwargs: dict[str, Any], memory_budget: int | None
) -> Graph:
    leaves, tree = flatten((args, kwargs))
    names = leaf_names(f, args, kwargs)
    name = transforms.name_of(f)
    types = [leaf_type(leaf, label) for leaf, label in zip(leaves, names, strict=True)]
    with uncollected(), tracing(name, memory_budget) as run:
        inputs = [new_input(type, i, run, weak) for i, (type, weak) in enumerate(types)]
        traced_args, traced_kwargs = unflatten(tree, inputs)
        result = called(f, *traced_args, **traced_kwargs)
        hand_over(run)
        values, out_tree = flatten(result)
        if not values:
            raise locate(
                DtypeError(f"{name} returned {result!r}: no array. Did you forget the `return`?")
            )
        outputs = [_result(value, name, run) for value in values]
        if run.token is not None:
            outputs[0] = effects.waiting(outputs[0], run.token)
    in_tree = flatten(args)[1] if not kwargs else None
    return Graph(
        tuple(value.node for value in inputs),
        tuple(value.node for value in outputs),
        tuple(names),
        run.sources,
        in_tree,
        out_tree,
    )


def _result(value: Any, name: str, run: Any) -> TracedArray:
    if isinstance(value, TracedArray) and value.owner is not run:
        raise locate(
            LeakError(
                f"{name} returned a traced value ({value.type}) that belongs to another trace, of "
                f"{value.owner.function!r}; return it there as a result instead of keeping it in a "
                f"global, an attribute or a closure{value.made_at}"
            )
        )
    try:
        return as_traced(value, run)
    except DtypeError as error:
        why = how_to_register(value) or str(error)
        raise locate(
            DtypeError(f"{name} returned a {type(value).__name__}, which is no array: {why}")
        ) from error


#: Specialisations that are tried natively, some 0.2 us each, before arguments are looked at here.
_NATIVELY = 8


def _refused(*args: Any, **kwargs: Any) -> Any:
    """What an entry says to arguments that it was not made for."""
    return NotImplemented


class Compiled:
    """A function that compiles itself for the shapes and dtypes that it is called with.

    Made by `gd.compile`. Each combination of nesting, shapes and dtypes is traced and compiled at
    its first call; `lower` hands out what was made of one. Inside a trace it is f itself.

    >>> import numpy as np, graphdl as gd
    >>> f = gd.compile(lambda x: x * 2)
    >>> f(np.arange(3.0)), f(np.arange(2))
    (array([0., 2., 4.]), array([0, 2]))
    >>> f
    <compiled <lambda>, 2 specialisations>
    """

    def __init__(
        self,
        f: Function,
        target: str = "cpu",
        donate: Sequence[int] = (),
        memory_budget: int | None = None,
        checks: Collection[str] = (),
    ) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f = f
        #: For pickles, how a transformation has made this: its name, and what it was called with.
        self._recipe: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
        self.target = target
        self.matmul_precision = "float32"
        self.donate = tuple(donate)
        self.memory_budget = memory_budget
        self.checks = frozenset(checks)
        self._executables: dict[Any, Executable] = {}
        self._entry: Callable[..., Any] = self._dispatch
        #: Native entries of specialisations, all that were needed, and the last used ones.
        self._natives: dict[Executable, Callable[..., Any]] = {}
        self._entries: list[Callable[..., Any]] = []
        #: What the first calls after a trace compare, and how many still do.
        self._captured: list[Captured] = []
        self._comparing = 0
        self._is_general = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._entry(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its name where a decorator has put it there, as functions are; else by its function.

        A process that unpickles it finds the kernels in the cache.
        """
        name = str(getattr(self, "__qualname__", ""))
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        if self._recipe is not None:
            return _transformed, self._recipe
        made_of = (self._f, self.target, self.donate, self.memory_budget, self.checks)
        return _compiled, (*made_of, self.matmul_precision)

    def __repr__(self) -> str:
        name = transforms.name_of(self._f)
        if self._recipe is not None:
            name = f"{self._recipe[0]} of {name}"
        return f"<compiled {name}, {len(self._executables)} specialisations>"

    def _dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """The call in general: any nesting, keywords, arrays of any layout, a running trace."""
        if current_trace() is not None:  # traced arguments, or a closure over traced values
            return called(self._f, *args, **kwargs)
        if self._comparing:
            self._compare()
        if kwargs:
            args = (*args, *self._named(len(args), kwargs))
            if not kwargs:
                return self._entry(*args)
        if not kwargs and not self._is_general:
            for i, entry in enumerate(self._entries):
                result = entry(*args)
                if result is not NotImplemented:
                    if i:
                        self._entries = [entry, *(x for x in self._entries if x is not entry)]
                    return result
        leaves, tree = flatten((args, kwargs))
        leaves = [self._prepared(leaf, i, args, kwargs) for i, leaf in enumerate(leaves)]
        executable, new = self._specialised(leaves, tree)
        if not kwargs:
            self._use(executable, new)
        leaves = [np.asarray(leaf) if type(leaf) is complex else leaf for leaf in leaves]
        results = executable.flat(*leaves)
        if results is NotImplemented:  # donated arrays that are read-only, or another argument too
            results = executable.flat(*executable.with_copies(leaves))
        return unflatten(executable.graph.out_tree, results)

    @functools.cached_property
    def _parameters(self) -> tuple[str, ...]:
        """The names of the parameters that may be given by position or by name, in order."""
        try:
            found = inspect.signature(self._f, follow_wrapped=False).parameters.values()
        except (TypeError, ValueError):
            return ()
        return tuple(
            "" if parameter.kind is parameter.POSITIONAL_ONLY else parameter.name
            for parameter in found
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        )

    def _named(self, count: int, kwargs: dict[str, Any]) -> Iterator[Any]:
        """Take out of `kwargs` what could as well follow `count` arguments by position.

        Then f(x, y=1) and f(x, 1) are one specialisation, and calls of it go natively.
        """
        for name in self._parameters[count:]:
            if name not in kwargs:
                return
            yield kwargs.pop(name)

    def _use(self, executable: Executable, new: bool) -> None:
        """Calls go to the newest specialisation first, then to those used last, natively.

        As long as calls compare constants they go the general way.
        """
        if new:
            self._captured = captured_by(self._f)
            self._comparing = CALLS if self._captured else 0
            self._entry = self._dispatch
            self._is_general = True
        if self._is_general and not self._comparing:
            self._entry = executable.entry(self._dispatch)
            self._is_general = False
        if len(self._executables) > 1:
            if executable not in self._natives:
                self._natives[executable] = executable.entry(_refused)
            entry = self._natives[executable]
            if entry is not _refused:  # it may take this general way only
                self._entries = [entry, *self._entries[: _NATIVELY - 1]]

    def _compare(self) -> None:
        """Warn where a name that f reads is something else than it was when f was traced."""
        self._comparing -= 1
        if warn_of_changes(self._captured, transforms.name_of(self._f)):
            self._comparing = 0
        if not self._comparing:
            self._captured = []

    def _prepared(self, leaf: Any, index: int, args: Any, kwargs: Any) -> Any:
        if isinstance(leaf, TracedArray):
            leaf.check_alive()
        if type(leaf) in (bool, float, complex):
            return leaf
        if type(leaf) is int:
            if not -(2**63) <= leaf < 2**63:
                raise DtypeError(f"the argument {leaf} does not fit int64")
            return leaf
        if isinstance(leaf, (np.ndarray, np.generic)) or hasattr(leaf, "__array__"):
            if isinstance(leaf, (np.matrix, np.ma.MaskedArray)):
                refuse_special(leaf, f"argument {leaf_names(self._f, args, kwargs)[index]}")
            array = np.asarray(leaf)
            if kind_of(array.dtype) in "biufc":
                return prepare(array)
        leaf_type(leaf, leaf_names(self._f, args, kwargs)[index])  # says what is wrong
        raise DtypeError(f"{leaf!r} is a description of an array; call with an array")

    def _specialised(self, leaves: list[Any], tree: Any) -> tuple[Executable, bool]:
        key = (
            tree,
            tuple(
                (leaf.dtype.num, leaf.shape) if hasattr(leaf, "dtype") else type(leaf)
                for leaf in leaves
            ),
        )
        found = self._executables.get(key)
        if found is not None:
            return found, False
        args, kwargs = unflatten(tree, leaves)
        made = self._lowered(args, kwargs)
        self._executables[key] = made
        return made, True

    def _lowered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        start = perf_counter()
        graph = self._trace(args, kwargs)
        traced = perf_counter() - start
        leaves = leaves_of((args, kwargs))
        weak = [type(leaf) in (bool, int, float, complex) for leaf in leaves]
        donated = self._donated(args)
        made = Executable(graph, weak, args, donated, self.checks, self.memory_budget)
        made.seconds = {"trace": traced, **made.seconds}
        return made

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
        return _traced(self._f, args, kwargs, self.memory_budget)

    def _donated(self, args: tuple[Any, ...]) -> list[int]:
        """The leaves of the donated arguments."""
        found: list[int] = []
        start = 0
        for i in self.donate:
            if not -len(args) <= i < len(args):
                raise ArgumentError(
                    f"donate={i}: {transforms.name_of(self._f)} was called with {len(args)} "
                    f"positional arguments"
                )
        wanted = {i % len(args) for i in self.donate}
        for i, arg in enumerate(args):
            count = len(leaves_of(arg))
            if i in wanted:
                found += range(start, start + count)
            start += count
        return found

    def lower(self, *args: Any, **kwargs: Any) -> Executable:
        """The executable for arguments like these: arrays, or `gd.spec(shape, dtype)`.

        >>> import numpy as np, graphdl as gd
        >>> gd.compile(lambda x: np.sum(x * x)).lower(gd.spec((3,), "float32"))
        <Executable (float32[3]) -> (float32[]), 1 kernels>
        """
        args = (*args, *self._named(len(args), kwargs))
        leaves, tree = flatten((args, kwargs))
        if any(type(leaf).__name__ == "TensorType" for leaf in leaves):
            return self._lowered(args, kwargs)
        leaves = [self._prepared(leaf, i, args, kwargs) for i, leaf in enumerate(leaves)]
        return self._specialised(leaves, tree)[0]


@overload
def compile(
    f: Function,
    *,
    target: str = ...,
    donate: int | Sequence[int] = ...,
    memory_budget: int | None = ...,
    matmul_precision: str = ...,
    loops: str | None = ...,
    checks: str | Collection[str] = ...,
) -> Compiled: ...


@overload
def compile(
    f: None = ...,
    *,
    target: str = ...,
    donate: int | Sequence[int] = ...,
    memory_budget: int | None = ...,
    matmul_precision: str = ...,
    loops: str | None = ...,
    checks: str | Collection[str] = ...,
) -> Callable[[Function], Compiled]: ...


def compile(
    f: Function | None = None,
    *,
    target: str = "cpu",
    donate: int | Sequence[int] = (),
    memory_budget: int | None = None,
    matmul_precision: str = "float32",
    loops: str | None = None,
    checks: str | Collection[str] = (),
) -> Compiled | Callable[[Function], Compiled]:
    """Make a function of arrays run as native code.

    The first call with new shapes or dtypes traces `f`, optimises the graph and compiles its
    kernels (or finds them in the cache); later calls run them. Results are new arrays, except that
    those written over a donated argument are that argument.

    Args:
        f: a function of arrays (or trees of them: tuples, lists, dicts, objects of classes that
            `gd.register_dataclass` knows), Python scalars and None, written in NumPy, that returns
            a tree of arrays.
        target: "cpu", or "cuda" for an NVIDIA GPU ("cuda:1" for the second one); see
            `gd.device_put`. There arguments may lie on the GPU (`gd.Array`, or arrays of PyTorch,
            CuPy or JAX) or on the host, from where they are copied at each call; results are
            `gd.Array`s, which `np.asarray` copies back.
        donate: the numbers of arguments whose memory results may take. The caller must not use
            them afterwards. At the call, ArgumentError for a number that no argument has.
        memory_budget: how many bytes the program may take beside its arguments, as
            `lower(...).memory.peak_bytes` tells. Where it would take more, values are computed a
            second time when they are needed late, those first that free most bytes for the time,
            until the budget is kept. The gradient of a loop that would keep more of its steps keeps
            the carries between runs of steps only, and computes the steps of a run a second time
            (or, for long loops and small budgets, a third) when it gets there; there the budget is
            for each loop by itself. Where no value helps any more, the program takes the fewest
            bytes that were found, computes the same, and a MemoryBudgetWarning says how many these
            are, and what the largest are.
        matmul_precision: "tf32" lets a GPU round the operands of float32 matrix products to 11
            significant bits, which its tensor cores multiply several times as fast; sums stay
            float32. On the CPU there is nothing of the kind.
        loops: "native" makes native loops and branches of the plain `for i in range(n)`, `while`
            and `if` in the source of `f`, where they depend on traced values; a range of numbers
            is a native loop if it has more than 8 steps. `break`, `continue`, early returns,
            `and`, `or`, `not` and `a if c else b` are converted as well, the functions that `f`
            calls or defines are not. Variables that a loop assigns keep their shapes and dtypes.
            What cannot be converted (a `return` inside of a loop, an attribute that is assigned)
            stays Python, and is named, with its line, where it meets a traced condition. A loop
            over anything but `range(...)` stays as it is, one over `list(range(n))` too.
        checks: "nan", "bounds", or both: what calls of the compiled function look for, at a cost.
            "nan" raises NonFiniteError for the first NaN that an op makes of numbers, or infinity
            that it makes of finite ones, forward or backward, also in loops and fused kernels, and
            for an argument that is a NaN, wherever a result comes from it: what np.where does not
            choose is no mistake. "bounds" says of an index out of bounds which it is. Both name the
            op, the kernel, the element, the operands and the line. When kernels notice something
            the graph runs once more, in NumPy; functions whose infinities are meant are slow.

    Raises:
        TypeError: f is no function, or the budget no whole number. ArgumentError: it is negative.
        DeviceError: target="cuda", and there is no GPU, or a package is missing; the message says
            what to install.
        UnsupportedError: loops="native", and the source of f cannot be read; or
            matmul_precision="tf32" for the CPU.
        GraphError: of the kind that fits, naming the line of `f`, where `f` cannot be traced.

    >>> import numpy as np, graphdl as gd
    >>> f = gd.compile(lambda x: np.sum(np.tanh(x) ** 2))
    >>> round(float(f(np.ones(3))), 6)
    1.740077

    >>> @gd.compile(loops="native")
    ... def root(x):
    ...     y, steps = x, 0
    ...     while abs(y * y - x) > 1e-9 * x:
    ...         y = 0.5 * (y + x / y)
    ...         steps += 1
    ...     return y, steps
    >>> root(2.0)
    (array(1.41421356), array(4))

    >>> slope = gd.compile(gd.grad(lambda x: np.sum(np.sqrt(x))), checks="nan")
    >>> try:
    ...     slope(np.array([1.0, 0.0]))
    ... except gd.NonFiniteError as error:
    ...     print(str(error).splitlines()[0])
    divide gave inf at [1] of float64[2]: divide(0.5, 0.0)
    """
    if f is not None and not callable(f):
        raise TypeError(f"gd.compile takes a function, not {f!r:.60}")
    if f is None:
        return functools.partial(
            compile,
            target=target,
            donate=donate,
            memory_budget=memory_budget,
            matmul_precision=matmul_precision,
            loops=loops,
            checks=checks,
        )
    budget = None if memory_budget is None else _bytes_of(memory_budget)
    if loops not in (None, "native"):
        raise ArgumentError(f"loops={loops!r}; write 'native' or None")
    numbers = (donate,) if isinstance(donate, int) else tuple(donate)
    wanted = _checks_of(checks)
    return _compiled(
        with_native_loops(f) if loops else f, target, numbers, budget, wanted,
        matmul_precision,
    )  # fmt: skip


def _compiled(
    f: Function,
    target: str,
    donate: Sequence[int],
    memory_budget: int | None,
    checks: frozenset[str],
    matmul_precision: str = "float32",
) -> Compiled:
    """A compiled function for a target. Raises UnsupportedError or DeviceError if there is none."""
    if matmul_precision not in ("float32", "tf32"):
        raise ArgumentError(f"matmul_precision={matmul_precision!r}; write 'float32' or 'tf32'")
    if target == "cpu":
        if matmul_precision != "float32":
            raise UnsupportedError(
                "matmul_precision='tf32' is of GPUs: products on the CPU are float32; leave it "
                "away, or compile with target='cuda'"
            )
        return Compiled(f, target, donate, memory_budget, checks)
    if checks:
        raise UnsupportedError(
            f"checks= looks into programs for the CPU only, not for target={target!r}; "
            f"leave target= away to look for the mistake"
        )
    # imported here: it stands on this module, and most processes have no use for it
    from graphdl.device import DeviceCompiled

    return DeviceCompiled(f, target, donate, memory_budget, matmul_precision)


def _bytes_of(memory_budget: object) -> int:
    if not isinstance(memory_budget, (int, np.integer)) or isinstance(memory_budget, bool):
        raise TypeError(
            f"memory_budget= takes a number of bytes, an int such as 500_000_000, not "
            f"{memory_budget!r:.60}"
        )
    if memory_budget < 0:
        raise ArgumentError(f"memory_budget={memory_budget}; write a number of bytes, 0 or more")
    return int(memory_budget)


#: What `compile(checks=...)` takes.
_CHECKS = ("nan", "bounds")


def _checks_of(checks: str | Collection[str]) -> frozenset[str]:
    wanted = frozenset([checks] if isinstance(checks, str) else checks)
    if not wanted <= {*_CHECKS}:
        raise ArgumentError(
            f"checks={checks!r}; write 'nan', 'bounds', or both in a tuple: ('nan', 'bounds')"
        )
    return wanted


def _self_compiling(transform: Callable[..., Function]) -> Callable[..., Compiled]:
    """A transformation whose result builds graph inside a trace, and compiles itself outside."""

    def transformed(f: Function, *args: Any, **kwargs: Any) -> Compiled:
        recipe = transform.__name__, (f, *args), kwargs
        budget, target, checks, precision = None, "cpu", frozenset[str](), "float32"
        if isinstance(f, Compiled):
            budget, target, checks = f.memory_budget, f.target, f.checks
            precision, f = f.matmul_precision, f._f
        inner = transform(f, *args, **kwargs)
        compiled = _compiled(inner, target, (), budget, checks, precision)
        compiled._recipe = recipe
        return compiled

    return transformed


def _transformed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled:
    """What the transformation of that name makes, anew: for pickles."""
    made: Compiled = _TRANSFORMATIONS[name](*args, **kwargs)
    return made


_grad = _self_compiling(transforms.grad)
_value_and_grad = _self_compiling(transforms.value_and_grad)


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The function that returns the gradient of f.

    Args:
        f: a function of arrays that returns one number (with `has_aux`: that and anything else).
        argnums: the argument, or arguments, to differentiate with respect to; trees of floats.
        has_aux: whether f returns (value, aux); the result then is (gradient, aux).

    Raises:
        GradientError: f returns something else than one float, or an argument to differentiate is
            no float.

    Returns:
        A function of the same arguments. The gradient nests as the argument does, a tuple of them
        if `argnums` is a sequence. It may be differentiated again. Where a derivative is not
        unique, see graphdl.ops.pointwise for the conventions.

        By a complex argument z = x + iy the gradient is df/dx - i df/dy, as in JAX and autograd:
        a small step dz changes f by the real part of sum(gradient * dz), and the direction of
        steepest descent is -np.conj(gradient). f has to return a real number; the derivative of a
        function with complex results comes from gd.vjp with a complex cotangent (1 for one that has
        a complex derivative).

    >>> import numpy as np, graphdl as gd
    >>> gd.grad(lambda x: np.sum(x ** 3))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    return _grad(f, argnums, has_aux)


def value_and_grad(
    f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """The function that returns (value, gradient) of f: both from one pass. See `grad`.

    >>> import numpy as np, graphdl as gd
    >>> value, gradient = gd.value_and_grad(lambda x: np.sum(x ** 2))(np.array([1.0, 2.0]))
    >>> float(value), gradient
    (5.0, array([2., 4.]))
    """
    return _value_and_grad(f, argnums, has_aux)


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The value of f at `primals`, and the function that pulls cotangents back.

    Returns:
        (value, pull_back) or, with `has_aux`, (value, pull_back, aux): `pull_back(cotangent)` takes
        a tree like the value and returns a tuple of one cotangent for each primal.

    Raises:
        GradientError: a primal is no float.
        ShapeError: a cotangent that is not of the value's nesting, or of its shapes.

    >>> import numpy as np, graphdl as gd
    >>> value, pull_back = gd.vjp(np.sin, np.array([0.0, 1.0]))
    >>> pull_back(np.array([1.0, 0.0]))
    (array([1., 0.]),)
    """
    if current_trace() is not None:
        return transforms.vjp(f, *primals, has_aux=has_aux)
    for leaf, label in zip(leaves_of(primals), leaf_names(f, primals, {}), strict=True):
        type = leaf_type(leaf, label)[0]
        if not type.is_inexact:
            raise locate(
                GradientError(
                    f"argument {label} of {transforms.name_of(f)} is {type}: only floats have "
                    f"gradients. Pass it as float, or bind it in a closure"
                )
            )
    value = Compiled(f)(*primals)

    def pulled(cotangent: Any, *arguments: Any) -> Any:
        return transforms.vjp(f, *arguments, has_aux=has_aux)[1](cotangent)

    compiled = Compiled(pulled)
    if has_aux:
        value, aux = value
        return value, lambda cotangent: compiled(cotangent, *primals), aux
    return value, lambda cotangent: compiled(cotangent, *primals)


_hvp = _self_compiling(transforms.hvp)
_jacobian = _self_compiling(transforms.jacobian)
_hessian = _self_compiling(transforms.hessian)
_vmap = _self_compiling(transforms.vmap)
_TRANSFORMATIONS = {
    "grad": _grad,
    "value_and_grad": _value_and_grad,
    "hvp": _hvp,
    "jacobian": _jacobian,
    "hessian": _hessian,
    "vmap": _vmap,
}


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of f at `primals`, and its derivative along `tangents`: forward mode.

    Args:
        primals: the arguments of f; floats, or trees of them.
        tangents: a direction for each, of the same nesting and shapes.

    Returns:
        (value, tangent): the tangent nests as the value; it is zero for what is no float.

    Raises:
        GradientError: a primal is no float.
        ShapeError: tangents that are not of the primals' nesting, or of their shapes.

    >>> import numpy as np, graphdl as gd
    >>> value, tangent = gd.jvp(np.square, (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    >>> value, tangent
    (array([1., 4.]), array([2., 0.]))
    """
    if current_trace() is not None:
        return transforms.jvp(f, primals, tangents)

    def pushed(primals: Any, tangents: Any) -> Any:
        return transforms.jvp(f, primals, tangents)

    result: tuple[Any, Any] = Compiled(pushed)(tuple(primals), tuple(tangents))
    return result


def hvp(f: Function, argnums: int = 0) -> Function:
    """The function (*args, v) -> the Hessian of f times v, without the Hessian.

    f returns one float; `v` is like the argument `argnums`: of its nesting and shapes, as is the
    result. The cost is a few times that of f. Raises what `grad` and `jvp` raise.

    >>> import numpy as np, graphdl as gd
    >>> gd.hvp(lambda x: np.sum(x ** 3))(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    array([ 6., 12.])
    """
    return _hvp(f, argnums)


def jacobian(f: Function, argnums: int | Sequence[int] = 0, mode: str | None = None) -> Function:
    """The derivatives of each output of f with respect to each input.

    Args:
        f: a function of arrays, or of trees of them, that returns an array or a tree of arrays.
        argnums: the argument, or arguments, to differentiate with respect to.
        mode: "forward", one product of the Jacobian with a unit vector for each input; "reverse",
            one for each output; by default, whichever are fewer.

    Returns:
        A function of the arguments of f. For an output of shape s and an input of shape t the
        derivatives have shape s + t; outputs nest outside, inputs inside, as a tuple if `argnums`
        is a sequence. Where most of the derivatives are zero see `sparse_jacobian`.

    Raises:
        GradientError: an argument of `argnums` is no float, or does not exist.
        ArgumentError: another mode.

    >>> import numpy as np, graphdl as gd
    >>> gd.jacobian(lambda x: x[:2] * x[1:])(np.array([1.0, 2.0, 3.0]))
    array([[2., 1., 0.],
           [0., 3., 2.]])
    """
    return _jacobian(f, argnums, mode)


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The second derivatives of a scalar function: for an input of shape t, of shape t + t.

    Of a tree of inputs, a tree of trees; of several arguments, tuples of tuples. It is the Jacobian
    of the gradient in forward mode. Where most of it is zero see `sparse_hessian`. Raises what
    `grad` raises.

    >>> import numpy as np, graphdl as gd
    >>> gd.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 2.0]))
    array([[4., 2.],
           [2., 0.]])
    """
    return _hessian(f, argnums)


def vmap(f: Function, in_axes: Any = 0, out_axes: Any = 0) -> Function:
    """The function f of one example as a function of a whole batch.

    Args:
        in_axes: the batch axis of the arguments: an int for all, or a tuple with an int, None (not
            batched) or a tree of them for each argument.
        out_axes: where the batch axis stands in the results.

    Raises:
        ShapeError: batch axes of different sizes, or axes that do not nest like the arguments.
        AxisError: an argument that does not have its axis.
        UnsupportedError: an op that has no rule for batches.

    Loops and branches stay loops and branches. Where the examples disagree, a `while_loop` runs
    until the last one is done, and each branch runs that any example takes.

    >>> import numpy as np, graphdl as gd
    >>> dot = gd.vmap(lambda a, b: np.sum(a * b), in_axes=(0, None))
    >>> dot(np.arange(6.0).reshape(3, 2), np.array([1.0, 10.0]))
    array([10., 32., 54.])
    """
    return _vmap(f, in_axes, out_axes)


def _in_trace(build: Callable[..., Any]) -> Callable[..., Any]:
    """A function that builds graph inside a trace, and outside traces and compiles itself."""

    @functools.wraps(build)
    def run(*args: Any, **kwargs: Any) -> Any:
        if current_trace() is not None:
            return build(*args, **kwargs)
        return Compiled(lambda: build(*args, **kwargs))()

    return run


def scan(
    f: Function, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """Carry a state through the rows of arrays; compiled as a native loop, not unrolled.

    Args:
        f: (carry, x) -> (carry, y). The carry keeps its nesting, shapes and dtypes.
        init: the first carry, a tree of arrays.
        xs: arrays whose first axis is stepped through, or a tree of them, or None.
        length: the number of steps, where there are no xs.
        reverse: whether to begin with the last row.

    Returns:
        (the last carry, the ys of all steps stacked along a new first axis).

    Raises:
        ShapeError: a carry that a step changes in nesting or shape; xs and length that differ.
        DtypeError: a carry that a step changes in dtype; a step without a pair as result.

    >>> import numpy as np, graphdl as gd
    >>> total = gd.compile(lambda x: gd.scan(lambda c, x: (c + x, c * x), 0.0, x))
    >>> total(np.array([1.0, 2.0, 3.0]))
    (array(6.), array([0., 2., 9.]))
    """
    result: tuple[Any, Any] = _in_trace(transforms.scan)(f, init, xs, length, reverse)
    return result


def fori_loop(lower: Any, upper: Any, body: Function, init: Any) -> Any:
    """body(i, carry) for i from lower to upper - 1; returns the last carry.

    With Python integers as bounds it is a `scan`, with traced ones a `while_loop`. The carry is a
    tree of arrays that keeps its nesting, shapes and dtypes, or ShapeError or DtypeError is raised;
    i is an int64.

    >>> import numpy as np, graphdl as gd
    >>> float(gd.compile(lambda x: gd.fori_loop(0, 3, lambda i, c: c * x, 1.0))(2.0))
    8.0
    """
    return _in_trace(transforms.fori_loop)(lower, upper, body, init)


def while_loop(cond: Function, body: Function, init: Any) -> Any:
    """body(carry) as long as cond(carry), a bool, holds; returns the last carry.

    The carry is a tree of arrays that keeps its nesting, shapes and dtypes, or ShapeError or
    DtypeError is raised. Its gradient runs the steps a second time and keeps what it needs of each
    in memory that grows with their number (MemoryError where there is none left) and is kept for
    the next call.

    >>> import numpy as np, graphdl as gd
    >>> float(gd.compile(lambda x: gd.while_loop(lambda c: c < 100, lambda c: c * x, 1.0))(3.0))
    243.0
    """
    return _in_trace(transforms.while_loop)(cond, body, init)


def cond(pred: Any, true: Function, false: Function, *args: Any) -> Any:
    """true(*args) if pred else false(*args); only that branch runs.

    `pred` is one bool or number. Both branches return the same nesting, shapes and dtypes, or
    ShapeError is raised. Gradients flow through the branch that runs.

    >>> import numpy as np, graphdl as gd
    >>> float(gd.compile(lambda x: gd.cond(x > 0, np.sqrt, np.negative, x))(-4.0))
    4.0
    """
    return _in_trace(transforms.cond)(pred, true, false, *args)


def switch(index: Any, branches: Sequence[Function], *args: Any) -> Any:
    """branches[index](*args), the index clamped to those there are; only that branch runs.

    `index` is one integer. All branches return the same nesting, shapes and dtypes, or ShapeError
    is raised. Gradients flow through the branch that runs.

    >>> import numpy as np, graphdl as gd
    >>> float(gd.compile(lambda i, x: gd.switch(i, [np.sin, np.square], x))(1, 3.0))
    9.0
    """
    return _in_trace(transforms.switch)(index, branches, *args)


def map(f: Function, xs: Any) -> Any:
    """f for each row of xs, stacked: a `scan` without a carry.

    On a CPU threads take whole rows, where there are enough of them; a GPU, and effects such as
    `gd.debug.print`, take one after the other. `xs` are arrays of one first axis, or a tree of them
    (otherwise ShapeError); results have that axis too. `vmap` computes the same for all rows at
    once, in more memory.

    >>> import numpy as np, graphdl as gd
    >>> gd.compile(lambda x: gd.map(np.sum, x))(np.ones((2, 3)))
    array([3., 3.])
    """
    return _in_trace(transforms.map)(f, xs)


def stop_gradient(tree: Any) -> Any:
    """The same values, through which no gradient flows.

    >>> import numpy as np, graphdl as gd
    >>> float(gd.grad(lambda x: x * gd.stop_gradient(x))(3.0))
    3.0
    """
    return tree if current_trace() is None else transforms.stop_gradient(tree)


def checkpoint(f: Function) -> Function:
    """The function f, of which a gradient keeps the arguments and computes the rest anew.

    A gradient reads values from inside of functions that ran long before, and all of them are kept
    until then. Those inside of a checkpointed function are not: when the backward pass comes to it
    the function is computed a second time from its arguments (and from what it reads from outside).
    So memory is traded for time; with a checkpoint around each of n layers, and around groups of
    sqrt(n) of them, it grows with sqrt(n) at the price of a third forward pass.

    The value, and derivatives of any order, are those of f; forward mode computes nothing twice.
    Checkpoints may nest, and stand in loops. Outside a trace it is f.

    Args:
        f: a function of arrays, or of trees of them; all else among its arguments is static.

    >>> import numpy as np, graphdl as gd
    >>> layer = gd.checkpoint(lambda x: np.tanh(np.sin(x) * x))
    >>> gradient = gd.grad(lambda x: np.sum(layer(layer(x))))
    >>> np.round(gradient(np.array([0.5, 1.0])), 4)
    array([0.3994, 0.7081])
    """
    return transforms.checkpoint(f)


def set_num_threads(n: int) -> None:
    """Let programs use at most `n` threads; results do not depend on it, to the bit.

    Raises TypeError where `n` is no int, ValueError where it is less than 1. The default is
    GRAPHDL_NUM_THREADS, or one thread for each core.

    >>> import graphdl as gd
    >>> gd.set_num_threads(0)
    Traceback (most recent call last):
        ...
    ValueError: the number of threads must be at least 1, not 0
    """
    pool.set_num_threads(n)


__all__ = [
    "Compiled",
    "checkpoint",
    "compile",
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
    "scan",
    "set_num_threads",
    "stop_gradient",
    "switch",
    "trace",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
