"""tune(): the one place where the parts are wired together, from a space file to the files of a best configuration.

    prepare   space file + data -> Plan       everything is checked, nothing is written
    conduct   Plan -> trial records -> Study  the search, then the choice, the one look at the test set, the files
    tune      drains conduct
    open_study                                a study that is there, to be read

Knows every part and decides nothing of their business.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuner import report
from tuner.best import STUDIES, BestConfig, best_space, load_best
from tuner.config import IMAGE_FAMILIES, STUDY_NAME, RunConfig, min_epochs
from tuner.curve import Curve
from tuner.data import load
from tuner.data.shared import write_shared
from tuner.data.splits import Splits
from tuner.errors import UsageError, nearest
from tuner.grammar import Override, dump_space, read_space
from tuner.metrics import null_loss
from tuner.record import StudyRecord, TrialRecord, best_record
from tuner.scoring import metric_of
from tuner.search import BASELINE, Setting, search
from tuner.selection import Finalist, look
from tuner.space import Space, differences
from tuner.storage import Store, masked, open_storage, study_names
from tuner.workers import Engine, InProcess, Processes, Task, retrain

SHOWN = ("trial", "score", "epoch", "params", "train", "val", "gap", "parameters", "sparsity")
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
        return self.space.config.budget.trials


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands: its record, its trials by number, and the document of its figures."""

    record: StudyRecord
    trials: Mapping[int, TrialRecord]
    document: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """The study's name."""
        return self.record.name

    @property
    def best(self) -> BestConfig:
        """The best configuration, as `load_best` reads it.

        Raises:
            UsageError: no trial is complete.
        """
        return load_best(self.folder / "best.yaml")


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
    url = storage or os.environ.get("OPTUNA_STORAGE") or default_storage(Path(studies_dir))
    return Plan(space, splits, study, url, folder, started)


def default_storage(studies_dir: Path) -> str:
    """Return the URL of the database that holds all studies of a folder."""
    return f"sqlite:///{studies_dir / 'tuner.db'}"


def _check_fit(space: Space, splits: Splits) -> str:
    """Check that model, augmentation and metric go with the data; return the metric."""
    config, kind = space.config, splits.shape.kind
    try:
        metric = metric_of(config.score, splits.shape.task)
    except ValueError as error:
        raise UsageError(str(error)) from None
    domain = space.domains.get("model.family")
    families = list(domain.to_json()["choices"]) if domain is not None else [config.model.family]
    for family in families:
        if kind != "image" and family in IMAGE_FAMILIES:
            raise UsageError(f"model.family: {family} is for images and the data are a {kind}; use mlp or module:attr")
        if ":" in family:
            _check_own(space.config.replace({"model.family": family}), splits, space.folder)
    if kind != "image" and config.augmentation.flip != "none":
        raise UsageError(f"augmentation.flip: is for images and the data are a {kind}; leave it out")
    return metric


def _check_own(config: RunConfig, splits: Splits, folder: Path) -> None:
    """Build the user's own model once, so that a wrong name is told before anything is written."""
    from tuner.models import build_model

    build_model(config, splits.shape, folder)


def conduct(plan: Plan) -> Generator[TrialRecord, None, Study]:
    """Run or resume a study; yield trial records as `search` does, return the study.

    Whoever closes the generator early leaves a study that the same call resumes.

    Raises:
        UsageError: the study is there with another space or other data, or is being run right now.
        StorageError: the storage can't be used.
        UserCodeError: the space's own code fails in every trial.
    """
    with _only_one(plan.folder):
        store = _open_store(plan)
        try:
            setting = _setting(plan, store)
            before = store.get("seconds") or 0.0
            try:
                if len(setting.records) < setting.trials or _unfinished(store):
                    engine = _engine(plan)
                    try:
                        yield from search(setting, engine)
                    finally:
                        engine.close()
            finally:
                store.put("seconds", round(before + time.monotonic() - plan.started, 3))
            setting.records.update({record.number: record for record in store.records()})
            return _conclude(plan, store, setting)
        finally:
            store.close()


def _unfinished(store: Store) -> bool:
    return any(record.state == "running" for record in store.records())


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the study's lock; it goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            process = file.read().strip() or "?"
            message = f"study {folder.name!r} is being run by process {process}; wait, or choose --study-name"
            raise UsageError(message) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _open_store(plan: Plan) -> Store:
    """Return the study's store, made new or the one that this plan continues."""
    rdb = open_storage(plan.storage, create=True)
    store = Store.load(rdb, plan.study.name)
    if store is None:
        about = {"metric": plan.study.metric, "score": report.formula(plan.study.metric, plan.study.identity)}
        return Store.create(rdb, plan.study, about)
    lines = differences(store.study.identity, plan.study.identity)
    if store.study.fingerprint != plan.study.fingerprint:
        lines.append("the data or their split: other rows than the study was made with")
    if store.study.metric != plan.study.metric and not lines:
        lines.append(f"metric: {store.study.metric} -> {plan.study.metric}")
    if lines:
        shown = "; ".join(lines[:8]) + ("; ..." if len(lines) > 8 else "")
        raise UsageError(f"study {plan.study.name!r} is there with another space: {shown}. Choose another --study-name")
    return store


def blank_curve(config: RunConfig, splits: Splits) -> Curve:
    """Return the curve of a run of this configuration before its first epoch."""
    epochs, shape = config.training.epochs, splits.shape
    null = null_loss(splits.train.y, splits.val.y, shape.task, shape.outputs)
    n_val, n_train = len(splits.val), len(splits.train)
    return Curve(epochs, min_epochs(epochs), null, n_val, min(n_val, n_train))


def _setting(plan: Plan, store: Store) -> Setting:
    config = plan.space.config
    deadline = plan.started + config.budget.timeout if config.budget.timeout is not None else None
    return Setting(
        plan.space, store, blank_curve(config, plan.splits), plan.splits.shape.task, plan.folder / "weights",
        config.budget.trials, deadline, {record.number: record for record in store.records()},
    )  # fmt: skip


def _engine(plan: Plan) -> Engine:
    workers = min(plan.space.config.budget.workers, max(1, plan.trials))
    if workers == 1:
        return InProcess(replace(plan.splits, test=None))
    shared = plan.folder / ".data"
    write_shared(plan.splits, shared)
    return Processes(workers, shared)


def _conclude(plan: Plan, store: Store, setting: Setting) -> Study:
    """Choose, look at the test set once, and write the study's files."""
    records = setting.records
    chosen = best_record(records)
    seen = None
    if chosen is not None:
        seen = _look(plan, store, setting, chosen)
        write_best(plan, plan.folder, chosen, setting.weights_of(chosen.number), seen)
    facts = _facts(store, plan.folder) | {"test": seen}
    study = Study(store.study, dict(records), report.summary(store.study, records, facts), plan.folder)
    _write(plan.folder / "space.yaml", dump_space(plan.space))
    _write(plan.folder / "trials.csv", report.trials_csv(records, setting.task))
    for record in records.values():
        path = plan.folder / "curves" / f"{record.number:05d}.csv"
        if record.curve is not None and not path.exists():
            _write(path, report.curve_csv(record))
    return study


def _look(plan: Plan, store: Store, setting: Setting, chosen: TrialRecord) -> dict[str, Any] | None:
    baseline = next((r for r in setting.records.values() if r.label == BASELINE and r.kept is not None), None)
    finalists = [_finalist(plan, setting, record) for record in (chosen, baseline) if record is not None]
    earlier = store.get("test")
    second = finalists[1] if baseline is not None else None
    seen = look(finalists[0], second, plan.splits, store.study.metric, plan.space.folder, earlier)
    if seen is not None and seen != earlier:
        store.put("test", seen)
    return seen


def _finalist(plan: Plan, setting: Setting, record: TrialRecord) -> Finalist:
    """Return a trial with its weights, which are trained again if their file is gone."""
    config, weights = plan.space.at(record.all_values), setting.weights_of(record.number)
    if not weights.exists():
        assert record.score is not None
        task = Task(record.number, config, record.seed, plan.space.folder)
        retrain(task, replace(plan.splits, test=None), record.score.epoch, weights)
    return Finalist(record, config, weights)


def write_best(plan: Plan, folder: Path, chosen: TrialRecord, weights: Path, seen: Mapping[str, Any] | None) -> None:
    """Write best.yaml, best.json and model.safetensors of a trial into a folder; best.yaml last."""
    found = report.figures(chosen, plan.splits.shape.task)
    assert found is not None
    about = {
        **{name: found[name] for name in SHOWN},
        "study": plan.study.name, "metric": plan.study.metric,
        "test": {**seen["metrics"], "looks": seen["looks"]} if seen else None,
        "encoder": plan.splits.encoder.to_json(), "versions": dict(plan.study.versions), "created": plan.study.created,
    }  # fmt: skip
    metric, target = plan.study.metric, folder / "best.yaml"
    lines = [
        f"# Best configuration of study {plan.study.name}: trial {chosen.number}, epoch {found['epoch']}.",
        f"# {metric}: train {_short(found['train'][metric])}, validation {_short(found['val'][metric])}",
        best_space(plan.space, chosen.all_values, plan.study.name, target),
    ]
    _write(folder / "model.safetensors", weights.read_bytes())
    _write(folder / "best.json", json.dumps(about, indent=1))
    _write(target, "\n".join(lines))


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _facts(store: Store, folder: Path) -> dict[str, Any]:
    def there(name: str) -> str | None:
        return str(folder / name) if (folder / name).exists() else None

    return {
        "storage": masked(store.rdb.url), "seconds": store.get("seconds"), "test": store.get("test"),
        "config": there("best.yaml"), "model": there("model.safetensors"), "report": there("report.html"),
    }  # fmt: skip


def _write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def tune(
    space: str | Path | Space,
    *,
    trials: int | None = None,
    workers: int | None = None,
    timeout: str | float | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    storage: str | None = None,
    studies_dir: str | Path = STUDIES,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Run or resume a study to its end, as `tuner run` does, and return it.

    `trials` is the study's total; `overrides` maps dotted names to values put over the file's.

    Raises:
        TunerError: see its subclasses; each carries one line a problem.
    """
    given = {
        "budget.trials": trials,
        "budget.workers": workers,
        "budget.timeout": timeout,
        "study": study_name,
        "seed": seed,
    }
    values = {**{name: value for name, value in given.items() if value is not None}, **(overrides or {})}
    listed = [Override(name, json.dumps(value), name) for name, value in values.items()]
    run = conduct(prepare(space, overrides=listed, storage=storage, studies_dir=studies_dir))
    while True:
        try:
            next(run)
        except StopIteration as end:
            study: Study = end.value
            return study


def open_study(study: str, *, storage: str | None = None, studies_dir: str | Path = STUDIES) -> Study:
    """Return a study that is there, by its name or the path of its folder.

    Raises:
        UsageError: there is no such study; the message lists those there are.
        StorageError: the storage can't be read.
    """
    path = Path(study)
    if os.sep in study and path.is_dir():
        study, studies_dir = path.name, path.parent
    if not re.match(STUDY_NAME, study):
        raise UsageError(f"{study!r} is no study name; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front")
    rdb = open_storage(storage or os.environ.get("OPTUNA_STORAGE") or default_storage(Path(studies_dir)))
    try:
        store = Store.load(rdb, study)
        if store is None:
            known = study_names(rdb)
            there = f"; there are: {', '.join(known[:20])}" if known else "; there are none yet"
            raise UsageError(f"no study {study!r}{nearest(study, known)}{there}")
        records = {record.number: record for record in store.records()}
        folder = Path(studies_dir) / study
        return Study(store.study, records, report.summary(store.study, records, _facts(store, folder)), folder)
    finally:
        rdb.engine.dispose()


def list_studies(*, storage: str | None = None, studies_dir: str | Path = STUDIES) -> list[Study]:
    """Return every study of a storage; none if there is no database yet."""
    url = storage or os.environ.get("OPTUNA_STORAGE")
    if url is None and not (Path(studies_dir) / "tuner.db").exists():
        return []
    rdb = open_storage(url or default_storage(Path(studies_dir)))
    names = study_names(rdb)
    rdb.engine.dispose()
    return [open_study(name, storage=storage, studies_dir=studies_dir) for name in names]
