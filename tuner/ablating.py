"""ablate(): what each regularizer of a configuration brought, by training it without.

Decides which trial and which of its regularizers. Knows neither how runs are made (`confirming` does) nor how they are
judged (`confirmation` does).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

from tuner.concluding import choice, forget_features
from tuner.confirmation import ABLATION, ROUNDS, Repeat, Repeating, bought
from tuner.confirming import ablations, ablations_of, repeat_each
from tuner.errors import UsageError
from tuner.opening import engine_for, hold, open_store, setting_of
from tuner.planning import Plan
from tuner.proposing import NONE, SMOOTHING
from tuner.record import TrialRecord
from tuner.search import Setting
from tuner.storage import opened
from tuner.store import Store


def ablate(plan: Plan, trial: int | None = None) -> Generator[Repeat | Repeating, None, dict[str, Any]]:
    """Train a trial's configuration, or the one chosen, again on the rows and seeds of the confirmation, whole and
    without each of its regularizers; yield the repeats, return a document of what each regularizer brought.

    Raises:
        UsageError: there is no such complete trial.
        StorageError: the storage can't be used.
    """
    with opened(plan.storage, create=True) as rdb:
        found = open_store(plan, rdb, "so it can't be ablated as it is")
        _to_ablate(plan, found, trial)  # what is refused writes nothing
        with hold(plan, found) as store:
            return (yield from _ablate(plan, store, trial))


def _to_ablate(plan: Plan, store: Store, trial: int | None) -> tuple[TrialRecord, Setting]:
    """Return the trial that is to be ablated, if there is one."""
    setting = setting_of(plan, store)
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
        with engine_for(plan, store, most=len(runs)) as engine:
            yield from repeat_each(plan, store, engine, runs, kind=ABLATION)
        forget_features(plan, setting)
    rows = plan.study.data
    found = bought(ablations_of(store), best.number, values, rows["train"], rows["val"])
    return {
        "study": plan.study.name, "trial": best.number, "metric": plan.study.metric, "rounds": ROUNDS,
        "values": values, "regularizers": [asdict(each) for each in found],
    }  # fmt: skip
