"""tune(): the one place where the parts are wired together, from a plan to the files of a best configuration.

    conduct   Plan -> trial records -> Study  the search, then the choice, the one look at the test set, the files
    tune      prepares a plan and drains conduct

Knows every part and decides nothing of their business.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import reporting
from tuner.best import FEATURES, STUDIES
from tuner.concluding import choice, conclude, forget_features, leave_early, missing, unfinished
from tuner.config import RunConfig
from tuner.confirmation import ABLATION, ROUNDS, SHARE, Repeat, Repeating, bought
from tuner.confirming import ablations, ablations_of, pending, repeat_each, repeats_of, why_not
from tuner.engine import Again, Done, Engine, retrain
from tuner.errors import DataError, StorageError, TunerError, UsageError
from tuner.files import forget_parts, refuse_foreign, writing
from tuner.forecast import Pace
from tuner.grammar import Override, read_space
from tuner.holding import held
from tuner.keeping import keep, place_of
from tuner.ledger import LEDGER
from tuner.patience import Patience, Patient
from tuner.planning import Plan, blank_curve, plan_of
from tuner.posting import Board
from tuner.proposing import NONE, SMOOTHING
from tuner.record import TrialRecord
from tuner.search import Setting, final_seconds, refuse_failures, search
from tuner.space import Space, differences, own_families
from tuner.storage import open_storage
from tuner.store import Store
from tuner.study import PROGRESS, Study, study_of
from tuner.tasks import InProcess
from tuner.workers import Processes, Spares, early, processes

KEEP_TIME = 5.0  # seconds between two times that the time taken so far is kept

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


News = TrialRecord | Repeat | Repeating


def conduct(plan: Plan, spares: Spares | None = None) -> Generator[News, None, Study]:
    """Run or resume a study; yield trial records as `search` does and the repeats of its confirmation, as they go and
    when they have ended; return it. `spares` are workers that were started `early`.

    Whoever closes the generator early leaves a study that the same call resumes.

    Raises:
        UsageError: the study is there with another space or other data, or is being run right now.
        StorageError: the storage can't be used.
        UserCodeError: the space's own code fails in every trial.
    """
    with _storage(plan.storage) as rdb, _held(plan, _open_store(plan, rdb)) as store:
        setting, before = _setting(plan, store), store.get("seconds") or 0.0

        def keep_time() -> None:
            store.put("seconds", round(before + time.monotonic() - plan.started, 3))

        try:
            if not _is_over(plan, store, setting):
                store.put(PROGRESS, {"state": "running", "trials": setting.trials})
                with _engine(plan, store, spares) as engine:
                    yield from _watched(search(setting, engine), plan, store, setting, keep_time)
                    engine.clear()
                    yield from _watched(_confirm(plan, store, setting, engine), plan, store, setting, keep_time)
                    engine.clear()
                    yield from _finally(plan, engine, missing(plan, store, setting))
            refuse_failures(setting.records.values(), bool(own_families(plan.space)))
        except (GeneratorExit, KeyboardInterrupt, DataError):
            with store.at_once():
                leave_early(plan, store, setting)
            raise
        except StorageError:
            raise
        except TunerError as error:
            store.put(PROGRESS, {"state": "failed", "trials": setting.trials, "why": str(error)})
            raise
        finally:
            with suppress(StorageError), store.at_once():  # whoever ends for a reason tells that one
                keep_time()
        return Patience().keep_trying(lambda: conclude(plan, store, setting))


def _finally(plan: Plan, engine: Engine, jobs: Sequence[Again]) -> Iterator[Repeating]:
    """Train the networks that the study ends with; yield how they go."""
    for each in retrain(engine, jobs):
        task, trial = each.job.task, each.job.trial
        assert trial is not None
        curve = replace(blank_curve(task.config, plan.divisions[task.splits]), epochs=each.epochs)
        fold = task.splits if len(plan.folds) > 1 and task.splits < len(plan.folds) else None
        yield Repeating(trial, None, each.job.kept, curve, fold=fold, over=isinstance(each, Done))


def _confirm(plan: Plan, store: Store, setting: Setting, engine: Engine) -> Generator[Repeat | Repeating, None, None]:
    """Yield the runs of the confirmation, as many as there is time for; keep why it may come to nothing."""
    until, records = setting.deadline, list(setting.records.values())
    until = None if until is None else until - final_seconds(setting, engine.slots)
    left = None if until is None else until - time.monotonic()
    runs = pending(plan, records, repeats_of(store), engine.slots, left)
    store.put("not_confirmed", "the run was stopped; the same command goes on" if runs else None)
    yield from repeat_each(plan, store, engine, runs, until)
    store.put("not_confirmed", why_not(plan, records, engine.slots, left))


def _watched(
    run: Generator[News, None, None],
    plan: Plan,
    store: Store,
    setting: Setting,
    keep_time: Callable[[], None],
) -> Iterator[News]:  # fmt: skip
    """Yield what a run yields, and keep the dashboard's figures fresh as it goes, and the time that it has taken: what
    is killed has taken it, too.
    """
    board, kept = Board(store), time.monotonic()
    with closing(run):  # whoever closes this ends what trains, at once
        for news in run:
            if time.monotonic() - kept >= KEEP_TIME:
                keep_time()
                kept = time.monotonic()
            if isinstance(news, Repeat) or (isinstance(news, TrialRecord) and news.ended):
                board.post(lambda: study_of(store, setting.records, plan.folder).document, setting.records)
            yield news


def pace_of(plan: Plan) -> Pace:
    """Return what tells, from the trials of a run as they end and from those of earlier runs, how much time is left."""
    budget = plan.space.config.budget
    with _storage(plan.storage) as rdb:
        store = Store.load(rdb, plan.study.name)
        there = [record for record in store.records() if record.ended] if store else []
        repeats = [repeat for repeat in repeats_of(store) if not repeat.without] if store else []
    refit = len(plan.splits.train) / len(plan.folds[0].train) if plan.refit else 0.0
    form = plan.space.config.score.form
    pace = Pace(plan.trials, budget.workers, budget.confirm, form, plan.deadline, refit, len(plan.folds))
    pace.earlier(there, repeats)
    return pace


def ablate(plan: Plan, trial: int | None = None) -> Generator[Repeat | Repeating, None, dict[str, Any]]:
    """Train a trial's configuration, or the one chosen, again on the rows and seeds of the confirmation, whole and
    without each of its regularizers; yield the repeats, return a document of what each regularizer brought.

    Raises:
        UsageError: there is no such complete trial.
        StorageError: the storage can't be used.
    """
    with _storage(plan.storage) as rdb:
        found = _open_store(plan, rdb, "so it can't be ablated as it is")
        _to_ablate(plan, found, trial)  # what is refused writes nothing
        with _held(plan, found) as store:
            return (yield from _ablate(plan, store, trial))


def _to_ablate(plan: Plan, store: Store, trial: int | None) -> tuple[TrialRecord, Setting]:
    """Return the trial that is to be ablated, if there is one."""
    setting = _setting(plan, store)
    best = choice(plan, store, setting) if trial is None else setting.records.get(trial)
    if best is None or best.state != "complete":
        if trial is None:
            raise UsageError(f"there is no complete trial in study {plan.study.name!r}; `tuner run` of it goes on")
        what = f"it is {best.state}" if best is not None else "there is none such"
        raise UsageError(f"--trial {trial}: only complete trials can be ablated; {what} in {plan.study.name!r}")
    return best, setting


def _ablate(plan: Plan, store: Store, trial: int | None) -> Generator[Repeat | Repeating, None, dict[str, Any]]:
    best, setting = _to_ablate(plan, store, trial)
    config = plan.space.at(best.all_values)
    idle = (SMOOTHING,) if plan.splits.shape.task == "regression" else ()
    values = {name: config[name] for name in NONE if config[name] != 0 and name not in idle}
    runs = ablations(best, values, ablations_of(store)) if values else []
    if runs:
        with _engine(plan, store, most=len(runs)) as engine:
            yield from repeat_each(plan, store, engine, runs, kind=ABLATION)
        forget_features(plan, setting)
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
    if len(records) < setting.trials or unfinished(records) or missing(plan, store, setting):
        return False
    return not pending(plan, list(records.values()), repeats_of(store))


@contextmanager
def _held(plan: Plan, store: Store) -> Iterator[Store]:
    """Hold a study: no other process runs it."""
    with held(store, plan.folder):
        forget_parts(plan.folder)
        keep(store, plan.folder)
        yield store


def _open_store(plan: Plan, rdb: RDBStorage, advice: str = "choose another --study-name") -> Store:
    """Return the study's store, made new or the one that this plan continues."""
    store = Store.load(rdb, plan.study.name)
    if store is None:
        refuse_foreign(plan.folder)
        about = {"metric": plan.study.metric, "score": reporting.formula(plan.study.metric, plan.study.identity)}
        book, place = plan.folder / LEDGER, place_of(plan.storage, plan.folder)
        try:
            store = Store.create(rdb, plan.study, about, book, place)
        except StorageError:
            if (store := Store.load(rdb, plan.study.name)) is None:  # else it was made at the same moment elsewhere
                raise
    lines = differences(_completed(store.study.identity), plan.study.identity)
    if store.study.fingerprint != plan.study.fingerprint:
        lines.append(_other_data(store.study.data, plan.study.data))
    if store.study.metric != plan.study.metric and not lines:
        lines.append(f"metric: {store.study.metric} -> {plan.study.metric}")
    if lines:
        shown = "; ".join(lines[:8]) + ("; ..." if len(lines) > 8 else "")
        raise UsageError(f"study {plan.study.name!r} was made otherwise: {shown}; {advice}")
    return store


def _other_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return how the data of a study differ from those it was made with, whose rows are others."""
    sizes = ("kind", "task", "input", "outputs", "train", "val", "test")
    then, now = ({name: data.get(name) for name in sizes} for data in (old, new))
    shown = ", ".join(differences(then, now)) or "of the same sizes"
    return f"the data: other rows, or divided otherwise, than those it was made with ({shown})"


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
def _engine(plan: Plan, store: Store, spares: Spares | None = None, most: int | None = None) -> Iterator[Engine]:
    """Hold an engine for `most` trials."""
    assert store.process is not None
    workers = processes(plan.space, plan.trials if most is None else most)
    # of this run alone: what another one leaves that has lost the study must not be what this one works with
    shared, cache = plan.folder / f".data-{store.process.id[:8]}", plan.folder / FEATURES
    _clear(plan)
    engine: Engine = Processes(workers, shared, cache, spares) if workers else InProcess(cache)
    try:
        with writing(plan.folder):
            for splits in plan.divisions:
                engine.take(splits)
        store.patience = Patience()  # from here on there is work that is worth it
        yield Patient(engine, store.patience)
    finally:
        engine.close()
        shutil.rmtree(shared, ignore_errors=True)
        with suppress(StorageError), store.at_once():
            store.check()
            _clear(plan)


def _clear(plan: Plan) -> None:
    """Remove what runs and workers that were killed left of what they were writing."""
    for shared in plan.folder.glob(".data*"):
        if shared.is_symlink():  # rows go into no folder that a link leads to
            shared.unlink()
        shutil.rmtree(shared, ignore_errors=True)
    forget_parts(plan.folder)


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
    known = space if isinstance(space, Space) else read_space(Path(space), listed)
    with early(known) as spares:
        run = conduct(plan_of(known, storage, studies_dir), spares)
        try:
            while True:
                next(run)
        except StopIteration as end:
            study: Study = end.value
            return study
        finally:
            run.close()
