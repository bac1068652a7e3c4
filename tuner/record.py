"""TrialRecord: everything that is known of one trial, as it is stored and reported.

Knows how to become JSON and back, so that a study can be read without any other part running.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tuner.curve import Curve, Epoch
from tuner.scoring import Score
from tuner.stopping import Verdict

REBUILT = "rebuilt"  # among the facts of a model: whether its configuration builds it, where that isn't certain
BASELINE = "baseline"  # the label of the trial that tuning has to beat
State = Literal["running", "waiting", "complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial.

    `values` maps every searched dotted name that was active to its value; `overrides` are values that the trial has
    outside the space (the unregularized baseline of a space that doesn't hold it). `label` says which of the first
    trials it is ("baseline", "light", ...), or "". `model` are facts of the trained network: parameters, sparsity
    (share of weights that are exactly zero). With cross-validation `folds` are the curves of its folds so far and
    `curve` is their mean (while it runs: that of the present fold). `examples` is what some validation examples count
    in the score at the best epoch (see metrics.packed), the same ones in every trial (of each fold, those at its own
    best epoch). `weights` are the SHA-256 of the network's weights as a file (of each fold), by which a replay is
    compared. `rules` says at which epoch each stopping rule would have ended it by itself, if at all. `leads` says,
    of a trial that has just ended, that it is the best of its study so far; it isn't stored.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    seed: int
    label: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    curve: Curve | None = None
    score: Score | None = None
    verdict: Verdict | None = None
    error: str = ""
    model: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    folds: tuple[Curve, ...] = ()
    examples: bytes = b""
    rules: Mapping[str, int | None] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    leads: bool = False

    @property
    def ended(self) -> bool:
        """Whether the trial is over; one that is waiting was cut off and is to be run again."""
        return self.state not in ("running", "waiting")

    @property
    def has_weights(self) -> bool:
        """Whether it leaves a network: a training loop of the user's own may name none."""
        return not self.weights or any(self.weights)

    @property
    def predicts(self) -> bool:
        """Whether its network can be built again to predict: a loop of the user's own may train any other one."""
        return self.has_weights and self.model.get(REBUILT, 1.0) > 0

    @property
    def kept(self) -> Epoch | None:
        """The epoch that was kept."""
        return self.curve[self.score.epoch] if self.curve is not None and self.score is not None else None

    @property
    def reason(self) -> str:
        """Why the trial ended, in one sentence; empty while it runs."""
        return self.verdict.reason if self.verdict is not None else self.error

    @property
    def all_values(self) -> dict[str, Any]:
        """Every value that the trial sets: the searched ones, and those outside the space over them."""
        return {**self.values, **self.overrides}

    def to_json(self) -> dict[str, Any]:
        """Return what isn't in the storage's own columns (number, state) as plain JSON."""
        return {
            "values": dict(self.values), "overrides": dict(self.overrides), "seed": self.seed, "label": self.label,
            "curve": self.curve.to_json() if self.curve is not None and len(self.curve) else None,
            "score": self.score.to_json() if self.score else None,
            "verdict": self.verdict.to_json() if self.verdict else None,
            "error": self.error, "model": dict(self.model), "seconds": round(self.seconds, 4),
            **({"folds": [fold.to_json() for fold in self.folds]} if self.folds else {}),
            **({"examples": base64.b64encode(self.examples).decode("ascii")} if self.examples else {}),
            **({"rules": dict(self.rules)} if self.rules else {}),
            **({"weights": list(self.weights)} if self.weights else {}),
        }  # fmt: skip

    @classmethod
    def from_json(cls, number: int, state: State, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            number, state, doc["values"], doc["seed"], doc["label"], doc["overrides"],
            Curve.from_json(doc["curve"]) if doc.get("curve") else None,
            Score.from_json(doc["score"]) if doc.get("score") else None,
            Verdict.from_json(doc["verdict"]) if doc.get("verdict") else None,
            doc.get("error", ""), doc.get("model", {}), doc.get("seconds", 0.0),
            tuple(Curve.from_json(fold) for fold in doc.get("folds", ())), base64.b64decode(doc.get("examples", "")),
            doc.get("rules", {}), tuple(doc.get("weights", ())),
        )  # fmt: skip


def epochs_of(record: TrialRecord, folds: int = 1) -> tuple[int, int]:
    """Return the epochs that a trial ran in all its folds, and those that its cap allows in so many folds."""
    if record.curve is None or not len(record.curve):
        return 0, 0
    return sum(map(len, record.folds or (record.curve,))), record.curve.budget * folds


def seconds_kept(record: TrialRecord) -> float:
    """Return the seconds that a trial took, in one of its folds, up to the epoch that it kept."""
    if record.curve is None or record.score is None:
        return 0.0
    runs = record.folds or (record.curve,)
    return sum(epoch.seconds for run in runs for epoch in run.epochs[: record.score.epoch]) / len(runs)


def seconds_of(trainings: Sequence[float], slots: int) -> float:
    """Return the seconds that trainings of so many seconds each take, so many at once."""
    return max(*trainings, sum(trainings) / slots) if trainings else 0.0


def shown(record: TrialRecord) -> dict[str, object]:
    """Return the attributes by which people sort and read trials in the dashboard."""
    found: dict[str, object] = {"seed": record.seed}
    if record.kept is not None and record.score is not None:
        found |= {"train_loss": _short(record.kept.train.loss), "val_loss": _short(record.kept.val.loss)}
        found |= {f"train_{name}": _short(value) for name, value in record.kept.train.metrics.items()}
        found |= {f"val_{name}": _short(value) for name, value in record.kept.val.metrics.items()}
        found |= {"gap": _short(record.score.gap), "best_epoch": record.score.epoch}
    if record.curve is not None:
        found["epochs"] = len(record.curve)
    found |= dict(record.model)
    if record.verdict is not None:
        found["verdict"] = record.verdict.kind
    finite = {name: value for name, value in found.items() if not isinstance(value, float) or math.isfinite(value)}
    return finite | ({"reason": record.reason} if record.reason else {})


def _short(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What a study is, written once when it is created; stored with it, so that it can be read alone.

    `space` is the space file's text as run and `folder` what its paths are relative to; `identity` is the
    space's (see Space.identity) and decides whether a later run continues this study. `data` describes the
    data: kind, task, input, outputs, rows of each part, classes, notes; `fingerprint` and `test_hash` are
    SHA-256 of all rows and of the sealed test rows. `metric` is what the score is made of.
    """

    name: str
    space: str
    folder: str
    identity: Mapping[str, Any]
    metric: str
    seed: int
    data: Mapping[str, Any]
    fingerprint: str
    test_hash: str
    versions: Mapping[str, str]
    created: str

    def changed(self, now: StudyRecord) -> dict[str, tuple[str, str]]:
        """Return which versions of what the study was made with aren't those of `now`: name: (then, now)."""
        then, new = self.versions, now.versions
        names = sorted(then.keys() | new.keys())
        return {name: (then.get(name, "-"), new.get(name, "-")) for name in names if then.get(name) != new.get(name)}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            TypeError: it is something else.
        """
        record = cls(**doc)
        if not all(isinstance(each, Mapping) for each in (record.identity, record.data, record.versions)):
            raise TypeError("a field is no mapping")
        return record
