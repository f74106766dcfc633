"""The errors: each is a GraphError and the built-in that fits; those to catch are public names."""

import inspect

import pytest

import graphdl as gd
from graphdl import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
#: Which of them a caller catches by the name of a parent, or not at all.
PRIVATE = {
    "GradientShapeError",
    "GraphIndexArrayError",
    "GraphIndexShapeError",
    "VerificationError",
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_error_is_documented_and_a_built_in_one_too(kind):
    assert issubclass(kind, errors.GraphError)
    assert kind.__doc__
    builtin = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    assert kind is errors.GraphError or builtin[0] is not Exception


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_to_catch_are_public(kind):
    name = kind.__name__
    assert (name in gd.__all__) == (name not in PRIVATE)
    assert name in PRIVATE or getattr(gd, name) is kind
