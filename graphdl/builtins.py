"""Python's own functions of numbers, of traced numbers too: what stands in for them while tracing.

`min` and `max` compare and return one of the arguments; of traced numbers that is a choice by
np.where, so ties and NaN come out as Python has them: the first of equal ones, and NaN only where
it is first. `sorted` of traced numbers is np.sort, `any` and `all` are | and & of them.
"""

from __future__ import annotations

import builtins
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphdl.tracing import TracedArray

__all__ = ["all", "any", "max", "min", "sorted"]


def is_unknown(x: Any) -> bool:
    """Whether it is a traced value that depends on an argument."""
    return isinstance(x, TracedArray) and x.known() is None


def _are_numbers(items: Iterable[Any]) -> bool:
    """Whether all are numbers, and some of them traced."""
    found = [isinstance(item, TracedArray) for item in items if np.ndim(item) == 0]
    return len(found) == len(tuple(items)) and builtins.any(found)


def _extreme(plain: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def extreme(*args: Any, **kwargs: Any) -> Any:
        if kwargs or not args:
            return plain(*args, **kwargs)
        items = args if len(args) > 1 else tuple(args[0])
        if not _are_numbers(items):
            return plain(items) if len(args) == 1 else plain(*args)
        return functools.reduce(lambda best, x: np.where(better(x, best), x, best), items)

    return extreme


min = _extreme(builtins.min, operator.lt)
max = _extreme(builtins.max, operator.gt)


@functools.wraps(builtins.sorted)
def sorted(items: Iterable[Any], /, *, key: Any = None, reverse: bool = False) -> list[Any]:
    found = list(items)
    if key is None and _are_numbers(found) and builtins.any(map(is_unknown, found)):
        made = list(np.sort(np.stack(found)))
        return made[::-1] if reverse else made
    return builtins.sorted(found, key=key, reverse=reverse)


def _joined(ends: bool, join: Callable[[Any, Any], Any]) -> Callable[[Iterable[Any]], Any]:
    """`any` and `all`, which stop at the first item that is known to be `ends`."""

    def joined(items: Iterable[Any], /) -> Any:
        found = []
        for item in items:
            if is_unknown(item):
                found.append(item != 0)
            elif bool(item) == ends:
                return ends
        return functools.reduce(join, found) if found else not ends

    return joined


any = functools.wraps(builtins.any)(_joined(True, operator.or_))
all = functools.wraps(builtins.all)(_joined(False, operator.and_))
