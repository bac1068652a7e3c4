"""What a study is worked on with: its storage, its store as one process holds it, its setting, and an engine.

Decides that a study is gone on with only as it was made, and what of a killed run is removed before. Trains nothing.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tuner import reporting
from tuner.backbones import find_backbone
from tuner.best import FEATURES
from tuner.config import PRETRAINED, RunConfig
from tuner.confirmation import ROUNDS, SHARE
from tuner.doors import LOOPBACK
from tuner.engine import Engine
from tuner.errors import StorageError, UsageError
from tuner.files import forget_parts, refuse_foreign, writing
from tuner.holding import held
from tuner.keeping import keep, place_of
from tuner.ledger import LEDGER
from tuner.listening import Listening, Open
from tuner.machine import versions_here
from tuner.own_code import code_of
from tuner.patience import Patience, Patient
from tuner.planning import Plan, blank_curve
from tuner.search import Setting
from tuner.space import differences, families, own_names
from tuner.store import Store
from tuner.tasks import InProcess
from tuner.telling import clean
from tuner.workers import Parents, Processes, processes

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import RDBStorage

LOG = logging.getLogger("tuner")
LISTENS = "listens"  # a fact of a study: where hosts that want to train for it may connect


@contextmanager
def hold(plan: Plan, store: Store) -> Iterator[Store]:
    """Hold a study: no other process runs it."""
    with held(store, plan.folder):
        forget_parts(plan.folder)
        keep(store, plan.folder)
        yield store


def open_store(plan: Plan, rdb: RDBStorage, advice: str = "choose another --study-name") -> Store:
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


def setting_of(plan: Plan, store: Store) -> Setting:
    """Return what a search of the plan works on, with all trials that are there."""
    config = plan.space.config
    growth = len(plan.splits.train) / len(plan.folds[0].train) if plan.refit else 0.0
    blanks = [blank_curve(config, fold) for fold in plan.folds]
    confirming = SHARE * (config.budget.timeout or 0.0) if config.budget.confirm else 0.0
    return Setting(
        plan.space, store, blanks, plan.splits.shape.task, plan.folder / "weights", plan.trials, growth,
        confirming, ROUNDS * plan.seconds, plan.deadline, {record.number: record for record in store.records()},
    )  # fmt: skip


@contextmanager
def engine_for(
    plan: Plan, store: Store, parents: Parents | None = None, most: int | None = None, hosts: Open | None = None
) -> Iterator[Engine]:
    """Hold an engine for `most` trials; with `hosts`, such may join it meanwhile."""
    assert store.process is not None
    _tell_changes(plan, store)
    workers = processes(plan.space, plan.trials if most is None else most)
    # of this run alone: what another one leaves that has lost the study must not be what this one works with
    shared, cache = plan.folder / f".data-{store.process.id[:8]}", plan.folder / FEATURES
    _clear(plan)
    engine: Engine
    if hosts is not None:
        engine = _open(hosts, plan, store, shared)
    else:
        if store.get(LISTENS) is not None:  # of a run that was killed
            store.put(LISTENS, None, lasting=False)
        engine = Processes(workers, shared, cache, parents) if workers else InProcess(cache)
    try:
        with writing(plan.folder):
            for splits in plan.divisions:
                engine.take(splits)
        store.patience = Patience()  # from here on there is work that is worth it
        yield Patient(engine, store.patience)
    finally:
        if hosts is not None:
            with suppress(StorageError), store.at_once():
                store.put(LISTENS, None, lasting=False)
        engine.close()
        shutil.rmtree(shared, ignore_errors=True)
        with suppress(StorageError), store.at_once():
            store.check()
            _clear(plan)


def _open(hosts: Open, plan: Plan, store: Store, shared: Path) -> Listening:
    """Return an engine whose workers are on hosts, the first of them on this machine; tell the others where it is."""
    config, folder = plan.space.config, plan.space.folder
    names = [name for each in own_names(plan.space).values() for name in each]
    terms: dict[str, Any] = {
        "versions": versions_here(),
        "own": code_of(names, folder),
        "names": names,
        "backbone": None,
        "training": {"device": config.training.device, "precision": config.training.precision},
    }
    if PRETRAINED in families(plan.space):
        found = find_backbone(config.model.backbone, plan.splits.shape.kind, folder)
        terms["backbone"] = {"name": config.model.backbone, "kind": found.kind, "sha256": found.sha256}
    engine = hosts(shared, terms, config.budget.workers, folder)
    if not engine.invites:
        return engine
    try:
        store.put(LISTENS, engine.address.to_json(), lasting=False)
    except BaseException:
        engine.close()
        raise
    far = not plan.storage.startswith("sqlite") and engine.address.hosts[0] not in (LOOPBACK, "::1", "localhost")
    where = "any host" if far else "this machine"
    LOG.warning("listening at port %d; `tuner worker %s` joins from %s", engine.address.port, plan.study.name, where)
    return engine


def _tell_changes(plan: Plan, store: Store) -> None:
    """Warn where what is trained now may come out otherwise than it would have when the study began."""
    changed = store.study.changed(plan.study)
    if changed:
        told = "; ".join(f"{name} {then} -> {now}" for name, (then, now) in changed.items())
        what = f"study {plan.study.name!r} goes on with other code or versions than it began with: {told}"
        LOG.warning("%s", clean(what))


def _clear(plan: Plan) -> None:
    """Remove what runs and workers that were killed left of what they were writing."""
    for shared in plan.folder.glob(".data*"):
        if shared.is_symlink():  # rows go into no folder that a link leads to
            shared.unlink()
        shutil.rmtree(shared, ignore_errors=True)
    forget_parts(plan.folder)
