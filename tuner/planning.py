"""prepare(): a space file and its data -> Plan. Everything is read and checked here, and nothing is written.

Decides what must fit together: the metric and the task, the model and the kind of data. Knows no storage's content
and trains nothing.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tuner.best import STUDIES
from tuner.config import IMAGE_FAMILIES, RunConfig, min_epochs
from tuner.curve import Curve
from tuner.data import load
from tuner.data.splits import Splits
from tuner.errors import UsageError
from tuner.grammar import Override, dump_space, read_space
from tuner.metrics import null_loss
from tuner.proposing import first_trials
from tuner.record import StudyRecord
from tuner.scoring import metric_of
from tuner.space import Space

VERSIONS = ("torch", "optuna", "numpy", "scikit-learn", "pandas")


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that can be run: everything is read and checked, nothing is written yet."""

    space: Space
    splits: Splits
    study: StudyRecord
    storage: str
    folder: Path
    started: float

    @property
    def trials(self) -> int:
        """How many trials the study has in all."""
        return total_trials(self.space)


def prepare(
    space: str | Path | Space,
    *,
    overrides: Sequence[Override] = (),
    storage: str | None = None,
    studies_dir: str | Path = STUDIES,
) -> Plan:
    """Read and check a space and its data.

    Raises:
        SpaceError: the space file is wrong.
        UsageError: settings of it don't go together.
        DataError: the data can't be used.
    """
    return plan_of(space if isinstance(space, Space) else read_space(Path(space), overrides), storage, studies_dir)


def plan_of(space: Space, storage: str | None = None, studies_dir: str | Path = STUDIES) -> Plan:
    """Return the plan of a space that has been read (see `prepare`)."""
    started, config = time.monotonic(), space.config
    splits = load(config.data, space.folder)
    metric = _check_fit(space, splits)
    folder = Path(studies_dir) / config.study
    data = dict(splits.summary()) | {"classes": list(splits.shape.classes), "notes": list(splits.notes)}
    versions = {"python": platform.python_version(), "tuner": version("overfit-tuner")}
    study = StudyRecord(
        config.study, dump_space(space), str(space.folder), space.identity(), metric, config.seed, data,
        splits.fingerprint, splits.test_hash, versions | {name: version(name) for name in VERSIONS},
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Plan(space, splits, study, storage_url(storage, Path(studies_dir)), folder, started)


def total_trials(space: Space) -> int:
    """Return how many trials a study of this space has: its budget, or as many as differ if nothing is searched."""
    budget = space.config.budget.trials
    return budget if space.domains else min(budget, len(first_trials(space)))


def storage_url(given: str | None, studies_dir: Path) -> str:
    """Return the storage given, or the one of OPTUNA_STORAGE, or the database that holds all studies of a folder."""
    return given or os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{studies_dir / 'tuner.db'}"


def _check_fit(space: Space, splits: Splits) -> str:
    """Check that model, augmentation and metric go with the data; return the metric."""
    config, kind = space.config, splits.shape.kind
    try:
        metric = metric_of(config.score, splits.shape.task)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if metric == "roc_auc" and len(set(splits.val.y.tolist())) < 2:
        raise UsageError("score.metric: roc_auc needs two classes in the validation rows, which have one; use log_loss")
    for family in families(space):
        if kind != "image" and family in IMAGE_FAMILIES:
            raise UsageError(f"model.family: {family} is for images and the data are a {kind}; use mlp or module:attr")
    for family in own_families(space):
        _check_own(config.replace({"model.family": family}), splits, space.folder)
    if kind != "image" and config.augmentation.flip != "none":
        raise UsageError(f"augmentation.flip: is for images and the data are a {kind}; leave it out")
    return metric


def families(space: Space) -> list[str]:
    """Return every model family that a trial of the space may have."""
    domain = space.domains.get("model.family")
    return list(domain.to_json()["choices"]) if domain is not None else [space.config.model.family]


def own_families(space: Space) -> list[str]:
    """Return the families that are the user's own code."""
    return [family for family in families(space) if ":" in family]


def _check_own(config: RunConfig, splits: Splits, folder: Path) -> None:
    """Build the user's own model once, so that a wrong name is told before anything is written."""
    from tuner.models import build_model

    build_model(config, splits.shape, folder)


def blank_curve(config: RunConfig, splits: Splits) -> Curve:
    """Return the curve of a run of this configuration before its first epoch."""
    epochs, shape = config.training.epochs, splits.shape
    null = null_loss(splits.train.y, splits.val.y, shape.task, shape.outputs)
    n_val, n_train = len(splits.val), len(splits.train)
    return Curve(epochs, min_epochs(epochs), null, n_val, min(n_val, n_train))
