"""An executable: what one specialisation of a compiled function is, open to be read."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import optree
from msgspec import Struct

from graphdl import visualize
from graphdl.collecting import uncollected
from graphdl.errors import (
    GraphError,
    GraphIndexError,
    MemoryBudgetWarning,
    NonFiniteError,
    StepsMemoryError,
    UnsupportedError,
)
from graphdl.graph import Graph, Node
from graphdl.kernels import memory
from graphdl.kernels.callbacks import CALLBACKS, calls_python
from graphdl.kernels.cpu import build, entry, plan
from graphdl.kernels.cpu.native import Kernel
from graphdl.kernels.program import (
    FAILED,
    NOT_FINITE,
    OUT_OF_BOUNDS,
    OUT_OF_MEMORY,
    RAISED,
    Launch,
    Memory,
    Program,
)
from graphdl.ops import control, indexing, linalg, update
from graphdl.ops.op import Op
from graphdl.ops.pointwise import watch
from graphdl.registration import fields_of
from graphdl.tracing import user_source, where_text
from graphdl.trees import flatten, unflatten
from graphdl.types import TensorType, kind_of

if TYPE_CHECKING:
    from graphdl.compiler.fuse import Group
    from graphdl.compiling import Made, Target
    from graphdl.explain import Explanation
    from graphdl.kernels.cpu.image import Image, LoadedImage
    from graphdl.kernels.shortfall import Shortfall
    from graphdl.native import saved
    from graphdl.native.signature import Signature
    from graphdl.profile import Report

#: The ops that find an index out of bounds when a program runs.
_CHECKED = (indexing.position, indexing.gather, indexing.scatter_add, update.scatter)


class KernelInfo(Struct, frozen=True):
    """One launch of the program.

    source: the Python text that Numba compiled, with the user's lines as comments. nodes: the names
    of the graph's nodes that it computes. bytes: memory that it reads and writes, at the least.
    flops: operations. iterations: what threads share.
    """

    name: str
    source: str
    nodes: tuple[str, ...]
    bytes: int
    flops: int
    iterations: int
    parallel: bool


class Executable:
    """One specialisation of a compiled function.

    graph      as traced                      optimized   after the passes
    passes     the graph after each pass      kernels     what runs, in order
    source     the text of all kernels        memory      arena, results, sharing
    seconds    what making it took, by phase

    Where the cache holds the plan of an earlier process, which had the same graph, no pass runs
    before somebody reads what passes make (`graphdl.kernels.cpu.plan`); until then `seconds` has
    the phases "plan" and "kernels" only.

    Call it with arguments of exactly the nesting, shapes and dtypes that it was made for; TypeError
    otherwise. `gd.compile(f).lower(*args)` makes it.

    >>> import numpy as np, graphdl as gd
    >>> executable = gd.compile(lambda x: np.sum(np.exp(x) * x)).lower(np.zeros(3))
    >>> float(executable(np.zeros(3)))
    0.0
    >>> [kernel.name for kernel in executable.kernels]
    ['exp_multiply_sum']
    >>> print(executable.optimized.operations[-1])
    sum(float64[3], axes=(0,)) -> float64[]
    """

    def __init__(
        self,
        graph: Graph,
        weak: Sequence[bool],
        args: tuple[Any, ...],
        donated: Sequence[int] = (),
        checks: frozenset[str] = frozenset(),
        memory_budget: int | None = None,
    ) -> None:
        self.graph = graph
        self._weak = tuple(weak)
        self._donated = tuple(donated)
        self._checks = checks
        self._memory_budget = memory_budget
        self._lock = RLock()
        self.seconds: dict[str, float] = {}
        #: The argument that each result is written over, or None.
        with uncollected():
            self._over = self._start()
        self._warn_of_memory()
        self._leaves = [self._leaf(i) for i in range(len(graph.inputs))]
        self._results = self._result_leaves()
        self._tree = _nested(args, iter(self._leaves), is_result=False)
        self._debug(_debug_level())

    def _target(self) -> Target:
        """What the program is made for.

        A program that the cache holds needs none of the compiler: its 50 modules would be a
        fifteenth of the time from the start of a process to the first result.
        """
        from graphdl.compiling import CPU

        return CPU

    @cached_property
    def _made(self) -> Made:
        """The passes, and what the last graph becomes."""
        made = self._target().made(self.graph, self._donated, self._checks, self._memory_budget)
        self.seconds |= made.seconds
        return made

    @property
    def passes(self) -> list[tuple[str, Graph]]:
        """The graph after each pass, by the pass's name."""
        return self._made.passes

    @property
    def optimized(self) -> Graph:
        """The graph after the passes."""
        return self._made.passes[-1][1]

    @property
    def memory(self) -> Memory:
        """Where values lie, and what that takes."""
        return self._made.memory

    @property
    def _program(self) -> Program:
        return self._made.program

    @property
    def _groups(self) -> Sequence[Group]:
        return self._made.groups

    @property
    def _unguarded(self) -> Graph:
        return self._made.unguarded

    def _start(self) -> Sequence[int | None]:
        """Make the program something that runs; which argument each result is written over."""
        planned = self._planned()
        self._ready = planned or plan.ready(self._native, self._made.shortfall)
        return self._ready.over

    @property
    def _shortfall(self) -> Shortfall | None:
        """By how much the memory budget is not kept."""
        return self._ready.shortfall

    def _warn_of_memory(self) -> None:
        if self._memory_budget is not None and self._shortfall is not None:
            caller = user_source()
            file, line = (caller.file, caller.line) if caller is not None else (__file__, 1)
            warnings.warn_explicit(str(self._shortfall), MemoryBudgetWarning, file, line)

    def _planned(self) -> plan.Ready | None:
        """The program that another process has made of the same; or None, and this one is kept."""
        if self._checks:
            return None
        start = perf_counter()
        key = plan.key_of(self.graph, self._donated, self._memory_budget)
        if key is None:
            return None
        found = plan.find(key)
        if found is None:
            plan.keep(key, self._native, self._made.shortfall)
        else:
            self.seconds["plan"] = perf_counter() - start
        return found

    @cached_property
    def _native(self) -> build.Native:
        """The program as it is built in this process."""
        made = self._made
        start = perf_counter()
        native = build.build(made.program, made.memory)
        self.seconds["kernels"] = perf_counter() - start
        return native

    def _debug(self, level: int) -> None:
        """GRAPHDL_DEBUG=1 explains each program as it is made, 2 adds graphs, 3 kernels."""
        texts: list[Callable[[], object]] = [self.explain] if level >= 1 else []
        if level >= 2:
            texts += [partial("{}:\n{}".format, name, graph) for name, graph in self.passes]
        if level >= 3:
            texts.append(lambda: self.source)
        for text in texts:
            print(text(), file=sys.stderr)

    def _leaf(self, index: int) -> entry.Tree:
        type = self.graph.inputs[index].type
        if self._weak[index] and not type.is_complex:
            return entry.ScalarSpec(
                {"b": bool, "i": int, "f": float}[kind_of(type.dtype)], type.dtype
            )
        return build.array_spec(type, index in self._over)

    def _result_leaves(self) -> list[entry.Tree]:
        return [
            entry.New(made.dtype, made.shape) if leaf is None else entry.Argument(leaf)
            for leaf, made in zip(self._over, self.graph.outputs, strict=True)
        ]

    # --- calling --------------------------------------------------------------------------

    @cached_property
    def flat(self) -> Callable[..., tuple[Any, ...]]:
        """The function of the leaves of the arguments that returns the leaves of the result."""
        return self._flat(self._ready)

    def _flat(self, made: build.Runnable, is_timed: bool = False) -> Callable[..., tuple[Any, ...]]:
        result = entry.TupleSpec(tuple(self._results))
        call = build.entry_of(made, self._leaves, result, is_timed=is_timed)
        return self._watched(call) if self._checks else self._checked(call, None)

    def with_copies(self, leaves: Sequence[Any]) -> list[Any]:
        """The leaves of a call, with copies of the donated ones."""
        return [np.array(leaf) if i in self._over else leaf for i, leaf in enumerate(leaves)]

    def entry(self, fallback: Callable[..., Any]) -> Callable[..., Any]:
        """The function of the nested arguments; what does not fit goes to `fallback`."""
        result = _nested(
            unflatten(self.graph.out_tree, list(range(len(self._results))))
            if self.graph.out_tree is not None
            else tuple(range(len(self._results))),
            iter(self._results),
            is_result=True,
        )
        if self._tree is None or result is None or self._checks:
            return fallback
        assert isinstance(self._tree, entry.TupleSpec)
        direct = None if self._ready.statuses else fallback
        call = build.entry_of(self._ready, self._tree.items, result, direct, self._results)
        return call if direct else self._checked(call, fallback)

    def _checked(
        self, call: Callable[..., Any], fallback: Callable[..., Any] | None
    ) -> Callable[..., Any]:
        """The call, and an error if a kernel has failed: an index out of bounds, a singular matrix.

        The fallback runs when the lock is free again: it may wait for another program, which in
        another thread may fall back to this one.
        """
        if not self._ready.statuses:
            return call

        def checked(*args: Any, **kwargs: Any) -> Any:
            result, failed, code = self._with_status(call, *args, **kwargs)
            if result is NotImplemented and fallback is not None:
                return fallback(*args, **kwargs)
            if failed is not None:
                raise self._failure(failed, code)
            return result

        return checked

    def _with_status(
        self, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[Any, Program | None, int]:
        """What a call returns, which of its programs has failed, if one has, and how."""
        words = self._ready.statuses
        with self._lock:  # a long program lets other threads run, which share the status
            for word in words:
                word[0] = 0
            result = call(*args, **kwargs)
            failed = next((i for i, word in enumerate(words) if word[0]), None)
            if failed is None:
                return result, None, 0
            return result, self._native.status[failed].program, int(words[failed][0])

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call of a program that was compiled with `checks`."""
        from graphdl import checks  # what is rarely used

        def watched(*leaves: Any) -> Any:
            given = self.with_copies(leaves)
            result, failed, code = self._with_status(call, *leaves)
            if result is NotImplemented:
                return result
            if "nan" in self._checks and (code == NOT_FINITE or checks.has_nan(given)):
                checks.raise_not_finite(self._unguarded, self._program, given, result)
            if "bounds" in self._checks and code == OUT_OF_BOUNDS:
                checks.raise_out_of_bounds(self._unguarded, self._program, given)
            if failed is not None and code != NOT_FINITE:
                raise self._failure(failed, code)
            return result

        return watched

    def _failure(self, program: Program, code: int) -> BaseException:
        """The error that a status word tells of."""
        if code == OUT_OF_BOUNDS:
            return GraphIndexError(f"an index array is out of bounds{self._lines_of(_CHECKED)}")
        if code == OUT_OF_MEMORY:
            return StepsMemoryError(
                f"no memory is left for the steps of a loop, which its gradient needs"
                f"{self._lines_of([control.while_])}"
            )
        if code == RAISED:
            return self._raised()
        node = program.checks[code - FAILED]
        where = where_text(program.graph.sources.get(node))
        called = CALLBACKS.get(node.op.symbol)
        if called is not None and called.raised is not None:
            error, called.raised = called.raised, None
            return error
        if node.op.family == "user":
            return GraphError(f"{node.op.name}: {node.op.failure}{where}")
        return linalg.failure(node.op, where)

    def _raised(self) -> GraphError:
        """The error that a scalar function of the user's has raised an exception."""
        names = dict.fromkeys(f"gd.op({node['name']})" for node, _ in self._found([watch]))
        return GraphError(f"{' or '.join(names)}: {watch.failure}{self._lines_of([watch])}")

    def _found(self, ops: Sequence[Op]) -> Iterator[tuple[Node, Graph]]:
        """All nodes of these ops, of bodies too, and the graphs that they are in."""
        pending = [self.graph]
        while pending:
            graph = pending.pop()
            for node in graph.operations:
                if node.op in ops:
                    yield node, graph
                if node.op.family == "control":
                    pending += control.bodies_of(node)

    def _lines_of(self, ops: Sequence[Op]) -> str:
        """The user's lines of all nodes of these ops."""
        lines: set[str] = set()
        for node, graph in self._found(ops):
            if node in graph.sources:
                lines.add(where_text(graph.sources[node]))
        return "".join(sorted(lines))

    def __call__(self, *args: Any) -> Any:
        leaves = self._leaves_of(args)
        results = self.flat(*leaves)
        if results is NotImplemented:  # donated arrays that are read-only, or another argument too
            results = self._of_copies(leaves)
        return unflatten(self.graph.out_tree, results)

    def _leaves_of(self, args: Sequence[Any]) -> list[Any]:
        """The leaves of a call, arrays laid out as the program reads them."""
        leaves, tree = flatten(tuple(args))
        if self.graph.in_tree is not None and tree != self.graph.in_tree:
            raise TypeError(f"arguments nest as {tree}, not as {self.graph.in_tree}")
        return [entry.prepare(leaf) if _is_array(leaf) else leaf for leaf in leaves]

    def _of_copies(self, leaves: Sequence[Any]) -> Any:
        """The results of a call that keeps the donated arguments as they are."""
        results = self.flat(*self.with_copies(leaves))
        if results is NotImplemented:
            wanted = ", ".join(str(node.type) for node in self.graph.inputs)
            given = ", ".join(_described(leaf) for leaf in leaves)
            raise TypeError(f"this executable takes ({wanted}), not ({given})")
        return results

    # --- calling from native code -----------------------------------------------------------

    @cached_property
    def njit(self) -> Any:
        """The program as a function for nopython code. Reading it imports Numba.

        It takes what a call of the executable takes, and returns what that returns, but for this:

        - Arrays are exactly of the dtype, the number of axes and the shape that the program was
          made for, contiguous and aligned. A typing error says which is not, when the caller is
          compiled; ShapeError when it runs, if only the shape differs.
        - What has no axes is a number: as a result always, as an argument where a number was given
          to make the program (then any number that NumPy would convert), or, of the same dtype.
        - Lists and dicts are tuples, a dict by its sorted keys.
        - `out=`, nested as the result, gives arrays to write to, or None for a new one. They must
          share no memory with each other or with an argument: ArgumentError.
        - A donated argument is written over, and returned as the result.

        A call costs some tens of nanoseconds beside the kernels, and what it allocates: each result
        that is an array and is not given by `out=`. It may be made from any thread, from many at
        once, and in `prange`: each call that runs has tables and an arena of its own, which are
        kept for the next one. The memory of a program whose `njit` was read is never given back.
        Numba takes longer the more arrays there are, as for any function of many: about a second
        for 10, 15 for 40.

        Raises what a call raises; NonFiniteError of `checks="nan"` does not say where. Reading it
        raises UnsupportedError for a program that calls Python (gd.debug).

        >>> import numba, numpy as np, graphdl as gd
        >>> slope = gd.compile(gd.value_and_grad(lambda x: np.sum(x * x))).lower(np.zeros(3)).njit
        >>> @numba.njit
        ... def descend(x):
        ...     for _ in range(20):
        ...         value, gradient = slope(x)
        ...         x = x - 0.25 * gradient
        ...     return x
        >>> np.round(descend(np.array([1.0, 2.0, 3.0])), 5)
        array([0.    , 0.    , 0.    ])
        """
        from graphdl.native import nopython  # imports Numba

        return nopython.function(self._loaded, self._c_signature)

    @cached_property
    def address(self) -> int:
        """The address of a C function: `int f(void **arguments, void **results)`.

        `arguments` are the addresses of the leaves of the arguments, `results` of those of the
        results, in order, but for results that are written over donated arguments. Each is
        C-contiguous memory of the leaf's dtype (a Python number is float64, int64 or a bool of one
        byte), aligned as its dtype; a result shares none with another leaf. Nothing is checked.

        It returns 0, or says why there are no results: 1, an index was out of bounds; 2, there was
        no memory; 3, a NaN or an infinity, with `checks="nan"`; from 4 on, a matrix was not fit for
        an operation, or a function of `gd.op` has raised.

        It may be called from any thread, from many at once, with or without the interpreter's lock,
        as long as the executable lives. Raises UnsupportedError for a program that calls Python
        (gd.debug).

        >>> import ctypes, numpy as np, graphdl as gd
        >>> executable = gd.compile(lambda x: np.cumsum(x * x)).lower(np.zeros(3))
        >>> f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(executable.address)
        >>> x, y = np.array([1.0, 2.0, 3.0]), np.zeros(3)
        >>> f((ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_void_p * 1)(y.ctypes.data)), y
        (0, array([ 1.,  5., 14.]))
        """
        from graphdl.native import pointer  # what is rarely used

        return pointer.address_of(self._loaded, self._c_signature)

    def export_c(self, folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
        """Write the program for C: object files, a header, and an example that calls it.

        The header declares `int NAME(arguments, results)`, a pointer for each array and a number
        for each number of Python's, and says what each is. What links with the object files needs
        the C library and its mathematics (`-lm`), and a BLAS where the header says so; no Python,
        no Numba, no graphdl. The program runs on the calling thread, and may be called from many at
        once. It is compiled for this processor, and runs on those that have all its instructions.

        Args:
            folder: where to write; it is made if need be, and files of these names are replaced.
            name: of the function and the files; by default that of the folder.

        Returns:
            The files: the header and the example, then the objects.

        Raises:
            ArgumentError: the name is none that C takes.
            UnsupportedError: the program calls what only this process has: a function of arrays of
                `gd.op`, gd.debug, SciPy's special functions, LAPACK. The message names it.

        >>> import numpy as np, graphdl as gd, tempfile
        >>> slope = gd.compile(gd.value_and_grad(lambda x: np.sum(np.exp(x)))).lower(np.zeros(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     header, *_ = slope.export_c(folder, "slope")
        ...     print([line for line in header.read_text().splitlines() if "int slope" in line][0])
        int slope(const double *x, double *result0, double *result1);
        """
        from graphdl.native import exported  # what is rarely used

        return exported.export(self._image, self._c_signature, folder, name)

    # --- in a file --------------------------------------------------------------------------

    def __copy__(self) -> Executable:
        return self  # calls of it share nothing

    def __deepcopy__(self, memo: object) -> Executable:
        return self

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(
            "an executable is native code, which cannot be pickled. Write executable.save(path) "
            "and gd.load(path); what gd.compile returns can be pickled where it is a name of its "
            "module"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the executable to a file, from which `gd.load` makes it anew, in any process.

        The file holds the graph as data, with the lines that it comes from, and the object code of
        the kernels. No trace, no import of Numba is needed to load it; on another processor, or
        with other versions of graphdl, Numba or llvmlite, the graph is compiled again.

        Returns the path. Raises UnsupportedError for a program with functions of Python (`gd.op`,
        gd.debug), for trees of types other than tuples, lists, dicts and None, and for one of a
        GPU; OSError where the file cannot be written.

        >>> import numpy as np, graphdl as gd, tempfile
        >>> double = gd.compile(lambda x: {"double": x * 2}).lower(np.zeros(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(gd.load(double.save(folder + "/double.graphdl"))(np.ones(3)))
        {'double': array([2., 2., 2.])}
        """
        from graphdl.native import saved  # what is rarely used

        asked = saved.Asked(
            list(self._weak), list(self._donated), sorted(self._checks), self._memory_budget
        )
        return saved.save(path, self.graph, asked, _native)

    @cached_property
    def _loaded(self) -> LoadedImage:
        from graphdl.kernels.cpu import image  # what is rarely used

        return image.load(self._image)

    @cached_property
    def _image(self) -> Image:
        from graphdl.kernels.cpu import image  # what is rarely used

        if calls_python(self._program):
            raise UnsupportedError(
                "this program calls a Python function (gd.debug): native code cannot call it "
                "without the interpreter's lock. Take the gd.debug calls out, or call the "
                "executable itself"
            )
        return image.image_of(self._native)

    @cached_property
    def _c_signature(self) -> Signature:
        """What callers in other languages are told."""
        from graphdl.native import nesting, signature  # what is rarely used

        graph = self.graph
        names = [graph.label(i) for i in range(len(graph.inputs))]
        arguments = [
            signature.Argument(
                names[i],
                node.type,
                isinstance(self._leaves[i], entry.ScalarSpec),
                i in self._over,
            )
            for i, node in enumerate(graph.inputs)
        ]
        results = [
            signature.Result(
                f"result{i}" if len(self._results) > 1 else "result",
                node.type,
                leaf.leaf if isinstance(leaf, entry.Argument) else None,
            )
            for i, (node, leaf) in enumerate(zip(graph.outputs, self._results, strict=True))
        ]
        takes = (
            nesting.nest_of(graph.in_tree)
            if graph.in_tree is not None
            else nesting.flat_nest(len(arguments))
        )
        assert isinstance(takes, tuple)
        return signature.Signature(
            tuple(arguments),
            tuple(results),
            takes,
            nesting.nest_of(graph.out_tree),
            self._failures(),
        )

    def _failures(self) -> dict[int, BaseException]:
        """The errors behind the codes that a native call may return."""
        no_memory = StepsMemoryError("no memory is left for what the program keeps while it runs")
        found: dict[int, BaseException] = {OUT_OF_MEMORY: no_memory}
        checks = self._image.checks
        if checks:
            found[OUT_OF_BOUNDS] = self._failure(self._program, OUT_OF_BOUNDS)
        if any(self._found([watch])):
            found[RAISED] = self._raised()
        if "nan" in self._checks:
            found[NOT_FINITE] = NonFiniteError("a value is a NaN or an infinity")
        for check in checks:
            for i in range(len(check.program.checks)):
                found[FAILED + check.first + i] = self._failure(check.program, FAILED + i)
        return dict(sorted(found.items()))

    # --- reading --------------------------------------------------------------------------

    @cached_property
    def kernels(self) -> tuple[KernelInfo, ...]:
        """Every launch that runs, in order."""
        return tuple(
            KernelInfo(
                launch.source.name,
                self._annotated(launch, kernel.path if kernel is not None else ""),
                tuple(self.optimized.labels[node] for node in launch.nodes),
                launch.bytes,
                launch.flops,
                launch.iterations,
                build.is_worth_sharing(launch.cost) and launch.iterations > 1,
            )
            for launch, kernel in self._running
        )

    @property
    def launches(self) -> list[Launch]:
        """What the kernels are made of, in the same order."""
        return [launch for launch, _ in self._running]

    @property
    def _running(self) -> list[tuple[Launch, Kernel | None]]:
        """The launches that have something to do, and their kernels."""
        pairs = zip(self._program.launches, self._native.kernels, strict=True)
        return [pair for pair in pairs if not memory.is_idle(pair[0], self.memory)]

    def _annotated(self, launch: Launch, path: str) -> str:
        """The text of a kernel below what it computes, from which line of the user's."""
        lines = [f"# {launch.source.name}, compiled from {os.path.basename(path) or 'memory'}"]
        if launch.core is not None:
            lines.append(f"# called by the core of {launch.core} on rows of its result c")
        for node in launch.nodes:
            label = self.optimized.labels[node]
            source = self.optimized.sources.get(node)
            operands = ", ".join(self.optimized.labels[operand] for operand in node.inputs)
            text = f"# {label}: {node.type} = {node.op.name}({operands})"
            lines.append(text + (f"   {source}" if source else ""))
        texts = [launch.source.text]
        for i, body in enumerate(launch.programs):
            texts.append(f"# body {i}")
            texts += [inner.source.text for inner in body.program.launches]
        return "\n".join([*lines, *texts])

    @property
    def source(self) -> str:
        """The text of all kernels, in order."""
        return "\n\n".join(kernel.source for kernel in self.kernels)

    def assembly(self) -> str:
        """The machine code of all kernels as text; compiles them anew."""
        kernels = [kernel for kernel in self._native.kernels if kernel is not None]
        return "\n".join(dict.fromkeys(kernel.assembly() for kernel in kernels))

    def explain(self) -> Explanation:
        """What the compiler did and why: print it, or read its parts.

        Each pass with the rules that fired and where, each kernel with what it computes and why it
        ends where it does, each buffer and what it shares memory with; the same of the bodies of
        loops and branches. The passes run again for it: compiling keeps no record.

        >>> import numpy as np, graphdl as gd
        >>> found = gd.compile(lambda x: np.exp(x) - 1.0).lower(gd.spec((3,))).explain()
        >>> [(use.rule, use.count) for step in found.passes for use in step.rules]
        [('exp(x) - 1', 1)]
        """
        from graphdl.explain import explained  # what is rarely used: 5 ms of start-up

        made = self._made
        return explained(self.graph, made.program, made.memory, self.seconds, made.later)

    def visualize(self, path: str | Path, **options: Any) -> Path:
        """Draw what runs: the graph after the passes, with a box around what runs as one kernel.

        The ending of `path` says in which format; it and the options (layout, level, color, theme,
        profile, values, compare) are those of `Graph.visualize`.

        >>> import graphdl as gd, tempfile
        >>> executable = gd.compile(lambda x: x * x).lower(gd.spec((3,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(executable.visualize(folder + "/square.svg").name)
        square.svg
        """
        return visualize.save_executable(self, path, **options)

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return visualize.svg_text(self.optimized, self)

    def _repr_html_(self) -> str:
        """What a notebook shows where it can show pages: the same, with scroll bars."""
        return visualize.html_text(self.optimized, self)

    def profile(self, *args: Any, calls: int | None = None) -> Report:
        """Where the time of a call with these arguments goes, kernel by kernel.

        Ordinary calls alternate with calls of the same kernels under a stopwatch; what ordinary
        calls run is as it was before. The report has a line for each kernel, and for what else a
        call does: reading arguments and making results, waiting for threads (`report.rest`).
        Kernels that run side by side divide the time that they take together. Kernels in the bodies
        of loops and branches are listed below these. What it takes to read the clock is measured by
        itself and taken off; so how far all lines add up to an ordinary call (`report.covered`)
        tells how much of the report to believe.

        Args:
            args: as for a call. Arrays that a call would overwrite are copied.
            calls: how many of each kind; by default as many as fit half a second.

        Returns:
            A report: `print` it, `report.save("profile.json")`, `.trace.json` for Perfetto, `.html`
            for a flame graph.

        Raises:
            TypeError: arguments that the executable was not made for.
            ArgumentError: `calls` less than 1.

        >>> import numpy as np, graphdl as gd
        >>> x = np.ones(1000)
        >>> report = gd.compile(lambda x: np.exp(x) + 1).lower(x).profile(x, calls=3)
        >>> [kernel.name for kernel in report.kernels], report.calls
        (['exp_add'], 3)
        """
        from graphdl.profile import measure  # what is rarely used: 10 ms of start-up

        leaves = self._leaves_of(args)
        self._of_copies(leaves)  # says what is wrong with them
        return measure.measured(
            self._signature,
            self._program,
            self.memory,
            self.flat,
            partial(self._flat, is_timed=True),
            partial(self.with_copies, leaves),
            calls,
        )

    @property
    def _signature(self) -> str:
        takes = ", ".join(str(node.type) for node in self.graph.inputs)
        gives = ", ".join(str(node.type) for node in self.graph.outputs)
        return f"({takes}) -> ({gives})"

    def __repr__(self) -> str:
        return f"<Executable {self._signature}, {len(self.kernels)} kernels>"


def load(path: str | os.PathLike[str]) -> Executable:
    """The executable that `Executable.save` wrote to a file.

    It is called and read like the one that was saved, also in a process without the function that
    it was traced from. Nothing is traced, and Numba is not imported where the file, or the cache,
    has object code for this processor and these versions; otherwise kernels are compiled.

    A file holds machine code. Its checksum tells damage, not intent: load files that you trust.

    Raises FileError for a file that is damaged or none of these; OSError where it cannot be read.

    >>> import numpy as np, graphdl as gd, tempfile
    >>> slope = gd.compile(gd.grad(lambda x: np.sum(x ** 3))).lower(np.zeros(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = gd.load(slope.save(folder + "/slope.graphdl"))
    >>> loaded(np.array([1.0, 2.0])), loaded
    (array([ 3., 12.]), <Executable (float64[2]) -> (float64[2]), 1 kernels>)
    """
    from graphdl.native import saved  # what is rarely used

    return saved.load(path, _made)


def _made(graph: Graph, asked: saved.Asked) -> Executable:
    """The executable of a graph that nobody has traced here."""
    types = [node.type for node in graph.inputs]
    args = unflatten(graph.in_tree, types) if graph.in_tree is not None else ()
    checks = frozenset(asked.checks)
    return Executable(graph, asked.weak, args, asked.donated, checks, asked.memory_budget)


def _native(graph: Graph, asked: saved.Asked) -> build.Native:
    """The program of a graph, built; it is not called."""
    from graphdl.compiling import CPU  # where nothing is cached: see Executable._target

    made = CPU.made(graph, asked.donated, frozenset(asked.checks), asked.memory_budget)
    return build.build(made.program, made.memory)


def _debug_level() -> int:
    text = os.environ.get("GRAPHDL_DEBUG") or "0"
    if not text.isdigit():
        raise ValueError(f"GRAPHDL_DEBUG must be a whole number from 0 to 3, not {text!r}")
    return int(text)


def _described(leaf: Any) -> str:
    return str(TensorType(leaf.dtype, leaf.shape)) if hasattr(leaf, "dtype") else repr(leaf)


def _is_array(leaf: Any) -> bool:
    return not isinstance(leaf, (bool, int, float)) or isinstance(leaf, np.generic)


def _nested(tree: Any, leaves: Any, is_result: bool) -> entry.Tree | None:
    """The tree of specs of a tree of values; None if it has a node that only optree knows."""
    if tree is None:
        return entry.Constant(None) if is_result else entry.StaticSpec(None)
    if type(tree) in (tuple, list):
        items = [_nested(item, leaves, is_result) for item in tree]
        if any(item is None for item in items):
            return None
        kind = entry.TupleSpec if type(tree) is tuple else entry.ListSpec
        return kind(tuple(items))  # type: ignore[arg-type]
    if type(tree) is dict:
        if not all(type(key) is str for key in tree):
            return None
        # the leaves come by sorted keys; a result keeps its own order
        specs = {key: _nested(tree[key], leaves, is_result) for key in sorted(tree)}
        keys = tuple(tree) if is_result else tuple(specs)
        items = [specs[key] for key in keys]
        return None if any(i is None for i in items) else entry.DictSpec(keys, tuple(items))  # type: ignore[arg-type]
    if optree.is_namedtuple(tree):
        items = [_nested(item, leaves, is_result) for item in tree]
        if any(item is None for item in items):
            return None
        return entry.ObjectSpec(type(tree), tuple(items), type(tree))  # type: ignore[arg-type]
    fields = fields_of(type(tree))
    if fields is not None:
        items = [_nested(getattr(tree, name), leaves, is_result) for name in fields.data]
        if not fields.are_stored or any(item is None for item in items):
            return None
        fixed = entry.Constant if is_result else entry.StaticSpec
        items += [fixed(getattr(tree, name)) for name in fields.static]
        names = (*fields.data, *fields.static)
        return entry.ObjectSpec(type(tree), tuple(items), fields.make, names)  # type: ignore[arg-type]
    if isinstance(tree, (int, float, bool, np.ndarray, np.generic, TensorType)):
        leaf: entry.Tree = next(leaves)
        return leaf
    if hasattr(tree, "__array__"):
        leaf = next(leaves)
        return leaf
    return None
