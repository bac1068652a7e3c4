"""How a study ends: the choice, the one look at the test set, and what it leaves, from its files to its report.

Decides nothing of what is chosen, seen or written: it calls those who do, in their order. Trains nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.again import Again, Done
from tuner.best import FEATURES, MODEL
from tuner.checkpoint import forget_states, state_path
from tuner.confirmation import chosen
from tuner.confirming import pending, repeats_of
from tuner.engine import Task
from tuner.errors import StorageError, TunerError
from tuner.files import write, write_best, write_study
from tuner.html_report import REPORT, report
from tuner.importances import importances
from tuner.planning import Plan
from tuner.posting import Board
from tuner.record import BASELINE, TrialRecord
from tuner.reporting import outcome_of
from tuner.search import Setting
from tuner.selection import Finalist, is_look_at, look, on_validation
from tuner.store import Store
from tuner.study import PROGRESS, Study, study_of
from tuner.whole import checksum

LOG = logging.getLogger("tuner")
REFIT, FOLD = "-refit", "-fold-"  # in the names of weights: of more rows than a trial's, of one of its folds
WEIGHTS = "weights:"  # in the keys of a study's facts: the SHA-256 of what was trained in the end


def choice(plan: Plan, store: Store, setting: Setting) -> TrialRecord | None:
    """Return the trial that the study chooses as it stands."""
    outcome = outcome_of(plan.study, setting.records, repeats_of(store))
    return chosen(setting.records, outcome, plan.space.config.score.form)


def unfinished(records: Mapping[int, TrialRecord]) -> bool:
    """Tell whether there are trials that are to be run again."""
    return any(not record.ended for record in records.values())


def leave_early(plan: Plan, store: Store, setting: Setting) -> None:
    """Write the files of a study that was stopped: its best configuration so far, the test set still closed.

    Where the model was to be trained again in the end, it is the trial's own; of a cross-validation there is none, and
    the configuration is written without one, unless that would take the place of a best configuration that has its.
    """
    with suppress(TunerError):
        best = choice(plan, store, setting)
        store.put(PROGRESS, {"state": "stopped", "trials": setting.trials})
        final = best is not None and _holds(_final(plan, setting, best.number), best, setting)
        if best is not None and (final or _holds(setting.weights_of(best.number), best, setting)):
            seen, weights = store.get("test"), setting.weights_of(best.number)
            weights = _final(plan, setting, best.number) if final else weights
            same = final and seen is not None and is_look_at(seen, _finalist(plan, setting, best))
            write_best(plan, plan.folder, best, weights, seen if same else None, final=final or not plan.refit)
        elif best is not None and not (plan.folder / MODEL).exists():
            write_best(plan, plan.folder, best, None, None)
        write_study(plan, setting.records)
        _publish(plan, store, setting, None)


def conclude(plan: Plan, store: Store, setting: Setting) -> Study:
    """Choose, look at the test set once, and write the study's files."""
    store.check()
    records = setting.records
    best = choice(plan, store, setting)
    seen = None
    if best is not None:
        seen = _look(plan, store, setting)
        _tell_classes(plan, store, setting, best)
        write_best(plan, plan.folder, best, _final(plan, setting, best.number) if best.has_weights else None, seen)
        _forget_others(plan, store, setting)
    _weigh(plan, store, records)
    write_study(plan, records)
    forget_features(plan, setting)
    if not unfinished(records) and not pending(plan, list(records.values()), repeats_of(store)):
        forget_states(plan.folder)
    store.put(PROGRESS, {"state": "over", "trials": setting.trials})
    return _publish(plan, store, setting, seen)


def _publish(plan: Plan, store: Store, setting: Setting, seen: Mapping[str, Any] | None) -> Study:
    """Write a study's report, and post its figures for the dashboard; return the study."""
    told = {} if seen is None else {"test": seen}
    study = study_of(store, dict(setting.records), plan.folder, report=str(plan.folder / REPORT), **told)
    write(plan.folder / REPORT, report(study))
    Board(store).post(lambda: study.document, study.trials, last=True)
    return study


def forget_features(plan: Plan, setting: Setting) -> None:
    """Remove what frozen networks made of the examples, once no trial is to come."""
    if len(setting.records) >= setting.trials and not unfinished(setting.records):
        shutil.rmtree(plan.folder / FEATURES, ignore_errors=True)


def _weigh(plan: Plan, store: Store, records: Mapping[int, TrialRecord]) -> None:
    """Keep which values moved the score and the gap, if trials have come since this was last asked."""
    told, there = store.get("importances"), sum(record.state == "complete" for record in records.values())
    if told is None or told.get("complete") != there:
        store.put("importances", {"complete": there, "shares": importances(plan.space, records)})


def _look(plan: Plan, store: Store, setting: Setting) -> dict[str, Any] | None:
    chosen, *others = _finalists(plan, store, setting)
    if not chosen.predicts:
        return None
    finalists = [_finalist(plan, setting, record) for record in (chosen, *others) if record.predicts]
    earlier = store.get("test")
    second = finalists[1] if len(finalists) > 1 else None
    seen = look(finalists[0], second, plan.splits, store.study.metric, plan.space.folder, earlier)
    if seen is not None and seen != earlier:
        store.put("test", seen)
    return seen


def _tell_classes(plan: Plan, store: Store, setting: Setting, best: TrialRecord) -> None:
    """Keep how well each class is predicted in the validation rows, and the worst mistakes, by the trial's own networks
    if they are there: of a cross-validation each row's by the one that wasn't trained on it.
    """
    networks = _own(plan, setting, best.number)
    if _is_told(store, best) or not best.predicts or not all(weights.exists() for weights in networks):
        return
    finalists = [Finalist(best, plan.space.at(best.all_values), weights) for weights in networks]
    told = on_validation(list(zip(finalists, plan.folds, strict=True)), plan.space.folder)
    store.put("val_classes", {"trial": best.number, **told})


def _is_told(store: Store, best: TrialRecord) -> bool:
    told = store.get("val_classes")
    return told is not None and told["trial"] == best.number


def _own(plan: Plan, setting: Setting, number: int) -> list[Path]:
    """Return the files for the weights of a trial itself: one, or one a fold."""
    own = setting.weights_of(number)
    if len(plan.folds) == 1:
        return [own]
    return [own.with_name(f"{own.stem}{FOLD}{fold}{own.suffix}") for fold in range(len(plan.folds))]


def _finalists(plan: Plan, store: Store, setting: Setting) -> list[TrialRecord]:
    """Return the chosen trial and the baseline, if there are such."""
    best = choice(plan, store, setting)
    baseline = next((r for r in setting.records.values() if r.label == BASELINE and r.state == "complete"), None)
    return [record for record in (best, baseline) if record is not None] if best is not None else []


def _finalist(plan: Plan, setting: Setting, record: TrialRecord) -> Finalist:
    return Finalist(record, plan.space.at(record.all_values), _final(plan, setting, record.number))


def _final(plan: Plan, setting: Setting, number: int) -> Path:
    """Return the file for the weights of a trial's configuration in its final form."""
    own = setting.weights_of(number)
    return own.with_name(f"{own.stem}{REFIT}{own.suffix}") if plan.refit else own


def _forget_others(plan: Plan, store: Store, setting: Setting) -> None:
    """Remove what was trained again of configurations that are no longer the chosen one or the baseline, and networks
    of single folds, of which all is told.
    """
    kept = {_final(plan, setting, record.number) for record in _finalists(plan, store, setting)}
    for path in (*setting.weights.glob(f"*{REFIT}.safetensors"), *setting.weights.glob(f"*{FOLD}*.safetensors")):
        if path not in kept:
            path.unlink(missing_ok=True)


def missing(plan: Plan, store: Store, setting: Setting) -> list[Again]:
    """Return what is to be trained in the end: the finalists whose weights aren't there, as they are lost or are to be
    of more rows than a trial's; and of a cross-validation the chosen trial's folds, to tell its mistakes.
    """
    finalists = [record for record in _finalists(plan, store, setting) if record.has_weights]
    found = list[Again]()
    last = len(plan.divisions) - 1 if plan.refit else 0
    wanted = {_final(plan, setting, record.number): (record, last) for record in finalists}
    if finalists and len(plan.folds) > 1 and not _is_told(store, finalists[0]):
        folds = _own(plan, setting, finalists[0].number)
        wanted |= {weights: (finalists[0], fold) for fold, weights in enumerate(folds)}
    for weights, (record, splits) in wanted.items():
        if not _holds(weights, record, setting) and record.score is not None:
            config, state = plan.space.at(record.all_values), state_path(plan.folder, weights.stem)
            task = Task(len(found), config, record.seed, plan.space.folder, splits, state)
            found.append(Again(task, record.score.epoch, weights, record.number))
    return found


def keep_weights(store: Store, done: Done, record: TrialRecord) -> None:
    """Keep which weights a network has that was trained in the end; say so where it isn't what it was before."""
    assert done.job.save is not None
    key, fold = f"{WEIGHTS}{done.job.save.stem}", done.job.task.splits
    own = () if REFIT in done.job.save.stem else record.weights[fold : fold + 1]
    before = store.get(key) or next(iter(own), None)
    if before not in (None, done.weights):
        what = "isn't byte for byte what it was; other code, versions or another processor may be why"
        LOG.warning("the network of trial %d, trained again, %s", record.number, what)
    store.put(key, done.weights)


def _holds(weights: Path, record: TrialRecord, setting: Setting) -> bool:
    """Tell whether weights are there as they were written. Where that was never kept, they are taken as they are.

    Raises:
        StorageError: they can't be read.
    """
    if not weights.is_file():
        return False
    told = setting.store.get(f"{WEIGHTS}{weights.stem}")
    if told is None and weights == setting.weights_of(record.number):
        told = next(iter(record.weights), None)
    try:
        return told in (None, checksum(weights))
    except OSError as error:
        raise StorageError(f"{weights}: can't be read ({error.strerror}); mend or remove it") from error
