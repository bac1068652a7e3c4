"""Whatever becomes of a study's processes, in whichever order: no trial that has ended is lost, doubled or changed, and
who doesn't run a trial doesn't write it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage

from tuner import lease
from tuner.errors import StorageError, TakenOverError
from tuner.lease import Lease, this_process
from tuner.record import StudyRecord, TrialRecord
from tuner.storage import open_storage
from tuner.store import Store
from tuner.tables import models

STUDY = StudyRecord("life", "study: life\n", "/", {}, "log_loss", 0, {}, "f", "t", {}, "2026-01-01")
PLACES = st.integers(0, 1 << 10)  # of one among those there are
STATES = st.sampled_from(["complete", "pruned", "failed"])


class Life(RuleBasedStateMachine):
    """Three processes, of which one at most holds the study, and what is true of each trial."""

    rdb: RDBStorage

    def __init__(self) -> None:
        super().__init__()
        with self.rdb.engine.begin() as connection:
            for table in reversed(models.BaseModel.metadata.sorted_tables):
                if table.name != "version_info":
                    connection.execute(table.delete())
        first = Store.create(self.rdb, STUDY, {})
        self.stores = [first, *(Store(self.rdb, STUDY, first.study_id) for _ in range(2))]
        self.holder: int | None = None  # who took the study last and hasn't left it
        self.live = False  # whether that one's lease holds
        self.lost: set[int] = set()  # who once had the study and doesn't know yet that it hasn't any more
        self.states: list[str] = []
        self.owners: list[int | None] = []
        self.ended: dict[int, TrialRecord] = {}
        self.steps: list[int] = []

    @initialize()
    def begin_with_one(self) -> None:
        self.take(0)

    @rule(place=PLACES)
    def take_in_turn(self, place: int) -> None:
        free = [process for process in range(3) if process != self.holder and process not in self.lost]
        if free:
            self.take(free[place % len(free)])

    def take(self, process: int) -> None:
        other = self.stores[process].take(this_process())
        if self.live:
            assert other is not None
            return
        assert other is None
        if self.holder is not None:
            self.lost.add(self.holder)
        self.holder, self.live = process, True

    def _write_lease(self, **changes: Any) -> None:
        store = self.stores[self.holder or 0]
        assert store.process is not None
        with store.session() as session:
            until = lease.clock(session) - 1.0 if changes.pop("late", False) else lease.clock(session) + 1000.0
            lease._write(session, store.study_id, Lease(replace(store.process, **changes), until))
        self.live = False

    @precondition(lambda self: self.live)
    @rule()
    def lease_runs_out(self) -> None:
        self._write_lease(late=True)

    @precondition(lambda self: self.live)
    @rule()
    def process_is_killed(self) -> None:
        store = self.stores[self.holder or 0]
        assert store.process is not None
        self._write_lease(started=store.process.started + 1)
        store.process = None  # it is a new process that takes the study under this number next
        self.stores[self.holder or 0] = Store(self.rdb, STUDY, store.study_id)
        self.holder = None
        self.owners = [
            None if state == "running" else owner for state, owner in zip(self.states, self.owners, strict=True)
        ]

    @precondition(lambda self: self.holder is not None)
    @rule()
    def renew(self) -> None:
        self.stores[self.holder or 0].renew()
        self.live = True

    @precondition(lambda self: self.holder is not None)
    @rule()
    def leave(self) -> None:
        index = self.holder or 0
        self.stores[index].leave()
        self.stores[index].process = None
        self.stores[index] = Store(self.rdb, STUDY, self.stores[index].study_id)
        self.holder, self.live = None, False
        self.owners = [None if owner == index else owner for owner in self.owners]

    @precondition(lambda self: self.lost)
    @rule(place=PLACES)
    def who_lost_the_study_finds_out(self, place: int) -> None:
        process = sorted(self.lost)[place % len(self.lost)]
        store = self.stores[process]
        record = TrialRecord(0, "failed", {"x": 0.5}, 0, error="late")
        for act in (
            store.check, store.renew, lambda: store.put("x", 1), lambda: store.release(0), lambda: store.adopt(0),
            lambda: store.progress(0, {77: 0.5}), lambda: store.finish(record, {}, {}),
            lambda: store.begin(TrialRecord(len(self.states), "running", {}, 0), {}),
        ):  # fmt: skip
            with pytest.raises(TakenOverError):
                act()
        store.leave()
        self.stores[process] = Store(self.rdb, STUDY, store.study_id)
        self.lost.discard(process)
        self.owners = [None if owner == process else owner for owner in self.owners]

    @precondition(lambda self: self.holder is not None and len(self.states) < 6)
    @rule()
    def begin(self) -> None:
        number, store = len(self.states), self.stores[self.holder or 0]
        record = TrialRecord(number, "running", {"x": 0.5}, number)
        suggested = {"x": (0.5, FloatDistribution(0.0, 1.0))}
        store.begin(record, suggested)
        self.states.append("running")
        self.owners.append(self.holder)
        self.steps.append(0)
        with pytest.raises(StorageError):
            store.begin(replace(record, number=number + 2), suggested)

    @precondition(lambda self: self.holder is not None and self.states)
    @rule(place=PLACES)
    def progress(self, place: int) -> None:
        number = place % len(self.states)
        self.stores[self.holder or 0].progress(number, {self.steps[number] + 1: 0.5})
        self.steps[number] += self._runs(number)

    def _runs(self, number: int) -> bool:
        """Tell whether the holder runs a trial."""
        return self.owners[number] == self.holder and self.states[number] == "running"

    @precondition(lambda self: self.holder is not None and self.states)
    @rule(place=PLACES, state=STATES)
    def finish(self, place: int, state: Any) -> None:
        number = place % len(self.states)
        record = TrialRecord(number, state, {"x": 0.5}, number, seconds=float(len(self.ended)))
        runs = self._runs(number)
        assert self.stores[self.holder or 0].finish(record, {}, {}) == (runs or self.ended.get(number) == record)
        if runs:
            self.states[number], self.ended[number] = state, record

    @precondition(lambda self: self.holder is not None and self.states)
    @rule(place=PLACES)
    def release(self, place: int) -> None:
        number = place % len(self.states)
        self.stores[self.holder or 0].release(number)
        if self._runs(number):
            self.states[number], self.owners[number], self.steps[number] = "waiting", None, 0

    @precondition(lambda self: self.holder is not None and self.states)
    @rule(place=PLACES)
    def adopt(self, place: int) -> None:
        number = place % len(self.states)
        could = self.states[number] in ("running", "waiting")  # for nobody else's lease holds
        assert self.stores[self.holder or 0].adopt(number) == could
        if could:
            self.states[number], self.owners[number], self.steps[number] = "running", self.holder, 0

    @invariant()
    def what_is_stored_is_what_was_done(self) -> None:
        records = self.stores[0].records()
        assert [record.number for record in records] == list(range(len(self.states)))
        assert [record.state for record in records] == self.states
        assert {record.number: record for record in records if record.ended} == self.ended
        steps = models.TrialIntermediateValueModel
        with self.stores[0].session() as session:
            found = session.query(models.TrialModel.number, steps.step).join(steps).all()
            held = [one for one in lease.leases(session, self.stores[0].study_id).values() if not one.taken_by]
            live = lease.holder(session, self.stores[0].study_id) is not None
        assert sorted(map(tuple, found)) == [(n, s + 1) for n, count in enumerate(self.steps) for s in range(count)]
        assert live == self.live
        assert len(held) <= 1


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_trial_has_one_life(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / "tuner.db"
    url = f"sqlite:///{path}" if kind == "sqlite" else request.getfixturevalue("postgres").new()
    rdb = open_storage(url, create=True)
    try:
        often = settings(max_examples=30 if kind == "sqlite" else 10, stateful_step_count=40)
        run_state_machine_as_test(type("LifeThere", (Life,), {"rdb": rdb}), settings=often)
    finally:
        rdb.scoped_session.remove()
        rdb.engine.dispose()
    if kind == "sqlite":
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
