"""The garbage collector, left out where much is made and nothing of it is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Have no garbage collected meanwhile.

    What traces and passes make stays: a collector that looks through all of it, and through all
    modules, each time a quarter has come along, took a third of the time of a first trace, and 8 %
    of a training step's cold compile. Whoever runs within this one leaves it out, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
