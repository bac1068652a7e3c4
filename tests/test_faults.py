"""Faults happen where and when they were planned, once, and nowhere else."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import call, write

from tuner import faults

PASS = "from tuner.faults import point\nfor _ in range(4): point('before_tell'); print('passed', flush=True)"


def passing(fault: str, marks: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {"TUNER_FAULT": fault} | ({"TUNER_FAULT_MARKS": str(marks)} if marks else {})
    return subprocess.run([sys.executable, "-c", PASS], env=env, capture_output=True, text=True, check=False)


def test_without_a_plan_nothing_happens() -> None:
    assert passing("").stdout.count("passed") == 4


def test_a_process_is_killed_at_the_time_that_was_planned() -> None:
    done = passing("before_tell:3:kill9")
    assert (done.returncode, done.stdout.count("passed")) == (-9, 2)


def test_a_fault_that_leaves_a_mark_happens_once_in_all_processes(tmp_path: Path) -> None:
    assert passing("before_tell:1:kill9", tmp_path).returncode == -9
    assert [mark.name for mark in tmp_path.iterdir()] == ["before_tell:1:kill9"]
    assert passing("before_tell:1:kill9", tmp_path).returncode == 0


@pytest.mark.parametrize(("action", "code"), [("enospc", errno.ENOSPC), ("eio", errno.EIO)])
def test_a_disk_that_does_not_work_is_an_error_of_the_system(
    action: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_PLAN", faults.planned(f"in_write:1:{action}"))
    monkeypatch.setattr(faults, "_passed", {})
    with pytest.raises(OSError, match="as planned") as caught:
        faults.point("in_write")
    assert caught.value.errno == code
    faults.point("in_write")


@pytest.mark.parametrize(("action", "said"), [("eio", "Input/output error"), ("enospc", "No space left on device")])
def test_a_disk_that_fails_where_nobody_expects_it_ends_a_run_in_one_line(
    tmp_path: Path, action: str, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(faults, "_PLAN", faults.planned(f"after_tell:2:{action}"))
    monkeypatch.setattr(faults, "_passed", {})
    told = call(capsys, "run", write(tmp_path / "small.yaml"), "--quiet")
    assert told.code == 4
    assert said in told.err
    assert told.err.count("\n") == 1
    assert "fault of the program" not in told.err
    assert call(capsys, "run", "small.yaml", "--json").document["trials"]["complete"] == 3


@pytest.mark.parametrize("plan", ["nowhere:1:kill9", "in_write:1:dance", "in_write:kill9"])
def test_a_plan_that_is_none_is_refused(plan: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        faults.planned(plan)
