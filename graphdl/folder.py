"""The folder of what is kept between processes: compiled kernels, and what the machine costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def directory() -> Path | None:
    """Where files are kept; None if there is no such place.

    $GRAPHDL_CACHE_DIR, or `graphdl` in the user's cache folder as the platform has it.
    """
    chosen = os.environ.get("GRAPHDL_CACHE_DIR")
    if chosen:
        return Path(os.path.expanduser(chosen))
    variable, default = {
        "darwin": ("", "~/Library/Caches"),
        "win32": ("LOCALAPPDATA", "~/AppData/Local"),
    }.get(sys.platform, ("XDG_CACHE_HOME", "~/.cache"))
    base = os.environ.get(variable) or os.path.expanduser(default)
    if base.startswith("~") or not os.path.isabs(base):  # nobody knows the user's home
        return None
    return Path(base, "graphdl")
