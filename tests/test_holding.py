"""A study is run by one process at a time: who was paused goes on, or finds that another one has the study and ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, call, files, spawn, tuner, write

from tuner.planning import prepare
from tuner.record import TrialRecord
from tuner.storage import open_storage
from tuner.store import Store
from tuner.study import open_study
from tuner.tuning import conduct

LEASE = 1.5
SHORT = {"TUNER_LEASE_SECONDS": str(LEASE)}


def await_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until a process has paused itself."""
    end = time.monotonic() + SECONDS
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def states(folder: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(folder / "studies" / "tuner.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("SELECT number, state FROM trials ORDER BY number").fetchall()


@pytest.mark.slow
def test_who_was_paused_while_another_took_the_study_drops_its_result_and_ends_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    words = ["run", "small.yaml", "--workers", "2"]
    paused = spawn(*words, cwd=tmp_path, env={**SHORT, "TUNER_FAULT": "before_tell:2:stop"})
    try:
        await_stopped(paused)
        said = tuner(*words, cwd=tmp_path, env=SHORT)
        if said.code == 2:  # its lease hadn't run out yet
            assert f"is being run by process {paused.pid} on " in said.err
            time.sleep(LEASE)
            said = tuner(*words, cwd=tmp_path, env=SHORT)
        assert said.code == 0, said.err
        left = files(tmp_path / "studies" / "small")
        paused.send_signal(signal.SIGCONT)
        out, err = paused.communicate(timeout=SECONDS)
    finally:
        os.killpg(paused.pid, signal.SIGKILL) if paused.poll() is None else None
    assert (paused.returncode, out) == (4, ""), err
    last = err.splitlines()[-1]
    assert last.startswith("tuner: study 'small' was taken over by "), err
    assert last.endswith("while this process was paused; nothing is lost, it goes on there")
    assert "Traceback" not in err
    assert files(tmp_path / "studies" / "small") == left
    assert states(tmp_path) == [(number, "COMPLETE") for number in range(3)]


@pytest.mark.slow
def test_who_was_paused_for_two_leases_and_whose_study_nobody_took_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    paused = spawn("run", "small.yaml", cwd=tmp_path, env={**SHORT, "TUNER_FAULT": "before_tell:2:stop"})
    await_stopped(paused)
    time.sleep(2 * LEASE)
    paused.send_signal(signal.SIGCONT)
    _, err = paused.communicate(timeout=SECONDS)
    assert paused.returncode == 0, err
    assert states(tmp_path) == [(number, "COMPLETE") for number in range(3)]


@pytest.mark.slow
def test_a_lease_is_renewed_while_an_epoch_lasts_longer_than_it(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    marks = tmp_path / "marks"
    marks.mkdir()
    env = {**SHORT, "TUNER_FAULT": "before_epoch:2:wait", "TUNER_FAULT_MARKS": str(marks)}
    slow = spawn("run", "small.yaml", cwd=tmp_path, env=env)
    while not (marks / "before_epoch:2:wait").exists():
        assert slow.poll() is None, slow.communicate()
        time.sleep(0.02)
    time.sleep(2 * LEASE)
    said = tuner("run", "small.yaml", cwd=tmp_path, env=SHORT)
    assert said.code == 2
    assert f"is being run by process {slow.pid} on " in said.err
    assert len(said.err.splitlines()) == 1
    (marks / "before_epoch:2:wait.go").touch()
    _, err = slow.communicate(timeout=SECONDS)
    assert slow.returncode == 0, err


def test_a_folder_in_use_for_a_study_of_another_database_is_refused(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = conduct(prepare(write(tmp_path / "small.yaml")))
    try:
        next(run)
        said = call(capsys, "run", "small.yaml", "--storage", "sqlite:///other.db")
    finally:
        run.close()
    assert (said.code, said.out) == (2, "")
    assert "studies/small holds ledger.jsonl of a study that isn't in this storage" in said.err


def test_a_trial_that_somebody_else_has_ended_counts_as_that_one_ended_it(tmp_path: Path) -> None:
    run = conduct(prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies"))
    first = next(run)
    assert isinstance(first, TrialRecord)
    other = Store.load(open_storage(f"sqlite:///{tmp_path / 'studies' / 'tuner.db'}"), "small")
    assert other is not None
    theirs = replace(first, state="failed", curve=None, score=None, verdict=None, error="elsewhere")
    assert other.finish(theirs, {}, {})
    other.close()
    ended = {news.number: news for news in run if isinstance(news, TrialRecord) and news.ended}
    assert ended[0].error == "elsewhere"
    assert open_study("small", studies_dir=tmp_path / "studies").trials == {
        number: replace(record, leads=False) for number, record in ended.items()
    }


def test_a_run_that_has_ended_leaves_no_lease(tmp_path: Path) -> None:
    run = conduct(prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies"))
    next(run)
    database = tmp_path / "studies" / "tuner.db"
    query = "SELECT COUNT(*) FROM study_system_attributes WHERE key LIKE 'tuner:process:%'"
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute(query).fetchone() == (1,)
        run.close()
        assert connection.execute(query).fetchone() == (0,)
