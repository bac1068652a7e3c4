"""What a run leaves behind, epoch by epoch: Measure, Epoch, Curve.

Decides which epoch of a curve is kept (by validation loss alone). Knows no torch, no Optuna and no
other trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Measure:
    """One series at one epoch: the mean loss and the metrics, measured in eval mode on clean examples.

    `loss` is the mean per-example loss (log loss, each clipped at -log(1e-6); or the squared error of
    the standardized target). `metrics` holds whatever applies to the task by its usual name.
    """

    loss: float
    metrics: Mapping[str, float]


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


@dataclass(frozen=True, slots=True)
class Curve:
    """The epochs of one run.

    `budget` is the cap of epochs, `first` the first epoch that may be kept, `null_loss` the validation
    loss of a prediction that knows nothing, `n_val` the validation examples.
    """

    budget: int
    first: int
    null_loss: float
    n_val: int
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
        """The number of the epoch to keep: argmin over t >= first of EMA_0.5(validation loss)(t).

        Before `first` epochs have passed it is the newest one. Never chosen by the penalized score.
        """
        smoothed = self.smoothed()
        start = min(self.first, len(smoothed)) - 1
        return min(range(start, len(smoothed)), key=lambda i: _rank(smoothed[i])) + 1

    def smoothed(self) -> list[float]:
        """Return EMA_0.5 of the validation loss: e_1 = L_1, e_t = (e_{t-1} + L_t) / 2."""
        values: list[float] = []
        for epoch in self.epochs:
            loss = epoch.val.loss
            values.append(loss if not values else 0.5 * values[-1] + 0.5 * loss)
        return values

    def best_so_far(self) -> list[float]:
        """Return the smallest validation loss up to each epoch."""
        values: list[float] = []
        for epoch in self.epochs:
            loss = _rank(epoch.val.loss)
            values.append(min(loss, values[-1]) if values else loss)
        return values

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
        return {
            "budget": self.budget, "first": self.first, "null_loss": self.null_loss, "n_val": self.n_val,
            "series": {key: [_round(value) for value in values] for key, values in series.items()},
        }  # fmt: skip

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        series: Mapping[str, list[float]] = doc["series"]
        names = [key.removeprefix("val.") for key in series if key.startswith("val.") and key != "val.loss"]

        def measure(part: str, i: int) -> Measure:
            metrics = {name: _number(series[f"{part}.{name}"][i]) for name in names}
            return Measure(_number(series[f"{part}.loss"][i]), metrics)

        epochs = tuple(
            Epoch(i + 1, measure("train", i), measure("val", i),
                  *(_number(series[name][i]) for name in ("se_val", "se_gap", "rise", "rise_se", "seconds")))
            for i in range(len(series["val.loss"]))
        )  # fmt: skip
        return cls(doc["budget"], doc["first"], doc["null_loss"], doc["n_val"], epochs)


def _rank(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _round(value: float) -> float | str:
    """Seven significant digits, and JSON's missing words for what isn't finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else str(value)


def _number(value: float | str) -> float:
    return float(value)
