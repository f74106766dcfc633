"""Calling a program from Python: NumPy arrays in, NumPy arrays out, in a fraction of a microsecond.

`build(spec)` gives a built-in function. Called, it walks the arguments by the spec, checks that
each array is exactly what the program was compiled for (type, dtype, shape, C-contiguous, aligned),
allocates the results, runs the tape and builds the results' tree: all of it in one native function
that reads the spec as a table, so that a new program compiles nothing here.

Arguments that do not fit (another shape, a strided view, a list) are passed on to `fallback`, or
make the call return NotImplemented, and nothing has happened. `prepare` makes arrays fit.

The interpreter lock is held from start to end: the tables that the patches write are shared by
all calls of a program. A long program lets go of it while the tape runs, and holds a lock of its
own. Everything else about a call lives on its stack, so a call that happens while results are
being built (a finaliser run by the garbage collector) does no harm.

The native function reads fields of Python's and NumPy's objects. `_native_problem()` compares what
it would read with what Python says of real objects; where they differ, or on an interpreter other
than CPython or one without the lock, the same call is done by `_PythonEntry`, slowly.
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeGuard

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.kernels.cpu import blas, recycle, tape
from graphdl.kernels.cpu import entry_code as code
from graphdl.kernels.cpu.tape import Tape
from graphdl.types import is_bfloat16

Array = NDArray[Any]


# ---------------------------------------------------------------------------- what a program is


class ArraySpec(Struct, frozen=True):
    """An argument that must be a C-contiguous, aligned ndarray in native byte order.

    A donated one must be writeable as well and share no memory with another argument.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    donated: bool = False


class ScalarSpec(Struct, frozen=True):
    """An argument that must be a Python bool, int or float; the program reads it as the dtype."""

    type: type
    dtype: np.dtype[Any]


class StaticSpec(Struct, frozen=True):
    """An argument that must be this very object, such as None; the program does not read it."""

    value: object


class TupleSpec(Struct, frozen=True):
    items: tuple[Tree, ...]


class ListSpec(Struct, frozen=True):
    items: tuple[Tree, ...]


class DictSpec(Struct, frozen=True):
    """A dict with exactly these keys, in any order when it is an argument."""

    keys: tuple[str, ...]
    items: tuple[Tree, ...]


class ObjectSpec(Struct, frozen=True):
    """An object of exactly this class: a named tuple, or one whose attributes are the items.

    Reading the attributes must run no code. As a result it is `make` of the items.
    """

    type: type
    items: tuple[Tree, ...]
    make: Callable[..., Any]
    #: The attributes; None where it is a named tuple.
    names: tuple[str, ...] | None = None


class New(Struct, frozen=True):
    """A result in memory of its own."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Argument(Struct, frozen=True):
    """A result that is an argument: the array at that place among the leaves of all arguments."""

    leaf: int


class Constant(Struct, frozen=True):
    """A result that is always this object."""

    value: object


#: A leaf, or a container of trees. Exact types only: no subclass of tuple, list or dict.
Tree = (
    ArraySpec
    | ScalarSpec
    | StaticSpec
    | TupleSpec
    | ListSpec
    | DictSpec
    | ObjectSpec
    | New
    | Argument
    | Constant
)
Container = TupleSpec | ListSpec | DictSpec | ObjectSpec


class ProgramSpec(Struct, frozen=True):
    """What `build` needs.

    arguments: the tree of each positional argument. result: the tree that the call returns. The
    tape's patches number the leaves of all arguments in their order, then the New results in
    theirs; the base of a scalar is the address of 8 bytes that hold it.

    uses_blas: a kernel calls BLAS, which then keeps to one thread. is_long: the program takes so
    long (say, 50 us) that other Python threads should run meanwhile. A thread that calls it when
    another one is in it waits. is_timed: the tape has room for times, which a stopwatch writes.
    """

    arguments: tuple[Tree, ...]
    result: Tree
    tape: Tape
    uses_blas: bool = False
    is_long: bool = False
    is_timed: bool = False


def leaves(trees: Sequence[Tree]) -> list[Tree]:
    """The leaves of the trees, in order."""
    found: list[Tree] = []
    pending = list(reversed(trees))
    while pending:
        tree = pending.pop()
        if isinstance(tree, Container):
            pending.extend(reversed(tree.items))
        else:
            found.append(tree)
    return found


def prepare(array: Any) -> Array:
    """The array with its native dtype, C-contiguous and aligned: itself if it is so, or a copy.

    >>> prepare(np.arange(6).reshape(2, 3).T).flags.c_contiguous
    True
    """
    given = np.asarray(array)
    native = _native_of(given.dtype)
    if native is None:
        raise TypeError(f"an array of dtype {given.dtype} has no numbers that a program can read")
    if given.dtype != native or not given.flags.c_contiguous or not given.flags.aligned:
        given = given.astype(native, order="C", copy=True, subok=False)
    if given.dtype is not native:
        given = given.view(native)  # long and long long are different types of the same numbers
    return given


# ------------------------------------------------------------------- the spec as tables of int64

#: A call returns the results or NotImplemented.
Entry = Callable[..., Any]


class _Tables:
    """A spec as tables, and all that must live as long as they do."""

    def __init__(self, spec: ProgramSpec, fallback: Entry | None) -> None:
        self.keep: list[object] = [spec, fallback]
        self._waiting = len(spec.arguments)
        argument_rows = self._argument_rows(spec.arguments)
        new, build_rows = self._result_rows(spec.result, len(leaves(spec.arguments)))
        arrays = [
            (i, leaf)
            for i, leaf in enumerate(leaves(spec.arguments))
            if isinstance(leaf, ArraySpec) and 0 not in leaf.shape
        ]
        order = [
            (i, _nbytes(leaf.dtype, leaf.shape), int(leaf.donated))
            for i, leaf in arrays
            if any(other.donated for _, other in arrays)
        ]
        bases = len(leaves(spec.arguments)) + len(new)
        named = spec.tape.patches[:, 0]
        if len(named) and not 0 <= named.min() <= named.max() < bases:
            raise IndexError(f"a patch names base {named.max()} of {bases}")
        library = blas.library() if spec.uses_blas else None
        words = {
            "arguments": len(spec.arguments),
            "leaves": len(leaves(spec.arguments)),
            "argument_rows": self._address(argument_rows),
            "argument_row_count": len(argument_rows),
            "new_rows": self._address(new),
            "new_count": len(new),
            "recycled": int(any(row[4] >= recycle.THRESHOLD for row in new)),
            "build_rows": self._address(build_rows),
            "build_row_count": len(build_rows),
            "patches": spec.tape.patches.ctypes.data,
            "patch_count": len(spec.tape.patches),
            "run": (tape.timed_functions() if spec.is_timed else tape.native_functions())["run"],
            "tape": spec.tape.launches.ctypes.data,
            "tape_rows": len(spec.tape.launches),
            "get_threads": library.get_threads if library else 0,
            "set_threads": library.set_threads if library else 0,
            "depth": self._waiting,
            "fallback": 0 if fallback is None else id(fallback),
            "order": self._address(order),
            "order_count": len(order),
            "is_long": int(spec.is_long),
            "busy": spec.tape.lock.ctypes.data,
        }
        self.words = np.array([words[name] for name in code.SPEC], np.int64)

    def _address(self, rows: Sequence[Sequence[int]] | Sequence[int]) -> int:
        table = np.array(rows, np.int64)
        self.keep.append(table)
        return int(table.ctypes.data)

    def _object(self, value: object) -> int:
        self.keep.append(value)
        return id(value)

    def _keys(self, keys: tuple[str, ...]) -> int:
        return self._address([self._object(key) for key in keys])

    def _container(self, tree: Container) -> list[int]:
        count = len(tree.items)
        if isinstance(tree, ObjectSpec):
            names = () if tree.names is None else tree.names
            kind = code.NAMED if tree.names is None else code.OBJECT
            of, make = self._object(tree.type), self._object(tree.make)
            return [kind, count, self._keys(names), of, make, 0]
        keys = self._keys(tree.keys) if isinstance(tree, DictSpec) else 0
        kind = {TupleSpec: code.TUPLE, ListSpec: code.LIST, DictSpec: code.DICT}[type(tree)]
        return [kind, count, keys, 0, 0, 0]

    def _array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> list[int]:
        return [code.ARRAY, self._object(dtype), len(shape), self._address(shape)]

    def _argument_rows(self, arguments: Sequence[Tree]) -> list[list[int]]:
        rows = []
        pending = list(reversed(arguments))
        while pending:
            self._waiting = max(self._waiting, len(pending))
            tree = pending.pop()
            if isinstance(tree, Container):
                rows.append(self._container(tree))
                pending.extend(reversed(tree.items))
            elif isinstance(tree, ArraySpec):
                flags = code.ALIGNED | code.C_CONTIGUOUS
                flags |= code.WRITEABLE if tree.donated else 0
                rows.append([*self._array(_native(tree.dtype), tree.shape), flags, 0])
            elif isinstance(tree, ScalarSpec):
                rows.append([*_scalar_row(tree), 0, 0])
            elif isinstance(tree, StaticSpec):
                rows.append([code.STATIC, self._object(tree.value), 0, 0, 0, 0])
            else:
                raise TypeError(f"{tree} is not an argument")
        return rows

    def _result_rows(self, result: Tree, arguments: int) -> tuple[list[list[int]], list[list[int]]]:
        """Rows that allocate the new arrays, and rows that build the tree, a container last."""
        new: list[list[int]] = []
        build: list[list[int]] = []
        waiting = 0
        pending: list[tuple[Tree, bool]] = [(result, False)]
        while pending:
            tree, seen = pending.pop()
            if isinstance(tree, Container):
                if seen:
                    build.append(self._container(tree))
                    waiting -= len(tree.items) - 1
                else:
                    pending.append((tree, True))
                    pending.extend((item, False) for item in reversed(tree.items))
                    continue
            elif isinstance(tree, New):
                build.append([code.ARRAY, arguments + len(new), 0, 0, 0, 0])
                nbytes = _nbytes(tree.dtype, tree.shape)
                new.append([*self._array(_native(tree.dtype), tree.shape), nbytes, 0])
                waiting += 1
            elif isinstance(tree, Argument):
                if not 0 <= tree.leaf < arguments:
                    raise IndexError(f"result is leaf {tree.leaf} of {arguments}")
                build.append([code.ARRAY, tree.leaf, 0, 0, 0, 0])
                waiting += 1
            elif isinstance(tree, Constant):
                build.append([code.STATIC, self._object(tree.value), 0, 0, 0, 0])
                waiting += 1
            else:
                raise TypeError(f"{tree} is not a result")
            self._waiting = max(self._waiting, waiting)
        return new, build


def _native_of(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The one dtype object that native arrays of these numbers have; None if they are none."""
    if dtype.kind in "biufc":
        return np.dtype(dtype.newbyteorder("=").str)
    return dtype if is_bfloat16(dtype) else None


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The one dtype object that arrays of these numbers have."""
    native = _native_of(dtype)
    if native is None or not dtype.isnative:
        raise TypeError(f"a program knows no arrays of dtype {dtype}")
    return native


def _nbytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _scalar_row(spec: ScalarSpec) -> list[int]:
    """Kind, how the number is stored, and between what an int must lie."""
    kinds = {float: (code.FLOAT, "f"), int: (code.INT, "if"), bool: (code.BOOL, "bif")}
    kind, dtypes = kinds.get(spec.type, (0, ""))
    size = spec.dtype.itemsize
    if spec.dtype.kind not in dtypes or size not in (1, 4, 8):
        raise TypeError(f"a Python {spec.type.__name__} cannot be passed as {spec.dtype}")
    if spec.dtype.kind == "f":
        return [kind, code.AS_DOUBLE if size == 8 else code.AS_FLOAT, -(2**63), 2**63 - 1]
    bits = 8 * size - 1
    return [kind, code.AS_INTEGER, -(2**bits), 2**bits - 1]


# ------------------------------------------------------------------------------ building an entry


def build(spec: ProgramSpec, fallback: Entry | None = None) -> Entry:
    """A built-in function that runs the program.

    It takes positional arguments. Where they do not fit the spec, or keywords are given, it
    returns `fallback(*args, **keywords)`, or NotImplemented if there is no fallback; nothing has
    been run or written then.

    Raises TypeError or IndexError where the spec itself makes no sense.
    """
    tables = _Tables(spec, fallback)
    if _native_problem() is not None:
        return _PythonEntry(spec, fallback)
    function: Entry = _new_function(
        ctypes.addressof(_method()), (tables.words, tuple(tables.keep)), "graphdl"
    )
    return function


class _MethodDef(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


_FASTCALL, _KEYWORDS = 0x80, 0x02


@cache  # functions refer to it for as long as they live
def _method() -> _MethodDef:
    documentation = b"A compiled graphdl program."
    return _MethodDef(b"program", code.entry_address(), _FASTCALL | _KEYWORDS, documentation)


_new_function = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object
)(("PyCFunction_NewEx", ctypes.pythonapi))


# -------------------------------------------------------------- the same in Python, for elsewhere


class _PythonEntry:
    """What the native entry does, in Python: where that one cannot be, and to test it."""

    def __init__(self, spec: ProgramSpec, fallback: Entry | None) -> None:
        self._spec = spec
        self._fallback = fallback
        self._lock = threading.RLock()  # the tables are shared by all calls

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        spec = self._spec
        found = None if keywords or len(args) != len(spec.arguments) else _matched(spec, args)
        if found is None:
            fallback = self._fallback
            return NotImplemented if fallback is None else fallback(*args, **keywords)
        objects, memory = found
        new = [np.empty(leaf.shape, leaf.dtype) for leaf in leaves([spec.result]) if _is_new(leaf)]
        with self._lock, blas.one_thread(spec.uses_blas):
            runner = tape.timed_runner() if spec.is_timed else None
            tape.run(spec.tape, [array.ctypes.data for array in (*memory, *new)], runner)
        return _built(spec.result, objects, iter(new))


def _is_new(leaf: Tree) -> TypeGuard[New]:
    return isinstance(leaf, New)


def _matched(spec: ProgramSpec, args: Sequence[Any]) -> tuple[list[Any], list[Array]] | None:
    """The arguments' leaves, and arrays in whose memory the program finds their numbers."""
    objects: list[Any] = []
    memory: list[Array] = []
    pending = list(zip(reversed(spec.arguments), reversed(args), strict=True))
    while pending:
        tree, value = pending.pop()
        if isinstance(tree, Container):
            items = _items(tree, value)
            if items is None:
                return None
            pending.extend(zip(reversed(tree.items), reversed(items), strict=True))
            continue
        number = _number(tree, value)
        if number is None:
            return None
        objects.append(value)
        memory.append(number)
    donated = [i for i, leaf in enumerate(leaves(spec.arguments)) if getattr(leaf, "donated", 0)]
    for i in donated:
        others = memory[:i] + memory[i + 1 :]
        if any(np.may_share_memory(memory[i], other) for other in others):
            return None
    return objects, memory


def _items(tree: Container, value: Any) -> Sequence[Any] | None:
    if isinstance(tree, ObjectSpec):
        return _items_of_object(tree, value) if type(value) is tree.type else None
    kind = {TupleSpec: tuple, ListSpec: list, DictSpec: dict}[type(tree)]
    if type(value) is not kind or len(value) != len(tree.items):
        return None
    if not isinstance(tree, DictSpec):
        return list(value)
    if any(key not in value for key in tree.keys):
        return None
    return [value[key] for key in tree.keys]


def _items_of_object(tree: ObjectSpec, value: Any) -> Sequence[Any] | None:
    if tree.names is None:
        return list(value) if len(value) == len(tree.items) else None
    if not all(hasattr(value, name) for name in tree.names):
        return None
    return [getattr(value, name) for name in tree.names]


def _number(leaf: Tree, value: Any) -> Array | None:
    """An array that holds the argument as the program reads it, or None where it does not fit."""
    if isinstance(leaf, StaticSpec):
        return np.empty(0) if value is leaf.value else None
    if isinstance(leaf, ScalarSpec):
        if type(value) is not leaf.type:
            return None
        least, greatest = _scalar_row(leaf)[2:]
        if isinstance(value, int) and not least <= value <= greatest:
            return None
        return np.array(value, leaf.dtype)
    if not isinstance(leaf, ArraySpec):
        raise TypeError(f"{leaf} is not an argument")
    if type(value) is np.float64 and leaf == ArraySpec(value.dtype, ()):
        return np.array(value)
    fits = (
        type(value) is np.ndarray
        and value.dtype is _native(leaf.dtype)
        and value.shape == leaf.shape
        and value.flags.c_contiguous
        and value.flags.aligned
        and (value.flags.writeable or not leaf.donated)
    )
    return value if fits else None


def _built(tree: Tree, objects: list[Any], new: Iterator[Array]) -> Any:
    if isinstance(tree, Container):
        items = [_built(item, objects, new) for item in tree.items]
        if isinstance(tree, DictSpec):
            return dict(zip(tree.keys, items, strict=True))
        if isinstance(tree, ObjectSpec):
            return tree.make(*items)
        return items if isinstance(tree, ListSpec) else tuple(items)
    if isinstance(tree, Argument):
        return objects[tree.leaf]
    return tree.value if isinstance(tree, Constant) else next(new)


# ----------------------------------------------------------- whether objects are what they seem


@cache
def _native_problem() -> str | None:
    """Why the native function cannot be used here, or None: it is tried on objects at hand."""
    if platform.python_implementation() != "CPython":
        return "the interpreter is not CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the interpreter runs without its lock"
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return "addresses are not 64 bits, or bytes not in little-endian order"
    for array in (np.zeros((3, 5), np.float32)[:, ::2], np.array(1.0), np.ones(4, np.int8)):
        seen = code.ArrayFields.from_address(id(array))
        expected = (
            id(np.ndarray),
            array.ctypes.data,
            array.ndim,
            id(array.dtype),
            array.flags.num,
            array.shape,
        )
        shape = (ctypes.c_int64 * array.ndim).from_address(seen.dimensions) if array.ndim else ()
        found = (seen.type, seen.data, seen.ndim, seen.descr, seen.flags, tuple(shape))
        if found != expected:
            return f"NumPy {np.__version__} lays arrays out in an unknown way"
    return None
