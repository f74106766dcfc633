"""Python's own `min` and `max`, of traced numbers too: what stands in for them while tracing.

Python compares and returns one of the arguments; of traced numbers that is a choice by np.where, so
ties and NaN come out as Python has them: the first of equal ones, and NaN only where it is first.
"""

from __future__ import annotations

import builtins
import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.tracing import TracedArray

__all__ = ["max", "min"]


def _extreme(plain: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def extreme(*args: Any, **kwargs: Any) -> Any:
        if kwargs or not args:
            return plain(*args, **kwargs)
        items = args if len(args) > 1 else tuple(args[0])
        numbers = all(np.ndim(item) == 0 for item in items)
        if not numbers or not any(isinstance(item, TracedArray) for item in items):
            return plain(items) if len(args) == 1 else plain(*args)
        return functools.reduce(lambda best, x: np.where(better(x, best), x, best), items)

    return extreme


min = _extreme(builtins.min, operator.lt)
max = _extreme(builtins.max, operator.gt)
