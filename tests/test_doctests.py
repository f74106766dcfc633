"""The examples in the package's docstrings run and print what they say."""

import doctest
import importlib
import inspect
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


#: What a user calls; a module shows its examples name by name, an error says when it is raised.
CALLED = [
    name
    for name in graphdl.__all__
    if not inspect.ismodule(getattr(graphdl, name))
    and not (
        inspect.isclass(getattr(graphdl, name)) and issubclass(getattr(graphdl, name), Exception)
    )
]


@pytest.mark.parametrize("name", graphdl.__all__)
def test_each_public_name_is_documented(name):
    assert inspect.getdoc(getattr(graphdl, name))


@pytest.mark.parametrize("name", CALLED)
def test_what_a_user_calls_has_an_example(name):
    assert ">>> " in inspect.getdoc(getattr(graphdl, name))


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
