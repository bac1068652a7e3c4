"""Plots of the choice: what the search promised, what the confirmation and the test set made of it, and which classes
are taken for which. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.plots.base import OTHER, TEST, TRAIN, VAL, Plot, figure, line, marks, number, said
from tuner.record import TrialRecord
from tuner.telling import clean, counted

MOST_CLASSES = 30


def confirmed(document: Mapping[str, Any], _: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw each contender's score in the search and over the rounds of the confirmation, with its interval."""
    found = document["confirmed"]
    contenders = [c for c in found["contenders"] if c["score"] is not None] if found else []
    if not contenders:
        return None
    names, fresh = [f"trial {c['trial']}" for c in contenders], found["fresh_splits"]
    ends = [
        (c, (c["low"], c["high"]) if c["low"] is not None else (c["score"] - c["se"], c["score"] + c["se"]))
        for c in contenders
    ]
    scores, searched = [c["score"] for c in contenders], [c["search_score"] for c in contenders]
    traces: list[dict[str, Any]] = [
        line([name, name], [c["search_score"], c["score"]], "", OTHER, showlegend=False, hoverinfo="skip",
             line={"width": 1.5})
        for name, c in zip(names, contenders, strict=True)
    ]  # fmt: skip
    traces += [
        marks(names, searched, "in the search", TRAIN,
              marker={"symbol": "circle-open", "size": 10, "line": {"width": 2}}),
        marks(names, scores, f"confirmed ({'95 % interval' if fresh else 'SE of the seeds'})", VAL,
              marker={"size": 10}, error_y={
            "type": "data", "symmetric": False, "array": [high - c["score"] for c, (_, high) in ends],
            "arrayminus": [c["score"] - low for c, (low, _) in ends], "color": VAL, "thickness": 1,
        }),
    ]  # fmt: skip
    by, leader = found["optimism"], f"The search's own choice, trial {found['search_choice']},"
    sentence = f"{leader} is compared over {found['rounds']} rounds; trial {found['trial']} was chosen by these."
    if by is not None:
        told = f"scored {number(abs(by))} {'more' if by >= 0 else 'less'} in the search than over"
        sentence = f"{leader} {told} {found['rounds']} fresh rounds; trial {found['trial']} was chosen by these."
    drawn = figure(traces, xaxis={"type": "category"}, yaxis="score")
    return Plot("confirmed", "What the search promised, and what held", sentence, drawn)


def promised(document: Mapping[str, Any], _: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw the chosen configuration's metric as the search saw it, as it was confirmed, and on the test rows."""
    best, test, found, metric = document["best"], document["test"], document["confirmed"], document["metric"]
    if best is None or not test or test["stale"] or metric not in test:
        return None
    rows: list[tuple[str, float, Sequence[float], str]] = [
        ("train", best["train"][metric], (), TRAIN),
        ("validation,<br>in the search", best["val"][metric], (), VAL),
    ]
    over = found["val"][metric] if found else None
    if over and over["mean"] is not None:
        sd = over["sd"] or 0.0
        # a bar is one thing of this row and another of the test's
        name = f"confirmed<br>(± sd of {found['rounds']} rounds)" if over["sd"] is not None else "confirmed"
        rows.append((name, over["mean"], (over["mean"] - sd, over["mean"] + sd), VAL))
    rows.append(("test<br>(95 % interval)", test[metric]["value"], (test[metric]["low"], test[metric]["high"]), TEST))
    base = (test["baseline"] or {}).get(metric)
    if base:
        rows.append(("test, baseline<br>(95 % interval)", base["value"], (base["low"], base["high"]), OTHER))
    traces = [
        marks([value], [name], name, colour, marker={"size": 12}, showlegend=False, **_error(value, ends, colour))
        for name, value, ends, colour in rows
    ]
    inside = test[metric]["low"] <= best["val"][metric] <= test[metric]["high"]
    sentence = (
        f"The search's validation {metric} {number(best['val'][metric])} lies {'inside' if inside else 'outside'} the "
        f"95 % interval of the test figure, {number(test[metric]['low'])} to {number(test[metric]['high'])}."
    )
    rising = {"autorange": "reversed", "type": "category"}
    drawn = figure(traces, xaxis=metric, yaxis=rising, height=80 + 48 * len(rows))
    return Plot("promised", "Search, confirmation and test", sentence, drawn)


def _error(value: float, ends: Sequence[float], colour: str) -> dict[str, Any]:
    if not ends:
        return {}
    low, high = ends
    return {"error_x": {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low],
                        "color": colour, "thickness": 1.5}}  # fmt: skip


def confusion(document: Mapping[str, Any], _: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw which classes are taken for which, in the test rows if they were looked at."""
    per_class = document["per_class"] or {}
    part = "test" if per_class.get("test") else "val"
    rows = per_class.get(part) or []
    if not 2 <= len(rows) <= MOST_CLASSES or "taken_for" not in rows[0]:
        return None
    names = [said(row["class"]) for row in rows]
    counts = [row["taken_for"] for row in rows]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    heat = {
        "type": "heatmap", "x": names, "y": names, "z": shares, "text": counts, "texttemplate": "%{text}", "zmin": 0,
        "zmax": 1, "colorscale": [[0, "#ffffff"], [1, TRAIN]], "showscale": False, "xgap": 1, "ygap": 1,
        "hovertemplate": "%{y} taken for %{x}: %{text} rows, %{z:.0%}<extra></extra>",
    }  # fmt: skip
    raw = [clean(row["class"]) for row in rows]  # a sentence is escaped by whoever shows it
    worst = max(
        ((counts[i][j], raw[i], raw[j]) for i in range(len(raw)) for j in range(len(raw)) if i != j),
        default=(0, "", ""),
    )
    what = {"test": "test", "val": "validation"}[part]
    sentence = f"Rows are the true classes of the {what} set. " + (
        f"Most often taken for another: {worst[1]} for {worst[2]}, in {counted(worst[0], 'row')}."
        if worst[0]
        else "No mistake."
    )
    drawn = figure(
        [heat], xaxis={"title": {"text": "predicted"}, "type": "category"},
        yaxis={"title": {"text": "true"}, "type": "category", "autorange": "reversed"},
        height=140 + 26 * max(8, len(names)),
    )  # fmt: skip
    return Plot("confusion", "Which class is taken for which", sentence, drawn)
