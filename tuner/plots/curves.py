"""Plots of curves: the chosen trial with its gap, the leading trials, the best and the worst ones in small. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.curve import Curve
from tuner.diagnosis import diagnose, overfitters
from tuner.plots.base import (
    GAP,
    TRAIN,
    TRIALS,
    VAL,
    Plot,
    complete,
    figure,
    line,
    marks,
    number,
    said,
    spread,
)
from tuner.ranking import best_records
from tuner.record import TrialRecord

LEADING, SMALL_BEST, SMALL_WORST, COLUMNS = 5, 6, 3, 3
MOST_POINTS = 200  # of a curve that is drawn
FEW_POWERS = 100.0  # of a panel's axis, that leave room for 2 and 5 between them
CEILING = 1.5  # times the loss of knowing nothing: a first epoch far above it would squeeze all others
LOSS_NAME = {"classification": "log loss", "regression": "mean squared error (standardized)"}


def winner(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw train and validation of the chosen trial, the gap between them shaded."""
    best = _chosen(document, records)
    if best is None or best.curve is None or best.score is None:
        return None
    curve, kept = best.curve, best.score.epoch
    epochs, train, val = _series(curve)
    name = LOSS_NAME[document["data"]["task"]]
    traces = [
        line(epochs, train, "train", TRAIN),
        line(epochs, val, "validation", VAL, fill="tonexty", fillcolor=GAP),
        _star([kept], [_at(curve, kept)], f"kept: epoch {kept}", VAL),
    ]
    fit = diagnose(best)
    gap = (curve[kept].val.loss - curve[kept].train.loss) / curve.null_loss
    more = " after which validation got no better" if len(curve) > kept else ", its last"
    sentence = (
        f"By the smoothed curve trial {best.number} keeps epoch {kept} of {len(curve)}{more}; there the gap (shaded) "
        f"is {number(gap)} of the loss of knowing nothing" + (f": the trial is {fit.fit}." if fit else ".")
    )
    drawn = figure(traces, xaxis="epoch", yaxis={"title": {"text": name}, "type": spread([*train, *val])})
    return Plot("winner", "The chosen trial", sentence, drawn)


def leading(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw train and validation of the leading trials, with the epoch that each kept and where it was stopped."""
    best = _chosen(document, records)
    found = best_records(records.values(), LEADING, document["score"]["form"])
    found = [*([best] if best else []), *(record for record in found if record is not best)][:LEADING]
    traces: list[dict[str, Any]] = []
    losses: list[float] = []
    # the first of them is drawn last, on top of the others, and stands first in the legend all the same
    for place, (record, colour) in reversed(list(enumerate(zip(found, TRIALS, strict=False), start=1))):
        if record.curve is None or record.score is None:
            continue
        curve, kept = record.curve, record.score.epoch
        epochs, train, val = _series(curve)
        losses += [*train, *val]
        name, group = f"trial {record.number}", {"legendgroup": str(record.number), "legendrank": place}
        width = 3 if record is best else 1.5
        quiet = {**group, "showlegend": False}
        traces.append(line(epochs, val, name + (" (chosen)" if record is best else ""), colour,
                           line={"width": width}, **group))  # fmt: skip
        traces.append(line(epochs, train, f"{name}, train", colour, line={"width": width, "dash": "dot"}, **quiet))
        traces.append(_star([kept], [_at(curve, kept)], f"{name} kept epoch {kept}", colour, **quiet))
        end = f"{name} ended at epoch {len(curve)}: " + (record.verdict.kind if record.verdict else "")
        stop = {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": colour}}
        traces.append(marks([len(curve)], [_clipped(curve, curve.last.val.loss)], end, colour, text=[end],
                            marker=stop, **quiet))  # fmt: skip
    if not traces:
        return None
    drawn = figure(
        traces, xaxis="epoch",
        yaxis={"title": {"text": LOSS_NAME[document["data"]["task"]]}, "type": spread(losses)},
    )  # fmt: skip
    sentence = "Validation solid, train dotted; a star is the epoch that was kept, a cross where the trial was ended."
    return Plot("curves", "The leading trials", sentence, drawn)


def small(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw the six best trials and, of the others, the three worst of those that are overfit, on one scale."""
    best = best_records(records.values(), SMALL_BEST, document["score"]["form"])
    there = {record.number for record in best}
    rest = [record for record in _drawable(records) if record.number not in there]
    overfit = overfitters(rest)
    worst = overfit[:SMALL_WORST]
    panels = [(record, f"{place}. trial {record.number}") for place, record in enumerate(best, start=1)]
    panels += [(records[fit.trial], f"gap {number(fit.gap)}: trial {fit.trial}") for fit in worst]
    if len(panels) < 2:
        return None
    rows = -(-len(panels) // COLUMNS)
    traces, layout, losses = list[dict[str, Any]](), dict[str, Any](), list[float]()
    titles: list[dict[str, Any]] = []
    for i, (record, title) in enumerate(panels):
        assert record.curve is not None
        assert record.score is not None
        column, row, end = i % COLUMNS, i // COLUMNS, "" if i == 0 else str(i + 1)
        x = [column / COLUMNS + 0.03, (column + 1) / COLUMNS - 0.01]
        y = [1 - (row + 0.82) / rows, 1 - (row + 0.12) / rows]
        epochs, train, val = _series(record.curve)
        losses += [*train, *val]
        axes = {"xaxis": f"x{end}", "yaxis": f"y{end}", "showlegend": i == 0, "hoverinfo": "x+y"}
        traces.append(line(epochs, train, "train", TRAIN, line={"width": 1.5}, legendgroup="t", **axes))
        traces.append(line(epochs, val, "validation", VAL, line={"width": 1.5}, legendgroup="v", fill="tonexty",
                           fillcolor=GAP, **axes))  # fmt: skip
        kept = record.score.epoch
        alone = {**axes, "showlegend": False}
        traces.append(_star([kept], [_at(record.curve, kept)], f"kept: epoch {kept}", VAL, **alone))
        # one scale for all: numbers beside every panel would be printed over the panel left of it
        same = {"matches": "y"} if i else {}
        layout |= {f"xaxis{end}": {"domain": x, "anchor": f"y{end}", "nticks": 5},
                   f"yaxis{end}": {"domain": y, "anchor": f"x{end}", "showticklabels": column == 0} | same}  # fmt: skip
        titles.append({"text": said(title), "x": x[0], "y": y[1], "xref": "paper", "yref": "paper", "xanchor": "left",
                       "yanchor": "bottom", "showarrow": False})  # fmt: skip
    scale: dict[str, Any] = {"type": spread(losses)}
    if scale["type"] == "log":  # a panel is too low for every digit between two powers of ten
        scale |= {"dtick": "D2" if max(losses) < FEW_POWERS * min(losses) else 1}
    layout |= {name: value | scale for name, value in layout.items() if name.startswith("yaxis")}
    drawn = figure(traces, **layout, annotations=titles, height=200 * rows + 60)
    first = f"The {len(best)} best trials by score" if len(best) > 1 else "The best trial by score"
    others = ""
    if len(overfit) > len(worst):
        others = f" and, of the {len(overfit)} others that are overfit, the {len(worst)} with the largest gaps"
    elif worst:
        others = " and the only other one that is overfit" if len(worst) == 1 else \
                 f" and the {len(worst)} others that are overfit"  # fmt: skip
    none = "; of the others none is overfit" if rest and not worst else ""
    sentence = f"{first}{others}, all on one scale: the shaded band is what doesn't carry over to other data{none}."
    title = "The best trials and the worst overfitters" if worst else "The best trials"
    return Plot("small", title, sentence, drawn)


def _drawable(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Return the trials that can be drawn, whether they were pruned or not."""
    pruned = [r for r in records.values() if r.state == "pruned" and r.score is not None and r.curve is not None]
    return [*complete(records), *pruned]


def _chosen(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> TrialRecord | None:
    return records.get(document["best"]["trial"]) if document["best"] else None


def _series(curve: Curve) -> tuple[list[int], list[float], list[float]]:
    """Return epochs, train and validation losses, thinned where there are more than a screen shows."""
    every = -(-len(curve) // MOST_POINTS)
    epochs = [e for e in curve.epochs if e.number % every == 0 or e.number in (1, curve.best, len(curve))]
    return (
        [epoch.number for epoch in epochs],
        [_clipped(curve, epoch.train.loss) for epoch in epochs],
        [_clipped(curve, epoch.val.loss) for epoch in epochs],
    )


def _clipped(curve: Curve, loss: float) -> float:
    """Return a loss as it is drawn, with four digits; what isn't finite is as far up as any."""
    return float(f"{min(loss, CEILING * curve.null_loss):.4g}") if loss == loss else CEILING * curve.null_loss


def _at(curve: Curve, number: int) -> float:
    return _clipped(curve, curve[number].val.loss)


def _star(x: list[int], y: list[float], name: str, colour: str, **more: Any) -> dict[str, Any]:
    return marks(x, y, name, colour, text=[name], marker={"symbol": "star", "size": 12}, **more)
