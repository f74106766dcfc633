"""Profiles of compiled programs: `executable.profile(*args)` makes a `Report`."""

from graphdl.profile.flame import to_flame
from graphdl.profile.report import WRITERS, KernelTime, Part, Peak, Report, as_text
from graphdl.profile.timeline import to_trace

__all__ = ["KernelTime", "Part", "Peak", "Report"]

WRITERS.update(
    {
        ".trace.json": to_trace,
        ".json": Report.to_json,
        ".html": to_flame,
        ".txt": as_text,
    }
)
