"""What a run leaves behind, epoch by epoch: Measure, Epoch, Curve.

Decides which epoch of a curve is kept (by validation loss alone). Knows no torch, no Optuna and no
other trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Measure:
    """One series at one epoch: the mean loss and the metrics, measured in eval mode on clean examples.

    `loss` is the mean per-example loss (log loss, each clipped at -log(1e-6); or the squared error of
    the standardized target). `metrics` holds whatever applies to the task by its usual name, and a metric of the user's
    own, if the score is by one; `metric_se` is that one's standard error over the examples.
    """

    loss: float
    metrics: Mapping[str, float]
    metric_se: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands at an epoch, made from the validation losses up to it and from nothing else.

    `smoothed` is EMA_0.5 of the loss (e_1 = L_1, e_t = (e_{t-1} + L_t) / 2), `lowest` the smallest loss so
    far, `best` the epoch to keep: argmin over t >= first of the smoothed loss, whose value is `value`.
    Before `first` epochs have passed the newest is the best. Never chosen by the penalized score.
    """

    smoothed: float
    lowest: float
    best: int
    value: float

    @classmethod
    def after(cls, previous: Standing | None, number: int, loss: float, first: int) -> Self:
        """Return the standing at epoch `number`, whose validation loss is `loss`."""
        loss = loss if math.isfinite(loss) else math.inf
        if previous is None:
            return cls(loss, loss, number, loss)
        smoothed, lowest = 0.5 * previous.smoothed + 0.5 * loss, min(previous.lowest, loss)
        if number <= first or smoothed < previous.value:
            return cls(smoothed, lowest, number, smoothed)
        return cls(smoothed, lowest, previous.best, previous.value)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch; `number` counts from 1.

    `se_val` is the standard error of the validation loss over its examples, `se_gap` that of the gap.
    `rise` is the mean over the validation examples of (loss now - loss at the best epoch so far), paired,
    `rise_se` its standard error; both 0 at the best epoch itself.
    """

    number: int
    train: Measure
    val: Measure
    se_val: float
    se_gap: float
    rise: float
    rise_se: float
    seconds: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class Curve:
    """The epochs of one run.

    `budget` is the cap of epochs, `first` the first epoch that may be kept, `null_loss` the validation
    loss of a prediction that knows nothing, `n_val` the validation examples, `n_probe` the training examples
    that the train series is measured on.
    """

    budget: int
    first: int
    null_loss: float
    n_val: int
    n_probe: int
    epochs: tuple[Epoch, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, number: int) -> Epoch:
        """Return the epoch of this number, counted from 1."""
        if not 1 <= number <= len(self.epochs):
            raise IndexError(f"no epoch {number} in a curve of {len(self.epochs)}")
        return self.epochs[number - 1]

    @property
    def last(self) -> Epoch:
        """The newest epoch."""
        return self.epochs[-1]

    @property
    def best(self) -> int:
        """The number of the epoch to keep (see Standing)."""
        return self.last.standing.best

    def then(self, epoch: Epoch) -> Self:
        """Return the curve with one more epoch."""
        return replace(self, epochs=(*self.epochs, epoch))

    def to_json(self) -> dict[str, Any]:
        """Return the curve as columns of plain numbers, the shape that `from_json` reads."""
        names = list(self.epochs[0].val.metrics) if self.epochs else []
        series: dict[str, list[float]] = {
            name: [getattr(epoch, name) for epoch in self.epochs]
            for name in ("se_val", "se_gap", "rise", "rise_se", "seconds")
        }
        for part in ("train", "val"):
            series[f"{part}.loss"] = [getattr(epoch, part).loss for epoch in self.epochs]
            for name in names:
                series[f"{part}.{name}"] = [getattr(epoch, part).metrics[name] for epoch in self.epochs]
            if any(getattr(epoch, part).metric_se for epoch in self.epochs):
                series[f"metric_se.{part}"] = [getattr(epoch, part).metric_se for epoch in self.epochs]
        return {
            "budget": self.budget, "first": self.first, "null_loss": self.null_loss,
            "n_val": self.n_val, "n_probe": self.n_probe,
            "series": {key: [_written(value) for value in values] for key, values in series.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        series = {name: list(map(float, column)) for name, column in doc["series"].items()}
        names = [key.removeprefix("val.") for key in series if key.startswith("val.") and key != "val.loss"]

        def measures(part: str) -> list[Measure]:
            rows = zip(*(series[f"{part}.{name}"] for name in names), strict=True) if names else repeat(())
            errors = series.get(f"metric_se.{part}", repeat(0.0))
            return [Measure(loss, dict(zip(names, row, strict=True)), error)
                    for loss, row, error in zip(series[f"{part}.loss"], rows, errors, strict=False)]  # fmt: skip

        curve = cls(doc["budget"], doc["first"], doc["null_loss"], doc["n_val"], doc["n_probe"])
        errors = zip(*(series[name] for name in ("se_val", "se_gap", "rise", "rise_se", "seconds")), strict=True)
        epochs, standing = list[Epoch](), None
        parts = zip(measures("train"), measures("val"), errors, strict=True)
        for number, (train, val, (se_val, se_gap, rise, rise_se, seconds)) in enumerate(parts, start=1):
            standing = Standing.after(standing, number, val.loss, curve.first)
            epochs.append(Epoch(number, train, val, se_val, se_gap, rise, rise_se, seconds, standing))
        return replace(curve, epochs=tuple(epochs))


def pooled(folds: Sequence[Curve]) -> Curve:
    """Return the mean curve of one configuration's folds, as long as the shortest of them; one fold is itself.

    A fold counts by its validation examples (and by its probe for the train series), so that the loss is the mean over
    all examples that were held out. The folds' validation examples are disjoint, so errors add up in squares. The rise
    over the best epoch is left out: it is for the judging of a single run.
    """
    if len(folds) == 1:
        return folds[0]
    n_val, n_probe = sum(fold.n_val for fold in folds), sum(fold.n_probe for fold in folds)
    shares = [fold.n_val / n_val for fold in folds]
    probes = [fold.n_probe / n_probe for fold in folds]
    null = sum(share * fold.null_loss for share, fold in zip(shares, folds, strict=True))
    epochs, standing = list[Epoch](), None
    for number in range(1, min(map(len, folds)) + 1):
        same = [fold[number] for fold in folds]
        train, val = (
            _mean_measure([getattr(epoch, part) for epoch in same], weights)
            for part, weights in (("train", probes), ("val", shares))
        )
        standing = Standing.after(standing, number, val.loss, folds[0].first)
        se_val, se_gap = (
            rounded(math.hypot(*(share * getattr(epoch, name) for share, epoch in zip(shares, same, strict=True))))
            for name in ("se_val", "se_gap")
        )
        seconds = rounded(sum(epoch.seconds for epoch in same))
        epochs.append(Epoch(number, train, val, se_val, se_gap, 0.0, 0.0, seconds, standing))
    return Curve(folds[0].budget, folds[0].first, null, n_val, n_probe, tuple(epochs))


def _mean_measure(measures: Sequence[Measure], weights: Sequence[float]) -> Measure:
    def mean(values: Iterable[float]) -> float:
        return rounded(sum(weight * value for weight, value in zip(weights, values, strict=True)))

    names = measures[0].metrics
    return Measure(
        mean(measure.loss for measure in measures),
        {name: mean(measure.metrics[name] for measure in measures) for name in names},
        rounded(math.hypot(*(weight * each.metric_se for weight, each in zip(weights, measures, strict=True)))),
    )


def rounded(value: float) -> float:
    """Return a number with the seven significant digits that are stored.

    What is judged is rounded when it is measured, so that a study that was interrupted compares the same
    numbers as one that wasn't.
    """
    return float(f"{value:.7g}")


def _written(value: float) -> float | str:
    """Seven significant digits, and JSON's missing words for what isn't finite."""
    return rounded(value) if math.isfinite(value) else str(value)
