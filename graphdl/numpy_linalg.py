"""numpy.linalg while tracing: its functions, of lists with traced numbers too."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.listing import listing, of_module


def __getattr__(name: str) -> Any:
    return getattr(np.linalg, name)


globals().update({name: listing(f) for name, f in of_module(np.linalg).items()})

__all__ = [*of_module(np.linalg)]
