"""tune(): the one place where the parts are wired together, from a plan to the files of a best configuration.

    conduct   Plan -> trial records -> Study  the search, then the choice, the one look at the test set, the files
    tune      prepares a plan and drains conduct

Knows every part and decides nothing of their business.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import reporting
from tuner.best import FEATURES, MODEL, STUDIES
from tuner.config import RunConfig
from tuner.confirmation import ABLATION, ROUNDS, SHARE, Repeat, bought, chosen, confirmed
from tuner.confirming import ablations, ablations_of, pending, repeat_each, repeats_of
from tuner.engine import Again, Engine, Task, retrain
from tuner.errors import DataError, TunerError, UsageError
from tuner.files import refuse_foreign, write_best, write_study, writing
from tuner.forecast import Pace
from tuner.grammar import Override
from tuner.importances import importances
from tuner.planning import Plan, blank_curve, own_families, prepare
from tuner.proposing import BASELINE, NONE, SMOOTHING
from tuner.record import TrialRecord
from tuner.search import Setting, final_seconds, refuse_failures, search
from tuner.selection import Finalist, look, validation_by_class
from tuner.space import Space, differences
from tuner.storage import database_file, open_storage
from tuner.store import Store
from tuner.study import Study, facts_of, of_records
from tuner.workers import InProcess, Processes

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

REFIT = "-refit"  # in the names of weights that were trained on more rows than a trial's


def conduct(plan: Plan) -> Generator[TrialRecord | Repeat, None, Study]:
    """Run or resume a study; yield trial records as `search` does and the repeats of its confirmation; return it.

    Whoever closes the generator early leaves a study that the same call resumes.

    Raises:
        UsageError: the study is there with another space or other data, or is being run right now.
        StorageError: the storage can't be used.
        UserCodeError: the space's own code fails in every trial.
    """
    with _storage(plan.storage) as rdb, _only_one(plan, rdb):
        store = _open_store(plan, rdb)
        setting, before = _setting(plan, store), store.get("seconds") or 0.0
        try:
            if not _is_over(plan, store, setting):
                with _engine(plan) as engine:
                    yield from search(setting, engine)
                    engine.clear()
                    until = setting.deadline
                    until = None if until is None else until - final_seconds(setting, engine.slots)
                    left = None if until is None else until - time.monotonic()
                    runs = pending(plan, list(setting.records.values()), repeats_of(store), engine.slots, left)
                    yield from repeat_each(plan, store, engine, runs, until)
                    engine.clear()
                    retrain(engine, _missing(plan, store, setting))
        except (GeneratorExit, KeyboardInterrupt, DataError):
            _leave_early(plan, store, setting)
            raise
        finally:
            store.put("seconds", round(before + time.monotonic() - plan.started, 3))
        refuse_failures(setting.records.values(), bool(own_families(plan.space)))
        return _conclude(plan, store, setting)


def pace_of(plan: Plan) -> Pace:
    """Return what tells, from the trials of a run as they end and from those of earlier runs, how much time is left."""
    budget = plan.space.config.budget
    with _storage(plan.storage) as rdb:
        store = Store.load(rdb, plan.study.name)
        there = [record for record in store.records() if record.ended] if store else []
        repeats = [repeat for repeat in repeats_of(store) if not repeat.without] if store else []
    pace = Pace(plan.trials, budget.workers, budget.confirm, plan.space.config.score.form, plan.deadline)
    pace.earlier(there, repeats)
    return pace


def ablate(plan: Plan, trial: int | None = None) -> Generator[Repeat, None, dict[str, Any]]:
    """Train a trial's configuration, or the one chosen, again on the rows and seeds of the confirmation, whole and
    without each of its regularizers; yield the repeats, return a document of what each regularizer brought.

    Raises:
        UsageError: there is no such complete trial.
        StorageError: the storage can't be used.
    """
    with _storage(plan.storage) as rdb, _only_one(plan, rdb):
        store = _open_store(plan, rdb, "so it can't be ablated as it is")
        setting = _setting(plan, store)
        best = _chosen(plan, store, setting) if trial is None else setting.records.get(trial)
        if best is None or best.state != "complete":
            said = f"--trial {trial}: is no complete trial of" if trial is not None else "there is no complete trial in"
            raise UsageError(f"{said} study {plan.study.name!r}; `tuner run` of it goes on")
        config = plan.space.at(best.all_values)
        idle = (SMOOTHING,) if plan.splits.shape.task == "regression" else ()
        values = {name: config[name] for name in NONE if config[name] != 0 and name not in idle}
        runs = ablations(best, values, ablations_of(store)) if values else []
        if runs:
            with _engine(plan, count=len(runs)) as engine:
                yield from repeat_each(plan, store, engine, runs, kind=ABLATION)
            _forget_features(plan, setting)
        rows = plan.study.data
        found = bought(ablations_of(store), best.number, values, rows["train"], rows["val"])
        return {
            "study": plan.study.name, "trial": best.number, "metric": plan.study.metric, "rounds": ROUNDS,
            "values": values, "regularizers": [asdict(each) for each in found],
        }  # fmt: skip


@contextmanager
def _storage(url: str) -> Iterator[RDBStorage]:
    """Hold a storage open, made if it isn't there."""
    rdb = open_storage(url, create=True)
    try:
        yield rdb
    finally:
        rdb.scoped_session.remove()
        rdb.engine.dispose()


def _is_over(plan: Plan, store: Store, setting: Setting) -> bool:
    """Tell whether a study has nothing left to train."""
    records = setting.records
    if len(records) < setting.trials or _unfinished(records) or _missing(plan, store, setting):
        return False
    return not pending(plan, list(records.values()), repeats_of(store))


def _chosen(plan: Plan, store: Store, setting: Setting) -> TrialRecord | None:
    """Return the trial that the study chooses as it stands."""
    rows = plan.study.data
    form = plan.space.config.score.form
    outcome = confirmed(setting.records, repeats_of(store), rows["train"], rows["val"], form)
    return chosen(setting.records, outcome, form)


def _unfinished(records: Mapping[int, TrialRecord]) -> bool:
    return any(not record.ended for record in records.values())


@contextmanager
def _only_one(plan: Plan, rdb: RDBStorage) -> Iterator[None]:
    """Hold the study's locks, one in its folder and one beside its database, for these may be shared differently."""
    folder, database = plan.folder, database_file(rdb)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    beside = nullcontext() if database is None else _lock(Path(f"{database}.{folder.name}.lock"), folder.name)
    with _lock(folder / ".lock", folder.name), beside:
        yield


@contextmanager
def _lock(path: Path, study: str) -> Iterator[None]:
    """Hold a lock on a file; it goes with the process, however that ends."""
    with writing(path):
        lock = open(path, "a+")  # noqa: SIM115
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            process = file.read().strip() or "?"
            message = f"study {study!r} is being run by process {process}; wait, or choose --study-name"
            raise UsageError(message) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _open_store(plan: Plan, rdb: RDBStorage, advice: str = "choose another --study-name") -> Store:
    """Return the study's store, made new or the one that this plan continues."""
    store = Store.load(rdb, plan.study.name)
    if store is None:
        refuse_foreign(plan.folder)
        about = {"metric": plan.study.metric, "score": reporting.formula(plan.study.metric, plan.study.identity)}
        return Store.create(rdb, plan.study, about)
    lines = differences(_completed(store.study.identity), plan.study.identity)
    if store.study.fingerprint != plan.study.fingerprint:
        lines.append("the data: other rows, or divided otherwise, than those it was made with")
    if store.study.metric != plan.study.metric and not lines:
        lines.append(f"metric: {store.study.metric} -> {plan.study.metric}")
    if lines:
        shown = "; ".join(lines[:8]) + ("; ..." if len(lines) > 8 else "")
        raise UsageError(f"study {plan.study.name!r} was made otherwise: {shown}; {advice}")
    return store


def _completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a study that an older version made with the keys that have come since, as they default."""
    defaults = RunConfig.model_validate({"data": {"source": "any"}}).flat()
    left_out = ("study", "folder", "data.source")
    known = {name: value for name, value in defaults.items() if not name.startswith("budget.") and name not in left_out}
    return {**json.loads(json.dumps(known)), **identity}


def _setting(plan: Plan, store: Store) -> Setting:
    config = plan.space.config
    growth = len(plan.splits.train) / len(plan.folds[0].train) if plan.refit else 0.0
    blanks = [blank_curve(config, fold) for fold in plan.folds]
    confirming = SHARE * (config.budget.timeout or 0.0) if config.budget.confirm else 0.0
    return Setting(
        plan.space, store, blanks, plan.splits.shape.task, plan.folder / "weights", plan.trials, growth,
        confirming, ROUNDS * plan.seconds, plan.deadline, {record.number: record for record in store.records()},
    )  # fmt: skip


@contextmanager
def _engine(plan: Plan, count: int | None = None) -> Iterator[Engine]:
    """Hold an engine. Code of the user's own trains in a process of its own, where it can end nothing but a trial."""
    most = max(1, plan.trials if count is None else count)
    workers = min(plan.space.config.budget.workers, most)
    shared, cache = plan.folder / ".data", plan.folder / FEATURES
    shutil.rmtree(shared, ignore_errors=True)  # of a run that was killed
    if workers == 1 and not own_families(plan.space):
        engine: Engine = InProcess(cache)
    else:
        engine = Processes(workers, shared, cache)
    try:
        with writing(plan.folder):
            for splits in plan.divisions:
                engine.take(splits)
        yield engine
    finally:
        engine.close()
        shutil.rmtree(shared, ignore_errors=True)
        for part in (plan.folder / "weights").glob(".*.part"):  # of a worker that was killed while it wrote
            part.unlink(missing_ok=True)


def _leave_early(plan: Plan, store: Store, setting: Setting) -> None:
    """Write the files of a study that was stopped: its best configuration so far, the test set still closed.

    Where the model was to be trained again in the end, it is the trial's own; of a cross-validation there is none, and
    the configuration is written without one, unless that would take the place of a best configuration that has its.
    """
    best = _chosen(plan, store, setting)
    with suppress(TunerError):
        final = best is not None and _final(plan, setting, best.number).exists()
        if best is not None and (final or setting.weights_of(best.number).exists()):
            seen, weights = store.get("test"), setting.weights_of(best.number)
            weights = _final(plan, setting, best.number) if final else weights
            same = seen is not None and seen["trial"] == best.number and final
            write_best(plan, plan.folder, best, weights, seen if same else None, final=final or not plan.refit)
        elif best is not None and not (plan.folder / MODEL).exists():
            write_best(plan, plan.folder, best, None, None)
        write_study(plan, setting.records)


def _conclude(plan: Plan, store: Store, setting: Setting) -> Study:
    """Choose, look at the test set once, and write the study's files."""
    records = setting.records
    best = _chosen(plan, store, setting)
    seen = None
    if best is not None:
        seen = _look(plan, store, setting)
        _tell_classes(plan, store, setting, best)
        write_best(plan, plan.folder, best, _final(plan, setting, best.number), seen)
        _forget_others(plan, store, setting)
    _weigh(plan, store, records)
    facts = facts_of(store, plan.folder) | {"test": seen}
    study = of_records(store.study, dict(records), facts, plan.folder)
    write_study(plan, records)
    _forget_features(plan, setting)
    return study


def _forget_features(plan: Plan, setting: Setting) -> None:
    """Remove what frozen networks made of the examples, once no trial is to come."""
    if len(setting.records) >= setting.trials and not _unfinished(setting.records):
        shutil.rmtree(plan.folder / FEATURES, ignore_errors=True)


def _weigh(plan: Plan, store: Store, records: Mapping[int, TrialRecord]) -> None:
    """Keep which values moved the score and the gap, if trials have come since this was last asked."""
    told, there = store.get("importances"), sum(record.state == "complete" for record in records.values())
    if told is None or told.get("complete") != there:
        store.put("importances", {"complete": there, "shares": importances(plan.space, records)})


def _look(plan: Plan, store: Store, setting: Setting) -> dict[str, Any] | None:
    finalists = [_finalist(plan, setting, record) for record in _finalists(plan, store, setting)]
    earlier = store.get("test")
    second = finalists[1] if len(finalists) > 1 else None
    seen = look(finalists[0], second, plan.splits, store.study.metric, plan.space.folder, earlier)
    if seen is not None and seen != earlier:
        store.put("test", seen)
    return seen


def _tell_classes(plan: Plan, store: Store, setting: Setting, best: TrialRecord) -> None:
    """Keep how well each class is predicted in the validation rows, by the trial's own network if it is there."""
    told, weights = store.get("val_classes"), setting.weights_of(best.number)
    if not weights.exists() or (told is not None and told["trial"] == best.number):
        return
    own = Finalist(best, plan.space.at(best.all_values), weights)
    rows = validation_by_class(own, plan.folds[0], plan.space.folder)
    store.put("val_classes", {"trial": best.number, "rows": rows})


def _finalists(plan: Plan, store: Store, setting: Setting) -> list[TrialRecord]:
    """Return the chosen trial and the baseline, if there are such."""
    best = _chosen(plan, store, setting)
    baseline = next((r for r in setting.records.values() if r.label == BASELINE and r.state == "complete"), None)
    return [record for record in (best, baseline) if record is not None] if best is not None else []


def _finalist(plan: Plan, setting: Setting, record: TrialRecord) -> Finalist:
    return Finalist(record, plan.space.at(record.all_values), _final(plan, setting, record.number))


def _final(plan: Plan, setting: Setting, number: int) -> Path:
    """Return the file for the weights of a trial's configuration in its final form."""
    own = setting.weights_of(number)
    return own.with_name(f"{own.stem}{REFIT}{own.suffix}") if plan.refit else own


def _forget_others(plan: Plan, store: Store, setting: Setting) -> None:
    """Remove what was trained again of configurations that are no longer the chosen one or the baseline."""
    kept = {_final(plan, setting, record.number) for record in _finalists(plan, store, setting)}
    for path in setting.weights.glob(f"*{REFIT}.safetensors"):
        if path not in kept:
            path.unlink(missing_ok=True)


def _missing(plan: Plan, store: Store, setting: Setting) -> list[Again]:
    """Return the finalists whose weights aren't there: they are lost, or are to be of more rows than a trial's."""
    last, found = len(plan.divisions) - 1 if plan.refit else 0, dict[int, Again]()
    for record in _finalists(plan, store, setting):
        weights = _final(plan, setting, record.number)
        if not weights.exists() and record.score is not None:
            task = Task(record.number, plan.space.at(record.all_values), record.seed, plan.space.folder, last)
            found[record.number] = Again(task, record.score.epoch, weights)
    return list(found.values())


def tune(
    space: str | Path | Space,
    *,
    trials: int | None = None,
    workers: int | None = None,
    timeout: str | float | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    confirm: bool | None = None,
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
        "budget.confirm": confirm,
    }
    values = {**{name: value for name, value in given.items() if value is not None}, **(overrides or {})}
    listed = [Override(name, json.dumps(value), "tune()") for name, value in values.items()]
    run = conduct(prepare(space, overrides=listed, storage=storage, studies_dir=studies_dir))
    try:
        while True:
            next(run)
    except StopIteration as end:
        study: Study = end.value
        return study
    finally:
        run.close()
