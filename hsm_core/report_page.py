"""The page `reports/source_utilization.html`: active tasks of every source over time, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsm_core.text import duration, printable, stamp

_WIDTH, _HEIGHT = 900, 90

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ sweep }}: use of the sources</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 960px; margin: 2em auto; padding: 0 1em }
svg { width: 100%; height: {{ height }}px; border: 1px solid #ccc; background: #fafafa }
path { fill: #3b7dd8; fill-opacity: .55 }
line { stroke: #c33; stroke-dasharray: 4 4; vector-effect: non-scaling-stroke }
h2 { margin: 1.5em 0 .2em; font-size: 1.1em }
.axis { display: flex; justify-content: space-between; color: #666; font-size: .85em }
</style>
</head>
<body>
<h1>{{ sweep }}</h1>
<p>Active tasks of each source, from {{ begin }} to {{ end }} ({{ elapsed }}).
The dashed line is the number of slots.</p>
{% for row in rows %}
<h2>{{ row.name }} <small>({{ row.type }}, {{ row.slots }} slots)</small></h2>
<p>At most {{ row.peak }} active at once, {{ row.mean }} on average.</p>
<svg viewBox="0 0 {{ width }} {{ height }}" preserveAspectRatio="none" role="img"
     aria-label="active tasks of {{ row.name }}">
<path d="{{ row.path }}"/>
<line x1="0" x2="{{ width }}" y1="{{ row.slots_at }}" y2="{{ row.slots_at }}"/>
</svg>
<div class="axis"><span>{{ begin }}</span><span>{{ end }}</span></div>
{% else %}
<p>No source took part.</p>
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class Timeline:
    """When the tasks of one source were active: pairs of seconds since 1970."""

    name: str
    type: str
    slots: int
    active: Sequence[tuple[float, float]]


def page(sweep: str, start: float, end: float, timelines: Sequence[Timeline]) -> str:
    """The page as HTML that needs nothing beside itself. Its size does not grow with the number of tasks."""
    # Late: the launcher imports this module at its start, and needs the page at its end only.
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_PAGE)
    return template.render(
        sweep=printable(sweep),
        begin=stamp(start),
        end=stamp(end),
        elapsed=duration(end - start),
        width=_WIDTH,
        height=_HEIGHT,
        rows=[_row(timeline, start, end) for timeline in timelines],
    )


def most_active(active: Sequence[tuple[float, float]], start: float, end: float, columns: int) -> list[int]:
    """The largest number of tasks active at once in each of `columns` equal parts of the time."""
    step = (end - start) / columns or 1.0
    changes = sorted([(begin, 1) for begin, _ in active] + [(finish, -1) for _, finish in active])
    out = [0] * columns
    now = at = 0
    for when, change in changes:
        column = min(max(int((when - start) / step), 0), columns - 1)
        for between in range(at + 1, column + 1):
            out[between] = max(out[between], now)
        now, at = now + change, column
        out[at] = max(out[at], now)
    return out


def _row(timeline: Timeline, start: float, end: float) -> dict[str, object]:
    columns = most_active(timeline.active, start, end, _WIDTH)
    top = max(timeline.slots, *columns, 1) * 1.1
    busy = sum(finish - begin for begin, finish in timeline.active)
    return {
        "name": printable(timeline.name),
        "type": printable(timeline.type),
        "slots": timeline.slots,
        "peak": max(columns),
        "mean": f"{busy / (end - start):.1f}" if end > start else "0",
        "path": _outline([_HEIGHT - _HEIGHT * count / top for count in columns]),
        "slots_at": round(_HEIGHT - _HEIGHT * timeline.slots / top, 1),
    }


def _outline(heights: Sequence[float]) -> str:
    """An SVG path along steps one unit wide, closed at the bottom; equal steps are one."""
    parts = [f"M0 {_HEIGHT}"]
    before = None
    for x, y in enumerate(heights):
        if y != before:
            parts.append(f"H{x}V{y:.1f}")
            before = y
    return "".join([*parts, f"H{len(heights)}V{_HEIGHT}Z"])
