"""The findings as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import fill

import numpy as np
import scipy

from graphdl.coverage.names import AUTOGRAD, AUTOGRAD_NAMES, OF_ANY_SHAPE, REASONS
from graphdl.coverage.probe import EXACT, NAMESPACES, NO_FLOAT, NONE, STEP, Finding, probe

Findings = Mapping[str, Sequence[Finding]]

_HEAD = """\
# Coverage

Written by `python -m graphdl.coverage --write docs/coverage.md`, with NumPy {numpy} and SciPy
{scipy}; not by hand. Each public function has been called on traced arrays, its results compared
with the original's and its gradient with finite differences. Functions of `scipy.special` that are
ufuncs dispatch to traced values by themselves; for the others, and for `scipy.linalg`, import
`graphdl.special` and `graphdl.linalg` in their place; in traced functions `graphdl.numpy` takes the
place of `numpy` by itself. `numpy.random` keeps hidden state and is not
traced: `gd.random` has keys instead.

"""


def findings() -> dict[str, list[Finding]]:
    """What calling every name shows, by module. The names that autograd knows are checked to the
    second derivative, the others to the first."""
    return {
        space.title: [
            probe(space, name, 2 if name in _autograd(space.title) else 1)
            for name in space.names()
            if name not in REASONS
        ]
        for space in NAMESPACES
    }


def _autograd(title: str) -> list[str]:
    return AUTOGRAD_NAMES[title].split()


def page(found: Findings) -> str:
    """The whole page."""
    numpy, scipy_version = (".".join(v.split(".")[:2]) for v in (np.__version__, scipy.__version__))
    parts = [_HEAD.format(numpy=numpy, scipy=scipy_version), _figures(found), _compared(found)]
    parts += [_section(title, found[title]) for title in found]
    return "".join(parts)


def _figures(found: Findings) -> str:
    rows = [
        "| module | functions of arrays | work | have a gradient | differentiable by nature | "
        "of complex numbers |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, names in found.items():
        works = [f for f in names if f.works]
        smooth = [f for f in works if f.gradient in (EXACT, NONE)]
        exact = [f for f in works if f.gradient == EXACT]
        asked = [f.of_complex for f in works if f.of_complex is not None]
        figures = (len(names), len(works), len(exact), len(smooth))
        counts = " | ".join(map(str, figures))
        rows.append(f"| `{title}` | {counts} | {sum(asked)} of {len(asked)} |")
    note = (
        "*Differentiable by nature*: of those that work, the ones whose result is made of floats "
        "that are not piecewise constant. *Of complex numbers*: of those that work and whose "
        "original takes complex numbers too, the ones that give the same results of them here."
    )
    return "\n".join(rows) + "\n\n" + fill(note, 100) + "\n\n"


def _compared(found: Findings) -> str:
    known = [(title, name) for title in AUTOGRAD_NAMES for name in _autograd(title)]
    good = {(title, f.name) for title in found for f in found[title] if f.works and _flows(f)}
    missing = [f"`{title}.{name}`" for title, name in known if (title, name) not in good]
    share = 100 * (len(known) - len(missing)) / len(known)
    text = (
        f"Of the {len(known)} functions of these modules for which {AUTOGRAD} defines a gradient, "
        f"{len(known) - len(missing)} ({share:.0f} %) have one here, of first and second order "
        f"right (or it is 0 everywhere)"
    )
    text += "." if not missing else f"; missing: {', '.join(missing)}."
    return fill(text, 100, break_on_hyphens=False) + "\n"


def _flows(finding: Finding) -> bool:
    return finding.gradient in (EXACT, STEP)


def _section(title: str, names: Sequence[Finding]) -> str:
    groups: list[tuple[str, Callable[[Finding], bool]]] = [
        ("Work, with a gradient", lambda f: f.works and f.gradient == EXACT),
        ("Work; the derivative is 0 wherever it exists", lambda f: f.works and f.gradient == STEP),
        ("Work; the result is no float", lambda f: f.works and f.gradient == NO_FLOAT),
        ("Work, without a gradient", lambda f: f.works and f.gradient == NONE),
        ("Take real numbers only, where the original takes complex ones", _real_only),
        ("Not traced: the shape of the result would depend on values", _shapeless),
        ("Not yet", lambda f: not f.works and not _shapeless(f)),
    ]
    parts = [f"\n## {title}\n"]
    for head, belongs in groups:
        chosen = [f for f in names if belongs(f)]
        if chosen:
            text = _listed([f.name for f in chosen], {f.name: f for f in chosen})
            parts.append(f"\n{head} ({len(chosen)}):\n{text}\n")
    return "".join([*parts, _left_out(title)])


def _by(finding: Finding) -> str:
    """By which argument of the call there is a gradient, where not by all."""
    if not finding.by:
        return ""
    floats = finding.example[finding.example.index("(") + 1 : -1].split(", ")
    places = [str(floats.index(name) + 1) for name in finding.by if name in floats]
    return f" (by argument {' and '.join(places)})" if places else " (by some arguments)"


def _real_only(finding: Finding) -> bool:
    return finding.of_complex is False


def _shapeless(finding: Finding) -> bool:
    return not finding.works and finding.name in OF_ANY_SHAPE


def _left_out(title: str) -> str:
    space = next(space for space in NAMESPACES if space.title == title)
    by_reason: dict[str, list[str]] = {}
    for name in space.names():
        if name in REASONS:
            by_reason.setdefault(REASONS[name], []).append(name)
    return "".join(
        f"\nNot tried, {reason} ({len(names)}):\n{_listed(names)}\n"
        for reason, names in by_reason.items()
    )


def _listed(names: Iterable[str], found: Mapping[str, Finding] | None = None) -> str:
    text = ", ".join(f"`{name}`{_by(found[name]) if found else ''}" for name in names)
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)
