"""A disk without room, a lock, a disk that doesn't work: what may pass is waited for, what may not is told in one line,
and nothing that had ended is lost.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, SMALL, call, files, spawn, tuner, write

from tuner import faults, locking, patience, weights
from tuner.engine import Ended, Unsaved
from tuner.errors import PassingError, StorageError
from tuner.locking import BUSY_SECONDS
from tuner.patience import Patience
from tuner.storage import open_storage
from tuner.tuning import tune

WAITS = re.compile(r"^tuner: .*: waiting for (room|the lock); Ctrl-C stops, nothing is lost$", re.MULTILINE)
GOES_ON = re.compile(r"^tuner: going on, after \d+ s$", re.MULTILINE)


OFTEN, IN_TIME = {"TUNER_LEASE_SECONDS": "3"}, 10.0  # a lease that is renewed twice a second; seconds until Ctrl-C ends


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that plans faults in this process."""

    def plan(text: str) -> None:
        monkeypatch.setattr(faults, "_PLAN", faults.planned(text))
        monkeypatch.setattr(faults, "_passed", {})

    return plan


def states(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "studies" / "tuner.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [row[0] for row in connection.execute("SELECT state FROM trials ORDER BY number")]


@pytest.mark.parametrize("place", ["before_write", "in_write", "after_write"])
def test_a_disk_that_is_full_for_a_while_pauses_the_run_which_says_so_once(
    tmp_path: Path, planned: Any, place: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "EVERY", 0.01)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    planned(",".join(f"{place}:{n}:enospc" for n in (5, 6, 7)))
    said = call(capsys, "run", "small.yaml", "--quiet")
    assert said.code == 0, said.err
    assert len(WAITS.findall(said.err)) == len(GOES_ON.findall(said.err)) == len(said.err.splitlines()) / 2
    assert states(tmp_path) == ["COMPLETE"] * 3


def test_a_disk_that_stays_full_ends_the_run_and_the_same_command_goes_on(
    tmp_path: Path, planned: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "EVERY", 0.01)
    monkeypatch.setattr(patience, "LONGEST", 0.1)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    planned(",".join(f"in_write:{n}:enospc" for n in range(5, 500)))
    said = call(capsys, "run", "small.yaml")
    assert said.code == 4
    assert said.err.splitlines()[-1].endswith("once that is mended, the same command goes on")
    assert len(WAITS.findall(said.err)) == 1
    planned("")
    assert call(capsys, "run", "small.yaml").code == 0
    assert states(tmp_path) == ["COMPLETE"] * 3


def test_ctrl_c_ends_a_run_that_waits_for_room(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    full = ",".join(f"before_write:{n}:enospc" for n in range(5, 500))
    process = spawn("run", "small.yaml", cwd=tmp_path, env={"TUNER_FAULT": full})
    assert process.stderr is not None
    for line in process.stderr:
        if WAITS.match(line):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("tuner: stopped; no trial that had ended is lost")
    assert tuner("run", "small.yaml", cwd=tmp_path).code == 0
    assert states(tmp_path) == ["COMPLETE"] * 3


def test_a_disk_that_does_not_work_is_told_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, planned: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    planned("in_write:5:eio")
    said = call(capsys, "run", "small.yaml", "--quiet")
    assert (said.code, said.out, len(said.err.splitlines())) == (4, "", 1)
    assert "Input/output error" in said.err
    assert call(capsys, "run", "small.yaml").code == 0
    assert states(tmp_path) == ["COMPLETE"] * 3


# Disks that are full in truth.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tuner-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can't be mounted here (root may)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int = 0) -> Path:
    """Fill a file system but for some bytes."""
    ballast = disk / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 18, 1 << 12):
            with suppress(OSError):
                while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > left:
                    file.write(bytes(size))
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room(disk: Path, workers: int) -> None:
    text = SMALL.replace("{low: 2, high: 4}", "{low: 20, high: 30}")
    # weights that take room, too
    write(disk / "small.yaml", text.replace("width: {low: 4, high: 12}", "width: {low: 60, high: 90}"))
    process = spawn("run", "small.yaml", "--trials", "6", "--workers", str(workers), "--quiet", cwd=disk)
    end = time.monotonic() + SECONDS
    while not list(disk.glob("studies/small/weights/*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    ballast = fill(disk)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert WAITS.match(said), said
        time.sleep(0.5)
        assert process.poll() is None
        ballast.unlink()
        _, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, said + err
    assert GOES_ON.search(err)
    ended = states(disk)
    # whether a trial of so many epochs overfits is told by figures whose last bits are the machine's
    assert len(ended) == 6
    assert set(ended) <= {"COMPLETE", "PRUNED"}
    assert not list(disk.rglob("*.part"))


@pytest.mark.parametrize("left", [0, 50_000])
def test_a_disk_that_is_full_at_the_start_is_told_in_one_line(
    disk: Path, left: int, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk)
    monkeypatch.setattr(patience, "LONGEST", 0.0)
    write(disk / "small.yaml")
    ballast = fill(disk, left)
    said = call(capsys, "run", "small.yaml")
    assert (said.code, said.out, len(said.err.splitlines())) == (4, "", 1), said.err
    assert re.search(r"No space left on device|disk is full|disk I/O error", said.err), said.err
    ballast.unlink()
    assert not (disk / "studies" / "tuner.db").exists()
    assert not list(disk.rglob("*.part"))
    assert call(capsys, "run", "small.yaml", "--trials", "1").code == 0


@pytest.mark.parametrize("name", [(), ("--study-name", "new")])
def test_a_disk_that_may_only_be_read_is_read_and_told_in_one_line_by_a_run(
    disk: Path, name: tuple[str, ...], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(write(disk / "small.yaml"), trials=1, studies_dir=disk / "studies")
    monkeypatch.chdir(disk.parent)
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    began = time.monotonic()
    said = call(capsys, "run", disk / "small.yaml", "--studies-dir", disk / "studies", "--trials", "2", *name)
    assert time.monotonic() - began < BUSY_SECONDS, "what does not pass is not waited for"
    assert (said.code, said.out, len(said.err.splitlines())) == (4, "", 1), said.err
    assert re.search("[Rr]ead-only file system|readonly database|unable to open", said.err), said.err
    assert call(capsys, "show", "small", "--studies-dir", disk / "studies").code == 0
    assert files(disk) == before


# Locks.

HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holding(database: Path, seconds: float) -> subprocess.Popen[str]:
    """Hold the lock of a database in a process of its own."""
    command = [sys.executable, "-c", HOLDER, database, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_another_program_holds_is_waited_for_and_said_by_whom(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tune(write(tmp_path / "small.yaml"), trials=1)
    database = tmp_path / "studies" / "tuner.db"
    with holding(database, 1.5):
        assert call(capsys, "run", "small.yaml", "--trials", "2").code == 0
    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.2)
    with holding(database, 100) as process:
        try:
            said = call(capsys, "run", "small.yaml", "--trials", "3")
        finally:
            process.kill()
    assert (said.code, said.out) == (4, "")
    told = rf"tuner: sqlite:///studies/tuner.db: database is locked; process {process.pid} \(python\S*\) holds it; stop"
    assert re.match(told, said.err), said.err
    assert len(said.err.splitlines()) == 1
    assert call(capsys, "run", "small.yaml", "--trials", "3").code == 0


def test_ctrl_c_ends_a_run_while_another_program_holds_the_lock(tmp_path: Path) -> None:
    tuner("run", write(tmp_path / "small.yaml"), "--trials", "1", cwd=tmp_path)
    space = SMALL.replace("study: small", "study: long").replace("{low: 2, high: 4}", "100000")
    process = spawn("run", write(tmp_path / "long.yaml", space), "--trials", "2", cwd=tmp_path, env=OFTEN)
    database = tmp_path / "studies" / "tuner.db"
    while "RUNNING" not in states(tmp_path):
        time.sleep(0.05)
    with holding(database, 100) as holder:
        try:
            time.sleep(2.0)  # it writes once a second
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=IN_TIME)
        finally:
            holder.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("tuner: stopped"), err


# Patience itself.


def test_patience_says_once_that_it_waits_and_once_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "EVERY", 0.0)
    faults_to_come = [PassingError("the disk is full")] * 3

    def act() -> int:
        if faults_to_come:
            raise faults_to_come.pop()
        return 7

    assert Patience().keep_trying(act) == 7
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is full: waiting for room; Ctrl-C stops, nothing is lost", "going on, after 0 s",
    ]  # fmt: skip


def test_what_does_not_pass_is_not_waited_for() -> None:
    tries = []

    def act() -> None:
        tries.append(1)
        raise StorageError("damaged")

    with pytest.raises(StorageError, match="damaged"):
        Patience().keep_trying(act)
    assert len(tries) == 1


def test_whoever_was_interrupted_while_waiting_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    waiting = Patience()
    with pytest.raises(KeyboardInterrupt):
        waiting.wait(PassingError("full"))
    with pytest.raises(PassingError):
        waiting.wait(PassingError("full"))


def test_weights_that_found_no_room_are_written_without_training_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_workers import first_task

    from tuner.patience import Patient
    from tuner.planning import prepare
    from tuner.tasks import InProcess

    monkeypatch.setattr(patience, "EVERY", 0.0)
    plan = prepare(write(tmp_path / "small.yaml"))
    engine = InProcess()
    engine.take(plan.folds[0])
    place = tmp_path / "weights" / "w"
    full = [OSError(28, "No space left on device")] * 2

    write_them = weights.write_weights

    def write_weights(network: Any, path: Path) -> Any:
        if full:
            raise full.pop()
        return write_them(network, path)

    monkeypatch.setattr("tuner.weights.write_weights", write_weights)
    patient = Patient(engine, Patience())
    try:
        patient.start(first_task(plan))
        patient.next()
        patient.stop(0, place)
        event = patient.next()
        assert isinstance(event, Ended)
        assert place.exists()
        full.append(OSError(5, "Input/output error"))
        patient.start(first_task(plan))
        patient.next()
        patient.stop(0, place)
        event = patient.next()
        assert isinstance(event, Unsaved)
        assert not event.passing
    finally:
        patient.close()


def test_a_storage_that_is_full_says_so_as_something_that_may_pass(disk: Path) -> None:
    rdb = open_storage(f"sqlite:///{disk / 'tuner.db'}", create=True)
    rdb.engine.dispose()
    fill(disk)
    with pytest.raises(PassingError, match=r"full|No space"):
        open_storage(f"sqlite:///{disk / 'other.db'}", create=True)
