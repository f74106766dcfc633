"""Names that a compiled function reads, and that change between calls."""

from __future__ import annotations

import functools
import sys
import warnings

import numpy as np
import pytest

import graphdl as gd

BATCH = np.arange(3.0)
RATE = 0.5
COUNT = 0
T = 1.0


def loss(w):
    return np.sum((w - BATCH) ** 2)


def outer(w):
    return RATE * loss(w) + w.T.sum()


def counting(w):
    global COUNT
    COUNT += 1
    return w * 2


def warned(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(item.message) for item in found if item.category is gd.StaleConstantWarning]


@pytest.mark.parametrize("make", [gd.compile, gd.grad, gd.value_and_grad, gd.hessian])
def test_a_global_that_is_bound_anew(monkeypatch, make):
    f = make(loss)
    assert not warned(lambda: f(np.ones(3)))
    monkeypatch.setattr(sys.modules[__name__], "BATCH", BATCH + 1)
    (text,) = warned(lambda: f(np.ones(3)))
    assert text.startswith("the global 'BATCH', which loss reads, has changed since loss was")
    assert "Make it an argument" in text
    assert __file__ in text
    assert not warned(lambda: f(np.ones(3)))  # once


@pytest.mark.parametrize("shape", [(3, 8), (500, 400)])
def test_an_array_that_is_changed_in_place(shape):
    data = np.zeros(shape)
    f = gd.compile(lambda w: np.sum(w * data))
    f(1.0)
    f(1.0)
    data[:, 7] = 5
    (text,) = warned(lambda: f(1.0))
    assert "'data' of the enclosing function, which <lambda> reads" in text


def test_a_number_and_what_another_function_reads(monkeypatch):
    f = gd.compile(functools.partial(outer))
    f(np.ones(3))
    monkeypatch.setattr(sys.modules[__name__], "T", 2.0)  # w.T is another name
    assert not warned(lambda: f(np.ones(3)))
    monkeypatch.setattr(sys.modules[__name__], "RATE", 0.25)
    assert "the global 'RATE', which outer reads" in warned(lambda: f(np.ones(3)))[0]


class Model:
    def __init__(self):
        self.weights = np.ones(3)
        self.calls = 0

    def predict(self, x):
        self.calls += 1
        return self.weights @ x


def test_an_attribute_of_the_object_of_a_method():
    model = Model()
    f = gd.compile(model.predict)
    f(np.ones(3))
    model.weights = model.weights - 0.1
    (text,) = warned(lambda: f(np.ones(3)))
    assert "the attribute 'weights', which predict reads" in text


def test_what_a_function_itself_changes_is_its_own_affair():
    total = 0.0

    def adding(w):
        nonlocal total
        total = total + 1
        return w + 1

    for f in (gd.compile(counting), gd.compile(adding)):
        for _ in range(4):
            assert not warned(lambda f=f: f(1.0))


def test_equal_values_are_no_change():
    data = np.array([1.0, np.nan])

    def f(w):
        return w * data

    compiled = gd.compile(f)
    compiled(1.0)
    data = data.copy()
    assert not warned(lambda: compiled(1.0))


def test_calls_are_native_after_the_first_ones(monkeypatch):
    data = np.ones(2)
    f = gd.compile(lambda w: w * data)
    for w in (np.ones(2), np.ones((3, 2)), np.ones(2), np.ones((3, 2)), np.ones(2)):
        np.testing.assert_array_equal(f(w), w)
    monkeypatch.setattr(type(f), "_dispatch", None)
    assert f._entry(np.ones((3, 2))).shape == (3, 2)
    data[:] = 2
    assert not warned(lambda: f(np.ones((3, 2))))
