"""The native function behind every entry, and the layout of the tables that it reads.

One function serves all programs: what differs between them is data. `ENTRY` is its address, a C
function of Python's METH_FASTCALL | METH_KEYWORDS kind. Its `self` is a tuple that begins with an
int64 array, the words of `SPEC`. Those point to rows of six words each:

    arguments  walked with a stack of objects; each row takes the next one
        ARRAY   dtype object, ndim, address of the shape, flags that must be set, -
                (of no axes, also NumPy's scalar in place of an array of one float64)
        FLOAT   AS_DOUBLE or AS_FLOAT, -, -, -, -
        INT     AS_INTEGER, AS_DOUBLE or AS_FLOAT, least, greatest, -, -
        BOOL    the same
        STATIC  the object that it must be, -, -, -, -
        TUPLE, LIST   length, -, -, -, -
        DICT    length, address of the keys, -, -, -
        NAMED   length, -, the class, what makes one, -
        OBJECT  length, address of the attributes' names, the class, what makes one, -
    new        dtype object, ndim, address of the shape, bytes, behind a first word that says ARRAY
    build      makes the result, a tree's items before the tree
        ARRAY   the place of an argument's leaf, or, after those, of a new array
        STATIC  the object
        TUPLE, LIST, DICT, NAMED, OBJECT    as above
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cpu import assembler, pool, recycle
from graphdl.kernels.cpu.assembler import Condition, Function, Module, Value

ARRAY, FLOAT, INT, BOOL, STATIC, TUPLE, LIST, DICT, NAMED, OBJECT = range(10)

#: How a number is stored.
AS_DOUBLE, AS_FLOAT, AS_INTEGER = range(3)

#: Bits of an array's flags (numpy/ndarraytypes.h).
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x001, 0x100, 0x400

#: Words that say what a program is.
SPEC = (
    "arguments",  # how many positional arguments
    "leaves",  # of the arguments' trees
    "argument_rows",
    "argument_row_count",
    "new_rows",
    "new_count",
    "recycled",  # whether new arrays get their memory from `recycle`
    "build_rows",
    "build_row_count",
    "patches",
    "patch_count",
    "run",  # the function that runs tapes
    "tape",
    "tape_rows",
    "get_threads",  # of BLAS, or 0 where the program calls none
    "set_threads",
    "depth",  # how many objects wait at most while trees are walked or built
    "fallback",  # a callable, or 0
    "order",  # rows of (leaf, bytes, whether donated), by address when last called
    "order_count",
    "is_long",  # whether the interpreter's lock is let go meanwhile
    "busy",  # then, where the lock is: whether a thread is in the program
)

_ROW = 8 * 6

_EXPORTS = ("entry", "enter_blas", "leave_blas")


class ArrayFields(ctypes.Structure):
    """The fields of an ndarray that are read here (PyArrayObject_fields)."""

    _fields_ = (
        ("references", ctypes.c_int64),
        ("type", ctypes.c_int64),
        ("data", ctypes.c_int64),
        ("ndim", ctypes.c_int),
        ("dimensions", ctypes.c_int64),
        ("strides", ctypes.c_int64),
        ("base", ctypes.c_int64),
        ("descr", ctypes.c_int64),
        ("flags", ctypes.c_int),
    )


_TYPE = ArrayFields.type.offset
_DATA = ArrayFields.data.offset
_NDIM = ArrayFields.ndim.offset
_DIMENSIONS = ArrayFields.dimensions.offset
_DESCR = ArrayFields.descr.offset
_FLAGS = ArrayFields.flags.offset

#: Functions of Python's stable interface that are called.
_PYTHON = (
    "Py_IncRef",
    "Py_DecRef",
    "PyFloat_AsDouble",
    "PyLong_AsLongLongAndOverflow",
    "PyTuple_New",
    "PyTuple_SetItem",
    "PyTuple_GetItem",
    "PyTuple_Size",
    "PyList_New",
    "PyList_SetItem",
    "PyList_GetItem",
    "PyList_Size",
    "PyDict_New",
    "PyDict_SetItem",
    "PyDict_GetItemWithError",
    "PyDict_Size",
    "PyObject_GetAttr",
    "PyErr_Clear",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyObject_Vectorcall",
)

#: Objects whose identity matters.
_OBJECTS: dict[str, object] = {
    "ndarray": np.ndarray,
    "float": float,
    "float64": np.float64,
    "dtype of float64": np.dtype(np.float64),
    "int": int,
    "tuple": tuple,
    "list": list,
    "dict": dict,
    "True": True,
    "False": False,
    "NotImplemented": NotImplemented,
    "handler": recycle.HANDLER,
}

#: Functions of NumPy's C interface, with their index in its table (numpy/__multiarray_api.h).
_NUMPY = {"PyArray_NewFromDescr": 94, "PyDataMem_SetHandler": 304}

#: Words that the function itself changes.
_STATE = ("blas_lock", "blas_users", "blas_threads", "blas_forks")

_PROCESS = ("pool", "nap", "nap_length", *_NUMPY, *_PYTHON, *_OBJECTS, *_STATE)


class _Call:
    """Names for what the function being written reads: words of the spec, the process, the call.

    The call's own memory is one block on the stack: `held`, how many leaves it holds a reference
    to; `objects` and `bases`, a word for each leaf and each new array; `slots`, a word for each
    leaf that is a scalar; `pending`, the stack of objects.
    """

    def __init__(self, f: Function, spec: Value, memory: Value) -> None:
        self._f, self._spec, self._memory = f, spec, memory

    def spec(self, name: str) -> Value:
        return self._f.load(self._spec + 8 * SPEC.index(name))

    @property
    def held(self) -> Value:
        return self._memory

    @property
    def objects(self) -> Value:
        return self._memory + 8

    @property
    def bases(self) -> Value:
        return self.objects + (self.spec("leaves") + self.spec("new_count")) * 8

    @property
    def slots(self) -> Value:
        return self.bases + (self.spec("leaves") + self.spec("new_count")) * 8

    @property
    def pending(self) -> Value:
        return self.slots + self.spec("leaves") * 8

    def size(self) -> Value:
        places = self.spec("leaves") + self.spec("new_count")
        return (places * 2 + self.spec("leaves") + self.spec("depth") + 1) * 8


def _process(f: Function, name: str) -> Value:
    return f.load(f.address_of("process") + 8 * _PROCESS.index(name))


def _python(f: Function, name: str, *arguments: Value | int, returns: Any = "i64") -> Value:
    return f.call(_process(f, name), *arguments, returns=returns)


def _is_exactly(f: Function, value: Value, type_: str) -> Condition:
    return f.load(value + _TYPE).equals(_process(f, type_))


def _define_fits_array(module: Module) -> None:
    """fits_array(row, object): whether it is an array as the row says."""
    with module.function("fits_array", 2) as (f, (row, value)):
        with f.when(f.load(value + _TYPE).differs(_process(f, "ndarray"))):
            f.leave(0)
        with f.when(f.load(value + _DESCR).differs(f.load(row + 8))):
            f.leave(0)
        flags, ndim = f.load(row + 32), f.load(row + 16)
        with f.when((f.load(value + _FLAGS, 32) & flags).differs(flags)):
            f.leave(0)
        with f.when(f.load(value + _NDIM, 32).differs(ndim)):
            f.leave(0)
        shape, expected = f.load(value + _DIMENSIONS), f.load(row + 24)
        with f.count(0, ndim) as axis:
            same = f.load(shape + axis * 8).equals(f.load(expected + axis * 8))
            with f.unless(same):
                f.leave(0)
        f.leave(1)


def _define_store_scalar(module: Module) -> None:
    """store_scalar(row, object, slot): whether it is a number as the row says, then stored."""
    with module.function("store_scalar", 3) as (f, (row, value, slot)):
        kind, how = f.load(row), f.load(row + 8)
        with f.when(kind.equals(FLOAT)):
            with f.when(f.load(value + _TYPE).differs(_process(f, "float"))):
                f.leave(0)
            number = _python(f, "PyFloat_AsDouble", value, returns="double")
            with f.when(how.equals(AS_FLOAT)):
                f.store(slot, f.to_float(number, "float"))
                f.leave(1)
            f.store(slot, number)
            f.leave(1)
        whole = f.variable(0)
        with f.when(kind.equals(BOOL)):
            is_true = value.equals(_process(f, "True"))
            with f.when(value.differs(_process(f, "False"))):
                whole.set(1)
                with f.unless(is_true):
                    f.leave(0)
        with f.when(kind.equals(INT)):
            with f.when(f.load(value + _TYPE).differs(_process(f, "int"))):
                f.leave(0)
            overflow = f.stack(8)
            f.store(overflow, 0)
            whole.set(_python(f, "PyLong_AsLongLongAndOverflow", value, overflow))
            with f.when(f.load(overflow, 32).differs(0)):
                f.leave(0)
            with f.when((whole.get() < f.load(row + 16)) | (whole.get() > f.load(row + 24))):
                f.leave(0)
        with f.when(how.equals(AS_INTEGER)):
            f.store(slot, whole.get())
            f.leave(1)
        with f.when(how.equals(AS_FLOAT)):
            f.store(slot, f.to_float(whole.get(), "float"))
            f.leave(1)
        f.store(slot, f.to_float(whole.get(), "double"))
        f.leave(1)


def _define_store_float64(module: Module) -> None:
    """store_float64(row, object, slot): whether the row is an array of one float64, not to be
    changed, and the object NumPy's scalar of that kind; its number is then stored.

    What indexing an array gives is such a scalar, so solvers call with them.
    """
    with module.function("store_float64", 3) as (f, (row, value, slot)):
        with f.when(f.load(value + _TYPE).differs(_process(f, "float64"))):
            f.leave(0)
        with f.when(f.load(row + 8).differs(_process(f, "dtype of float64"))):
            f.leave(0)
        with f.when(f.load(row + 16).differs(0)):
            f.leave(0)
        with f.when((f.load(row + 32) & WRITEABLE).differs(0)):
            f.leave(0)
        f.store(slot, _python(f, "PyFloat_AsDouble", value, returns="double"))
        f.leave(1)


def _define_open_object(module: Module) -> None:
    """open_object(row, object, top): the same for an object that is of the row's class."""
    with module.function("open_object", 3) as (f, (row, value, top)):
        length = f.load(row + 8)
        with f.when(f.load(row).equals(NAMED)):
            with f.when(_python(f, "PyTuple_Size", value).differs(length)):
                f.leave(0)
            with f.count(0, length) as i:
                item = _python(f, "PyTuple_GetItem", value, i)
                f.store(top + (length - 1 - i) * 8, item)
            f.leave(1)
        names = f.load(row + 16)
        with f.count(0, length) as i:
            item = _python(f, "PyObject_GetAttr", value, f.load(names + i * 8))
            with f.when(item.equals(0)):
                _python(f, "PyErr_Clear", returns="void")
                f.leave(0)
            _python(f, "Py_DecRef", item, returns="void")  # the object itself holds it
            f.store(top + (length - 1 - i) * 8, item)
        f.leave(1)


def _define_open(module: Module) -> None:
    """open_container(row, object, top): put its items there, the first on top; whether it fits."""
    with module.function("open_container", 3) as (f, (row, value, top)):
        kind, length = f.load(row), f.load(row + 8)
        for number, name in ((TUPLE, "Tuple"), (LIST, "List")):
            with f.when(kind.equals(number)):
                with f.when(f.load(value + _TYPE).differs(_process(f, name.lower()))):
                    f.leave(0)
                with f.when(_python(f, f"Py{name}_Size", value).differs(length)):
                    f.leave(0)
                with f.count(0, length) as i:
                    item = _python(f, f"Py{name}_GetItem", value, i)
                    f.store(top + (length - 1 - i) * 8, item)
                f.leave(1)
        with f.when(kind >= NAMED):
            with f.when(f.load(value + _TYPE).differs(f.load(row + 24))):
                f.leave(0)
            f.leave(f.call("open_object", row, value, top))
        with f.when(f.load(value + _TYPE).differs(_process(f, "dict"))):
            f.leave(0)
        with f.when(_python(f, "PyDict_Size", value).differs(length)):
            f.leave(0)
        keys = f.load(row + 16)
        with f.count(0, length) as i:
            item = _python(f, "PyDict_GetItemWithError", value, f.load(keys + i * 8))
            with f.when(item.equals(0)):
                _python(f, "PyErr_Clear", returns="void")
                f.leave(0)
            f.store(top + (length - 1 - i) * 8, item)
        f.leave(1)


def _define_take_arguments(module: Module) -> None:
    """take_arguments(spec, memory, args): walk the arguments; whether all fit.

    A reference to each leaf is held from here on, since building results may run other code.
    """
    with module.function("take_arguments", 3) as (f, (spec, memory, args)):
        call = _Call(f, spec, memory)
        given = call.spec("arguments")
        with f.count(0, given) as i:
            f.store(call.pending + (given - 1 - i) * 8, f.load(args + i * 8))
        waiting, leaf = f.variable(given), f.variable(0)
        with f.count(0, call.spec("argument_row_count")) as i:
            row = call.spec("argument_rows") + i * _ROW
            kind = f.load(row)
            top = call.pending + (waiting.get() - 1) * 8
            value = f.load(top)
            base = f.variable(0)
            container = kind >= TUPLE
            with f.when(container):
                with f.when(f.call("open_container", row, value, top).equals(0)):
                    f.leave(0)
                waiting.set(waiting.get() - 1 + f.load(row + 8))
            with f.unless(container):
                waiting.set(waiting.get() - 1)
                with f.when(kind.equals(ARRAY)):
                    slot = call.slots + leaf.get() * 8
                    base.set(slot)
                    with f.when(f.call("store_float64", row, value, slot).equals(0)):
                        with f.when(f.call("fits_array", row, value).equals(0)):
                            f.leave(0)
                        base.set(f.load(value + _DATA))
                with f.when(kind.equals(STATIC) & f.load(row + 8).differs(value)):
                    f.leave(0)
                with f.when((kind >= FLOAT) & (kind <= BOOL)):
                    base.set(call.slots + leaf.get() * 8)
                    with f.when(f.call("store_scalar", row, value, base.get()).equals(0)):
                        f.leave(0)
                f.store(call.bases + leaf.get() * 8, base.get())
                f.store(call.objects + leaf.get() * 8, value)
                _python(f, "Py_IncRef", value, returns="void")
                leaf.set(leaf.get() + 1)
                f.store(call.held, leaf.get())
        f.leave(1)


def _define_overlaps(module: Module) -> None:
    """overlaps(spec, memory): whether a donated array shares memory with another argument.

    The arrays are sorted by address, by insertion, beginning with the order of the last call: a
    program that is called with the same arrays again compares each with its neighbour only.
    """
    with module.function("overlaps", 2) as (f, (spec, memory)):
        call = _Call(f, spec, memory)
        rows, count, bases = call.spec("order"), call.spec("order_count"), call.bases

        def base_of(row: Value) -> Value:
            return f.load(bases + f.load(row) * 8)

        with f.count(1, count) as i:
            row = rows + i * 24
            words = [f.load(row + 8 * k) for k in range(3)]
            base, place = base_of(row), f.variable(row)
            with f.forever() as loop:
                loop.stop_when(place.get().equals(rows))
                before = place.get() - 24
                loop.stop_when(base_of(before) <= base)
                for k in range(3):
                    f.store(place.get() + 8 * k, f.load(before + 8 * k))
                place.set(before)
            for k, word in enumerate(words):
                f.store(place.get() + 8 * k, word)

        end, donated = f.variable(-(2**63)), f.variable(0)
        with f.count(0, count) as i:
            row = rows + i * 24
            start, own = base_of(row), f.load(row + 16)
            stop = start + f.load(row + 8)
            joined = start < end.get()
            with f.when(joined & (donated.get() | own).differs(0)):
                f.leave(1)
            donated.set(f.select(joined, donated.get() | own, own))
            end.set(f.larger(stop, end.get()))
        f.leave(0)


def _define_allocate_new(module: Module) -> None:
    """allocate_new(spec, memory): make the new arrays; whether there was memory for them."""
    with module.function("allocate_new", 2) as (f, (spec, memory)):
        call = _Call(f, spec, memory)
        with f.count(0, call.spec("new_count")) as i:
            row = call.spec("new_rows") + i * _ROW
            dtype, place = f.load(row + 8), (call.spec("leaves") + i) * 8
            _python(f, "Py_IncRef", dtype, returns="void")  # NewFromDescr takes it over
            array = f.call(
                _process(f, "PyArray_NewFromDescr"),
                _process(f, "ndarray"),
                dtype,
                f.narrow(f.load(row + 16)),
                f.load(row + 24),
                0,
                0,
                f.narrow(f.constant(0)),
                0,
            )
            with f.when(array.equals(0)):
                f.call("release", call.objects + call.spec("leaves") * 8, i)
                f.leave(0)
            f.store(call.objects + place, array)
            f.store(call.bases + place, f.load(array + _DATA))
        f.leave(1)


def _define_allocate(module: Module) -> None:
    """allocate(spec, memory): allocate_new, under the memory handler that the program wants."""
    with module.function("allocate", 2) as (f, (spec, memory)):
        with f.when(_Call(f, spec, memory).spec("recycled").equals(0)):
            f.leave(f.call("allocate_new", spec, memory))
        set_handler = _process(f, "PyDataMem_SetHandler")
        before = f.call(set_handler, _process(f, "handler"))
        with f.when(before.equals(0)):
            f.leave(0)
        done = f.call("allocate_new", spec, memory)
        ours = f.call(set_handler, before)
        _python(f, "Py_DecRef", before, returns="void")
        with f.unless(ours.equals(0)):
            _python(f, "Py_DecRef", ours, returns="void")
            f.leave(done)
        with f.when(done.differs(0)):
            call = _Call(f, spec, memory)
            f.call("release", call.objects + call.spec("leaves") * 8, call.spec("new_count"))
        f.leave(0)


def _define_release(module: Module) -> None:
    """release(objects, count): give the references back."""
    with module.function("release", 2) as (f, (objects, count)), f.count(0, count) as i:
        _python(f, "Py_DecRef", f.load(objects + i * 8), returns="void")


def _define_lock(module: Module) -> None:
    """lock(word): wait until the word is ours.

    What a holder writes there is the number of forks that led to its process, so that a lock that
    was held by another thread when a process forked is free in the child.
    """
    with module.function("lock", 1) as (f, (word,)):
        mark = f.load(_process(f, "pool") + 8 * pool.FORKS) + 1
        with f.forever() as loop:
            loop.stop_when(f.exchange(word, mark).differs(mark))
            f.call(_process(f, "nap"), f.narrow(_process(f, "nap_length")), returns="void")


def _define_limit_blas(module: Module) -> None:
    """enter_blas(spec), leave_blas(spec): let BLAS use one thread while any program is inside.

    Programs may run at the same time. The first one in notes how many threads BLAS had, and the
    last one out gives them back.
    """

    def word(f: Function, name: str) -> Value:
        return f.address_of("process") + 8 * _PROCESS.index(name)

    with module.function("enter_blas", 1) as (f, (spec,)):
        call = _Call(f, spec, f.constant(0))
        f.call("lock", word(f, "blas_lock"))
        forks = f.load(_process(f, "pool") + 8 * pool.FORKS)
        inside = f.variable(f.load(word(f, "blas_users")))
        with f.when(inside.get().equals(0)):
            threads = f.call(call.spec("get_threads"), returns="i32")
            f.store(word(f, "blas_threads"), threads)
            with f.when(threads.differs(1)):
                f.call(call.spec("set_threads"), f.narrow(f.constant(1)), returns="void")
        with f.when(forks.differs(f.load(word(f, "blas_forks")))):
            inside.set(0)  # those who were inside are threads of the process that forked
        f.store(word(f, "blas_forks"), forks)
        f.store(word(f, "blas_users"), inside.get() + 1)
        f.store_shared(word(f, "blas_lock"), 0)
    with module.function("leave_blas", 1) as (f, (spec,)):
        call = _Call(f, spec, f.constant(0))
        f.call("lock", word(f, "blas_lock"))
        remaining = f.load(word(f, "blas_users")) - 1
        f.store(word(f, "blas_users"), remaining)
        threads = f.load(word(f, "blas_threads"))
        with f.when(remaining.equals(0) & threads.differs(1)):
            f.call(call.spec("set_threads"), f.narrow(threads), returns="void")
        f.store_shared(word(f, "blas_lock"), 0)


def _define_run_program(module: Module) -> None:
    """run_program(spec, memory): the tape, without the interpreter's lock if it is a long one."""
    with module.function("run_program", 2) as (f, (spec, memory)):
        call = _Call(f, spec, memory)
        is_long, uses_blas = call.spec("is_long"), call.spec("set_threads")
        thread = f.variable(0)
        busy = call.spec("busy")
        with f.when(is_long.differs(0)):
            thread.set(_python(f, "PyEval_SaveThread"))
            f.call("lock", busy)
        with f.when(uses_blas.differs(0)):
            f.call("enter_blas", spec)
        names = ("patches", "patch_count", "tape", "tape_rows")
        f.call(call.spec("run"), call.bases, *map(call.spec, names), returns="void")
        with f.when(uses_blas.differs(0)):
            f.call("leave_blas", spec)
        with f.when(is_long.differs(0)):
            f.store_shared(busy, 0)
            _python(f, "PyEval_RestoreThread", thread.get(), returns="void")


def _define_build_result(module: Module) -> None:
    """build_result(spec, memory): the result's tree, or 0 with an exception set.

    The tree takes over the references to new arrays.
    """
    with module.function("build_result", 2) as (f, (spec, memory)):
        call = _Call(f, spec, memory)
        stack, waiting = call.pending, f.variable(0)
        with f.count(0, call.spec("build_row_count")) as i:
            row = call.spec("build_rows") + i * _ROW
            kind, first = f.load(row), f.load(row + 8)
            made = f.variable(0)
            with f.when(kind.equals(ARRAY)):
                made.set(f.load(call.objects + first * 8))
                with f.when(first < call.spec("leaves")):
                    _python(f, "Py_IncRef", made.get(), returns="void")
            with f.when(kind.equals(STATIC)):
                made.set(first)
                _python(f, "Py_IncRef", first, returns="void")
            with f.when(kind >= TUPLE):
                items = stack + (waiting.get() - first) * 8
                made.set(f.call("close_container", row, items))
                with f.when(made.get().equals(0)):
                    f.call("release", stack, waiting.get() - first)
                    # The new arrays that no row has put on the stack yet.
                    with f.count(i + 1, call.spec("build_row_count")) as later:
                        rest = call.spec("build_rows") + later * _ROW
                        place = f.load(rest + 8)
                        with f.when(f.load(rest).equals(ARRAY) & (place >= call.spec("leaves"))):
                            f.call("release", call.objects + place * 8, 1)
                    f.leave(0)
                waiting.set(waiting.get() - first)
            f.store(stack + waiting.get() * 8, made.get())
            waiting.set(waiting.get() + 1)
        f.leave(f.load(stack))


def _define_close(module: Module) -> None:
    """close_container(row, items): the container, or 0; it takes over references in any case."""
    with module.function("close_container", 2) as (f, (row, items)):
        kind, length = f.load(row), f.load(row + 8)
        for number, name in ((TUPLE, "Tuple"), (LIST, "List")):
            with f.when(kind.equals(number)):
                made = _python(f, f"Py{name}_New", length)
                with f.when(made.equals(0)):
                    f.call("release", items, length)
                    f.leave(0)
                with f.count(0, length) as i:
                    item = f.load(items + i * 8)
                    _python(f, f"Py{name}_SetItem", made, i, item, returns="i32")
                f.leave(made)
        with f.when(kind >= NAMED):
            make = f.load(row + 32)
            made = _python(f, "PyObject_Vectorcall", make, items, length, 0)
            f.call("release", items, length)
            f.leave(made)
        made = _python(f, "PyDict_New")
        with f.when(made.equals(0)):
            f.call("release", items, length)
            f.leave(0)
        failed = f.variable(0)
        with f.count(0, length) as i:
            key, item = f.load(f.load(row + 16) + i * 8), f.load(items + i * 8)
            failed.set(failed.get() | _python(f, "PyDict_SetItem", made, key, item, returns="i32"))
        f.call("release", items, length)  # a dict takes references of its own
        with f.when(failed.get().differs(0)):
            _python(f, "Py_DecRef", made, returns="void")
            f.leave(0)
        f.leave(made)


def _define_call_program(module: Module) -> None:
    """call_program(spec, args, given, memory): the result, 0 with an exception, or 1: no fit."""
    with module.function("call_program", 3) as (f, (spec, args, memory)):
        call = _Call(f, spec, memory)
        f.store(call.held, 0)
        result = f.variable(1)
        fit = f.variable(f.call("take_arguments", spec, memory, args))
        with f.when(fit.get().differs(0) & call.spec("order_count").differs(0)):
            fit.set(f.constant(1) - f.call("overlaps", spec, memory))
        with f.when(fit.get().differs(0)):
            result.set(f.call("allocate", spec, memory))
            with f.when(result.get().differs(0)):
                f.call("run_program", spec, memory)
                result.set(f.call("build_result", spec, memory))
        f.call("release", call.objects, f.load(call.held))
        f.leave(result.get())


def _define_entry(module: Module) -> None:
    """entry(self, args, given, keyword names): what Python calls."""
    with module.function("entry", 4) as (f, (self, args, given, names)):
        spec = f.load(_python(f, "PyTuple_GetItem", self, 0) + _DATA)
        words = _Call(f, spec, f.constant(0))
        with f.when(given.equals(words.spec("arguments")) & names.equals(0)):
            memory = f.stack(words.size())
            result = f.call("call_program", spec, args, memory)
            with f.when(result.differs(1)):
                f.leave(result)
        fallback = words.spec("fallback")
        with f.when(fallback.equals(0)):
            _python(f, "Py_IncRef", _process(f, "NotImplemented"), returns="void")
            f.leave(_process(f, "NotImplemented"))
        f.leave(_python(f, "PyObject_Vectorcall", fallback, args, given, names))


def _write(module: Module) -> None:
    for define in (
        _define_fits_array,
        _define_store_scalar,
        _define_open_object,
        _define_store_float64,
        _define_open,
        _define_take_arguments,
        _define_overlaps,
        _define_allocate_new,
        _define_allocate,
        _define_release,
        _define_lock,
        _define_limit_blas,
        _define_run_program,
        _define_build_result,
        _define_close,
        _define_call_program,
        _define_entry,
    ):
        define(module)


def _numpy_function(index: int) -> int:
    """The address of a function of NumPy's C interface."""
    capsule = np._core.multiarray._ARRAY_API  # type: ignore[attr-defined]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_int64.from_address(pointer_of(capsule, None) + 8 * index).value


@cache
def functions() -> Mapping[str, int]:
    """The addresses of the native functions.

    entry                    what Python calls
    enter_blas, leave_blas   void f(int64 *spec): hold BLAS to one thread, see `blas_spec`
    """
    addresses = {
        "pool": pool.state_address(),
        **_nap(),
        **{name: _numpy_function(index) for name, index in _NUMPY.items()},
        **{name: _python_function(name) for name in _PYTHON},
        **{name: id(value) for name, value in _OBJECTS.items()},
        **dict.fromkeys(_STATE, 0),
    }
    return assembler.load("graphdl_entry", _EXPORTS, _write, [addresses[name] for name in _PROCESS])


def entry_address() -> int:
    """The address of the function that Python calls."""
    return functions()["entry"]


def blas_spec(get_threads: int, set_threads: int) -> NDArray[np.int64]:
    """A spec with the words that `enter_blas` and `leave_blas` read, and no others."""
    words = {"get_threads": get_threads, "set_threads": set_threads}
    return np.array([words.get(name, 0) for name in SPEC], np.int64)


def _nap() -> dict[str, int]:
    """A C function that sleeps, and for how long: 50 us, or the least that Windows has, 1 ms."""
    if sys.platform == "win32":
        function, length = ctypes.WinDLL("kernel32").Sleep, 1
    else:
        function, length = ctypes.CDLL(None).usleep, 50
    return {"nap": ctypes.cast(function, ctypes.c_void_p).value or 0, "nap_length": length}


def _python_function(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
