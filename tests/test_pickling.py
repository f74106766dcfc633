"""Compiled functions in pickles, in copies, and in other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import graphdl as gd


@gd.compile
def doubled(x):
    return np.sin(x) * 2


class Model:
    def __init__(self):
        self.scale = np.ones(2)
        self.forward = gd.compile(self.scaled)

    def scaled(self, x):
        return x * self.scale


def plain(x):
    return x + 1


def test_a_decorated_function_goes_by_its_name():
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert copy.deepcopy(doubled) is doubled


def test_any_other_goes_by_the_function_that_it_compiles():
    compiled = gd.compile(plain, checks="nan")
    compiled(1.0)
    again = pickle.loads(pickle.dumps(compiled))
    assert again is not compiled
    assert again.checks == {"nan"}
    assert float(again(1.0)) == 2.0
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(gd.compile(lambda x: x))


def test_a_copied_model_calls_itself():
    model = Model()
    model.forward(np.ones(2))
    other = copy.deepcopy(model)
    other.scale[:] = 3
    np.testing.assert_array_equal(other.forward(np.ones(2)), [3, 3])
    np.testing.assert_array_equal(model.forward(np.ones(2)), [1, 1])


def test_what_never_changes_is_its_own_copy_and_says_how_to_keep_it():
    executable = gd.compile(plain).lower(1.0)
    assert copy.deepcopy(executable) is executable
    assert copy.deepcopy(executable.graph) is executable.graph
    for value in (executable, executable.graph):
        with pytest.raises(gd.UnsupportedError, match=r"executable.save\(path\)"):
            pickle.dumps(value)


def test_other_processes_take_compiled_functions():
    x = np.arange(4.0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (result,) = pool.map(doubled, [x])
    np.testing.assert_array_equal(result, doubled(x))


@pytest.mark.parametrize("transform", [gd.grad, gd.value_and_grad, gd.hessian, gd.jacobian])
def test_derivatives_can_be_pickled(transform):
    made = transform(rosenbrock)
    wanted = made(np.full(3, 0.5))
    again = pickle.loads(pickle.dumps(made))
    for got, right in zip(
        gd.tree_leaves(again(np.full(3, 0.5))), gd.tree_leaves(wanted), strict=True
    ):
        np.testing.assert_array_equal(got, right)
    assert copy.deepcopy(made)(np.ones(3)) is not None
    assert repr(again).startswith(f"<compiled {transform.__name__} of rosenbrock")


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def test_derivatives_keep_their_settings_in_pickles():
    made = gd.vmap(gd.compile(rosenbrock, memory_budget=1000), in_axes=1)
    again = pickle.loads(pickle.dumps(made))
    assert again.memory_budget == 1000
    np.testing.assert_array_equal(again(np.full((3, 2), 0.5)), made(np.full((3, 2), 0.5)))


class Fitted:
    def __init__(self):
        self.offset = 1.0
        self.slope = gd.grad(self.loss)

    def loss(self, x):
        return (x - self.offset) ** 2


def test_an_object_with_a_gradient_of_its_method_can_be_pickled():
    assert float(pickle.loads(pickle.dumps(Fitted())).slope(3.0)) == 4.0
