"""A report as a flame graph: one HTML page that needs no network."""

from __future__ import annotations

from html import escape

from graphdl.profile.report import KernelTime, Report, duration

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --dim: #667; --line: #d5d8dd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #17191c; --dim: #99a; --line: #3a3f46; }
}
body { margin: 1.5rem; font: 14px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.1rem; overflow-wrap: anywhere; }
p { color: var(--dim); max-width: 60rem; }
#flame { position: relative; overflow: hidden; }
#flame button { position: absolute; height: 22px; padding: 0 4px; border: 1px solid var(--paper);
  border-radius: 3px; font: 12px/20px system-ui, sans-serif; color: #1c1e21; text-align: left;
  overflow: hidden; white-space: nowrap; text-overflow: ellipsis; cursor: pointer; }
#flame button:focus-visible { outline: 2px solid var(--ink); outline-offset: -2px; }
#flame button.beyond { visibility: hidden; }
#flame button.around { opacity: 0.55; }
#what { min-height: 6rem; margin-top: 1rem; padding: 0.6rem 0.8rem; border: 1px solid var(--line);
  border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
"""

_SCRIPT = """
const flame = document.getElementById("flame"), what = document.getElementById("what");
const frames = [...flame.querySelectorAll("button")].map(element => ({
  element, start: +element.dataset.start, size: +element.dataset.size }));
function zoom(root) {
  for (const frame of frames) {
    const left = (frame.start - root.start) / root.size, width = frame.size / root.size;
    const around = left < -1e-9 || left + width > 1 + 1e-9;
    const beyond = left >= 1 - 1e-9 || left + width <= 1e-9;
    frame.element.style.left = 100 * Math.max(left, 0) + "%";
    frame.element.style.width = 100 * Math.min(width, 1) + "%";
    frame.element.classList.toggle("beyond", beyond);
    frame.element.classList.toggle("around", around && !beyond);
  }
}
for (const frame of frames) {
  const show = () => { what.textContent = frame.element.title; };
  frame.element.addEventListener("click", () => zoom(frame));
  frame.element.addEventListener("mouseenter", show);
  frame.element.addEventListener("focus", show);
}
document.addEventListener("keydown", event => { if (event.key === "Escape") zoom(frames[0]); });
zoom(frames[0]);
what.textContent = frames[0].element.title;
"""

_ROW = 24  # pixels
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
<p>{head}. The wider, the more of a call it takes; below a loop or a branch are the kernels of its
body, all steps together. Warm colours: near what the machine can do. Click or press Enter to look
closer, Escape to see all.</p>
<div id="flame" style="height: {height}px">
{frames}
</div>
<div id="what" aria-live="polite"></div>
<script>{script}</script></body></html>
"""


def to_flame(report: Report) -> str:
    """The page. Times are those of the fastest call; what is in no kernel stands at the end."""
    whole = max(report.seconds, report.total.seconds) or 1.0
    frames = [_frame(0, 0.0, 1.0, "the call", f"{report.name}\n{duration(whole)}", "#b9c4d0")]
    start = 0.0
    deepest = 1
    pending: list[tuple[int, float, KernelTime]] = []
    for kernel in report.kernels:
        pending.append((1, start, kernel))
        start += kernel.seconds
    pending.reverse()
    while pending:
        depth, start, kernel = pending.pop()
        deepest = max(deepest, depth)
        frames.append(
            _frame(
                depth,
                start / whole,
                kernel.seconds / whole,
                kernel.name,
                _details(kernel, report, kernel.seconds / whole),
                _colour(max(kernel.limits(report.peak))),
            )
        )
        bodies = []
        for inner in kernel.body:
            bodies.append((depth + 1, start, inner))
            start += inner.seconds
        pending += reversed(bodies)
    start = sum(kernel.seconds for kernel in report.kernels)
    for part in report.rest:
        share = part.seconds / whole
        text = f"{part.name}\n{duration(part.seconds)} ({share:.1%})"
        frames.append(_frame(1, start / whole, share, part.name, text, "#d5d8dd"))
        start += part.seconds
    flops = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s {dtype}" for dtype, rate in report.peak.flops.items()
    )
    head = (
        f"{duration(report.seconds)} at the least of {report.calls} calls, median "
        f"{duration(report.median)}; measured peak {report.peak.bandwidth / 1e9:.1f} GB/s, {flops}"
    )
    return _PAGE.format(
        title=escape(report.name),
        head=escape(head),
        style=_STYLE,
        script=_SCRIPT,
        height=(deepest + 1) * _ROW,
        frames="\n".join(frames),
    )


def _frame(depth: int, start: float, size: float, name: str, text: str, colour: str) -> str:
    return (
        f'<button data-start="{start:.9f}" data-size="{size:.9f}" title="{escape(text)}" '
        f'style="top: {depth * _ROW}px; left: {100 * start:.6f}%; width: {100 * size:.6f}%; '
        f'background: {colour}">{escape(name)}</button>'
    )


def _details(kernel: KernelTime, report: Report, share: float) -> str:
    bandwidth, rate = kernel.limits(report.peak)
    times = f"{kernel.runs} times, " if kernel.runs > 1 else ""
    lines = [
        f"kernel {kernel.kernel}: {kernel.name}",
        f"{times}{duration(kernel.seconds)} ({share:.1%}), median {duration(kernel.median)}",
        f"{kernel.bytes:,} bytes, {kernel.bandwidth / 1e9:.1f} GB/s, {bandwidth:.0%} of the peak",
        f"{kernel.flops:,} operations, {kernel.rate / 1e9:.1f} GFLOP/s, {rate:.0%} of the peak",
        *kernel.lines,
    ]
    return "\n".join(lines)


def _colour(share: float) -> str:
    """From pale blue, far from the machine's peak, to orange, at it."""
    part = min(max(share, 0.0), 1.0)
    cold, warm = (200, 218, 240), (255, 178, 102)
    channels = (round(a + part * (b - a)) for a, b in zip(cold, warm, strict=True))
    return f"rgb({', '.join(map(str, channels))})"
