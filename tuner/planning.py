"""prepare(): a space file and its data -> Plan. Everything is read and checked here, and nothing is written.

Decides where a study lies, and what is kept of what it is made of. Knows no storage's content and trains nothing; what
fits with what is `fitting`'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tuner.backbones import find_backbone
from tuner.best import DATABASE, STUDIES
from tuner.config import PRETRAINED, RunConfig, min_epochs
from tuner.curve import Curve
from tuner.data import load_folds
from tuner.data.splits import Splits
from tuner.defaults import is_small
from tuner.errors import UsageError
from tuner.fitting import check_fit, check_source, data_of, most, noted, settled
from tuner.grammar import Override, dump_space, put_over, read_space
from tuner.machine import check_gpu, versions_of
from tuner.metrics import null_loss
from tuner.proposing import first_trials
from tuner.record import StudyRecord
from tuner.space import Range, Space, families, own_data, own_names


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that can be run: everything is read and checked, nothing is written yet.

    `folds` are what trials are scored over, and `splits` what the chosen configuration is trained on and looked at
    with: the same one, unless it is to be trained again on training and validation rows together. It was `started` at a
    moment of the monotonic clock and took `seconds` to make.
    """

    space: Space
    splits: Splits
    folds: tuple[Splits, ...]
    study: StudyRecord
    storage: str
    folder: Path
    started: float
    seconds: float

    @property
    def refit(self) -> bool:
        """Whether the chosen configuration is trained again, on more rows than its trial was."""
        return self.splits is not self.folds[0]

    @property
    def divisions(self) -> tuple[Splits, ...]:
        """All that is trained on: the folds and, where it isn't one of them, what is trained on in the end."""
        return (*self.folds, self.splits) if self.refit else self.folds

    @property
    def deadline(self) -> float | None:
        """The moment of the monotonic clock at which the time is up; None if there is no limit."""
        limit = self.space.config.budget.timeout
        return None if limit is None else self.started + limit

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
    known = put_over(space, overrides) if isinstance(space, Space) else read_space(Path(space), overrides)
    return plan_of(known, storage, studies_dir)


def plan_of(
    space: Space, storage: str | None = None, studies_dir: str | Path = STUDIES, elsewhere: bool = False
) -> Plan:
    """Return the plan of a space that has been read (see `prepare`), to be trained on this machine or `elsewhere`."""
    try:
        if not elsewhere:
            check_gpu(space.config.training)
        return _plan_of(space, storage, studies_dir)
    except UsageError as error:
        raise UsageError(space.placed(str(error))) from error


def _plan_of(space: Space, storage: str | None, studies_dir: str | Path) -> Plan:
    started = time.monotonic()
    check_source(space)
    whole, folds = load_folds(data_of(space), space.folder, space.config.training.refit)
    space = settled(space, folds[0])
    config, splits = space.config, whole
    metric, identity = check_fit(space, folds), space.identity()
    space = noted(space)
    if PRETRAINED in families(space):
        backbone = find_backbone(config.model.backbone, splits.shape.kind, space.folder)
        identity |= {"model.backbone file": f"SHA-256 {backbone.sha256}"}
    folder = _folder(Path(studies_dir), config.study, url := storage_url(storage, Path(studies_dir)))
    data = dict(folds[0].summary()) | {"classes": list(splits.shape.classes), "notes": list(folds[0].notes)}
    data |= {"folds": len(folds)} if len(folds) > 1 else {}
    data |= {"refit": len(whole.train)} if whole is not folds[0] else {}
    own = [*own_data(space), *(name for names in own_names(space).values() for name in names)]
    study = StudyRecord(
        config.study, dump_space(space), str(space.folder), identity, metric, config.seed, data,
        splits.fingerprint, splits.test_hash, versions_of(own, space.folder, _is_on_gpu(space, splits)),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Plan(
        space,
        splits,
        folds,
        study,
        url,
        folder,
        started,
        time.monotonic() - started,
    )


def _is_on_gpu(space: Space, splits: Splits) -> bool:
    """Tell whether trials of a space are trained on a GPU, where there is one."""
    config, batches = space.config, space.domains.get("training.batch_size")
    if config.training.device != "auto" or families(space) != ["mlp"]:
        return config.training.device != "cpu"
    largest = {name: int(most(space, name)) for name in ("model.width", "model.depth")}
    if batches is None:
        sizes: Sequence[Any] = [config.training.batch_size]
    else:
        sizes = [int(batches.top)] if isinstance(batches, Range) else batches.choices
    tops = [config.replace({**largest, "training.batch_size": size}) for size in sizes]
    return not all(is_small(top, splits.shape, len(splits.train)) for top in tops)


def total_trials(space: Space) -> int:
    """Return how many trials a study of this space has: its budget, or as many as differ if nothing is searched."""
    budget = space.config.budget.trials
    return budget if space.domains else min(budget, len(first_trials(space)))


def storage_url(given: str | None, studies_dir: Path) -> str:
    """Return the storage given, or the one of OPTUNA_STORAGE, or the database that holds all studies of a folder."""
    return given or os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{studies_dir / DATABASE}"


def _folder(studies_dir: Path, study: str, url: str) -> Path:
    """Return a study's folder.

    Raises:
        UsageError: it would lie where the database, or a file that SQLite keeps beside it, has its place.
    """
    there = [studies_dir / DATABASE]
    if url.startswith("sqlite"):
        there.append(Path(unquote(url.partition(":///")[2].partition("?")[0])))
    for name in (path.name for path in there if path.parent.absolute() == studies_dir.absolute()):
        if study == name or study.startswith((f"{name}-", f"{name}.")):
            raise UsageError(f"study {study!r}: is the name of a file of the database {name}; choose --study-name")
    return studies_dir / study


def blank_curve(config: RunConfig, splits: Splits) -> Curve:
    """Return the curve of a run of this configuration before its first epoch."""
    epochs, shape = config.training.epochs, splits.shape
    null = config.score.null_loss or null_loss(splits.train.y, splits.val.y, shape.task, shape.outputs)
    n_val, n_train = len(splits.val), len(splits.train)
    return Curve(epochs, min_epochs(epochs), null, n_val, min(n_val, n_train))
