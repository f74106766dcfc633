"""A warning where a traced function draws random numbers from a generator with a hidden state.

The numbers are drawn while the function is traced, and are constants of what is compiled: each call
sees the same ones. That is seldom meant, and nothing else would tell.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from graphdl.errors import RandomConstantWarning
from graphdl.tracing import as_traced_results, current_trace, user_source, where_text

#: Whether the function being traced has set the state itself: then each call of it draws the same.
_SEEDED = "random numbers are seeded"
_WARNED = "lines warned of random numbers"
#: A function of NumPy or of Python -> the one of gd.random that draws such numbers from a key.
_INSTEAD = {
    **dict.fromkeys(("rand", "random", "random_sample", "ranf", "sample", "uniform"), "uniform"),
    **dict.fromkeys(("randn", "standard_normal", "normal", "gauss", "normalvariate"), "normal"),
    **dict.fromkeys(("randint", "integers", "randrange"), "randint"),
    **dict.fromkeys(("permutation", "permuted", "shuffle"), "permutation"),
    **dict.fromkeys(("exponential", "standard_exponential", "expovariate"), "exponential"),
    **dict.fromkeys(("gamma", "standard_gamma", "gammavariate"), "gamma"),
    **dict.fromkeys(("beta", "betavariate"), "beta"),
    **{
        name: name
        for name in (
            "choice", "gumbel", "laplace", "logistic", "poisson", "dirichlet", "chisquare",
        )
    },
}  # fmt: skip


def warn(name: str) -> None:
    """Warn, once a line and trace, that `name` has drawn numbers."""
    trace = current_trace()
    if trace is None or trace.memo.get(_SEEDED):
        return
    source = user_source()
    lines = trace.memo.setdefault(_WARNED, set())
    if source is None or (source.file, source.line) in lines:
        return
    lines.add((source.file, source.line))
    ours = _INSTEAD.get(name.rpartition(".")[2], "normal")
    warnings.warn_explicit(
        f"{name} draws its numbers while {trace.function} is traced: they are constants of the "
        f"compiled function, the same at each call. Write gd.random.{ours}(key, ...) with a key "
        f"that is an argument, or draw outside and pass the numbers as an argument. (If the same "
        f"numbers are meant: np.random.default_rng(seed) inside of the function)"
        f"{where_text(source)}",
        RandomConstantWarning,
        source.file,
        source.line,
    )


def warning(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which draws numbers, with the warning; arrays can be written while tracing."""

    @functools.wraps(original)
    def draw(*args: Any, **kwargs: Any) -> Any:
        warn(name)
        result = original(*args, **kwargs)
        trace = current_trace()
        return result if trace is None else as_traced_results(result, trace)

    return draw


def seeding(original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, which sets a state: what is drawn after it is meant to be the same."""

    @functools.wraps(original)
    def seed(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace is not None and (args or kwargs):
            trace.memo[_SEEDED] = True
        return original(*args, **kwargs)

    return seed
