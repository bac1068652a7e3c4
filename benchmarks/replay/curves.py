"""A bank as arrays, for a replay: what every configuration of it was after each epoch, had nobody stopped it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.replay.record import file_of, refits_of
from benchmarks.replay.sources import Bank, banks
from tuner.config import Score
from tuner.curve import Curve
from tuner.scoring import LOSS, score_at

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curves:
    """The runs of a bank, (runs, epochs) each; losses in units of L_0, the loss that knows nothing.

    `lowest` is the smallest validation loss so far and `best` the number (from 1) of the epoch that would be kept.
    `curves` are the runs as the judge sees them, `bare` those without regularization. `val_rows` and `test_rows` hold
    the losses of single rows at each run's best epoch, `right` whether a test row's class is right.
    `refits` are the test losses of runs that were trained again on the rows for training and validation together.
    """

    bank: Bank
    curves: tuple[Curve, ...]
    bare: NDArray[np.bool_]
    train: Floats
    val: Floats
    test: Floats
    se_val: Floats
    se_gap: Floats
    rise: Floats
    rise_se: Floats
    lowest: Floats
    best: NDArray[np.int64]
    first: int
    val_rows: Floats
    test_rows: Floats
    right: Floats | None
    accuracy: Floats
    val_accuracy: Floats
    repeats: tuple[tuple[int, int, Curve, Floats], ...]
    refits: dict[int, Floats]
    n_train: int
    n_val: int

    @property
    def regularized(self) -> NDArray[np.int64]:
        """The numbers of the runs that a search replays."""
        return np.flatnonzero(~self.bare)

    def scores(self, rule: Score) -> Floats:
        """Return what each run is worth at each epoch, (runs, epochs)."""
        skill, gap, noise = 1 - self.val, self.val - self.train, self.se_gap
        if rule.form == "conservative":
            return skill - self.se_val
        price = rule.gap_penalty if rule.form == "penalty" else 0.0
        return skill - price * np.maximum(0.0, gap - rule.noise * noise - rule.tolerance)


def read(folder: Path) -> Iterator[Curves]:
    """Yield the banks that are recorded."""
    for bank in banks():
        if (path := file_of(bank, folder)).exists():
            with gzip.open(path, "rt") as file:
                document = json.load(file)
            refits: dict[str, Any] = {}
            if (path := refits_of(bank, folder)).exists():
                with gzip.open(path, "rt") as file:
                    refits = json.load(file)
            yield _curves(bank, document, refits)


def _curves(bank: Bank, document: dict[str, Any], refits: dict[str, Any]) -> Curves:
    trials, loss = document["trials"], LOSS[document["task"]]
    curves = tuple(Curve.from_json(trial["curve"]) for trial in trials)
    null = curves[0].null_loss

    def series(of: Any, unit: float = null) -> Floats:
        return np.array([[of(epoch) for epoch in curve.epochs] for curve in curves]) / unit

    def rows(name: str, unit: float) -> Floats:
        return np.array([trial["rows"][name] for trial in trials]) / unit

    figure = "accuracy" if document["task"] == "classification" else "r2"
    found = Curves(
        bank, curves, np.array([trial["bare"] for trial in trials]),
        series(lambda e: e.train.loss), series(lambda e: e.val.loss),
        np.array([trial["test"][loss] for trial in trials]) / null,
        series(lambda e: e.se_val), series(lambda e: e.se_gap), series(lambda e: e.rise), series(lambda e: e.rise_se),
        series(lambda e: e.standing.lowest), series(lambda e: e.standing.best, 1.0).astype(np.int64), curves[0].first,
        rows("val", null), rows("test", null),
        rows("right", 1.0) if document["task"] == "classification" else None,
        np.array([trial["test"][figure] for trial in trials]),
        series(lambda e: e.val.metrics[figure], 1.0),
        tuple((each["number"], each["round"], Curve.from_json(each["curve"]), np.array(each["test"][loss]) / null)
              for each in document["repeats"]),
        {int(number): np.array(test[loss]) / null for number, test in refits.items()},
        document["rows"]["train"], document["rows"]["val"],
    )  # fmt: skip
    _check(found)
    return found


def _check(found: Curves) -> None:
    """Assert that the arrays say what the program's own functions say."""
    for rule in (Score(), Score(form="conservative"), Score(form="none"), Score(gap_penalty=1.0, noise=0.0)):
        table = found.scores(rule)
        for run in (0, len(found.curves) - 1):
            for epoch in (1, found.curves[run].budget):
                worth = score_at(found.curves[run], epoch, rule, LOSS_OF[found.right is None]).value
                assert np.isclose(table[run, epoch - 1], worth) or not np.isfinite(worth)


LOSS_OF = {False: "log_loss", True: "mse"}
