"""The oracle finds what it is there for: each thing that must not be, done by hand to a study that was whole."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chaos.oracle import Oracle, account, trial_seed
from chaos.runs import EPOCHS, NAME, SEED, Place, Run
from chaos.witness import digest

TABLES = """
CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name TEXT);
CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER REFERENCES studies, state TEXT,
                     datetime_start TEXT, datetime_complete TEXT);
CREATE TABLE trial_values (trial_id INTEGER REFERENCES trials, objective INTEGER, value FLOAT, value_type TEXT);
CREATE TABLE trial_params (trial_id INTEGER REFERENCES trials, param_name TEXT, param_value FLOAT,
                           distribution_json TEXT);
CREATE TABLE trial_intermediate_values (trial_id INTEGER, step INTEGER, intermediate_value FLOAT);
CREATE TABLE trial_user_attributes (trial_id INTEGER, key TEXT, value_json TEXT);
CREATE TABLE trial_system_attributes (trial_id INTEGER, key TEXT, value_json TEXT);
"""
TRIALS = 3


def weights(number: int, epoch: int) -> dict[str, np.ndarray]:
    return {"w": np.full(3, number + epoch / 100, np.float32)}


def tell(place: Place, number: int, pid: int, *epochs: int, other: bool = False) -> None:
    seed = trial_seed(number, SEED)
    with open(place.account, "a") as file:
        file.write(f"b {seed} {pid} {epochs[0] - 1} - 1.0\n")
        for epoch in epochs:
            file.write(f"e {seed} {pid} {epoch} {digest(weights(number + other, epoch))} 1.0\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A study of three trials, whole."""
    place = Place(tmp_path)
    (place.left / "weights").mkdir(parents=True)
    with closing(sqlite3.connect(place.database)) as connection:
        connection.executescript(TABLES)
        connection.execute("INSERT INTO studies VALUES (1, ?)", (NAME,))
        for number in range(TRIALS):
            record = {"seed": trial_seed(number, SEED), "score": {"value": number / 10, "epoch": EPOCHS}}
            connection.execute("INSERT INTO trials VALUES (?, ?, 1, 'COMPLETE', 'then', 'later')", (number + 1, number))
            connection.execute("INSERT INTO trial_values VALUES (?, 0, ?, 'FINITE')", (number + 1, number / 10))
            connection.execute(
                "INSERT INTO trial_system_attributes VALUES (?, 'tuner', ?)", (number + 1, json.dumps(record))
            )
        connection.commit()
    for number in range(TRIALS):
        tell(place, number, 10 + number, *range(1, EPOCHS + 1))
    save_file(weights(0, EPOCHS), place.left / "weights" / "00000.safetensors")
    save_file(weights(2, EPOCHS), place.left / "model.safetensors")
    (place.left / "best.json").write_text('{"trial": 2}')
    return place


def finished(place: Place, said: str = "", code: int = 0) -> Run:
    place.said.write_text(said)
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    return Run(place, process, 0.0, 0, 0)


def found(place: Place, between: Callable[[Place], object], said: str = "", code: int = 0) -> set[str]:
    """Return the kinds of what the oracle finds after something was done between its first look and its last."""
    oracle = Oracle(place, SEED)
    reference = {number: kept.essence() for number, kept in oracle.look().items()}
    between(place)
    run = oracle.began(finished(place, said, code))
    return {each.kind for each in oracle.finish(run, TRIALS, reference)}


@pytest.mark.parametrize(("deaths", "kinds"), [({1: 2}, set()), ({1: 1}, {"failed"}), ({0: 2, 2: 2}, {"failed"})])
def test_a_trial_may_fail_with_its_worker_only_if_its_own_was_killed_twice(
    place: Place, deaths: dict[int, int], kinds: set[str]
) -> None:
    oracle = Oracle(place, SEED)
    reference = {number: kept.essence() for number, kept in oracle.look().items()}
    oracle.seen.clear()
    record = json.dumps({"seed": trial_seed(1, SEED), "error": "the worker process died (signal SIGKILL)"})
    sql(
        "UPDATE trials SET state = 'FAIL' WHERE number = 1",
        f"UPDATE trial_system_attributes SET value_json = '{record}' WHERE trial_id = 2",
    )(place)
    oracle.deaths.update({trial_seed(number, SEED): count for number, count in deaths.items()})
    run = oracle.began(finished(place))
    assert {each.kind for each in oracle.finish(run, TRIALS, reference)} == kinds
    assert oracle.gave_up == [1] * (not kinds)


def test_a_killed_worker_that_told_nothing_had_a_trial_that_runs_and_that_no_other_is_at(place: Place) -> None:
    sql("UPDATE trials SET state = 'RUNNING' WHERE number > 0")(place)
    oracle = Oracle(place, SEED)
    oracle.began(finished(place)).process.wait()
    oracle.kills(2**22 + 1)  # beyond any process there is
    assert dict(oracle.deaths) == {trial_seed(1, SEED): 1, trial_seed(2, SEED): 1}
    oracle.kills(12)
    assert dict(oracle.deaths) == {trial_seed(1, SEED): 1, trial_seed(2, SEED): 2}


def test_of_the_workers_that_are_gone_one_whose_trial_is_not_over_had_killed_itself_as_planned(place: Place) -> None:
    sql("UPDATE trials SET state = 'RUNNING' WHERE number = 1")(place)
    oracle = Oracle(place, SEED)
    oracle.began(finished(place)).process.wait()
    gone = (2**22 + 1, 2**22 + 2, 2**22 + 3)  # beyond any process there is
    place.account.write_text("")
    tell(place, 1, gone[0], 1, 2)
    tell(place, 2, gone[1], *range(1, EPOCHS + 1))  # whose trial is over
    assert oracle.died()
    assert (oracle.killed, dict(oracle.deaths)) == ({gone[0]}, {trial_seed(1, SEED): 1})
    assert not oracle.died(), "each fault excuses one death"
    tell(place, 1, gone[2], *range(1, EPOCHS + 1))
    assert oracle.died()
    assert oracle.deaths[trial_seed(1, SEED)] == 2


def sql(*statements: str) -> Callable[[Place], None]:
    def run(place: Place) -> None:
        with closing(sqlite3.connect(place.database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return run


def test_it_finds_nothing_in_a_study_that_is_whole(place: Place) -> None:
    assert found(place, lambda _: None, "    1  light  0.1 0.2 0.3  12  12  1 s  complete: finished\n") == set()


@pytest.mark.parametrize(
    ("done", "kind"),
    [
        (sql("DELETE FROM trials WHERE number = 1"), "lost"),
        (sql("DELETE FROM trials WHERE number = 2"), "lost"),
        (lambda place: place.database.unlink(), "lost"),
        (sql("INSERT INTO trials VALUES (9, 1, 1, 'COMPLETE', 'then', 'later')"), "doubled"),
        (lambda place: tell(place, 1, 77, 1), "doubled"),
        (sql("UPDATE trial_values SET value = 0.1000000001 WHERE trial_id = 2"), "changed"),
        (sql("UPDATE trials SET state = 'RUNNING' WHERE number = 1"), "left"),
        (sql("UPDATE trial_system_attributes SET value_json = '{}' WHERE trial_id = 2"), "differs"),
        (lambda place: tell(place, 1, 77, 1, other=True), "differs"),
        (lambda place: save_file(weights(1, 3), place.left / "weights" / "00000.safetensors"), "differs"),
        (sql("INSERT INTO trial_params VALUES (99, 'x', 1.0, '')"), "torn"),
        (lambda place: (place.left / ".report.html.5.part").touch(), "leftover"),
    ],
)  # fmt: skip
def test_it_finds_what_was_done_to_a_study(place: Place, done: Callable[[Place], object], kind: str) -> None:
    assert kind in found(place, done)


def test_it_finds_a_trial_that_was_told_and_isnt_there(place: Place) -> None:
    assert "lost" in found(place, lambda _: None, "    3  light  0.1 0.2 0.3  12  12  1 s  complete: finished\n")


@pytest.mark.parametrize(("said", "code", "kind"), [("Traceback (most recent)", 0, "traceback"), ("", 4, "code")])
def test_it_finds_an_end_that_was_not_promised(place: Place, said: str, code: int, kind: str) -> None:
    assert found(place, lambda _: None, said, code) == {kind}


def test_it_finds_a_trial_that_two_processes_trained_at_once(place: Place) -> None:
    place.account.write_text("")
    for number in range(TRIALS):
        tell(place, number, 10 + number, *range(1, EPOCHS + 1))
    with open(place.account, "a") as file:
        file.write(f"e {trial_seed(0, SEED)} 99 {EPOCHS} {digest(weights(0, EPOCHS))} 1.0\n")
    assert "doubled" in {each.kind for each in Oracle(place, SEED).finish(finished(place), TRIALS, {})}


def test_it_finds_a_complete_trial_whose_epochs_nobody_trained(place: Place) -> None:
    place.account.write_text("")
    assert "invented" in found(place, lambda _: None)


def test_it_finds_a_process_that_was_left_behind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.oracle.no_orphans", lambda place: [*map(str, place.processes())])
    env = {**os.environ, "CHAOS_MARK": place.mark}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=env, stdin=subprocess.PIPE) as process:
        assert "orphan" in found(place, lambda _: None)
        assert process.stdin is not None
        process.stdin.close()


def test_a_line_that_is_being_written_is_left_for_later(place: Place) -> None:
    lines = [*account(place.account)]
    with open(place.account, "a") as file:
        file.write("e 12")
    assert [*account(place.account)] == lines
    assert [*account(place.account, lines[5].place)] == lines[5:]
