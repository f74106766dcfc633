"""Programs called from nopython code and by their C pointer: values, threads, what is refused."""

import ctypes
import subprocess
import sys
import threading

import numba
import numpy as np
import optree
import pytest
from numba.core.errors import NumbaError, TypingError

import graphdl as gd


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_gradient(x):
    inner = x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] += -400.0 * inner * x[:-1] - 2.0 * (1.0 - x[:-1])
    gradient[1:] += 200.0 * inner
    return gradient


def made(f, *args, **options):
    return gd.compile(f, **options).lower(*args)


def pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def c_function(executable):
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(executable.address)


@pytest.fixture(scope="module")
def slope():
    return made(gd.value_and_grad(rosenbrock), np.zeros(10))


def test_a_loop_in_nopython_code_gets_value_and_gradient(slope):
    f = slope.njit

    @numba.njit
    def descend(x, steps):
        for _ in range(steps):
            value, gradient = f(x)
            x = x - 1e-4 * gradient
        return value, x

    x = expected = np.linspace(-1, 1, 10)
    for _ in range(50):
        value = rosenbrock(expected)
        expected = expected - 1e-4 * rosenbrock_gradient(expected)
    found, moved = descend(x, 50)
    assert type(found) is float
    np.testing.assert_allclose(found, value, rtol=1e-12)
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    # what Numba asks before it writes code to disk, where the address of a process is no use
    (compiled,) = descend.overloads.values()
    assert compiled.library.has_dynamic_globals


def test_dtypes_go_in_and_out_as_they_are():
    dtypes = (np.float32, np.uint8, np.complex64, np.bool_)
    given = [np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype) for dtype in dtypes]
    executable = made(lambda *xs: [x.T for x in xs], *given)
    for x, transposed in zip(given, executable.njit(*given), strict=True):
        np.testing.assert_array_equal(transposed, x.T)
        assert transposed.dtype == x.dtype


def test_python_numbers_and_single_elements_are_numbers():
    executable = made(
        lambda t, n, flag, x: np.where(flag, t * x, n * x), 0.5, 3, True, np.float32(2)
    )
    f = executable.njit
    assert f(0.25, 3, True, np.float32(2)) == 0.5
    assert f(1, 3, False, np.float32(2)) == 6.0  # an int where the program takes a float
    assert f(0.25, 3, True, np.array(4, np.float32)) == 1.0
    with pytest.raises(TypingError, match="argument n is a number of Python's that int64 can hold"):
        f(0.25, 3.5, True, np.float32(2))
    with pytest.raises(TypingError, match="argument x must be an array of float32, 0 axes or a nu"):
        f(0.25, 3, True, 2.0)


def test_trees_are_tuples():
    parameters = {"w": np.arange(6.0).reshape(2, 3), "b": [np.ones(2), None]}

    def f(parameters, x):
        made = parameters["w"] @ x + parameters["b"][0]
        return {"out": made, "also": (made.sum(), None)}

    program = made(f, parameters, np.ones(3)).njit
    # a dict by its sorted keys: b, w
    (total, none), out = program(((np.ones(2), None), parameters["w"]), np.ones(3))
    np.testing.assert_array_equal(out, [4.0, 13.0])
    assert total == 17.0
    assert none is None
    with pytest.raises(TypingError, match="argument parameters must be a tuple of 2, not arr"):
        program(parameters["w"], np.ones(3))
    with pytest.raises(TypingError, match=r"argument parameters\[0\] must have 2 items, not"):
        program(((np.ones(2),), parameters["w"]), np.ones(3))


def test_results_are_written_where_out_says(slope):
    f = slope.njit
    x, gradient, value = np.linspace(0, 1, 10), np.empty(10), np.array(0.0)
    returned = f(x, out=(None, gradient))
    np.testing.assert_allclose(gradient, rosenbrock_gradient(x), rtol=1e-12)
    assert returned[1].ctypes.data == gradient.ctypes.data
    f(x, out=(value, gradient))
    np.testing.assert_allclose(value, rosenbrock(x), rtol=1e-12)
    with pytest.raises(TypingError, match=r"out\[1\] must be an array of float64, 1 axis"):
        f(x, out=(None, np.empty(10, np.float32)))
    with pytest.raises(gd.ShapeError, match=r"out\[1\] must have shape \(10,\)"):
        f(x, out=(None, np.empty(9)))
    with pytest.raises(gd.ArgumentError, match="must not share memory"):
        f(x, out=(None, x))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros(10, np.float32), TypingError, "argument x must be an array of float64, 1 axis"),
        (np.zeros((10, 1)), TypingError, "argument x must be an array of float64, 1 axis"),
        (np.zeros(20)[::2], TypingError, "argument x must be contiguous"),
        (1.0, TypingError, "argument x must be an array of float64"),
        (np.zeros(9), gd.ShapeError, r"argument x must have shape \(10,\)"),
    ],
)
def test_what_does_not_fit_is_an_error(slope, given, error, message):
    with pytest.raises(error, match=message):
        slope.njit(given)


def test_the_number_of_arguments_is_checked(slope):
    with pytest.raises((TypeError, NumbaError)):
        slope.njit()


def test_a_donated_argument_is_written_over():
    executable = made(lambda x, y: x + y, np.zeros(4), np.zeros(4), donate=0)
    f = executable.njit
    x, y = np.arange(4.0), np.ones(4)
    result = f(x, y)
    np.testing.assert_array_equal(x, [1, 2, 3, 4])
    assert result.ctypes.data == x.ctypes.data
    with pytest.raises(gd.ArgumentError, match="must not share memory"):
        f(x, x)
    x.flags.writeable = False
    with pytest.raises(TypingError, match="argument x is donated"):
        f(x, y)


def recurrence(x):
    """A while loop with a gradient keeps its steps in memory that grows."""
    return gd.while_loop(lambda c: c[0] < 40, lambda c: (c[0] + 1, np.sin(c[1]) * x + c[1]), (0, x))


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda a, b: np.tanh(a @ b).sum(axis=0), (np.ones((40, 30)), np.ones((30, 20)))),
        (lambda x: gd.scan(lambda c, r: (c * 0.5 + r, c.sum()), x[0], x), (np.ones((9, 5)),)),
        (gd.grad(lambda x: recurrence(x)[1].sum()), (np.linspace(0.1, 0.5, 7),)),
        (lambda i, x: gd.switch(i, [np.sin, np.cos, np.square], x), (2, np.arange(5.0))),
        (lambda a, b: np.linalg.solve(a, b), (np.eye(6) * 2 + 0.1, np.arange(6.0))),
        (lambda x: x + np.arange(1000.0).reshape(10, 100), (np.ones((10, 100)),)),
        (lambda x: np.exp(np.tanh(x) * 2).sum(axis=1), (np.ones((800, 1000), np.float32),)),
    ],
    ids=["product", "scan", "while", "switch", "solve", "constant", "large"],
)
def test_many_threads_at_once_compute_what_one_does(f, args):
    """Through the C function: ctypes lets go of the interpreter's lock."""
    executable = made(f, *args)
    call = c_function(executable)
    given = [
        [a * a.dtype.type(1 + 0.01 * k) if isinstance(a, np.ndarray) else np.array(a) for a in args]
        for k in range(4)
    ]
    wanted = [
        optree.tree_leaves(executable(*(a if a.ndim else a.item() for a in one))) for one in given
    ]
    wrong = []

    def work(k):
        for _ in range(25):
            found = [np.empty_like(want) for want in wanted[k]]
            if call(pointers(given[k]), pointers(found)) != 0:
                wrong.append(k)
            for got, want in zip(found, wanted[k], strict=True):
                if not np.array_equal(got, want):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_prange_calls_it_side_by_side():
    program = made(gd.value_and_grad(rosenbrock), np.zeros(10)).njit

    @numba.njit(parallel=True)
    def all_rows(x):
        values, gradients = np.empty(len(x)), np.empty_like(x)
        for i in numba.prange(len(x)):
            values[i], _ = program(x[i], out=(None, gradients[i]))
        return values, gradients

    x = np.random.default_rng(1).standard_normal((500, 10))
    values, gradients = all_rows(x)
    np.testing.assert_allclose(values, [rosenbrock(row) for row in x], rtol=1e-12)
    np.testing.assert_allclose(gradients, [rosenbrock_gradient(row) for row in x], rtol=1e-9)


def test_what_fails_in_a_kernel_is_an_exception():
    pick = made(lambda x, i: x[i], np.arange(5.0), 2).njit
    assert pick(np.arange(5.0), 4) == 4.0
    with pytest.raises(gd.GraphIndexError, match="out of bounds"):
        pick(np.arange(5.0), 7)
    assert pick(np.arange(5.0), 4) == 4.0  # the failure is not remembered
    factor = made(lambda a, b: (np.linalg.cholesky(a), np.linalg.inv(b)), np.eye(3), np.eye(3)).njit
    with pytest.raises(gd.GraphLinAlgError, match="cholesky"):
        factor(-np.eye(3), np.eye(3))
    with pytest.raises(gd.GraphLinAlgError, match=r"inv|solve"):
        factor(np.eye(3), np.zeros((3, 3)))
    checked = made(lambda x: np.log(x), np.ones(3), checks="nan").njit
    with pytest.raises(gd.NonFiniteError, match="a NaN or an infinity"):
        checked(np.array([1.0, -1.0, 1.0]))


def test_a_failure_in_the_body_of_a_loop_is_an_exception():
    def f(x, rows):
        return gd.scan(lambda c, i: (c + np.linalg.cholesky(x[i]), i), np.zeros((2, 2)), rows)[0]

    stack = np.stack([np.eye(2), -np.eye(2)])
    program = made(f, stack, np.array([0, 0])).njit
    np.testing.assert_array_equal(program(stack, np.array([0, 0])), 2 * np.eye(2))
    with pytest.raises(gd.GraphLinAlgError, match="cholesky"):
        program(stack, np.array([0, 1]))


def test_a_function_of_the_users_is_called_too():
    @gd.op
    @numba.njit
    def cube(x):
        return x * x * x

    program = made(lambda x: cube(x) + 1, np.ones(3)).njit
    np.testing.assert_array_equal(program(np.array([1.0, 2.0, 3.0])), [2.0, 9.0, 28.0])


def test_a_program_that_calls_python_is_refused():
    def f(x):
        gd.debug.print("{}", x)
        return x + 1

    executable = made(f, np.ones(3))
    with pytest.raises(gd.UnsupportedError, match=r"calls a Python function \(gd.debug\)"):
        _ = executable.njit
    with pytest.raises(gd.UnsupportedError, match="without the interpreter's lock"):
        _ = executable.address


def test_the_address_is_a_c_function(slope):
    f = c_function(slope)
    x, value, gradient = np.linspace(-1, 1, 10), np.zeros(()), np.zeros(10)
    assert f(pointers([x]), pointers([value, gradient])) == 0
    np.testing.assert_allclose(value, rosenbrock(x), rtol=1e-12)
    np.testing.assert_allclose(gradient, rosenbrock_gradient(x), rtol=1e-12)


def test_the_address_reports_failures_by_a_code():
    picks = made(lambda x, i: x[i], np.arange(5.0), 2)  # the address is good while it lives
    f = c_function(picks)
    x, i, out = np.arange(5.0), np.array(9), np.zeros(())
    assert f(pointers([x, i]), pointers([out])) == 1
    i[...] = 3
    assert f(pointers([x, i]), pointers([out])) == 0
    assert out == 3.0


def test_the_address_imports_no_numba():
    text = """
import sys, numpy as np, graphdl as gd
executable = gd.compile(lambda x: np.tanh(x) * x).lower(np.ones(8))
print(executable.address > 0, "numba" in sys.modules)
"""
    for _ in range(2):  # the first run fills the cache
        run = [sys.executable, "-c", text]
        done = subprocess.run(run, check=True, capture_output=True, text=True)
    assert done.stdout == "True False\n"
