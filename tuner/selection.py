"""Which trial is chosen, and the one look at the test set.

Validation chooses; the test rows are read here and nowhere else, once for the chosen trial and its baseline
together, and every look is counted. Knows nothing of how trials were found.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.config import RunConfig
from tuner.data.raw import counted
from tuner.data.splits import Part, Splits
from tuner.metrics import by_class, metrics, per_example_loss, told
from tuner.own_metric import OwnMetric, own_metric
from tuner.record import TrialRecord
from tuner.scoring import LOSS, LOWER_IS_BETTER
from tuner.whole import checksum

RESAMPLES = 2000
MOST_DRAWS = 10_000_000  # rows drawn in all: the resamples are fewer for a very large test set
FEWEST = 200
OWN_SECONDS = 10.0  # of resamples, where a metric of the user's own takes long
MOST_MISTAKES = 12
FEWEST_ROWS = 20  # of a test set by which anything is said to be better: below, resamples hardly differ


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial whose network is to be looked at: its record, configuration and weights file."""

    record: TrialRecord
    config: RunConfig
    weights: Path


def without_gap_penalty(records: Mapping[int, TrialRecord]) -> TrialRecord | None:
    """Return the complete trial that the score would have chosen with gap_penalty 0."""
    complete = [
        record
        for record in records.values()
        if record.state == "complete" and record.score is not None and math.isfinite(record.score.skill)
    ]
    return max(complete, key=lambda record: (record.score.skill if record.score else 0.0, -record.number), default=None)


def look(
    chosen: Finalist,
    baseline: Finalist | None,
    splits: Splits,
    metric: str,
    folder: Path,
    earlier: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Open the test set for the chosen trial; return what was seen, or None if there is no test set.

    `earlier` is what the last look returned: if it was at the same trial, weights and rows it is returned as it is,
    and nothing is opened, unless there was no baseline then and is one now; otherwise this look is counted on top.

    The result holds per metric the value and a percentile bootstrap interval of 95 % (2000 resamples of the
    test examples), the same for the paired difference to the baseline, each class's precision, recall and F1, and
    the number of looks.
    """
    if splits.test is None:
        return None
    if earlier and is_look_at(earlier, chosen) and earlier["test_hash"] == splits.test_hash:
        news = baseline is not None and earlier["baseline"] is None
        if not news:
            return dict(earlier)
    return {
        "trial": chosen.record.number,
        "baseline": baseline.record.number if baseline else None,
        "looks": (earlier["looks"] if earlier else 0) + 1,
        "rows": len(splits.test),
        "test_hash": splits.test_hash,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **_figures(chosen, baseline, splits, metric, folder),
        "weights": checksum(chosen.weights),
    }


def is_look_at(seen: Mapping[str, Any], finalist: Finalist) -> bool:
    """Tell whether a look was at this very network; of an older look only its trial is known."""
    same = seen["trial"] == finalist.record.number
    return same and seen.get("weights") in (None, checksum(finalist.weights))


def _figures(chosen: Finalist, baseline: Finalist | None, splits: Splits, metric: str, folder: Path) -> dict[str, Any]:
    assert splits.test is not None
    finalists = [finalist for finalist in (chosen, baseline) if finalist is not None]
    outputs = [_outputs(finalist, splits.test, splits, folder) for finalist in finalists]
    own = own_metric(chosen.config, folder)
    roc_auc = metric == "roc_auc" or splits.shape.outputs == 2
    began = time.monotonic()
    seen = [_measured(each, splits, roc_auc, None, own) for each in outputs]
    n, rng, took = len(splits.test), np.random.default_rng(0), time.monotonic() - began
    draws = []
    affordable = RESAMPLES if own is None else int(OWN_SECONDS / max(took, 1e-6))
    for _ in range(max(FEWEST, min(RESAMPLES, MOST_DRAWS // n, affordable))):
        rows = rng.integers(0, n, n)
        draws.append([_measured(each, splits, roc_auc, rows, own) for each in outputs])
    found: dict[str, Any] = {"metrics": {}, "baseline_metrics": {}, "difference": {}, "per_class": None}
    if splits.shape.task == "classification":
        found["per_class"] = by_class(outputs[0], splits.test.y, splits.shape.classes)
    for name in seen[0]:
        if not np.isfinite(seen[0][name]):  # such as the area under the ROC curve where one class occurs
            continue
        series = np.array([[one[name] for one in draw] for draw in draws])
        found["metrics"][name] = _interval(seen[0][name], series[:, 0])
        if baseline is not None:
            sign = -1.0 if name in LOWER_IS_BETTER else 1.0
            found["baseline_metrics"][name] = _interval(seen[1][name], series[:, 1])
            better = sign * (seen[0][name] - seen[1][name])
            found["difference"][name] = _interval(better, sign * (series[:, 0] - series[:, 1]))
    return found


def on_validation(chosen: Sequence[tuple[Finalist, Splits]], folder: Path) -> dict[str, Any]:
    """Return, under `rows`, each class's precision, recall and F1 on the validation rows (None for regression), and
    under `mistakes` the examples that cost most, for people to look at. Of a cross-validation `chosen` are the networks
    of the folds, each beside the splits whose validation rows it hasn't seen.

    Mistakes are shown of the validation rows alone: whoever changes a study for what is seen in the test rows has
    no test rows any more.
    """
    outputs, shape = [_outputs(network, splits.val, splits, folder) for network, splits in chosen], chosen[0][1].shape
    y = np.concatenate([splits.val.y for _, splits in chosen])
    rows = by_class(np.concatenate(outputs), y, shape.classes) if shape.task == "classification" else None
    found = [each for its, (_, splits) in zip(outputs, chosen, strict=True) for each in _mistakes(its, splits)]
    return {"rows": rows, "mistakes": sorted(found, key=lambda each: (-each["loss"], each["row"]))[:MOST_MISTAKES]}


def _mistakes(outputs: NDArray[np.float32], splits: Splits) -> list[dict[str, Any]]:
    """Return the wrong predictions with the largest losses (of regression, the largest errors), the worst first."""
    from tuner.data.readable import readable

    part, shape = splits.val, splits.shape
    losses = per_example_loss(outputs, part.y, shape.task)
    wrong = np.ones(len(part), bool) if shape.task == "regression" else outputs.argmax(1) != part.y
    order = sorted(np.flatnonzero(wrong & np.isfinite(losses)), key=lambda row: (-losses[row], row))[:MOST_MISTAKES]
    if shape.task == "regression":
        restore = splits.encoder.target.restore
        true, predicted = restore(part.y), restore(outputs[:, 0])
        told = [{"true": float(true[i]), "predicted": float(predicted[i])} for i in order]
    else:
        sure = np.exp(outputs.astype(np.float64))
        told = [
            {"true": shape.classes[part.y[i]], "predicted": shape.classes[outputs[i].argmax()],
             "probability": float(sure[i].max()), "probability_of_true": float(sure[i, part.y[i]])}
            for i in order
        ]  # fmt: skip
    return [
        {"row": int(part.rows[i]), "loss": float(losses[i]), **each, **readable(splits.encoder, part.x[i])}
        for i, each in zip(order, told, strict=True)
    ]


def _outputs(finalist: Finalist, part: Part, splits: Splits, folder: Path) -> NDArray[np.float32]:
    from tuner.measuring import predict
    from tuner.models import build_model
    from tuner.weights import read_weights

    network = build_model(finalist.config, splits.shape, folder, splits.encoder.standard)
    read_weights(network, finalist.weights)
    return predict(network, part.x, splits.encoder.standard, splits.shape.task)


def _measured(
    outputs: NDArray[Any], splits: Splits, roc_auc: bool, rows: NDArray[Any] | None, own: OwnMetric | None
) -> dict[str, float]:
    assert splits.test is not None
    y, task = splits.test.y, splits.shape.task
    if rows is not None:
        outputs, y = outputs[rows], y[rows]
    restore = splits.encoder.target.restore
    found = metrics(outputs, y, task, restore, roc_auc)
    if own is not None:
        measured = own.of if rows is None else own.of_some
        found[own.name] = measured(*told(outputs, y, task, restore))
    return {LOSS[task]: float(per_example_loss(outputs, y, task).mean())} | found


def _interval(value: float, draws: NDArray[Any]) -> dict[str, float]:
    finite = draws[np.isfinite(draws)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return {"value": float(value), "low": float(low), "high": float(high)}


def beats_baseline(
    seen: Mapping[str, Any], metric: str, baseline: TrialRecord | None = None, trials: int | None = None
) -> str:
    """Return in one sentence whether the chosen trial beat the unregularized baseline beyond noise; if that wasn't
    looked at, what became of it. `trials` is how many the study has.
    """
    difference = seen["difference"].get(metric)
    if seen["baseline"] is None:
        return _no_baseline(baseline)
    if seen["trial"] == seen["baseline"] and trials == 1:
        return "Nothing was tuned: the only trial is the baseline (the middle of the space, unregularized)."
    if difference is None:
        return f"Whether tuning helped can't be told: {metric} isn't defined on the test rows."
    found = f"test {metric} {_apart(**difference)}"
    if seen["trial"] == seen["baseline"]:
        return "Tuning did not help: the baseline itself was chosen (the middle of the space, unregularized)."
    if seen["rows"] < FEWEST_ROWS:
        return f"Whether tuning helped can't be told from {counted(seen['rows'], 'test row')} ({found})."
    if difference["low"] > 0:
        return (
            "The chosen trial beat the baseline, which is the middle of the space, unregularized and not tuned "
            f"({found})."
        )
    if difference["high"] < 0:
        return f"Tuning did not help: the chosen trial is worse than the untuned, unregularized baseline ({found})."
    return f"Tuning did not beat the untuned, unregularized baseline beyond noise ({found})."


def _no_baseline(baseline: TrialRecord | None) -> str:
    """Return why there is nothing to compare the chosen trial with."""
    if baseline is None:
        return "There is no baseline to compare with."
    if not baseline.ended:
        return f"There is no baseline to compare with yet: trial {baseline.number} has not ended."
    ended = "failed" if baseline.state == "failed" else f"was {baseline.state}"
    why = f": {baseline.reason}" if baseline.reason else ""
    return f"There is nothing to compare with: the baseline, trial {baseline.number}, {ended}{why}."


def _apart(value: float, low: float, high: float) -> str:
    """Return by how much one is better than another, or worse, with the interval in the same words."""

    def side(by: float) -> str:
        return "worse" if by < 0 else "better"

    sizes = [f"{abs(by):.3g}" for by in (low, high)]
    if side(low) == side(high) == side(value):
        ends = " to ".join(sizes if value >= 0 else reversed(sizes))
    else:
        ends = f"{sizes[0]} {side(low)} to {sizes[1]} {side(high)}"
    return f"{side(value)} by {abs(value):.3g}, 95 % interval {ends}"
