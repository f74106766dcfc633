"""`python -m graphdl.coverage`: the page says what the code does, and notices what it does not."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import scipy

from graphdl.coverage.names import AUTOGRAD_NAMES, OF_ANY_SHAPE, REASONS
from graphdl.coverage.page import findings, page
from graphdl.coverage.probe import EXACT, NAMESPACES, NO_FLOAT, NONE, STEP, Namespace, probe
from graphdl.transforms import custom_vjp

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
VERSIONS = [".".join(library.__version__.split(".")[:2]) for library in (np, scipy)]


@pytest.mark.skipif(
    "with NumPy {} and SciPy\n{};".format(*VERSIONS) not in PAGE.read_text(),
    reason="the page was made with other versions of NumPy and SciPy",
)
def test_the_page_is_what_the_code_does() -> None:
    wanted = page(findings())
    assert PAGE.read_text() == wanted, "run python -m graphdl.coverage --write docs/coverage.md"


def _space(original: object, own: object) -> Namespace:
    return Namespace(
        "numpy", types.SimpleNamespace(thing=original), types.SimpleNamespace(thing=own)
    )


def _half(x: np.ndarray) -> np.ndarray:
    return x * 0.5


def test_what_a_finding_says() -> None:
    @custom_vjp
    def wrong_slope(x):
        return x * 0.5

    wrong_slope.defvjp(lambda x: (x * 0.5, None), lambda _, g: (g,))
    cases = [
        (_half, True, EXACT),
        (lambda x: np.floor(x), True, STEP),
        (lambda x: x > 0.5, True, NO_FLOAT),
        (lambda x: x * 0.25, False, NONE),  # another result
        (lambda x: float(x[0, 0]), False, NONE),  # needs values
        (wrong_slope, True, NONE),
    ]
    for own, works, gradient in cases:
        original = {STEP: np.floor, NO_FLOAT: lambda x: x > 0.5}.get(gradient, _half)
        found = probe(_space(original, own), "thing")
        assert (found.works, found.gradient) == (works, gradient), found


def test_some_arguments_only() -> None:
    found = probe(next(s for s in NAMESPACES if s.title == "scipy.special"), "gammainc")
    assert (found.gradient, found.by) == (EXACT, ("y",))


def test_lists_name_what_exists() -> None:
    """Every name in a list is one of a module that is looked at."""
    public = {name for space in NAMESPACES for name in space.names()}
    known = OF_ANY_SHAPE | REASONS.keys()
    for space in NAMESPACES:
        known |= set(AUTOGRAD_NAMES[space.title].split())
    removed = {"errstate"}  # a class, and names of other versions
    assert known - public <= removed
