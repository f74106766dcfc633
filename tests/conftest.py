"""What holds for the whole suite: how workers divide it, and what the collector need not see."""

from __future__ import annotations

import gc
from typing import Any

import pytest


def pytest_collection_finish() -> None:
    """Modules and thousands of collected tests stay: no collection of garbage has to visit them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What `--dist worksteal` does, where the command line asks for workers and no more.

    Each worker goes through a part of the suite in order; one that has ended takes over half of
    what another has left. By turns, which is the default, tests that stand beside each other run
    at the same time, and each worker compiles the kernels that both need.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling  # whoever runs tests without it has no need

    return WorkStealingScheduling(config, log)
