"""Python's `random` while tracing: see graphdl.hidden_random."""

from __future__ import annotations

import random as _random
from typing import Any

from graphdl.hidden_random import seeding, warning

_OTHERS = frozenset({"Random", "SystemRandom", "getstate", "seed", "setstate"})


def _fill(module: dict[str, Any]) -> list[str]:
    names = [name for name in _random.__all__ if name not in _OTHERS]
    for name in names:
        module[name] = warning(f"random.{name}", getattr(_random, name))
    return names


seed = seeding(_random.seed)

__all__ = [*_fill(globals()), "seed"]
