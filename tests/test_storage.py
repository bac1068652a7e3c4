"""The storage, on real SQLite files: what is written is there whole or not at all, and what is broken is said."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tuner import locking
from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.errors import StorageError, TunerError, UsageError
from tuner.record import StudyRecord, TrialRecord
from tuner.scoring import score
from tuner.stopping import finished
from tuner.storage import open_storage
from tuner.store import Store, study_names
from tuner.urls import masked

SECRET = "hunter2"
STUDY = StudyRecord("digits", "study: digits\n", "/", {"seed": 0}, "log_loss", 0, {}, "f", "t", {}, "2026-01-01")
SUGGESTED = {
    "regularization.dropout": (0.25, FloatDistribution(0.0, 0.6)),
    "regularization.l1.off": (True, CategoricalDistribution((False, True))),
    "model.width": (64, IntDistribution(16, 256, log=True)),
    "model.family": ("cnn", CategoricalDistribution(("mlp", "cnn"))),
}
VALUES = {"regularization.dropout": 0.25, "regularization.l1": 0.0, "model.width": 64, "model.family": "cnn"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one study, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "tuner.db"
    Store.create(open_storage(f"sqlite:///{path}", create=True), STUDY, {"metric": "log_loss"}).close()
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "tuner.db"))


@contextmanager
def opened(path: Path, create: bool = True) -> Iterator[Store]:
    store = Store.load(open_storage(f"sqlite:///{path}", create=create), "digits")
    assert store is not None
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with opened(path) as store:
        yield store


def begun(number: int) -> TrialRecord:
    return TrialRecord(number, "running", VALUES, 17, "light", {"regularization.l2": 0.0})


@pytest.fixture
def ended(make_curve: Callable[..., Curve]) -> TrialRecord:
    curve = make_curve([1.0, 0.8, 0.7, 0.6, 0.5, 0.6], metrics={"accuracy": (0.9, 0.8)})
    return replace(
        begun(0), state="complete", curve=curve, score=score(curve, Rule(), "log_loss"), verdict=finished(curve),
        model={"parameters": 10, "sparsity": 0.5}, seconds=1.5,
    )  # fmt: skip


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


class TestTrials:
    def test_what_began_and_ended_comes_back_as_it_was(self, store: Store, path: Path, ended: TrialRecord) -> None:
        store.begin(begun(0), SUGGESTED)
        assert store.records() == [begun(0)]
        assert store.finish(ended, {1: 0.1, 2: 0.2}, {"val_loss": 0.5})
        assert store.records() == [ended]
        with opened(path, create=False) as other:
            assert other.records() == [ended]
            assert other.study == STUDY

    @pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
    def test_optuna_reads_a_finished_trial(self, store: Store, path: Path, ended: TrialRecord, state: Any) -> None:
        store.begin(begun(0), SUGGESTED)
        store.finish(replace(ended, state=state), {1: 0.1, 2: math.nan, 3: -math.inf}, {"val_loss": 0.5, "epochs": 6})
        trial = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}").trials[0]
        assert ended.score is not None
        assert trial.state == {"complete": 1, "pruned": 2, "failed": 3}[state]
        assert trial.value == (None if state == "failed" else ended.score.value)
        assert trial.params == {name: value for name, (value, _) in SUGGESTED.items()}
        assert trial.distributions == {name: kind for name, (_, kind) in SUGGESTED.items()}
        assert trial.user_attrs == {"label": "light", "val_loss": 0.5, "epochs": 6}
        assert trial.intermediate_values == {
            1: 0.1,
            2: pytest.approx(math.nan, nan_ok=True),
            3: pytest.approx(math.nan, nan_ok=True),
        }
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert trial.datetime_complete >= trial.datetime_start

    def test_optuna_reads_a_running_trial_and_its_progress(self, store: Store, path: Path) -> None:
        store.begin(begun(0), SUGGESTED)
        store.progress(0, {1: 0.1, 2: 0.2})
        trial = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}").trials[0]
        assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {1: 0.1, 2: 0.2})

    def test_optuna_shows_the_study_as_one_to_maximize_with_its_metric(self, store: Store, path: Path) -> None:
        study = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}")
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert study.metric_names == ["score (log_loss)"]
        assert study.user_attrs == {"metric": "log_loss"}

    def test_a_trial_ends_once(self, store: Store, path: Path, ended: TrialRecord) -> None:
        store.begin(begun(0), SUGGESTED)
        assert store.finish(ended, {1: 0.1}, {"val_loss": 0.5})
        before = rows(path, "SELECT * FROM trials") + rows(path, "SELECT * FROM trial_user_attributes")
        assert not store.finish(replace(ended, state="failed", error="late"), {2: 0.2}, {"val_loss": 9.0})
        store.release(0)
        store.adopt(0)
        assert rows(path, "SELECT * FROM trials") + rows(path, "SELECT * FROM trial_user_attributes") == before
        assert store.records() == [ended]
        assert rows(path, "SELECT step FROM trial_intermediate_values") == [(1,)]

    def test_progress_and_end_together_are_the_whole_curve_once(
        self, store: Store, path: Path, ended: TrialRecord
    ) -> None:
        store.begin(begun(0), SUGGESTED)
        store.progress(0, {1: 0.1, 2: 0.2})
        store.progress(0, {3: 0.3})
        store.finish(ended, {4: 0.4, 5: 0.5}, {})
        steps = rows(path, "SELECT step, intermediate_value FROM trial_intermediate_values ORDER BY step")
        assert steps == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5)]

    def test_a_step_written_twice_writes_nothing_of_its_transaction(self, store: Store, ended: TrialRecord) -> None:
        store.begin(begun(0), SUGGESTED)
        store.progress(0, {1: 0.1})
        with pytest.raises(StorageError):
            store.finish(ended, {1: 0.1, 2: 0.2}, {})
        assert store.records() == [begun(0)]
        assert store.finish(ended, {2: 0.2}, {})

    def test_a_trial_given_back_waits_and_one_adopted_runs_from_its_start(self, store: Store, path: Path) -> None:
        store.begin(begun(0), SUGGESTED)
        for act, state in ((store.release, "WAITING"), (store.adopt, "RUNNING")):
            store.progress(0, {1: 0.1})
            act(0)
            assert rows(path, "SELECT state FROM trials") == [(state,)]
            assert rows(path, "SELECT * FROM trial_intermediate_values") == []
            assert store.records() == [replace(begun(0), state=state.lower())]

    def test_a_trial_whose_number_is_taken_does_not_begin(self, store: Store) -> None:
        store.begin(begun(0), SUGGESTED)
        for number in (0, 2):
            with pytest.raises(StorageError, match="study digits got a trial from elsewhere"):
                store.begin(begun(number), SUGGESTED)
        assert [record.number for record in store.records()] == [0]

    def test_a_trial_that_cannot_be_written_whole_is_not_written(self, store: Store, path: Path) -> None:
        with pytest.raises(TypeError):
            store.begin(replace(begun(0), values={"x": object()}), SUGGESTED)
        for table in ("trials", "trial_params", "trial_system_attributes"):
            assert rows(path, f"SELECT * FROM {table}") == []
        store.begin(begun(0), SUGGESTED)

    def test_a_trial_that_optuna_added_is_told_and_not_skipped(self, store: Store, path: Path) -> None:
        store.begin(begun(0), SUGGESTED)
        optuna.load_study(study_name="digits", storage=f"sqlite:///{path}").ask()
        with pytest.raises(StorageError, match=r"study digits has trials that tuner didn't write \(1\)"):
            store.records()

    def test_a_study_deleted_meanwhile_is_told(self, store: Store, path: Path, ended: TrialRecord) -> None:
        store.begin(begun(0), SUGGESTED)
        optuna.delete_study(study_name="digits", storage=f"sqlite:///{path}")
        for act in (
            lambda: store.begin(begun(1), SUGGESTED), lambda: store.finish(ended, {}, {}), lambda: store.put("x", 1),
            lambda: store.progress(0, {1: 0.1}), lambda: store.release(0),
        ):  # fmt: skip
            with pytest.raises(StorageError, match=r"is gone; was it deleted\?"):
                act()

    def test_facts_are_kept_and_replaced(self, store: Store, path: Path) -> None:
        assert store.get("seconds") is None
        store.put("seconds", 1.5)
        store.put("seconds", {"a": [1, None]})
        with opened(path) as other:
            assert other.get("seconds") == {"a": [1, None]}


# How a file is opened.


def refusal(url: str, create: bool = False) -> tuple[type[TunerError], str]:
    """Return what is raised and its text, which is one line without the password."""
    with pytest.raises(TunerError) as caught:
        open_storage(url, create=create).engine.dispose()
    text = str(caught.value)
    assert text.strip()
    assert "\n" not in text
    assert SECRET not in text
    return type(caught.value), text


def spoil_head(path: Path) -> None:
    path.write_bytes(b"garbage " * 100)


def spoil_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = bytes(range(256)) * 32
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def execute(query: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(query)

    return act


def only_a_header(path: Path) -> None:
    path.unlink()
    execute("CREATE TABLE mine (x)")(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "0 bytes": (empty, r"is empty \(0 bytes\)"),
    "garbage": (spoil_head, "isn't a SQLite database"),
    "a page overwritten": (spoil_page, "damaged|malformed"),
    "truncated": (truncate, "damaged|malformed"),
    "a folder": (folder, "is a folder, not a database file"),
    "a dropped table": (
        execute("DROP TABLE trial_values"),
        "lacks the tables trial_values; `tuner repair STUDY` rebuilds",
    ),
    "another program's database": (only_a_header, "lacks the tables"),
    "a newer schema": (execute("UPDATE version_info SET schema_version = 999"), "another version of Optuna"),
    "a newer revision": (execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'"), "another version of Optuna"),
}


@pytest.mark.parametrize("create", [False, True], ids=["read", "run"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_refused_and_left_as_it_is(path: Path, damage: str, create: bool) -> None:
    spoil, words = DAMAGE[damage]
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    kind, text = refusal(f"sqlite:///{path}", create)
    assert issubclass(kind, StorageError)
    assert str(path) in text
    assert re.search(words, text), text
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_missing_database_is_made_only_by_a_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "tuner.db"
    kind, text = refusal(f"sqlite:///{path}")
    assert issubclass(kind, StorageError)
    assert "no such database" in text
    assert not path.parent.exists()
    rdb = open_storage(f"sqlite:///{path}", create=True)
    assert study_names(rdb) == []
    rdb.engine.dispose()
    assert path.stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in path.parent.iterdir()} <= {
        "tuner.db",
        "tuner.db.lock",
        "tuner.db-wal",
        "tuner.db-shm",
    }


def test_a_database_whose_making_was_killed_is_made_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tuner.db"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_storage(f"sqlite:///{path}", create=True)
    assert not path.exists()
    open_storage(f"sqlite:///{path}", create=True).engine.dispose()
    assert path.exists()


def test_a_database_is_made_as_optuna_itself_makes_one(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.db", tmp_path / "theirs.db"
    open_storage(f"sqlite:///{mine}", create=True).engine.dispose()
    optuna.storages.RDBStorage(f"sqlite:///{theirs}").engine.dispose()

    def dump(path: Path) -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            return sorted(re.sub(r"\s+", "", line) for line in connection.iterdump())

    assert dump(mine) == dump(theirs)


@pytest.mark.parametrize("name", ["with space.db", "a%20b.db", "ünï.db", "a#b.db"])
def test_any_file_name_can_be_a_database(tmp_path: Path, name: str) -> None:
    url = sqlalchemy.engine.URL.create("sqlite", database=str(tmp_path / name)).render_as_string(hide_password=False)
    open_storage(url, create=True).engine.dispose()
    assert (tmp_path / name).exists()


def test_a_study_that_tuner_did_not_make_is_refused_and_not_listed(path: Path) -> None:
    optuna.create_study(study_name="theirs", storage=f"sqlite:///{path}")
    rdb = open_storage(f"sqlite:///{path}")
    assert study_names(rdb) == ["digits"]
    with pytest.raises(StorageError, match="study theirs wasn't made by tuner; choose another --study-name"):
        Store.load(rdb, "theirs")
    assert Store.load(rdb, "nobodys") is None
    rdb.engine.dispose()


URLS = {
    "nonsense": "isn't a URL",
    "": "isn't a URL",
    f"postgresql://me:{SECRET}@host:port/db": "isn't a URL",
    f"postgresql://me:12@{SECRET}@host/db": "two @",
    f"mysql://me:{SECRET}@host/db": "unknown scheme 'mysql'",
    f"postgres://me:{SECRET}@host/db": "unknown scheme 'postgres' (did you mean 'postgresql'?)",
    f"postgresql+pg8000://me:{SECRET}@host/db": "unknown scheme 'postgresql+pg8000'",
    f"redis://:{SECRET}@host": "unknown scheme 'redis'",
    "sqlite://": "needs a file",
    "sqlite:///:memory:": "needs a file",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_cannot_be_used_is_bad_usage_and_is_not_repeated(url: str) -> None:
    kind, text = refusal(url, create=True)
    assert kind is UsageError
    assert URLS[url] in text


def test_postgresql_without_its_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for create in (False, True):
        kind, text = refusal(f"postgresql://me:{SECRET}@localhost:1/db", create)
        assert (kind, text) == (StorageError, "postgresql needs its driver: pip install 'overfit-tuner[postgresql]'")


def test_a_url_is_shown_without_password_and_options() -> None:
    assert masked(f"postgresql://me:{SECRET}@host/db") == "postgresql://me:***@host/db"
    assert masked(f"postgresql://me@host/db?password={SECRET}") == "postgresql://me@host/db"
    for broken in (f"postgresql://me:12@{SECRET}@host/db", f"postgresql://me:{SECRET}@host:port/db", SECRET):
        assert masked(broken) == "an unreadable URL"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_written_is_told_by_a_run(path: Path, what: str) -> None:
    target = path if what == "file" else path.parent
    target.chmod(0o400 if what == "file" else 0o500)
    try:
        with pytest.raises(StorageError):
            opened(path).__enter__().put("x", 1)
    finally:
        target.chmod(0o700)


def test_a_database_that_refuses_to_be_written_is_told_in_one_line(store: Store) -> None:
    deny = "PRAGMA query_only = ON"
    sqlalchemy.event.listen(store.rdb.engine, "begin", lambda connection: connection.exec_driver_sql(deny))
    with pytest.raises(StorageError, match="readonly database; it can't be written; check its permissions"):
        store.begin(begun(0), SUGGESTED)


# How SQLite is driven.


def test_the_write_ahead_log_and_full_synchronization_are_on(store: Store) -> None:
    with store.rdb.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == locking.BUSY_SECONDS * 1000


def test_a_transaction_of_a_run_holds_the_write_lock_from_its_start(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as rival:
        with store.session() as session:
            session.execute(sqlalchemy.text("SELECT 1"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                rival.execute("BEGIN IMMEDIATE")
        rival.execute("BEGIN IMMEDIATE")


def test_who_only_reads_does_not_hold_the_write_lock(path: Path) -> None:
    with (
        opened(path, create=False) as reader,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as rival,
        reader.session() as session,
    ):
        session.execute(sqlalchemy.text("SELECT * FROM trials"))
        rival.execute("BEGIN IMMEDIATE")
        rival.execute("ROLLBACK")


def test_a_database_that_another_program_holds_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.05)
    with opened(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="database is locked; another program holds it"):
            store.begin(begun(0), SUGGESTED)
        rival.execute("ROLLBACK")
        store.begin(begun(0), SUGGESTED)


def test_a_writer_waits_for_another_to_be_done(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: rival.execute("ROLLBACK"))
        timer.start()
        store.begin(begun(0), SUGGESTED)
        timer.join()
    assert [record.number for record in store.records()] == [0]


# Processes of their own.

WRITER = """
import sys
from tuner.record import TrialRecord
from tuner.storage import open_storage
from tuner.store import Store
from tuner.errors import StorageError
from optuna.distributions import FloatDistribution
store = Store.load(open_storage("sqlite:///" + sys.argv[1], create=True), "digits")
wanted, own = int(sys.argv[2]), sys.argv[3]
number, lost = len(store.records()), 0
while number < wanted:
    try:
        store.begin(TrialRecord(number, "running", {"x": 0.5}, 0, own), {"x": (0.5, FloatDistribution(0, 1))})
    except StorageError as error:
        assert "from elsewhere" in str(error), error
        number, lost = len(store.records()), lost + 1
        continue
    store.finish(TrialRecord(number, "complete", {"x": 0.5}, 0, own), {step: 0.5 for step in range(30)}, {"seen": own})
    print(number, flush=True)
    number += 1
"""


def writer(path: Path, wanted: int, own: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(wanted), own]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def test_two_processes_never_give_two_trials_one_number(path: Path) -> None:
    processes = [writer(path, 60, own) for own in ("one", "two")]
    told = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(int(number) for numbers in told for number in numbers) == list(range(60))
    assert rows(path, "SELECT number, COUNT(*) FROM trials GROUP BY number") == [(n, 1) for n in range(60)]
    with opened(path) as store:
        owners = {str(record.number): record.label for record in store.records()}
    assert owners == dict.fromkeys(told[0], "one") | dict.fromkeys(told[1], "two")


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_writer_killed_at_any_moment_leaves_whole_trials_only(path: Path, after: int) -> None:
    process = writer(path, 100_000, "one")
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(after)]
    time.sleep(0.003 * after % 0.011)  # so that the kills don't all hit the same statement
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    with opened(path) as store:
        records = store.records()
    complete = [record for record in records if record.state == "complete"]
    assert len(records) - len(complete) <= 1
    assert [record.number for record in complete][: len(told)] == told == list(range(len(told)))
    for table in ("trial_params", "trial_system_attributes"):
        assert len(rows(path, f"SELECT DISTINCT trial_id FROM {table}")) == len(records)
    whole = rows(path, "SELECT COUNT(*) FROM trial_intermediate_values GROUP BY trial_id")
    assert whole == [(30,)] * len(complete)
    assert len(rows(path, "SELECT * FROM trial_user_attributes WHERE key = 'seen'")) == len(complete)


def test_a_storage_opened_to_be_read_refuses_to_write(store: Store, path: Path) -> None:
    reader = Store.load(open_storage(f"sqlite:///{path}", read_only=True), store.study.name)
    assert reader is not None
    assert reader.records() == []
    with pytest.raises(StorageError, match="readonly"):
        reader.put("seconds", 1.0)
    reader.close()


def test_a_storage_whose_tables_are_known_still_tells_its_version(tmp_path: Path) -> None:
    path = tmp_path / "tuner.db"
    for _ in range(2):  # made, then found
        rdb = open_storage(f"sqlite:///{path}", create=True)
        assert rdb.get_current_version() == rdb.get_head_version()
        rdb.engine.dispose()
