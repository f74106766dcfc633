"""The examples in the package's docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import graphdl

# Needs the `cuda` extra, or runs the command line when imported.
SKIPPED = ("graphdl.kernels.cuda", "graphdl.__main__")
MODULES = ["graphdl"] + [
    module.name
    for module in pkgutil.walk_packages(graphdl.__path__, "graphdl.")
    if not module.name.startswith(SKIPPED)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
