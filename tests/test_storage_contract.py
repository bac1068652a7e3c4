"""What every storage promises, on a SQLite file and on a PostgreSQL server: a trial is there whole or not at all, under
a number of its own, and only the process that runs it writes it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from command import SECONDS
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from postgres import Server

from tuner import lease
from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.errors import PassingError, StorageError, TakenOverError
from tuner.lease import Process, this_process
from tuner.patience import Patience
from tuner.record import StudyRecord, TrialRecord
from tuner.scoring import score
from tuner.stopping import finished
from tuner.storage import open_storage
from tuner.store import Store, study_names
from tuner.tables import models

STUDY = StudyRecord("digits", "study: digits\n", "/", {"seed": 0}, "log_loss", 0, {}, "f", "t", {}, "2026-01-01")
SUGGESTED = {
    "regularization.dropout": (0.25, FloatDistribution(0.0, 0.6)),
    "model.family": ("cnn", CategoricalDistribution(("mlp", "cnn"))),
}
VALUES = {"regularization.dropout": 0.25, "model.family": "cnn"}
ROOT = Path(__file__).parents[1]
Storages = tuple[str, RDBStorage, RDBStorage]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storages]:
    """One database, opened twice."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('contract') / 'tuner.db'}"
    else:
        server: Server = request.getfixturevalue("postgres")
        url = server.new()
    found = open_storage(url, create=True), open_storage(url, create=True)
    yield url, *found
    for rdb in found:
        rdb.scoped_session.remove()
        rdb.engine.dispose()


@pytest.fixture
def url(storages: Storages) -> str:
    """The database, with one study and nothing else in it."""
    found, rdb, _ = storages
    with rdb.engine.begin() as connection:
        for table in reversed(models.BaseModel.metadata.sorted_tables):
            if table.name != "version_info":
                connection.execute(table.delete())
    Store.create(rdb, STUDY, {"metric": "log_loss"})
    return found


def loaded(rdb: RDBStorage, name: str = "digits") -> Store:
    store = Store.load(rdb, name)
    assert store is not None
    return store


@pytest.fixture
def rival(url: str, storages: Storages) -> Store:
    """The study, held by nobody."""
    return loaded(storages[2])


@pytest.fixture
def store(url: str, storages: Storages) -> Store:
    """The study in another connection, held by this process."""
    store = loaded(storages[1])
    assert store.take(this_process()) is None
    return store


def begun(number: int) -> TrialRecord:
    return TrialRecord(number, "running", VALUES, 17, "light", {"regularization.l2": 0.0})


@pytest.fixture
def ended(make_curve: Callable[..., Curve]) -> TrialRecord:
    curve = make_curve([1.0, 0.8, 0.7, 0.6, 0.5, 0.6], metrics={"accuracy": (0.9, 0.8)})
    return replace(
        begun(0), state="complete", curve=curve, score=score(curve, Rule(), "log_loss"), verdict=finished(curve),
        model={"parameters": 10, "sparsity": 0.5}, seconds=1.5,
    )  # fmt: skip


def rows(store: Store, query: str) -> list[Any]:
    with store.rdb.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sqlalchemy.text(query))]


def everything(store: Store) -> dict[str, list[Any]]:
    """Return all that is stored of trials."""
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes",
              "trial_system_attributes")  # fmt: skip
    return {table: sorted(rows(store, f"SELECT * FROM {table}"), key=repr) for table in tables}


def run_out(store: Store) -> None:
    """Let the lease of a store's process run out, as it does while that is paused."""
    assert store.process is not None
    elsewhere = replace(store.process, machine="elsewhere", host="farm7")
    with store.session() as session:
        lease._write(session, store.study_id, lease.Lease(elsewhere, lease.clock(session) - 1.0))


# What is written comes back, to tuner and to Optuna.


def test_a_trial_that_began_and_ended_comes_back_as_it_was(store: Store, rival: Store, ended: TrialRecord) -> None:
    store.begin(begun(0), SUGGESTED)
    assert rival.records() == [begun(0)]
    store.progress(0, {1: 0.1})
    assert store.finish(ended, {2: 0.2}, {"val_loss": 0.5})
    assert rival.records() == [ended]
    assert rival.study == STUDY


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_optuna_and_its_dashboard_read_a_trial(store: Store, url: str, ended: TrialRecord, state: Any) -> None:
    store.begin(begun(0), SUGGESTED)
    store.finish(replace(ended, state=state), {1: 0.1, 2: math.nan, 3: -math.inf}, {"val_loss": 0.5, "epochs": 6})
    driven = url.replace("postgresql://", "postgresql+psycopg://")
    study = optuna.load_study(study_name="digits", storage=driven)
    (trial,) = study.trials
    assert ended.score is not None
    assert trial.state == {"complete": 1, "pruned": 2, "failed": 3}[state]
    assert trial.value == (None if state == "failed" else ended.score.value)
    assert trial.params == VALUES
    assert trial.user_attrs == {"label": "light", "val_loss": 0.5, "epochs": 6}
    assert set(trial.intermediate_values) == {1, 2, 3}
    assert math.isnan(trial.intermediate_values[2])
    assert study.metric_names == ["score (log_loss)"]
    study._storage.remove_session()  # type: ignore[attr-defined]
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    from optuna_dashboard._app import create_app

    app = create_app(store.rdb)
    found: dict[str, Any] = {}
    path = f"/api/studies/{store.study_id}"
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": sys.stdin}
    environ |= {"wsgi.errors": sys.stderr, "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http"}
    body = b"".join(app(environ, lambda status, headers, *_: found.update(status=status)))
    assert found["status"].startswith("200")
    assert [each["number"] for each in json.loads(body)["trials"]] == [0]


@pytest.mark.parametrize("worth", [math.inf, -math.inf, 1e-320, 1.7e308])
def test_a_score_of_any_size_is_kept(store: Store, rival: Store, ended: TrialRecord, worth: float) -> None:
    assert ended.score is not None
    odd = replace(ended, score=replace(ended.score, value=worth))
    store.begin(begun(0), SUGGESTED)
    assert store.finish(odd, {}, {})
    assert rival.records() == [odd]


def test_words_of_any_language_and_length_are_kept(store: Store, rival: Store) -> None:
    text = "ünï \u2028 \U0001f422 ' \" \\ % :x \x00 " + "long " * 20_000
    store.begin(replace(begun(0), label=text), SUGGESTED)
    store.put("fact", {text: [text]})
    assert rival.records()[0].label == text
    assert rival.get("fact") == {text: [text]}
    store.pin({"figure": text}, {None: text, 0: text})
    store.pin({"figure": text * 2}, {None: text})
    pieces = rows(store, "SELECT value_json FROM study_system_attributes WHERE key LIKE 'dashboard:plot_data:%'")
    assert len(pieces) == -(-2 * len(text) // 2045)


def test_facts_are_kept_replaced_and_found_in_their_order(store: Store, rival: Store) -> None:
    assert store.get("seconds") is None
    for value in (1.5, {"a": [1, None]}):
        store.put("seconds", value)
    for name in ("b", "a", "c"):
        store.put(f"repeat:{name}", name)
    assert rival.get("seconds") == {"a": [1, None]}
    assert rival.found("repeat:") == ["b", "a", "c"]
    assert rival.found("%") == []
    assert study_names(store.rdb) == ["digits"]


# Whole or not at all.

WRITER = """
import sys
from tuner.lease import this_process
from tuner.record import TrialRecord
from tuner.storage import open_storage
from tuner.tables import models
from tuner.store import Store
from optuna.distributions import FloatDistribution
from tuner import faults
store = Store.load(open_storage(sys.stdin.readline().strip(), create=True), sys.argv[1])
assert store.take(this_process()) is None
faults._PLAN = faults.planned(sys.argv[3])
for number in range(int(sys.argv[2])):
    store.begin(TrialRecord(number, "running", {"x": 0.5}, 0), {"x": (0.5, FloatDistribution(0, 1))})
    store.progress(number, {1: 0.5, 2: 0.5})
    store.finish(TrialRecord(number, "complete", {"x": 0.5}, 0), {3: 0.5, 4: 0.5}, {"seen": 1})
    print(number, flush=True)
store.leave()
"""


def writer(url: str, study: str, trials: int, fault: str = "") -> subprocess.Popen[str]:
    """Start a process that writes trials; it is told the URL on its stdin, where no list of processes shows it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, study, str(trials), fault], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(f"{url}\n")
    process.stdin.flush()
    return process


# each trial is three transactions: it begins, goes on, ends
@pytest.mark.parametrize(("fault", "complete", "running", "steps"), [
    ("in_write:4:kill9", 1, 0, 4), ("after_write:4:kill9", 1, 1, 4), ("in_write:6:kill9", 1, 1, 6),
    ("after_write:6:kill9", 2, 0, 8),
])  # fmt: skip
def test_a_process_killed_around_a_write_leaves_that_whole_or_not_at_all(
    url: str, rival: Store, fault: str, complete: int, running: int, steps: int
) -> None:
    process = writer(url, "digits", 5, fault)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == -9, err
    states = Counter(record.state for record in rival.records())
    assert states == Counter({"complete": complete, "running": running})
    assert len(rows(rival, "SELECT * FROM trial_intermediate_values")) == steps
    for table, of in (("trial_params", 1), ("trial_system_attributes", 2)):
        assert len(rows(rival, f"SELECT * FROM {table}")) == of * (complete + running)
    assert len(rows(rival, "SELECT * FROM trial_user_attributes")) == complete
    assert rival.take(this_process()) is None, "who is dead holds nothing"
    assert rival.adopt(running + complete - 1) == bool(running)


@pytest.mark.parametrize("place", ["before_write", "in_write", "after_write"])
@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_write_that_is_tried_again_is_written_once(
    store: Store, ended: TrialRecord, place: str, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.patience.EVERY", 0.0)
    monkeypatch.setattr("tuner.faults._PLAN", {place: {time: "enospc", time + 1: "enospc"}})
    monkeypatch.setattr("tuner.faults._passed", {})
    store.patience = Patience()
    store.begin(begun(0), SUGGESTED)
    store.progress(0, {1: 0.1})
    assert store.finish(ended, {2: 0.2}, {"val_loss": 0.5})
    assert store.records() == [ended]
    assert rows(store, "SELECT step FROM trial_intermediate_values ORDER BY step") == [(1,), (2,)]
    assert len(rows(store, "SELECT * FROM trial_params")) == len(SUGGESTED)


@pytest.mark.slow
def test_processes_that_write_at_once_leave_no_gap_and_lose_nothing(url: str, rival: Store) -> None:
    names = [f"study-{n}" for n in range(4)]
    for name in names:
        Store.create(rival.rdb, replace(STUDY, name=name), {})
    processes = [writer(url, name, 15) for name in names]
    told = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, told
    for name in names:
        store = loaded(rival.rdb, name)
        assert [(record.number, record.state) for record in store.records()] == [(n, "complete") for n in range(15)]
        assert store.holder() is None


def test_a_trial_whose_number_is_taken_does_not_begin(store: Store, rival: Store) -> None:
    rival.begin(begun(0), SUGGESTED)
    for number in (0, 2):
        with pytest.raises(StorageError, match="study digits got a trial from elsewhere"):
            store.begin(begun(number), SUGGESTED)
    assert [record.number for record in store.records()] == [0]


def test_a_study_is_made_once(rival: Store) -> None:
    with pytest.raises(StorageError):
        Store.create(rival.rdb, STUDY, {})
    assert study_names(rival.rdb) == ["digits"]


# Who may write.


def test_one_process_holds_a_study_until_it_leaves_it(store: Store, rival: Store) -> None:
    other = rival.take(this_process())
    assert other is not None
    assert other[0].process == store.process
    assert 0 < other[1] <= lease.SECONDS
    assert rival.process is None
    store.leave()
    assert rival.holder() is None
    assert rival.take(this_process()) is None


def test_a_process_of_this_machine_that_is_dead_holds_nothing(store: Store, rival: Store) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert store.process is not None
    for gone in (replace(store.process, pid=done.pid), replace(store.process, started=store.process.started - 1)):
        with store.session() as session:
            lease._write(session, store.study_id, lease.Lease(gone, lease.clock(session) + 1000))
        assert rival.holder() is None
    assert rival.take(this_process()) is None


def test_a_process_of_another_machine_holds_until_its_lease_runs_out(store: Store, rival: Store) -> None:
    assert store.process is not None
    far = Process(store.process.id, "farm7", 1, "elsewhere", 1)
    with store.session() as session:
        lease._write(session, store.study_id, lease.Lease(far, lease.clock(session) + 1000))
    other = rival.take(this_process())
    assert other is not None
    assert str(other[0].process) == "process 1 on farm7"
    run_out(store)
    assert rival.holder() is None
    assert rival.take(this_process()) is None


def test_a_lease_that_ran_out_and_that_nobody_took_goes_on(store: Store, ended: TrialRecord) -> None:
    store.begin(begun(0), SUGGESTED)
    run_out(store)
    assert store.finish(ended, {}, {})
    store.renew()
    assert store.holder() is not None


def test_who_lost_its_study_writes_nothing_any_more_and_says_who_has_it(
    store: Store, rival: Store, ended: TrialRecord
) -> None:
    for number in range(2):
        store.begin(begun(number), SUGGESTED)
    run_out(store)
    assert rival.take(this_process()) is None
    assert rival.adopt(0)
    before = everything(store)
    for act in (
        lambda: store.finish(ended, {1: 0.1}, {}), lambda: store.progress(0, {1: 0.1}), lambda: store.release(0),
        lambda: store.adopt(1), lambda: store.begin(begun(2), SUGGESTED), lambda: store.put("x", 1),
        lambda: store.pin({"x": "1"}, {}), store.renew, store.check,
    ):  # fmt: skip
        with pytest.raises(TakenOverError, match=rf"taken over by process {os.getpid()} on \S+ while this process"):
            act()
    assert everything(store) == before
    assert rival.finish(ended, {1: 0.1}, {})
    store.leave()
    rival.check()


def test_a_trial_of_another_process_is_neither_written_nor_taken_while_that_lives(
    store: Store, rival: Store, ended: TrialRecord
) -> None:
    store.begin(begun(0), SUGGESTED)
    rival.process = this_process()
    with rival.session() as session:  # as one that has joined the study
        lease.take(session, rival.study_id, rival.process)
        assert store.process is not None
        lease.renew(session, store.study_id, store.process)
    before = everything(store)
    assert not rival.finish(ended, {1: 0.1}, {})
    assert not rival.adopt(0)
    rival.progress(0, {1: 0.1})
    rival.release(0)
    assert everything(store) == before
    store.release(0)
    assert rival.adopt(0), "it was given back"
    assert not store.finish(ended, {}, {})
    assert rival.finish(ended, {}, {})


def test_a_trial_ends_once(store: Store, ended: TrialRecord) -> None:
    store.begin(begun(0), SUGGESTED)
    assert store.finish(ended, {1: 0.1}, {"val_loss": 0.5})
    before = everything(store)
    assert not store.finish(replace(ended, state="failed", error="late"), {2: 0.2}, {"val_loss": 9.0})
    assert not store.adopt(0)
    store.release(0)
    store.progress(0, {7: 0.7})
    assert everything(store) == before


def test_a_server_that_is_away_is_an_error_that_may_pass(postgres: Server) -> None:
    url = postgres.new()
    with pytest.raises(StorageError, match="holds no studies yet; `tuner run SPACE` makes its tables"):
        open_storage(url)
    with pytest.raises(PassingError, match="password authentication failed"):
        open_storage(postgres.url("postgres", password="wrong"))
