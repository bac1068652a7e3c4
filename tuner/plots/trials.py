"""Plots of the trials as a whole: where they ended and what that saved, which values mattered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.plots.base import FAINT, TRAIN, VAL, VERDICTS, Plot, figure, hover, said
from tuner.record import TrialRecord, epochs_of

MOST_VALUES = 10
WIDTH = 0.85  # of a bar: bars that lie apart would grow into each other


def ended(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw how many epochs each trial ran of those that it might have, over all its folds, by what ended it."""
    there = [record for record in records.values() if record.ended and record.curve is not None and len(record.curve)]
    if not there:
        return None
    numbers = [record.number for record in there]
    folds = document["data"].get("folds", 1)
    epochs = {record.number: epochs_of(record, folds) for record in there}
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": numbers,
            "y": [cap for _, cap in epochs.values()],
            "name": "saved",
            "width": WIDTH,
            "marker": {"color": FAINT},
            "hoverinfo": "skip",
        }
    ]
    for kind, colour in VERDICTS.items():
        its = [record for record in there if _kind(record) == kind]
        if its:
            traces.append({
                "type": "bar", "x": [r.number for r in its], "y": [epochs[r.number][0] for r in its],
                "name": kind, "width": WIDTH, "marker": {"color": colour}, "text": [hover(r) for r in its],
                "textposition": "none", "hovertemplate": "%{text}<extra></extra>",
            })  # fmt: skip
    run, budgeted = document["epochs"]["run"], document["epochs"]["budgeted"]
    saved = 1 - run / budgeted if budgeted else 0.0
    counts = {kind: sum(_kind(record) == kind for record in there) for kind in VERDICTS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    sentence = f"{run} of {budgeted} epochs were run, {saved:.0%} saved; ended: {told}."
    axis = f"epochs, over {folds} folds" if folds > 1 else "epochs"
    drawn = figure(traces, xaxis="trial", yaxis=axis, barmode="overlay", bargap=0.15)
    return Plot("ended", "Where trials ended", sentence, drawn)


def _kind(record: TrialRecord) -> str:
    return record.verdict.kind if record.verdict is not None else "failed"


def moved(document: Mapping[str, Any], _: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw which values moved the score and which moved the gap."""
    shares = document["importances"]
    if not shares:
        return None
    order = sorted(shares["score"], key=lambda name: max(shares[part].get(name, 0.0) for part in shares))[-MOST_VALUES:]
    traces = [
        {"type": "bar", "orientation": "h", "y": [said(name) for name in order], "name": f"moved the {part}",
         "x": [shares[part].get(name, 0.0) for name in order], "marker": {"color": colour},
         "hovertemplate": "%{y}: %{x:.0%}<extra></extra>"}
        for part, colour in (("gap", VAL), ("score", TRAIN))
    ]  # fmt: skip
    first = {part: next(iter(each.items())) for part, each in shares.items()}
    sentence = (
        f"{first['score'][0]} moved the score most ({first['score'][1]:.0%} of its variance over complete trials), "
        f"{first['gap'][0]} the gap ({first['gap'][1]:.0%}); by functional ANOVA."
    )
    drawn = figure(
        traces, xaxis={"title": {"text": "share of the variance"}, "tickformat": ".0%"}, barmode="group",
        height=120 + 44 * len(order),
    )  # fmt: skip
    drawn["layout"]["legend"]["traceorder"] = "reversed"
    return Plot("importances", "Which values mattered", sentence, drawn)
