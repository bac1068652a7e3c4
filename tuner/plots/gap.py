"""Plots of the gap: validation against gap with the front, the gap against each regularizer, capacity. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.plots.base import (
    CHOSEN,
    OTHER,
    TRAIN,
    VAL,
    Plot,
    binned,
    complete,
    figure,
    hover,
    line,
    marks,
    number,
    said,
    spread,
)
from tuner.plots.curves import LOSS_NAME
from tuner.record import TrialRecord
from tuner.rescoring import front
from tuner.scoring import LOWER_IS_BETTER
from tuner.telling import counted

OWN = "regularization."  # which a panel of the regularizers needn't say
REGULARIZING = (OWN, "augmentation.")
FEWEST_TRIALS = 4
PANELS = 3  # in a row
MOST_POWERS = 3  # of ten that a panel has room to name, all of them
LOSSES = ("log_loss", "mse")


def against_validation(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw validation against gap: the front, the chosen trial, what no penalty would have chosen in the search, and
    the search's own choice where the confirmation made another.
    """
    there = complete(records)
    if not there or document["best"] is None:
        return None
    loss = document["metric"] in LOSSES
    skill = "validation skill" if loss else f"{'-' * (document['metric'] in LOWER_IS_BETTER)}{document['metric']}(val)"
    best, searched, free = (
        records.get(document[name]["trial"]) if document[name] else None
        for name in ("best", "search_best", "without_gap_penalty")
    )
    numbers = front({record.number: record.score for record in there if record.score is not None})
    ahead = sorted((record for record in there if record.number in numbers), key=_gap)
    traces = [
        marks(*_places(there), "trials", OTHER, text=[hover(record) for record in there]),
        line(*_places(ahead), "front: none is better in both", OTHER, line={"dash": "dot", "width": 1.5},
             hoverinfo="skip"),
    ]  # fmt: skip
    priced, overruled = free is not searched, searched is not best
    for which, record, symbol, shown in (
        ("without the penalty", free, "diamond-open", priced),
        ("the search's choice", searched, "circle-open", overruled),
    ):
        if record is not None and shown:
            traces.append(marks(*_places([record]), f"{which}: trial {record.number}", TRAIN, text=[hover(record)],
                                marker={"symbol": symbol, "size": 13, "line": {"width": 2}}))  # fmt: skip
    if best is not None and best.score is not None:
        traces.append(marks(*_places([best]), f"chosen: trial {best.number}", CHOSEN, text=[hover(best)],
                            marker={"symbol": "star", "size": 15}))  # fmt: skip
    drawn = figure(traces, xaxis="gap: train better than validation by", yaxis=skill)
    ends = " (1 is perfect, 0 knows nothing)" if loss else ""
    front_is = f"{len(ahead)} {'is' if len(ahead) == 1 else 'are'} on the front"
    sentence = f"Up is better{ends}, left is more honest; of {counted(len(there), 'complete trial')} {front_is}"
    if free is not None and searched is not None and priced:
        sentence += f"; validation alone would have chosen trial {free.number}, not {searched.number}"
    if best is not None and searched is not None and overruled:
        sentence += f"; the search chose trial {searched.number}, the confirmation chose {best.number}"
    return Plot("validation-gap", "Validation against gap", f"{sentence}.", drawn)


def _places(records: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
    scores = [record.score for record in records if record.score is not None]
    return [_short(score.gap) for score in scores], [_short(score.skill) for score in scores]


def _gap(record: TrialRecord) -> float:
    return record.score.gap if record.score is not None else math.inf


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def regularizers(_: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw the gap against each regularizer that was searched, with a binned median."""
    there = [record for record in complete(records) if math.isfinite(_gap(record))]
    names = [name for name in _searched(there) if name.startswith(REGULARIZING)]
    if len(there) < FEWEST_TRIALS or not names:
        return None
    rows = -(-len(names) // PANELS)
    columns = min(PANELS, len(names))
    traces, layout, steepest = list[dict[str, Any]](), dict[str, Any](), list[tuple[float, str, float, float, bool]]()
    for i, name in enumerate(names):
        end, column, row = "" if i == 0 else str(i + 1), i % columns, i // columns
        axes = {"xaxis": f"x{end}", "yaxis": f"y{end}", "showlegend": False}
        known = [record for record in there if _is_number(record.all_values.get(name))]
        values = [float(record.all_values[name]) for record in known]
        gaps = [_short(_gap(record)) for record in known]
        x, ticks = _off_scale(values)
        traces.append(marks(x, gaps, said(name), OTHER, text=[hover(record) for record in known], **axes))
        off = dict(zip(values, x, strict=True)).get(0.0)
        middles, medians = binned(x, gaps, off)
        if middles:
            traces.append(line(middles, medians, "median", VAL, line={"width": 3}, hoverinfo="skip", **axes))
            steepest.append((abs(medians[-1] - medians[0]), name, medians[0], medians[-1], middles[0] == off))
        layout[f"xaxis{end}"] = {"title": {"text": said(name.removeprefix(OWN))}, "anchor": f"y{end}", **ticks,
                                 "domain": [column / columns + 0.04, (column + 1) / columns - 0.02]}  # fmt: skip
        layout[f"yaxis{end}"] = {"anchor": f"x{end}", "domain": [1 - (row + 0.78) / rows, 1 - (row + 0.02) / rows],
                                 **({"matches": "y"} if i else {})}  # fmt: skip
        if column == 0:
            layout[f"yaxis{end}"]["title"] = {"text": "gap"}
    sentence = (
        "Each point is a complete trial; they are too few for a median over bins, and other values differ between "
        "them, too."
    )
    if steepest:
        name, first, last, is_off = max(steepest)[1:]
        way = "falls" if last < first else "rises"
        ends = f"From {name} off to its strongest bin" if is_off else f"From the weakest to the strongest bin of {name}"
        sentence = f"{ends} the median gap {way} from {number(first)} to {number(last)}; other values differ between " \
                   "the trials, too."  # fmt: skip
    drawn = figure(traces, **layout, height=280 * rows)
    return Plot("regularizers", "The gap against each regularizer", sentence, drawn)


def _searched(records: Sequence[TrialRecord]) -> list[str]:
    """Return the names whose values are numbers and differ between trials, in the space's order."""
    names = dict.fromkeys(name for record in records for name in record.all_values)
    return [
        name for name in names
        if len({record.all_values[name] for record in records if _is_number(record.all_values.get(name))}) > 1
    ]  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _off_scale(values: Sequence[float]) -> tuple[list[float], dict[str, Any]]:
    """Return places on an axis: values that spread over powers of ten by their logarithm, those that are 0 (off) left
    of all others; and the axis's ticks.
    """
    positive = [value for value in values if value > 0]
    if not positive or spread(positive) == "linear" or min(values) < 0:
        return list(values), {}
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    step = 1 if high - low < MOST_POWERS else 2
    off = low - step
    places = [off if value == 0 else math.log10(value) for value in values]
    powers = range(low, high + 1, step)
    ticks = [*([off] if len(positive) < len(values) else []), *powers]
    words = ["off" if tick == off else f"{10.0**tick:g}" for tick in ticks]
    return places, {"tickvals": ticks, "ticktext": words, "tickangle": 0}


def capacity(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> Plot | None:
    """Draw train and validation loss against the number of parameters."""
    there = [
        record for record in complete(records)
        if record.kept is not None and record.model.get("parameters") and math.isfinite(record.kept.train.loss)
    ]  # fmt: skip
    sizes = [float(record.model["parameters"]) for record in there]
    if len(there) < FEWEST_TRIALS or min(sizes) == max(sizes):
        return None
    traces, ends = [], {}
    for name, colour in (("train", TRAIN), ("val", VAL)):
        losses = [_short(getattr(record.kept, name).loss) for record in there]
        word = "validation" if name == "val" else name
        traces.append(marks(sizes, losses, word, colour, text=[hover(record) for record in there],
                            marker={"opacity": 0.6}))  # fmt: skip
        x, y = binned(sizes, losses)
        if x:
            traces.append(line(x, y, f"{word}, median", colour, line={"width": 3}, hoverinfo="skip"))
            ends[name] = (y[0], y[-1])
    kind = spread([loss for trace in traces for loss in trace["y"]])
    drawn = figure(
        traces, xaxis={"title": {"text": "parameters"}, "type": spread(sizes)},
        yaxis={"title": {"text": LOSS_NAME[document["data"]["task"]]}, "type": kind},
    )  # fmt: skip
    sentence = (
        f"Two points for each of {len(there)} complete trials, its train and its validation loss: too few, or of too "
        "few sizes, for a median over bins."
    )
    if len(ends) == 2:
        train, val = ends["train"], ends["val"]
        sentence = f"From the smallest to the largest networks the median train loss goes from {number(train[0])} to " \
                   f"{number(train[1])}, validation from {number(val[0])} to {number(val[1])}."  # fmt: skip
    return Plot("capacity", "Capacity", sentence, drawn)
