"""What the project relies on in Optuna, one fact a test: when an upgrade breaks one, its name says which assumption.

Nothing of the project is imported here. Many of these are traps rather than promises: a trap that is gone may go from
here too, together with the code that steps around it.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.tables import newest_revision

X: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "studies.db"


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a study, to be copied: creating one takes longer than most tests."""
    database = tmp_path_factory.mktemp("schema") / "studies.db"
    with opened(database):
        return database


@pytest.fixture
def storage(schema: Path, database: Path) -> Iterator[RDBStorage]:
    shutil.copy(schema, database)
    with opened(database) as storage:
        yield storage


@contextmanager
def opened(database: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(f"sqlite:///{database}")
    try:
        yield storage
    finally:
        storage.engine.dispose()


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def run_curve(study: optuna.Study, curve: list[float], state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    trial = study.ask()
    for step, value in enumerate(curve):
        trial.report(value, step)
    return study.tell(trial, curve[-1] if state == TrialState.COMPLETE else None, state)


def first_points(seed: int, study: optuna.Study, n: int = 3) -> list[float]:
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    return [study.ask(X).params["x"] for _ in range(n)]


def add_finished(study: optuna.Study, n: int, state: TrialState = TrialState.COMPLETE) -> None:
    for number in range(n):
        x = (number * 0.37) % 1.0
        study.add_trial(create_trial(state=state, value=x**2, params={"x": x}, distributions=X))


# Pruning, and what a pruned trial keeps


def test_create_study_installs_median_pruner_unasked() -> None:
    assert type(optuna.create_study().pruner) is optuna.pruners.MedianPruner


def test_median_pruner_is_blind_to_overfitting() -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=0))
    for _ in range(5):
        run_curve(study, [3.0, 2.5, 2.0, 1.5, 1.0])
    rising = study.ask()
    for step, value in enumerate([0.9, 5.0, 9.0, 20.0, 50.0]):
        rising.report(value, step)
        assert not rising.should_prune()


def test_a_pruned_trial_stores_its_last_report_and_not_its_best() -> None:
    study = optuna.create_study()
    assert run_curve(study, [0.3, 0.1, 0.7], TrialState.PRUNED).value == 0.7


def test_a_pruned_trial_stores_nothing_if_its_last_report_is_nan() -> None:
    study = optuna.create_study()
    assert run_curve(study, [0.3, math.nan], TrialState.PRUNED).value is None


def test_a_pruned_trial_cannot_be_told_a_value() -> None:
    study = optuna.create_study()
    with pytest.raises(ValueError, match=r"Values cannot be specified when state is TrialState\.PRUNED"):
        study.tell(study.ask(), 0.1, TrialState.PRUNED)


def test_a_second_report_at_the_same_step_is_ignored_with_a_warning() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(0.3, 0)
    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.1, 0)
    assert study.tell(trial, 0.3).intermediate_values == {0: 0.3}


def test_best_trial_is_a_bare_value_error_if_every_trial_was_pruned() -> None:
    study = optuna.create_study()
    run_curve(study, [0.3], TrialState.PRUNED)
    with pytest.raises(ValueError, match="No trials are completed yet"):
        _ = study.best_trial


def test_report_and_should_prune_raise_with_several_objectives() -> None:
    trial = optuna.create_study(directions=["minimize", "minimize"]).ask()
    with pytest.raises(NotImplementedError):
        trial.report(0.1, 0)
    with pytest.raises(NotImplementedError):
        trial.should_prune()


# Values that are no numbers


def test_nan_told_is_a_failed_trial() -> None:
    study = optuna.create_study()
    with pytest.warns(UserWarning, match="nan is not acceptable"):
        told = study.tell(study.ask(), math.nan)
    assert (told.state, told.value) == (TrialState.FAIL, None)


def test_nan_told_as_complete_raises_and_leaves_the_trial_running() -> None:
    study = optuna.create_study()
    with pytest.raises(ValueError, match="nan is not acceptable"):
        study.tell(study.ask(), math.nan, TrialState.COMPLETE)
    assert study.trials[0].state == TrialState.RUNNING


def test_nan_returned_is_a_failed_trial() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: math.nan, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


def test_minus_infinity_told_is_complete_and_becomes_best(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 0.1)
    assert study.tell(study.ask(), -math.inf).state == TrialState.COMPLETE
    assert study.tell(study.ask(), math.inf).state == TrialState.COMPLETE
    assert study.best_value == -math.inf


@pytest.mark.parametrize(("value", "error"), [("1.5", TypeError), (10**400, OverflowError)])
def test_a_text_or_a_giant_integer_told_raises_and_leaves_the_trial_running(value: Any, error: type[Exception]) -> None:
    study = optuna.create_study()
    with pytest.raises(error):
        study.tell(study.ask(), value)
    assert study.trials[0].state == TrialState.RUNNING


@pytest.mark.parametrize("value", ["1.5", 10**400])
def test_a_text_or_a_giant_integer_returned_ends_optimize_and_leaves_the_trial_running(value: Any) -> None:
    study = optuna.create_study()
    with pytest.raises(AssertionError, match="Should not reach"):
        study.optimize(lambda trial: value, n_trials=1)
    assert study.trials[0].state == TrialState.RUNNING


# Going on with a study


def test_changed_choices_raise_on_resume(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="s")
    study.tell(study.ask({"c": CategoricalDistribution((32, 64))}), 1.0)
    resumed = optuna.load_study(storage=storage, study_name="s")
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        resumed.ask({"c": CategoricalDistribution((32, 64, 128))})


def test_a_changed_float_range_is_accepted_silently_on_resume(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="s")
    study.tell(study.ask(X), 1.0)
    resumed = optuna.load_study(storage=storage, study_name="s")
    assert resumed.ask({"x": FloatDistribution(5.0, 6.0)}).params["x"] >= 5.0


def test_a_seeded_sampler_repeats_its_first_points_on_resume(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="s")
    started = first_points(7, study)
    assert first_points(7, optuna.load_study(storage=storage, study_name="s")) == started


def test_n_trials_counts_new_trials_and_not_the_total() -> None:
    study = optuna.create_study()
    for _ in range(2):
        study.optimize(lambda trial: 0.0, n_trials=2)
    assert len(study.trials) == 4


def test_the_heartbeat_beats_inside_optimize_only(database: Path) -> None:
    with pytest.warns(ExperimentalWarning, match="heartbeat_interval"):
        storage = RDBStorage(f"sqlite:///{database}", heartbeat_interval=60)
    study = optuna.create_study(storage=storage)
    with pytest.warns(UserWarning, match=r"Heartbeat of storage is supposed to be used with Study\.optimize"):
        asked = study.ask()
    study.optimize(lambda trial: 0.0, n_trials=1)
    storage.engine.dispose()
    assert rows(database, "SELECT trial_id FROM trial_heartbeats") == [(asked._trial_id + 1,)]


# SQLite, as Optuna opens it and as we do


@contextmanager
def when_first_executed(statement: str, act: Callable[[], object]) -> Iterator[list[object]]:
    """Run `act` just before any engine first executes a statement that starts so: another process at that moment."""
    acted: list[object] = []

    def before(connection: Any, cursor: Any, sql: str, *_: object) -> None:
        if not acted and sql.startswith(statement):
            acted.append(None)
            acted[0] = act()

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", before)
    try:
        yield acted
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", before)


def test_two_first_starts_at_once_kill_one_of_them(database: Path) -> None:
    with (
        when_first_executed(
            "INSERT INTO alembic_version", lambda: RDBStorage(f"sqlite:///{database}").engine.dispose()
        ),
        pytest.raises(sqlalchemy.exc.IntegrityError, match=r"UNIQUE constraint failed: alembic_version"),
    ):
        RDBStorage(f"sqlite:///{database}")


def test_a_queued_trial_can_be_popped_twice(storage: RDBStorage, database: Path) -> None:
    study = optuna.create_study(storage=storage, study_name="s")
    study.enqueue_trial({"x": 0.5})
    with opened(database) as other:
        rival = optuna.load_study(storage=other, study_name="s")
        with when_first_executed("UPDATE trials", rival.ask) as popped:
            trial = study.ask()
    assert [trial.number, *(got.number for got in popped)] == [0, 0]


def harden(storage: RDBStorage) -> None:
    """What the project does with an engine of SQLite; the script of the two processes has the same lines."""

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made so far were made without the hooks


@pytest.fixture
def hardened(schema: Path, database: Path) -> Iterator[RDBStorage]:
    shutil.copy(schema, database)
    storage = RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 0.05}})
    harden(storage)
    yield storage
    storage.engine.dispose()


def test_engine_kwargs_and_hooks_make_sqlite_begin_immediately_in_wal(hardened: RDBStorage, database: Path) -> None:
    study_id = hardened.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    with _create_scoped_session(hardened.scoped_session) as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 50
        with closing(sqlite3.connect(database, timeout=0)) as other:
            assert other.execute("SELECT study_name FROM studies").fetchall() == [("s",)]
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("BEGIN IMMEDIATE")
    assert hardened.get_study_id_from_name("s") == study_id


def test_a_queued_trial_is_not_popped_twice_if_transactions_begin_immediately(
    hardened: RDBStorage, database: Path
) -> None:
    study = optuna.create_study(storage=hardened, study_name="s")
    study.enqueue_trial({"x": 0.5})

    def pop_elsewhere() -> str:
        with closing(sqlite3.connect(database, timeout=0)) as other:
            try:
                other.execute("UPDATE trials SET state = 'RUNNING'")
            except sqlite3.OperationalError as error:
                return str(error)
        return "popped"

    with when_first_executed("UPDATE trials", pop_elsewhere) as answers:
        assert study.ask().number == 0
    assert answers == ["database is locked"]


TWO_PROCESSES = """
import sqlite3, sys, optuna, sqlalchemy
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.RDBStorage(sys.argv[1], engine_kwargs={"connect_args": {"timeout": 30}})
@sqlalchemy.event.listens_for(storage.engine, "connect")
def connect(connection, _):
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
@sqlalchemy.event.listens_for(storage.engine, "begin")
def begin(connection):
    connection.exec_driver_sql("BEGIN IMMEDIATE")
storage.engine.dispose()
study = optuna.load_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler())
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.0)
"""


def test_two_processes_add_trials_without_a_collision(hardened: RDBStorage, database: Path) -> None:
    study = optuna.create_study(storage=hardened, study_name="s")
    for _ in range(10):
        study.enqueue_trial({"x": 0.5})
    command = [sys.executable, "-c", TWO_PROCESSES, f"sqlite:///{database}"]
    pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in pair] == [0, 0]
    trials = optuna.load_study(storage=hardened, study_name="s").trials
    assert [trial.number for trial in trials] == list(range(30))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_an_empty_file_becomes_an_empty_schema_silently(database: Path) -> None:
    database.touch()
    with opened(database) as storage:
        assert storage.get_all_studies() == []
    assert rows(database, "SELECT count(*) FROM alembic_version") == [(1,)]


def test_a_dropped_table_is_recreated_empty_silently(database: Path) -> None:
    with opened(database) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        study.tell(study.ask(X), 0.25)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE trial_values")
    with opened(database) as storage:
        trial = optuna.load_study(storage=storage, study_name="s").trials[0]
    assert (trial.state, trial.values) == (TrialState.COMPLETE, None)


# What is where in the database


def test_scalar_user_attributes_are_plain_json_rows(storage: RDBStorage, database: Path) -> None:
    trial = optuna.create_study(storage=storage).ask()
    attributes = {"val_loss": 0.25, "best_epoch": 7, "verdict": "overfit", "gap": math.inf}
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    stored = dict(rows(database, "SELECT key, value_json FROM trial_user_attributes"))
    assert stored == {"val_loss": "0.25", "best_epoch": "7", "verdict": '"overfit"', "gap": "Infinity"}


def test_metric_names_are_a_system_attribute_of_the_study() -> None:
    study = optuna.create_study()
    with pytest.warns(ExperimentalWarning, match="set_metric_names"):
        study.set_metric_names(["log_loss"])
    assert study._storage.get_study_system_attrs(study._study_id) == {"study:metric_names": ["log_loss"]}


def test_a_dashboard_note_is_two_system_attributes_of_the_study() -> None:
    from optuna_dashboard import get_note, save_note

    study = optuna.create_study()
    trial = study.ask()
    save_note(trial, "**overfit** at epoch 7")
    save_note(study, "a" * 2045 + "b")
    assert study._storage.get_study_system_attrs(study._study_id) == {
        f"dashboard:{trial._trial_id}:note_ver": 1,
        f"dashboard:{trial._trial_id}:note_str:0": "**overfit** at epoch 7",
        "dashboard:note_ver": 1,
        "dashboard:note_str:0": "a" * 2045,
        "dashboard:note_str:1": "b",
    }
    assert get_note(trial) == "**overfit** at epoch 7"


def test_a_password_is_masked_in_the_engine_s_url_but_plain_in_the_storage_s(monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlalchemy.make_url("postgresql+psycopg://me:hunter2@host/studies")
    engine = type("Engine", (), {"url": url, "name": "postgresql"})()
    monkeypatch.setattr(sqlalchemy.engine, "create_engine", lambda *_, **__: engine)
    monkeypatch.setattr(optuna.storages._rdb.storage._VersionManager, "__init__", lambda *_: None)
    storage = RDBStorage(
        url.render_as_string(hide_password=False), skip_table_creation=True, skip_compatibility_check=True
    )
    assert "hunter2" in storage.url
    assert str(storage.engine.url) == repr(storage.engine.url) == "postgresql+psycopg://me:***@host/studies"


def test_odd_study_names_are_accepted(storage: RDBStorage) -> None:
    for name in ("", "../../x", "a\nb", "a\0b", "\x1b[31mred", "x" * 512):
        optuna.create_study(storage=storage, study_name=name)
        assert optuna.load_study(storage=storage, study_name=name).study_name == name


# Writing a trial in one transaction


def commits_from_now(storage: RDBStorage) -> list[object]:
    commits: list[object] = []
    sqlalchemy.event.listen(storage.engine, "commit", commits.append)
    return commits


SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "width": IntDistribution(16, 256, log=True),
    "batch_size": CategoricalDistribution((32, 64, 128)),
}
POINT = {"learning_rate": 1e-3, "width": 64, "batch_size": 128}


def running_template(point: dict[str, Any] = POINT, **attributes: Any) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING,
        params=point,
        distributions={name: {**SPACE, **X}[name] for name in point},
        user_attrs=attributes,
        system_attrs={"lease": 12.5},
    )


def test_a_running_template_is_written_whole_in_one_commit(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    commits = commits_from_now(storage)
    trial_id = storage.create_new_trial(study._study_id, running_template(seed=3))
    assert len(commits) == 1
    trial = storage.get_trial(trial_id)
    assert (trial.state, trial.params, trial.distributions) == (TrialState.RUNNING, POINT, SPACE)
    assert (trial.user_attrs, trial.system_attrs) == ({"seed": 3}, {"lease": 12.5})
    assert isinstance(trial.datetime_start, datetime)
    assert study.tell(trial.number, 0.5).value == 0.5


def test_a_template_s_number_counts_the_study_s_past_trials_and_not_its_own(storage: RDBStorage) -> None:
    optuna.create_study(storage=storage).ask()
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 1.0)
    study.enqueue_trial({"x": 0.5})
    template = running_template()
    template.number = 77
    numbers = [storage.get_trial(storage.create_new_trial(study._study_id, template)).number for _ in range(2)]
    assert numbers == [2, 3]


def finish_in_one_session(storage: RDBStorage, trial_id: int, values: list[float], curve: dict[int, float]) -> None:
    with _create_scoped_session(storage.scoped_session) as session:
        trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
        for objective, number in enumerate(values):
            value, kind = models.TrialValueModel.value_to_stored_repr(number)
            session.add(models.TrialValueModel(trial_id=trial_id, objective=objective, value=value, value_type=kind))
        for step, number in curve.items():
            value, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(number)
            session.add(
                models.TrialIntermediateValueModel(
                    trial_id=trial_id, step=step, intermediate_value=value, intermediate_value_type=kind
                )
            )
        session.add(models.TrialUserAttributeModel(trial_id=trial_id, key="verdict", value_json=json.dumps("overfit")))
        session.add(models.TrialSystemAttributeModel(trial_id=trial_id, key="curve", value_json=json.dumps([0.1])))
        trial.datetime_complete = datetime.now()
        trial.state = TrialState.COMPLETE


@pytest.mark.parametrize("value", [0.1 + 0.2, math.inf, -math.inf, 5e-324])
def test_a_trial_finished_through_one_session_reads_back_equal(storage: RDBStorage, value: float) -> None:
    curve = {0: 0.5, 1: math.inf, 2: -math.inf, 3: 0.1 + 0.2, 10: math.nan}
    study = optuna.create_study(storage=storage, study_name="s")
    trial_id = storage.create_new_trial(study._study_id, running_template())
    commits = commits_from_now(storage)
    finish_in_one_session(storage, trial_id, [value], curve)
    assert len(commits) == 1
    trial = optuna.load_study(storage=storage, study_name="s").trials[0]
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, value, POINT)
    assert (trial.user_attrs, trial.system_attrs) == ({"verdict": "overfit"}, {"lease": 12.5, "curve": [0.1]})
    assert repr(trial.intermediate_values) == repr(curve)
    assert trial.duration is not None
    assert study.best_trial.number == 0


def test_a_study_already_open_sees_a_trial_finished_behind_its_cache(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial_id = storage.create_new_trial(study._study_id, running_template())
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    finish_in_one_session(storage, trial_id, [0.5], {0: 0.5})
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_session_that_fails_leaves_nothing_behind(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial_id = storage.create_new_trial(study._study_id, running_template(verdict="running"))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match=r"UNIQUE constraint failed: trial_user_attributes"):
        finish_in_one_session(storage, trial_id, [0.5], {0: 0.5})
    trial = storage.get_trial(trial_id)
    assert (trial.state, trial.values, trial.intermediate_values) == (TrialState.RUNNING, None, {})
    with pytest.raises(StorageInternalError), _create_scoped_session(storage.scoped_session) as session:
        session.execute(sqlalchemy.text("INSERT INTO no_such_table VALUES (1)"))


# Sampling


def test_tpe_is_multivariate_with_constant_liar_by_default() -> None:
    sampler = optuna.samplers.TPESampler()
    study = optuna.create_study(sampler=sampler)
    assert sampler._is_multivariate(study)
    assert inspect.signature(optuna.samplers.TPESampler).parameters["constant_liar"].default is True
    add_finished(study, 12)
    trial = study.ask(X)
    shared = study.trials[trial.number].system_attrs
    assert json.loads(shared["tpe:relative_params:0"]) == trial.params


def test_tpe_puts_complete_before_pruned_before_infeasible() -> None:
    from optuna.samplers._tpe.sampler import _split_trials

    study = optuna.create_study()
    add_finished(study, 2)
    run_curve(study, [-9.0], TrialState.PRUNED)
    infeasible = study.ask()
    infeasible.set_constraint("memory", 1.0)
    study.tell(infeasible, -9.0)
    below = [[trial.number for trial in _split_trials(study, study.trials, n)[0]] for n in range(5)]
    assert below == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def next_point(seed: int, history: list[float], running: list[float]) -> dict[str, Any]:
    storage = InMemoryStorage()
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(storage=storage, sampler=sampler)
    for x in history:
        study.add_trial(create_trial(value=(x - 0.3) ** 2, params={"x": x}, distributions=X))
    for x in running:
        storage.create_new_trial(study._study_id, running_template({"x": x}))
    return study.ask(X).params


HISTORY = [number / 12 for number in range(12)]


def test_an_in_memory_study_accepts_running_templates() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage)
    add_finished(study, 1)
    trial_id = storage.create_new_trial(study._study_id, running_template({"x": 0.5}))
    trial = storage.get_trial(trial_id)
    assert (trial.number, trial.state, trial.params) == (1, TrialState.RUNNING, {"x": 0.5})
    assert study.tell(1, 0.25).state == TrialState.COMPLETE


def test_tpe_is_a_pure_function_of_seed_and_history() -> None:
    point = next_point(3, HISTORY, [0.31])
    assert next_point(3, HISTORY, [0.31]) == point
    assert next_point(4, HISTORY, [0.31]) != point
    assert next_point(3, HISTORY[:3] + HISTORY[4:], [0.31]) != point


def test_tpe_takes_running_templates_into_account() -> None:
    free = next_point(3, HISTORY, [])["x"]
    assert next_point(3, HISTORY, [free] * 6)["x"] != free


def test_tpe_ignores_history_before_ten_finished_trials() -> None:
    assert next_point(3, HISTORY[:9], []) == next_point(3, [], [])
    assert next_point(3, HISTORY[:10], []) != next_point(3, [], [])


def test_group_warns_that_it_is_experimental_and_nothing_else() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optuna.samplers.TPESampler(seed=0, group=True)
    assert [warning.category for warning in caught] == [ExperimentalWarning]


def test_group_samples_conditional_parameters() -> None:
    with pytest.warns(ExperimentalWarning, match="group"):
        sampler = optuna.samplers.TPESampler(seed=0, group=True, n_startup_trials=4)
    study = optuna.create_study(sampler=sampler)
    for _ in range(12):
        trial = study.ask()
        family = trial.suggest_categorical("family", ["mlp", "cnn"])
        depth = trial.suggest_int("depth", 1, 4) if family == "mlp" else trial.suggest_int("kernel", 1, 7)
        study.tell(trial, float(depth))
    groups = [set(group) for group in sampler._search_space_group.search_spaces]
    assert sorted(map(sorted, groups)) == [["depth"], ["family"], ["kernel"]]
    relative = json.loads(study.trials[-1].system_attrs["tpe:relative_params:0"])
    assert set(relative) == {"family", "depth", "kernel"}
    assert [("depth" in trial.params) != ("kernel" in trial.params) for trial in study.trials] == [True] * 12


# The dashboard as it comes


def test_the_bare_dashboard_answers_any_host_and_deletes_for_any_origin() -> None:
    from optuna_dashboard import wsgi

    storage = InMemoryStorage()
    study_id = optuna.create_study(storage=storage)._study_id
    statuses: list[str] = []
    for method in ("GET", "DELETE"):
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": f"/api/studies/{study_id}",
            "HTTP_HOST": "evil.example",
            "HTTP_ORIGIN": "http://evil.example",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        list(wsgi(storage)(environ, lambda status, headers, exc_info=None: statuses.append(status)))
    assert statuses == ["200 OK", "204 No Content"]
    assert storage.get_all_studies() == []


def test_the_newest_revision_of_the_tables_is_the_last_of_the_migrations_by_name(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'new.db'}")
    assert newest_revision() == storage.get_head_version() == storage.get_current_version()
    storage.engine.dispose()


def test_opening_a_database_asks_its_version_manager_for_nothing_but_the_check_of_its_tables(tmp_path: Path) -> None:
    from optuna.storages._rdb import storage as module

    storage = RDBStorage(f"sqlite:///{tmp_path / 'new.db'}")
    storage.engine.dispose()
    asked = []

    class Listening:
        def __init__(self, *_: object) -> None: ...

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return lambda: None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_VersionManager", Listening)
        opened = RDBStorage(f"sqlite:///{tmp_path / 'new.db'}", skip_table_creation=True)
        assert optuna.create_study(storage=opened).trials == []
        opened.engine.dispose()
    assert asked == ["check_table_schema_compatibility"]


def test_tpe_takes_the_logarithm_of_the_normal_distribution_from_a_function_that_scipy_has_too() -> None:
    from optuna.samplers._tpe import _truncnorm
    from scipy.special import log_ndtr

    values = np.concatenate((np.linspace(-40, 40, 1001), [-1e5, -6.0001, 0.0, 5.9999]))
    assert np.allclose(_truncnorm._log_ndtr(values), log_ndtr(values), rtol=1e-9, atol=1e-15)
