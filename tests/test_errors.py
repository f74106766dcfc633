"""The errors: each is a GraphError and the built-in that fits; those to catch are public names."""

import inspect

import numpy as np
import pytest

import graphdl as gd
from graphdl import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
#: Which of them a caller catches by the name of a parent, or not at all.
PRIVATE = {
    "GradientShapeError",
    "GraphIndexArrayError",
    "GraphIndexShapeError",
    "StepsMemoryError",
    "VerificationError",
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_error_is_documented_and_a_built_in_one_too(kind):
    assert issubclass(kind, (errors.GraphError, Warning))
    assert kind.__doc__
    builtin = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    assert kind is errors.GraphError or builtin[0] is not Exception


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_to_catch_are_public(kind):
    name = kind.__name__
    assert (name in gd.__all__) == (name not in PRIVATE)
    assert name in PRIVATE or getattr(gd, name) is kind


X = np.ones(3)


#: What is called wrongly, and the error and the message that say so.
CALLS = {
    "donate": (
        lambda: gd.compile(np.sin, donate=1)(X),
        gd.ArgumentError,
        r"donate=1: sin was called with 1 positional arguments",
    ),
    "compile": (
        lambda: gd.compile(3),
        TypeError,
        r"gd.compile takes a function, not 3",
    ),
    "vjp": (
        lambda: gd.vjp(np.sin, np.arange(3)),
        gd.GradientError,
        r"argument x of sin is int64\[3\]: only floats have gradients",
    ),
    "dtype": (
        lambda: gd.compile(lambda p: p["w"])({"w": np.ones(3, np.longdouble)}),
        gd.DtypeError,
        r"argument p\['w'\]: dtype float128 is not supported",
    ),
    "executable": (
        lambda: gd.compile(np.add).lower(X, X)(X, np.ones(4, np.float32)),
        TypeError,
        r"takes \(float64\[3\], float64\[3\]\), not \(float64\[3\], float32\[4\]\)",
    ),
    "vmap": (
        lambda: gd.vmap(np.sin, in_axes=None)(X),
        gd.ArgumentError,
        r"vmap\(sin\): in_axes chooses no argument",
    ),
    "fori_loop": (
        lambda: gd.fori_loop(0, 3, lambda i, c: (c, c), 1.0),
        gd.ShapeError,
        r"fori_loop: the carry nests as",
    ),
    "map": (lambda: gd.map(np.sin, 2.0), gd.ShapeError, r"map\(sin\): xs holds a 0-d array"),
    "cond": (
        lambda: gd.cond(True, lambda x: x, lambda x: x[0], X),
        gd.ShapeError,
        r"cond: <lambda> returns \['float64\[\]'\], <lambda> \['float64\[3\]'\]",
    ),
    "spec": (lambda: gd.spec((2, -1)), gd.ShapeError, r"shape \(2, -1\) has a negative size"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_says_what_is_wrong(name):
    call, kind, message = CALLS[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_debug_level_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("GRAPHDL_DEBUG", "all")
    with pytest.raises(ValueError, match="GRAPHDL_DEBUG must be a whole number from 0 to 3"):
        gd.compile(np.tanh).lower(X)


def test_debug_levels_explain_print_graphs_and_kernels(monkeypatch, capsys):
    for level, texts in {
        "1": ["1 kernel\n"],
        "2": ["1 kernel\n", "simplify:\ngraph("],
        "3": ["1 kernel\n", "simplify:\ngraph(", "def kernel(table, lo, hi):"],
    }.items():
        monkeypatch.setenv("GRAPHDL_DEBUG", level)
        gd.compile(lambda x: np.tanh(x) + 1).lower(X)
        printed = capsys.readouterr().err
        assert [text for text in texts if text not in printed] == []
