"""tune(): the one place where the parts are wired together, from a plan to the files of a best configuration.

    conduct   Plan -> trial records -> Study  the search, then the choice, the one look at the test set, the files
    tune      prepares a plan and drains conduct

Knows every part and decides nothing of their business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.again import Done, retrain
from tuner.best import STUDIES
from tuner.concluding import conclude, keep_weights, leave_early, missing, unfinished
from tuner.confirmation import Repeat, Repeating
from tuner.confirming import pending, repeat_each, repeats_of, why_not
from tuner.depositing import check, deposit
from tuner.engine import Engine
from tuner.errors import DataError, StorageError, TunerError
from tuner.forecast import Pace
from tuner.grammar import Override, put_over, read_space
from tuner.listening import Open
from tuner.opening import engine_for, hold, open_store, setting_of
from tuner.patience import Patience
from tuner.placing import HERE, Place, placed
from tuner.planning import Plan, blank_curve, plan_of
from tuner.posting import Board
from tuner.record import TrialRecord
from tuner.search import Setting, final_seconds, refuse_failures, search
from tuner.space import Space, own_names
from tuner.storage import opened
from tuner.store import Store
from tuner.study import PROGRESS, Study, study_of
from tuner.tracking import Tracker, Trackers, tracked
from tuner.workers import Parents, early

KEEP_TIME = 5.0  # seconds between two times that the time taken so far is kept

News = TrialRecord | Repeat | Repeating


def conduct(
    plan: Plan,
    parents: Parents | None = None,
    trackers: Trackers | None = None,
    hosts: Open | None = None,
    artifacts: str | None = None,
) -> Generator[News, None, Study]:
    """Run or resume a study; yield trial records as `search` does and the repeats of its confirmation, as they go and
    when they have ended; return it. `parents` are workers that were started `early`, `trackers` are told of it. With
    `hosts`, others train for it, too (see `placing`). What it leaves is copied to a URL of `artifacts`.

    Whoever closes the generator early leaves a study that the same call resumes.

    Raises:
        UsageError: the study is there with another space or other data, or is being run right now.
        StorageError: the storage can't be used.
        UserCodeError: the space's own code fails in every trial.
    """
    with opened(plan.storage, create=True) as rdb, hold(plan, open_store(plan, rdb)) as store:
        setting, before = setting_of(plan, store), store.get("seconds") or 0.0
        _begin(plan, store, setting, trackers)

        def keep_time(lasting: bool = False) -> None:
            store.put("seconds", round(before + time.monotonic() - plan.started, 3), lasting)

        try:
            if not _is_over(plan, store, setting):
                store.put(PROGRESS, {"state": "running", "trials": setting.trials})
                with engine_for(plan, store, parents, hosts=hosts) as engine:
                    yield from _watched(search(setting, engine), plan, store, setting, keep_time, trackers)
                    engine.clear()
                    yield from _watched(_confirm(plan, store, setting, engine), plan, store, setting, keep_time)
                    engine.clear()
                    yield from _finally(plan, store, setting, engine)
            refuse_failures(setting.records.values(), bool(own_names(plan.space)))
        except (GeneratorExit, KeyboardInterrupt, DataError):
            with store.at_once():
                leave_early(plan, store, setting)
                _end(plan, store, setting, trackers)
            raise
        except StorageError:
            raise
        except TunerError as error:
            store.put(PROGRESS, {"state": "failed", "trials": setting.trials, "why": str(error)})
            raise
        finally:
            with suppress(StorageError), store.at_once():  # whoever ends for a reason tells that one
                keep_time(lasting=True)
        study = Patience().keep_trying(lambda: conclude(plan, store, setting))
        if artifacts is not None:
            deposit(plan.folder, artifacts)
        if trackers:
            trackers.tell("end", study)
        return study


def _begin(plan: Plan, store: Store, setting: Setting, trackers: Trackers | None) -> None:
    """Tell trackers of a study that begins, or goes on, and of the trials that had ended before."""
    if trackers:
        trackers.tell("begin", study_of(store, dict(setting.records), plan.folder))
        for record in setting.records.values():
            if record.ended:
                trackers.tell("trial", record)


def _end(plan: Plan, store: Store, setting: Setting, trackers: Trackers | None) -> None:
    """Tell trackers of a study that was stopped."""
    if trackers:
        with suppress(TunerError):
            trackers.tell("end", study_of(store, dict(setting.records), plan.folder))


def _finally(plan: Plan, store: Store, setting: Setting, engine: Engine) -> Iterator[Repeating]:
    """Train the networks that the study ends with; yield how they go, and keep which weights they have."""
    for each in retrain(engine, missing(plan, store, setting)):
        task, trial = each.job.task, each.job.trial
        assert trial is not None
        if isinstance(each, Done):
            keep_weights(store, each, setting.records[trial])
        curve = replace(blank_curve(task.config, plan.divisions[task.splits]), epochs=each.epochs)
        fold = task.splits if len(plan.folds) > 1 and task.splits < len(plan.folds) else None
        yield Repeating(trial, None, each.job.kept, curve, fold=fold, over=isinstance(each, Done))


def _confirm(plan: Plan, store: Store, setting: Setting, engine: Engine) -> Generator[Repeat | Repeating, None, None]:
    """Yield the runs of the confirmation, as many as there is time for; keep why it may come to nothing."""
    until, records, slots = setting.deadline, list(setting.records.values()), engine.slots
    slots = slots or plan.space.config.budget.workers  # none is here now
    until = None if until is None else until - final_seconds(setting, slots)
    left = None if until is None else until - time.monotonic()
    runs = pending(plan, records, repeats_of(store), slots, left)
    store.put("not_confirmed", "the run was stopped; the same command goes on" if runs else None)
    yield from repeat_each(plan, store, engine, runs, until)
    store.put("not_confirmed", why_not(plan, records, slots, left))


def _watched(
    run: Generator[News, None, None],
    plan: Plan,
    store: Store,
    setting: Setting,
    keep_time: Callable[[], None],
    trackers: Trackers | None = None,
) -> Iterator[News]:
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
            if trackers and isinstance(news, TrialRecord) and news.ended:
                trackers.tell("trial", news)
            yield news


def pace_of(plan: Plan) -> Pace:
    """Return what tells, from the trials of a run as they end and from those of earlier runs, how much time is left."""
    budget = plan.space.config.budget
    with opened(plan.storage, create=True) as rdb:
        store = Store.load(rdb, plan.study.name)
        there = [record for record in store.records() if record.ended] if store else []
        repeats = [repeat for repeat in repeats_of(store) if not repeat.without] if store else []
    refit = len(plan.splits.train) / len(plan.folds[0].train) if plan.refit else 0.0
    form = plan.space.config.score.form
    pace = Pace(plan.trials, budget.workers, budget.confirm, form, plan.deadline, refit, len(plan.folds))
    pace.earlier(there, repeats)
    return pace


def _is_over(plan: Plan, store: Store, setting: Setting) -> bool:
    """Tell whether a study has nothing left to train."""
    records = setting.records
    if len(records) < setting.trials or unfinished(records) or missing(plan, store, setting):
        return False
    return not pending(plan, list(records.values()), repeats_of(store))


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
    track: Sequence[str | Tracker] = (),
    place: Place = HERE,
    artifacts: str | None = None,
) -> Study:
    """Run or resume a study to its end, as `tuner run` does, and return it.

    `trials` is the study's total; `overrides` maps dotted names to values put over the file's; `track` names trackers
    (see `tuner.tracking`), or holds such; `place` says where workers are (see `tuner.placing`), if not on this machine
    alone; `artifacts` is a URL that what the study leaves is copied to.

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
    known = put_over(space, listed) if isinstance(space, Space) else read_space(Path(space), listed)
    if artifacts is not None:
        check(artifacts)
    with (
        tracked(track, known.folder) as trackers,
        placed(place, known.config) as hosts,
        early(known) if place.is_here else Parents() as parents,
    ):
        plan = plan_of(known, storage, studies_dir, place.is_elsewhere)
        run = conduct(plan, parents, trackers, hosts, artifacts)
        try:
            while True:
                next(run)
        except StopIteration as end:
            study: Study = end.value
            return study
        finally:
            run.close()
