"""How the suite is divided among the workers of pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest


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
