"""Calling programs from Python: what fits, what comes back, what is left behind."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from native_kernels import I8, KERNELS, add_one_spec, address_of, callback, in_new_process

from graphdl.kernels.cpu import entry, recycle
from graphdl.kernels.cpu.entry import (
    Argument,
    ArraySpec,
    Constant,
    DictSpec,
    Entry,
    ListSpec,
    New,
    ObjectSpec,
    ProgramSpec,
    ScalarSpec,
    StaticSpec,
    TupleSpec,
    build,
    prepare,
)
from graphdl.kernels.cpu.tape import Tape

Build = Callable[..., Entry]


def python_entry(spec: ProgramSpec, fallback: Entry | None = None) -> Entry:
    return entry._PythonEntry(spec, fallback)


@pytest.fixture(params=[build, python_entry], ids=["native", "python"])
def make(request: pytest.FixtureRequest) -> Build:
    chosen: Build = request.param
    return chosen


def adding_spec(arguments: tuple[Any, ...], result: Any, pairs: list[tuple[int, int]]) -> Any:
    """A program that writes one int64 + 1 from one base to another, for each pair of bases."""
    tables = np.zeros((len(pairs), 2), np.int64)
    rows, patches = [], []
    for table, (source, target) in zip(tables, pairs, strict=True):
        rows.append((KERNELS["add_one"], table.ctypes.data, 1, 1))
        patches += [(source, table.ctypes.data, 0), (target, table.ctypes.data + 8, 0)]
    tape = Tape(
        np.array(rows, np.int64).reshape(-1, 4), np.array(patches).reshape(-1, 3), (tables,)
    )
    return ProgramSpec(arguments, result, tape)


# ---------------------------------------------------------------------------------- objects


class Point:
    def __init__(self, x: Any, kind: str = "point") -> None:
        self.x, self.kind = x, kind


Both = namedtuple("Both", ["a", "b"])


def point_spec() -> Any:
    given = ObjectSpec(Point, (ArraySpec(I8, ()), StaticSpec("point")), Point, ("x", "kind"))
    made = ObjectSpec(Point, (New(I8, ()), Constant("point")), Point, ("x", "kind"))
    both = ObjectSpec(Both, (ArraySpec(I8, ()), given), Both)
    result = ObjectSpec(Both, (New(I8, ()), made), Both)
    return adding_spec((both,), result, [(0, 3), (1, 4)])


def test_objects_are_taken_apart_and_put_together(make: Build) -> None:
    call = make(point_spec())
    result = call(Both(np.array(1), Point(np.array(5))))
    assert (type(result), type(result.b)) == (Both, Point)
    assert (result.a.item(), result.b.x.item(), result.b.kind) == (2, 6, "point")


class Further(Point):
    pass


OBJECTS_THAT_DO_NOT_FIT = {
    "a tuple": (np.array(1), Point(np.array(1))),
    "a class that derives": Both(np.array(1), Further(np.array(1))),
    "another static part": Both(np.array(1), Point(np.array(1), "line")),
    "no such attribute": Both(np.array(1), object.__new__(Point)),
    "a float": Both(np.array(1), Point(1.0)),
    "an array": np.array(1),
}


@pytest.mark.parametrize("value", OBJECTS_THAT_DO_NOT_FIT.values(), ids=OBJECTS_THAT_DO_NOT_FIT)
def test_other_objects_do_not_fit(make: Build, value: Any) -> None:
    before = sys.getrefcount(value)
    call = make(point_spec())
    for _ in range(3):
        assert call(value) is NotImplemented
    assert sys.getrefcount(value) == before


# ---------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 0, 3), (2, 3, 4, 5)])
def test_array_in_new_array_out(make: Build, shape: tuple[int, ...]) -> None:
    call = make(add_one_spec(shape))
    x = np.arange(int(np.prod(shape))).reshape(shape)
    before = x.copy()
    result = call(x)
    assert type(result) is np.ndarray
    assert (result.dtype, result.shape) == (I8, shape)
    assert result.flags.c_contiguous
    assert result.flags.owndata
    assert result.flags.writeable
    np.testing.assert_array_equal(result, before + 1)
    np.testing.assert_array_equal(x, before)
    assert not np.may_share_memory(call(x), call(x))


class Subclass(np.ndarray):
    pass


def unaligned(shape: tuple[int, ...]) -> np.ndarray:
    raw = np.zeros(int(np.prod(shape)) * 8 + 1, np.uint8)
    return raw[1:].view(np.int64).reshape(shape)


MISFITS = {
    "float32": np.zeros((3, 4), np.float32),
    "float64 of the same size": np.zeros((3, 4)),
    "uint64": np.zeros((3, 4), np.uint64),
    "long long": np.zeros((3, 4), np.longlong),
    "other byte order": np.zeros((3, 4), np.dtype(np.int64).newbyteorder()),
    "transposed shape": np.zeros((4, 3), np.int64),
    "one dimension": np.zeros(12, np.int64),
    "three dimensions": np.zeros((1, 3, 4), np.int64),
    "one row more": np.zeros((4, 4), np.int64),
    "column-major": np.zeros((3, 4), np.int64, order="F"),
    "strided": np.zeros((3, 8), np.int64)[:, ::2],
    "reversed": np.zeros((3, 4), np.int64)[::-1],
    "broadcast": np.broadcast_to(np.zeros(4, np.int64), (3, 4)),
    "unaligned": unaligned((3, 4)),
    "subclass": np.zeros((3, 4), np.int64).view(Subclass),
    "masked": np.ma.zeros((3, 4), np.int64),
    "list": np.zeros((3, 4), np.int64).tolist(),
    "NumPy scalar": np.int64(3),
    "int": 3,
    "None": None,
    "type": np.ndarray,
}


@pytest.mark.parametrize("value", MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_not_run(make: Build, value: Any) -> None:
    call = make(add_one_spec((3, 4)))
    assert call(value) is NotImplemented
    passed: list[Any] = []
    call = make(add_one_spec((3, 4)), lambda *args, **kw: passed.append((args, kw)) or "there")
    assert call(value) == "there"
    assert passed[0][0][0] is value


def test_float64_of_numpy_fits_an_array_of_one(make: Build) -> None:
    tables = np.zeros((1, 2), np.int64)
    tape = Tape(
        np.array([(KERNELS["add_one"], tables.ctypes.data, 1, 1)], np.int64),
        np.array([(0, tables.ctypes.data, 0), (1, tables.ctypes.data + 8, 0)], np.int64),
        (tables,),
    )

    def call(dtype: Any, shape: tuple[int, ...], donated: bool, value: Any) -> Any:
        spec = ArraySpec(np.dtype(dtype), shape, donated)
        return make(ProgramSpec((spec,), New(I8, ()), tape))(value)

    number = np.int64(41).view(np.float64)  # the kernel adds one to its bits
    assert call("float64", (), False, number) == 42
    assert call("float64", (), False, np.array(number)) == 42
    before = sys.getrefcount(number)
    for dtype, shape, donated, value in (
        ("float64", (1,), False, number),
        ("float64", (), True, number),
        ("int64", (), False, number),
        ("float32", (), False, number),
        ("float64", (), False, float(number)),
        ("float64", (), False, np.int64(41)),
        ("float64", (), False, np.float32(1)),
    ):
        assert call(dtype, shape, donated, value) is NotImplemented
    assert sys.getrefcount(number) == before


def test_number_of_arguments_and_keywords(make: Build) -> None:
    x = np.zeros(3, np.int64)
    spec = add_one_spec((3,))
    call = make(spec)
    assert call() is NotImplemented
    assert call(x, x) is NotImplemented
    assert call(x, y=1) is NotImplemented
    assert call(x=x) is NotImplemented
    call = make(spec, lambda *args, **keywords: (args, keywords))
    assert call(x, 2, y=3) == ((x, 2), {"y": 3})
    assert call(*[]) == ((), {})


def test_error_of_the_fallback_passes(make: Build) -> None:
    def fallback(*args: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make(add_one_spec((3,)), fallback)("x")


def test_entries_chain(make: Build) -> None:
    call = make(add_one_spec((3,)), make(add_one_spec((2, 2)), make(add_one_spec(()))))
    for shape in ((3,), (2, 2), ()):
        np.testing.assert_array_equal(call(np.zeros(shape, np.int64)), np.ones(shape))
    assert call(np.zeros(4)) is NotImplemented


def test_without_arguments(make: Build) -> None:
    empty = Tape(np.empty((0, 4), np.int64))
    assert make(ProgramSpec((), TupleSpec(()), empty))() == ()
    assert make(ProgramSpec((), Constant(None), empty))() is None


def test_parallel_launches(make: Build) -> None:
    call = make(add_one_spec((10000,), parts=16))
    x = np.arange(10000)
    for _ in range(200):
        assert (call(x) == x + 1).all()


def test_every_dtype_of_numbers(make: Build) -> None:
    empty = Tape(np.empty((0, 4), np.int64))
    for char in "?bBhHiIlLefdFD":
        dtype = np.dtype(char)
        call = make(ProgramSpec((ArraySpec(dtype, (2,)),), New(dtype, (3, 2)), empty))
        result = call(np.zeros(2, dtype))
        assert result.dtype is np.dtype(dtype.str)
        assert result.shape == (3, 2)
        assert call(np.zeros(2, "f8" if dtype.char != "d" else "f4")) is NotImplemented


# --------------------------------------------------------------------------------- prepare


@pytest.mark.parametrize(
    "name",
    [
        "long long",
        "other byte order",
        "column-major",
        "strided",
        "reversed",
        "broadcast",
        "unaligned",
        "subclass",
    ],
)
def test_prepared_arrays_fit(make: Build, name: str) -> None:
    value = MISFITS[name]
    before = pickle.dumps(value)
    ready = prepare(value)
    assert pickle.dumps(value) == before
    call = make(add_one_spec(value.shape))
    np.testing.assert_array_equal(call(ready), np.asarray(value) + 1)


def test_prepare_copies_only_what_must_be() -> None:
    for fitting in (np.arange(6).reshape(2, 3), np.array(1.5), np.zeros((0, 3), np.float32)):
        assert prepare(fitting) is fitting
    scalar = prepare(np.float32(2.5))
    assert (scalar.shape, scalar.dtype, float(scalar)) == ((), np.float32, 2.5)
    assert prepare([[1, 2], [3, 4]]).shape == (2, 2)
    with pytest.raises(TypeError, match="dtype object"):
        prepare(np.array([object()]))
    with pytest.raises(TypeError, match="dtype <U1"):
        prepare(np.array(["a"]))


# --------------------------------------------------------------------------------- scalars


@pytest.mark.parametrize(
    ("type_", "dtype", "good", "bad"),
    [
        (float, "f8", [0.0, -1.5, float("inf"), 5e-324], [1, True, "1", np.float64(1), None]),
        (float, "f4", [0.5, -3.25, float("-inf")], [1, np.float32(1)]),
        (int, "i8", [0, -1, 2**63 - 1, -(2**63)], [2**63, -(2**63) - 1, 10**40, True, 1.0]),
        (int, "i4", [7, 2**31 - 1, -(2**31)], [2**31, -(2**31) - 1, np.int32(1)]),
        (int, "f8", [3, -(2**53)], [2.0, False, 2**64]),
        (int, "f4", [3, -8], [2.0]),
        (bool, "?", [True, False], [1, 0, np.True_, None]),
        (bool, "f8", [True, False], [1.0]),
        (bool, "i4", [True, False], [1]),
    ],
)
def test_python_scalars(
    make: Build, type_: type, dtype: str, good: list[Any], bad: list[Any]
) -> None:
    seen: list[Any] = []
    table = np.zeros(1, np.int64)

    def kernel(address: int, lo: int, hi: int) -> None:
        slot = ctypes.string_at(table[0].item(), np.dtype(dtype).itemsize)
        seen.append(np.frombuffer(slot, dtype)[0])

    native = callback(kernel)
    tape = Tape(
        np.array([[address_of(native), table.ctypes.data, 1, 1]]),
        np.array([[0, table.ctypes.data, 0]]),
    )
    call = make(ProgramSpec((ScalarSpec(type_, np.dtype(dtype)),), Constant("ran"), tape))
    for value in good:
        assert call(value) == "ran"
        assert seen.pop() == np.array(value, dtype)
    for value in bad:
        assert call(value) is NotImplemented
    assert not seen


@pytest.mark.parametrize(("type_", "dtype"), [(float, "i8"), (int, "?"), (str, "f8"), (int, "i2")])
def test_impossible_scalars_are_refused(make: Build, type_: type, dtype: str) -> None:
    spec = ProgramSpec(
        (ScalarSpec(type_, np.dtype(dtype)),), Constant(0), Tape(np.empty((0, 4), np.int64))
    )
    with pytest.raises(TypeError, match=f"Python {type_.__name__} cannot be passed as"):
        build(spec)


def test_static_arguments_are_compared_by_identity(make: Build) -> None:
    mark = object()
    empty = Tape(np.empty((0, 4), np.int64))
    call = make(ProgramSpec((StaticSpec(None), StaticSpec(mark)), Constant("both"), empty))
    assert call(None, mark) == "both"
    assert call(mark, None) is NotImplemented
    assert call(None, object()) is NotImplemented


# ----------------------------------------------------------------------------------- trees


def test_trees_of_arguments_and_results(make: Build) -> None:
    """Arguments (a, {"x": b, "y": [c, (d,)]}), each + 1, come back in another order."""
    leaf, new = ArraySpec(I8, ()), New(I8, ())
    arguments = (leaf, DictSpec(("x", "y"), (leaf, ListSpec((leaf, TupleSpec((leaf,)))))))
    result = TupleSpec(
        (new, ListSpec((new, Argument(0))), DictSpec(("b", "a"), (new, Constant("c"))), new)
    )
    call = make(adding_spec(arguments, result, [(0, 4), (1, 5), (2, 6), (3, 7)]))
    a, b, c, d = (np.array(10 * i) for i in range(1, 5))
    for tree in ({"x": b, "y": [c, (d,)]}, {"y": [c, (d,)], "x": b}):
        found = call(a, tree)
        assert repr(found) == repr(
            (np.array(11), [np.array(21), a], {"b": np.array(31), "a": "c"}, np.array(41))
        )
        assert found[1][1] is a
        assert list(found[2]) == ["b", "a"]
    misfits: list[Any] = [
        {"x": b, "y": (c, (d,))},
        {"x": b, "y": [c, [d]]},
        {"x": b, "y": [c, (d, d)]},
        {"x": b, "y": [c]},
        {"x": b, "z": [c, (d,)]},
        {"x": b},
        {"x": b, "y": [c, (d,)], "z": 1},
        {"x": b, "y": [c, (d.astype(float),)]},
        [b, [c, (d,)]],
        {},
        None,
    ]
    for tree in misfits:
        assert call(a, tree) is NotImplemented


def test_subclasses_of_containers_do_not_fit(make: Build) -> None:
    empty = Tape(np.empty((0, 4), np.int64))
    one = StaticSpec(None)
    pair = namedtuple("pair", "a b")
    for spec, good, bad in (
        (TupleSpec((one, one)), (None, None), pair(None, None)),
        (DictSpec(("a",), (one,)), {"a": None}, OrderedDict(a=None)),
    ):
        call = make(ProgramSpec((spec,), Constant(True), empty))
        assert call(good) is True
        assert call(bad) is NotImplemented


def test_deep_and_wide_trees(make: Build) -> None:
    leaf: Any = ArraySpec(I8, ())
    x = value = np.array(5)
    tree, result = leaf, Argument(0)
    for _ in range(200):
        tree, value, result = TupleSpec((tree,)), (value,), ListSpec((result,))
    empty = Tape(np.empty((0, 4), np.int64))
    found = make(ProgramSpec((tree,), result, empty))(value)
    for _ in range(200):
        assert type(found) is list
        (found,) = found
    assert found is x
    wide = make(
        ProgramSpec(
            (ListSpec((leaf,) * 1000),), TupleSpec(tuple(map(Argument, range(999, -1, -1)))), empty
        )
    )
    many = [np.array(i) for i in range(1000)]
    assert all(a is b for a, b in zip(wide(many), reversed(many), strict=True))


def test_misplaced_specs_are_refused() -> None:
    empty = Tape(np.empty((0, 4), np.int64))
    with pytest.raises(TypeError, match="is not an argument"):
        build(ProgramSpec((New(I8, ()),), Constant(0), empty))
    with pytest.raises(TypeError, match="is not a result"):
        build(ProgramSpec((), ArraySpec(I8, ()), empty))
    with pytest.raises(IndexError, match="result is leaf 1 of 1"):
        build(ProgramSpec((ArraySpec(I8, ()),), Argument(1), empty))
    with pytest.raises(TypeError, match="no arrays of dtype object"):
        build(ProgramSpec((ArraySpec(np.dtype(object), ()),), Constant(0), empty))
    tape = Tape(np.empty((0, 4), np.int64), np.array([[9, empty.launches.ctypes.data, 0]]))
    with pytest.raises(IndexError, match="names base 9 of 1"):
        build(ProgramSpec((ArraySpec(I8, ()),), Constant(0), tape))


# -------------------------------------------------------------------------------- donation


def test_donated_array_comes_back_changed(make: Build) -> None:
    call = make(add_one_spec((4,), donated=True))
    x = np.arange(4)
    assert call(call(x)) is x
    np.testing.assert_array_equal(x, [2, 3, 4, 5])
    x.flags.writeable = False
    assert call(x) is NotImplemented
    np.testing.assert_array_equal(x, [2, 3, 4, 5])


@pytest.fixture
def donating(make: Build) -> Entry:
    """f(a, b, c) of int64[4]; a and c are donated."""
    arguments = tuple(ArraySpec(I8, (4,), donated) for donated in (True, False, True))
    return make(ProgramSpec(arguments, Constant("ran"), Tape(np.empty((0, 4), np.int64))))


def test_donated_arrays_must_be_alone(donating: Entry) -> None:
    memory = np.zeros(100, np.int64)

    def at(*starts: int) -> list[np.ndarray]:
        return [memory[start : start + 4] for start in starts]

    for starts in itertools.permutations((0, 4, 8)):
        assert donating(*at(*starts)) == "ran"
    for starts in itertools.permutations((40, 3, 8)):
        assert donating(*at(*starts)) == "ran"
    for starts in (
        (0, 0, 50),
        (0, 3, 50),
        (0, 50, 3),
        (50, 0, 3),
        (53, 50, 7),
        (9, 9, 9),
        (0, 8, 0),
    ):
        assert donating(*at(*starts)) is NotImplemented
    assert donating(*at(0, 4, 8)) == "ran"


def test_arrays_that_are_only_read_may_overlap(make: Build) -> None:
    arguments = (ArraySpec(I8, (4,)), ArraySpec(I8, (4,)), ArraySpec(I8, (4,), True))
    call = make(ProgramSpec(arguments, Constant("ran"), Tape(np.empty((0, 4), np.int64))))
    memory = np.zeros(20, np.int64)
    assert call(memory[:4], memory[2:6], memory[8:12]) == "ran"
    assert call(memory[:4], memory[:4], memory[4:8]) == "ran"
    assert call(memory[:4], memory[:4], memory[3:7]) is NotImplemented
    assert call(memory[6:10], memory[:4], memory[3:7]) is NotImplemented


# ------------------------------------------------------------------- nothing is left behind


def counts(*objects: object) -> list[int]:
    return [sys.getrefcount(o) for o in objects]


def test_references_are_given_back(make: Build) -> None:
    leaf, new = ArraySpec(I8, (3,)), New(I8, (3,))
    constant = object()
    spec = adding_spec(
        (DictSpec(("k",), (leaf,)), ListSpec((leaf, TupleSpec((leaf,))))),
        DictSpec(("k", "l"), (TupleSpec((new, Argument(1))), ListSpec((Constant(constant), new)))),
        [(0, 3), (1, 4)],
    )
    call = make(spec, lambda *args, **keywords: None)
    a, b, c = (np.zeros(3, np.int64) for _ in range(3))
    inner = (c,)
    first, second = {"k": a}, [b, inner]
    watched = (a, b, c, inner, first, second, constant, I8, np.ndarray, NotImplemented, "k")
    bad = [b, (1,)]
    call(first, second)
    call(first, bad)
    before = counts(*watched)
    for _ in range(1000):
        call(first, second)
        call(first, bad)
        call(first)
        call(first, second, k=1)
    after = counts(*watched)
    assert [y - x for x, y in zip(before, after, strict=True)] == [0] * len(watched)


def test_results_hold_no_more_than_they_should(make: Build) -> None:
    x = np.zeros(3, np.int64)
    call = make(add_one_spec((3,)))
    result = call(x)
    assert sys.getrefcount(result) == 2
    assert sys.getrefcount(x) == 2
    both = make(
        ProgramSpec(
            (ArraySpec(I8, (3,)),),
            TupleSpec((Argument(0), Argument(0), New(I8, (3,)))),
            Tape(np.empty((0, 4), np.int64)),
        )
    )
    found = both(x)
    assert sys.getrefcount(x) == 4
    del found
    assert sys.getrefcount(x) == 2
    assert not gc.is_tracked(result)


def test_memory_does_not_grow(make: Build) -> None:
    small, large = make(add_one_spec((3,))), make(add_one_spec((20_000,)))
    x, y = np.zeros(3, np.int64), np.zeros(20_000, np.int64)
    for call, argument in ((small, x), (large, y)):
        for _ in range(10):
            call(argument)
            call(1)
    gc.collect()
    tracemalloc.start()
    try:
        traced = []
        for _ in range(2):
            for _ in range(500):
                for call, argument in ((small, x), (large, y)):
                    call(argument)
                    call(1)
            traced.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert traced[1] - traced[0] < 20_000


def test_entry_keeps_alive_what_it_needs_and_no_longer(make: Build) -> None:
    class Kept:
        pass

    kept = Kept()
    died = weakref.ref(kept)
    spec = add_one_spec((3,))
    tape = Tape(spec.tape.launches, spec.tape.patches, (*spec.tape.keep, kept))
    call = make(ProgramSpec(spec.arguments, spec.result, tape))
    del spec, tape, kept
    gc.collect()
    for _ in range(100):
        np.zeros(1000)  # takes any memory that was freed too early
    assert died() is not None
    np.testing.assert_array_equal(call(np.zeros(3, np.int64)), [1, 1, 1])
    del call
    gc.collect()
    assert died() is None


# --------------------------------------------------------------------- many calls at a time


@pytest.mark.parametrize("is_long", [False, True])
def test_python_threads_call_at_once(make: Build, is_long: bool) -> None:
    call = make(add_one_spec((1000,), parts=3, is_long=is_long))
    wrong: list[int] = []

    def work(number: int) -> None:
        x = np.full(1000, number)
        for _ in range(200):
            if not (call(x) == number + 1).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has no usleep")
def test_other_threads_run_during_a_long_program() -> None:
    """The kernel is the C library's usleep, and its table the number of microseconds."""
    usleep = address_of(ctypes.CDLL(None).usleep)
    spec = ProgramSpec((), Constant("ran"), Tape(np.array([[usleep, 500_000, 1, 1]])))
    steps = {}
    for is_long in (False, True):
        call = build(structs.replace(spec, is_long=is_long))
        begun, stop, count = threading.Event(), threading.Event(), [0]

        def work(
            begun: threading.Event = begun, stop: threading.Event = stop, count: list[int] = count
        ) -> None:
            while not stop.is_set():
                count[0] += 1
                begun.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        before = count[0]
        assert call() == "ran"
        steps[is_long] = count[0] - before
        stop.set()
        thread.join()
    assert steps[True] > 5 * steps[False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_fork_while_another_thread_is_in_a_long_program() -> None:
    code = """
import ctypes, os, threading, time
import numpy as np
from native_kernels import address_of
from graphdl.kernels.cpu.entry import Constant, ProgramSpec, build
from graphdl.kernels.cpu.tape import Tape
from graphdl.kernels.cpu import blas
library = blas.library()
threads = ctypes.CFUNCTYPE(ctypes.c_int)(library.get_threads)
if library.set_threads:
    ctypes.CFUNCTYPE(None, ctypes.c_int)(library.set_threads)(2)
usleep = address_of(ctypes.CDLL(None).usleep)
tape = Tape(np.array([[usleep, 300_000, 1, 1]]))
call = build(ProgramSpec((), Constant("ran"), tape, uses_blas=True, is_long=True))
thread = threading.Thread(target=call)
thread.start()
time.sleep(0.1)
assert threads() == 1 or not library.set_threads
child = os.fork()
right = call() == "ran" and (threads() == 2 or not library.set_threads)
if child == 0:
    os._exit(0 if right else 3)
print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""
    assert in_new_process(code) == "True 0"


def test_a_call_during_a_call() -> None:
    """A kernel that calls the program it belongs to: each call has memory of its own."""
    table = np.zeros(2, np.int64)
    started, results = [0], []
    call: Entry

    def kernel(address: int, lo: int, hi: int) -> None:
        source, target = table.tolist()
        started[0] += 1
        if started[0] < 6:
            results.append(call(np.array(started[0])))
        number = ctypes.c_int64.from_address(source).value
        ctypes.c_int64.from_address(target).value = 10 * number

    native = callback(kernel)
    base = table.ctypes.data
    call = build(
        ProgramSpec(
            (ArraySpec(I8, ()),),
            New(I8, ()),
            Tape(
                np.array([[address_of(native), base, 1, 1]]),
                np.array([[0, base, 0], [1, base + 8, 0]]),
                (table,),
            ),
        )
    )
    assert call(np.array(0)) == 0
    assert [int(result) for result in results] == [50, 40, 30, 20, 10]


def test_finaliser_that_calls_while_results_are_built() -> None:
    """The garbage collector may run anything whenever a container is made."""
    call = build(
        adding_spec(
            (ListSpec((ArraySpec(I8, ()),)),), ListSpec((TupleSpec((New(I8, ()),)),)), [(0, 1)]
        )
    )
    tree = [np.array(1)]

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            tree[0] = np.array(7)
            assert call([np.array(41)])[0][0] == 42

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            tree[0] = np.array(1)
            Cycle()
            assert call(tree)[0][0] in (2, 8)
    finally:
        gc.set_threshold(*threshold)


# -------------------------------------------------------------------------- large results


@pytest.fixture
def clean_cache() -> Iterator[None]:
    recycle.trim()
    yield
    recycle.trim()


LARGE = 200_000  # int64: 1.6 MB


def test_memory_of_a_dropped_result_is_used_again(clean_cache: None) -> None:
    call = build(add_one_spec((LARGE,)))
    x = np.arange(LARGE)
    first = call(x)
    address = first.ctypes.data
    second = call(x)
    assert second.ctypes.data != address
    assert recycle.kept_bytes() == 0
    del first
    assert recycle.kept_bytes() >= x.nbytes
    third = call(x)
    assert third.ctypes.data == address
    assert recycle.kept_bytes() == 0
    np.testing.assert_array_equal(second, x + 1)
    np.testing.assert_array_equal(third, x + 1)


def test_a_view_keeps_its_memory(clean_cache: None) -> None:
    call = build(add_one_spec((LARGE,)))
    view = call(np.zeros(LARGE, np.int64))[5:10]
    others = [call(np.full(LARGE, i)) for i in range(5)]
    np.testing.assert_array_equal(view, [1] * 5)
    assert not any(np.may_share_memory(view, other) for other in others)


def test_large_results_are_ordinary_arrays(clean_cache: None) -> None:
    call = build(add_one_spec((LARGE,)))
    x = np.arange(LARGE)
    result = call(x)
    assert result.base is None
    assert result.flags.owndata
    assert result.ctypes.data % 64 == 0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)), x + 1)
    kept = recycle.kept_bytes()
    result.resize(LARGE * 2)
    assert recycle.kept_bytes() >= kept + x.nbytes
    np.testing.assert_array_equal(result[:LARGE], x + 1)
    result[LARGE:] = 1
    result.resize(10)
    np.testing.assert_array_equal(result, x[:10] + 1)


def test_what_is_kept_is_bounded(clean_cache: None) -> None:
    call = build(add_one_spec((LARGE,)))
    x = np.arange(LARGE)
    limit = recycle._default_limit()
    try:
        recycle.set_limit(3 * x.nbytes + 1000)
        results = [call(x) for _ in range(6)]
        del results
        assert 2 * x.nbytes < recycle.kept_bytes() <= 3 * x.nbytes + 1000
        recycle.set_limit(x.nbytes // 2)
        assert recycle.kept_bytes() == 0
        call(x)
        assert recycle.kept_bytes() == 0
    finally:
        recycle.set_limit(limit)
    with pytest.raises(ValueError, match="cannot keep -1 bytes"):
        recycle.set_limit(-1)


def test_more_blocks_than_are_kept(clean_cache: None) -> None:
    call = build(add_one_spec((10_000,)))
    x = np.arange(10_000)
    results = [call(x + i) for i in range(200)]
    for i in range(0, 200, 2):
        results[i] = np.zeros(0)
    assert recycle.kept_bytes() == 64 * 80_000
    results += [call(x + i) for i in range(200, 300)]
    for i, result in enumerate(results):
        if len(result):
            np.testing.assert_array_equal(result, x + i + 1)


def test_results_of_other_sizes_do_not_waste_blocks(clean_cache: None) -> None:
    big, small = build(add_one_spec((LARGE,))), build(add_one_spec((LARGE // 4,)))
    near = build(add_one_spec((LARGE - LARGE // 10,)))
    x = np.arange(LARGE)
    address = big(x).ctypes.data
    kept = recycle.kept_bytes()
    first = small(x[: LARGE // 4])
    assert recycle.kept_bytes() == kept
    second = near(x[: LARGE - LARGE // 10])
    assert second.ctypes.data == address
    np.testing.assert_array_equal(first, x[: LARGE // 4] + 1)


def test_arrays_of_numpy_itself_are_left_alone(clean_cache: None) -> None:
    build(add_one_spec((LARGE,)))(np.zeros(LARGE, np.int64))
    kept = recycle.kept_bytes()
    other = np.empty(LARGE, np.int64)
    assert recycle.kept_bytes() == kept
    del other
    assert recycle.kept_bytes() == kept


def test_results_are_freed_after_the_interpreter_has_ended() -> None:
    code = """
import builtins, sys
import numpy as np
from native_kernels import add_one_spec
from graphdl.kernels.cpu.entry import build
builtins.results = [build(add_one_spec((100_000,)))(np.zeros(100_000, np.int64)) for _ in range(3)]
sys.held = builtins.results[0]
print("numba" in sys.modules)
"""
    assert in_new_process(code) == "False"


# -------------------------------------------------------------------------- the self-check


def test_native_function_is_used_here() -> None:
    assert entry._native_problem() is None
    assert type(build(add_one_spec((1,)))).__name__ == "builtin_function_or_method"


def test_unknown_layout_of_arrays_is_noticed() -> None:
    code = """
import ctypes, numpy as np
from graphdl.kernels.cpu import entry, entry_code
class Moved(ctypes.Structure):
    _fields_ = (("extra", ctypes.c_int64), *entry_code.ArrayFields._fields_)
entry_code.ArrayFields = Moved
from native_kernels import add_one_spec
call = entry.build(add_one_spec((3,)))
print(type(call).__name__, call(np.zeros(3, np.int64)), entry._native_problem())
"""
    found = in_new_process(code)
    assert found.startswith("_PythonEntry [1 1 1] NumPy")
    assert found.endswith("lays arrays out in an unknown way")
