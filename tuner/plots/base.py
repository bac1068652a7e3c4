"""What every plot is made of: Plot, the colours, axes and words that all of them share. Pure.

A figure is plotly's JSON, a plain mapping: plotly.js draws it, `plotly.graph_objects.Figure` takes it, and nothing of
plotly needs to be imported to make one.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tuner.record import TrialRecord
from tuner.telling import clean

TRAIN, VAL, TEST = "#2f6db3", "#d2691e", "#2e8b57"
CHOSEN, OTHER, GAP = "#b3123f", "#8a8f98", "rgba(210, 105, 30, 0.16)"
TRIALS = ("#b3123f", "#2f6db3", "#2e8b57", "#8a5cb8", "#c58a00")  # of the leading ones, the chosen first
VERDICTS = {
    "finished": "#2e8b57", "plateau": "#5b9bd5", "overfit": "#c0392b", "behind": "#a9adb5", "diverged": "#7b3fa0",
    "failed": "#8b5a2b",
}  # fmt: skip
PAPER, INK, GRID = "#ffffff", "#24292f", "#e4e7eb"
FAINT = "rgba(138, 143, 152, 0.3)"  # seen on a light page and on a dark one
HEIGHT = 420
BINS, FEWEST_A_BIN = 6, 3


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its fixed name, a title, and one sentence that says what to see in it."""

    name: str
    title: str
    sentence: str
    figure: Mapping[str, Any]


def figure(traces: Sequence[Mapping[str, Any]], **layout: Any) -> dict[str, Any]:
    """Return traces with the layout that all plots share; `xaxis` and `yaxis` may be given as words."""
    axes = {name: value for name, value in layout.items() if name.startswith(("xaxis", "yaxis"))}
    rest = {name: value for name, value in layout.items() if name not in axes}
    return {
        "data": list(traces),
        "layout": {
            "paper_bgcolor": PAPER, "plot_bgcolor": PAPER, "font": {"color": INK, "size": 12}, "height": HEIGHT,
            "margin": {"l": 64, "r": 16, "t": 16, "b": 56}, "hovermode": "closest",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "modebar": {"bgcolor": "rgba(0, 0, 0, 0)"},
            **{name: axis(value) for name, value in {"xaxis": {}, "yaxis": {}, **axes}.items()},
            **rest,
        },
    }  # fmt: skip


def axis(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return an axis from its title, or from what is particular about it."""
    found: dict[str, Any] = {"title": {"text": given}} if isinstance(given, str) else dict(given)
    if "title" in found:  # plotly takes the ticks' width into account only where a distance from them is given
        found["title"] = {"standoff": 8, **found["title"]}
    return {"gridcolor": GRID, "zeroline": False, "automargin": True, **found}


def spread(values: Sequence[float]) -> str:
    """Return the type of axis that shows values best: logarithmic where they spread over more than a power of ten."""
    known = [value for value in values if math.isfinite(value)]
    return "log" if known and min(known) > 0 and max(known) > 10 * min(known) else "linear"


def marks(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str, *, text: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """Return points; what hovers over them is their text."""
    marker = {"color": colour, "size": 7} | more.pop("marker", {})
    hover = {"text": list(text), "hovertemplate": "%{text}<extra></extra>"} if text else {}
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "name": name, "marker": marker,
            **hover, **more}  # fmt: skip


def line(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, **more: Any) -> dict[str, Any]:
    """Return a line."""
    stroke = {"color": colour, "width": 2} | more.pop("line", {})
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": stroke, **more}


def said(text: object) -> str:
    """Return a user's word as plotly shows it: it takes tags for formats. Quotes it shows as they are."""
    return html.escape(clean(text), quote=False)


def number(value: float | None) -> str:
    """Return a number with three significant digits."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def hover(record: TrialRecord) -> str:
    """Return what is told of a trial where one points at it."""
    lines = [f"<b>trial {record.number}</b>" + (f" ({said(record.label)})" if record.label else "")]
    if record.score is not None and math.isfinite(record.score.value):
        lines.append(f"score {number(record.score.value)}, gap {number(record.score.gap)}, epoch {record.score.epoch}")
    if record.verdict is not None:
        lines.append(f"{record.state}: {record.verdict.kind}")
    return "<br>".join(lines + [f"{said(name)} {_value(value)}" for name, value in record.all_values.items()])


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else said(value)


def binned(x: Sequence[float], y: Sequence[float], alone: float | None = None) -> tuple[list[float], list[float]]:
    """Return the medians of x and y over up to six bins of about as many points, at least three; nothing where that
    makes fewer than two.

    Points of equal x are in one bin, or the order of their y would show as an effect of x. Those at `alone` are a bin
    of their own; where they are too few for one they are in none.
    """
    points: dict[float, list[float]] = {}
    for a, b in sorted(zip(x, y, strict=True)):
        points.setdefault(a, []).append(b)
    apart = [(alone, each) for each in points.pop(alone, [])] if alone is not None else []
    rest = sum(map(len, points.values()))
    size, bins = max(FEWEST_A_BIN, math.ceil(rest / BINS)), [list[tuple[float, float]]()]
    for a, its in points.items():
        if len(bins[-1]) >= size:
            bins.append([])
        bins[-1] += [(a, b) for b in its]
    if len(bins) > 1 and len(bins[-1]) < FEWEST_A_BIN:
        last = bins.pop()
        bins[-1] += last
    found = sorted(group for group in (apart, *bins) if len(group) >= FEWEST_A_BIN)
    if len(found) < 2:
        return [], []
    return [median(a for a, _ in group) for group in found], [median(b for _, b in group) for group in found]


def complete(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Return the trials that ended with a finite score."""
    return [r for r in records.values() if r.state == "complete" and r.score and math.isfinite(r.score.value)]
