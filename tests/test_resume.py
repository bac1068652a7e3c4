"""A study that is stopped, killed or crowded: nothing that had ended is lost, and the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, SMALL, call, spawn, write

from tuner import tasks
from tuner.confirmation import Repeating
from tuner.curve import Curve, Epoch
from tuner.grammar import Override
from tuner.planning import prepare
from tuner.record import TrialRecord
from tuner.study import open_study
from tuner.tuning import conduct, tune

# trials of some tenths of a second, so that a kill hits one in its middle
LONG = SMALL.replace("{low: 2, high: 4}", "{low: 40, high: 60}") + "stopping: none\nsearch: {sampler: random}\n"
ENDED = re.compile(r"^ +(\d+)  .* (complete|pruned|failed)\b", re.MULTILINE)
REPEATED = re.compile(r"^ +(\d+)  confirm (\d)/\d ")


def trials_of(folder: Path) -> dict[int, TrialRecord]:
    """Return the trials of the study without what a clock says of them."""
    records = open_study("small", studies_dir=folder / "studies").trials
    return {number: timeless(record) for number, record in records.items()}


def timeless(record: TrialRecord) -> TrialRecord:
    curve = record.curve if record.curve is None else without_seconds(record.curve)
    # what rule `behind` would have done depends on who else had ended by then, which two workers make a matter of time
    rules = {kind: epoch for kind, epoch in record.rules.items() if kind != "behind"}
    return replace(record, seconds=0.0, curve=curve, rules=rules, folds=tuple(map(without_seconds, record.folds)))


def without_seconds(curve: Curve) -> Curve:
    return replace(curve, epochs=tuple(replace(epoch, seconds=0.0) for epoch in curve.epochs))


def workers_below(folder: Path) -> list[int]:
    """Return the processes that train for a study that was started in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, place = (process / "cmdline").read_bytes().split(b"\0"), (process / "cwd").readlink()
        except OSError:
            continue
        if b"tuner.workers" in words and place == folder.resolve():
            found.append(int(process.name))
    return found


def await_none(folder: Path) -> None:
    """Wait until no worker is left: a dead parent's are killed by the kernel, which takes a moment."""
    end = time.monotonic() + 20
    while workers_below(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not workers_below(folder)


def lines_until(process: subprocess.Popen[str], ended: int) -> Iterator[str]:
    """Yield what a run says, until so many trials have ended in it."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        ended -= bool(ENDED.match(line))
        if ended <= 0 and line.split()[:1] != ["study"]:
            return


def check_database(folder: Path, trials: int) -> None:
    with sqlite3.connect(folder / "studies" / "tuner.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        numbers = [row[0] for row in connection.execute("SELECT number FROM trials ORDER BY number")]
        states = {row[0] for row in connection.execute("SELECT DISTINCT state FROM trials")}
    connection.close()
    assert numbers == list(range(trials))
    assert not states & {"RUNNING", "WAITING"}


def running(folder: Path) -> int:
    with sqlite3.connect(folder / "studies" / "tuner.db") as connection:
        (found,) = connection.execute("SELECT count(*) FROM trials WHERE state = 'RUNNING'").fetchone()
    connection.close()
    return int(found)


def kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_main(process: subprocess.Popen[str]) -> None:
    process.kill()


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TrialRecord]:
    """The trials of the long study when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("alone")
    tune(write(folder / "small.yaml", LONG), trials=5, studies_dir=folder / "studies")
    return trials_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "kills"), [(2, ((0, kill_group), (2, kill_main))), (1, ((0, kill_group), (2, kill_group)))]
)
def test_a_killed_study_is_finished_by_the_same_command(
    tmp_path: Path, workers: int, kills: Any, left_alone: dict[int, TrialRecord], capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml", LONG)
    words = ["run", "small.yaml", "--trials", "5", "--workers", str(workers)]
    told: set[int] = set()
    for ended, kill in kills:
        process = spawn(*words, cwd=tmp_path)
        for line in lines_until(process, ended):
            if match := ENDED.match(line):
                assert int(match[1]) not in told, "a trial that had ended was run again"
                told.add(int(match[1]))
        time.sleep(0.1)
        kill(process)
        process.communicate(timeout=SECONDS)
        await_none(tmp_path)
    said = call(capsys, *words, "--json")
    assert said.code == 0, said.err
    assert said.document["trials"]["total"] == said.document["trials"]["complete"] == 5
    assert said.document["test"]["looks"] == 1
    check_database(tmp_path, 5)
    again = {int(match[1]) for line in said.err.splitlines() if (match := ENDED.match(line))}
    assert not told & again
    assert not list((tmp_path / "studies").rglob("*.part"))
    assert trials_of(tmp_path) == left_alone


@pytest.mark.slow
def test_a_study_killed_in_its_confirmation_goes_on_there(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = LONG.replace("confirm: false", "confirm: true")
    alone = tune(write(tmp_path / "small.yaml", text), trials=4, studies_dir=tmp_path / "alone").document
    words = ["run", "small.yaml", "--trials", "4", "--workers", "2"]
    told: set[tuple[str | Any, ...]] = set()
    for repeats in (1, 3):
        process = spawn(*words, cwd=tmp_path)
        assert process.stderr is not None
        for line in process.stderr:
            if match := REPEATED.match(line):
                assert match.groups() not in told, "a run that had ended was made again"
                told.add(match.groups())
                repeats -= 1
            if repeats <= 0:
                break
        time.sleep(0.05)
        kill_group(process)
        process.communicate(timeout=SECONDS)
        await_none(tmp_path)
    said = call(capsys, *words, "--json")
    assert said.code == 0, said.err
    again = {match.groups() for line in said.err.splitlines() if (match := REPEATED.match(line))}
    assert not told & again
    assert not ENDED.search(said.err), "no trial was run again"
    assert said.document["test"]["looks"] == 1
    check_database(tmp_path, 4)
    for key in ("confirmed", "best", "trials"):
        assert said.document[key] == alone[key]


@pytest.mark.slow
def test_a_worker_killed_in_a_trial_costs_nothing_but_time(tmp_path: Path, left_alone: dict[int, TrialRecord]) -> None:
    write(tmp_path / "small.yaml", LONG)
    process = spawn("run", "small.yaml", "--trials", "5", "--workers", "2", "--json", cwd=tmp_path)
    for _ in lines_until(process, 1):
        pass
    time.sleep(0.1)
    os.kill(workers_below(tmp_path)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert '"complete": 5' in out
    check_database(tmp_path, 5)
    await_none(tmp_path)
    assert trials_of(tmp_path) == left_alone


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code", "workers"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_a_stopped_study_ends_cleanly_and_goes_on(
    tmp_path: Path, sign: signal.Signals, code: int, workers: int, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "small.yaml", LONG)
    # more trials than can end before the signal comes, however late that is
    process = spawn("run", "small.yaml", "--trials", "500", "--workers", str(workers), "--json", cwd=tmp_path)
    for _ in lines_until(process, 1):
        pass
    os.killpg(process.pid, sign)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("tuner: stopped; no trial that had ended is lost")
    assert running(tmp_path) == 0
    await_none(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "show", "small").code == 0
    goal = len(trials_of(tmp_path)) + 2
    said = call(capsys, "run", "small.yaml", "--trials", str(goal), "--json")
    assert (said.code, said.document["trials"]["complete"]) == (0, goal)
    check_database(tmp_path, goal)


JUDGED = SMALL.replace("{low: 2, high: 4}", "{low: 6, high: 10}")  # long enough for the rules, short enough to repeat


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TrialRecord]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    tune(write(folder / "small.yaml", JUDGED), trials=16, studies_dir=folder / "studies")
    return trials_of(folder)


@pytest.mark.parametrize("epochs", [1, 9, 40, 75, 110])
def test_an_interrupted_study_ends_as_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: dict[int, TrialRecord], epochs: int
) -> None:
    path = write(tmp_path / "small.yaml", JUDGED)
    plan = prepare(path, studies_dir=tmp_path / "studies")
    plan = replace(plan, space=replace(plan.space, config=plan.space.config.replace({"budget.trials": 16})))
    for _ in range(2):
        run = conduct(plan)
        for _ in range(epochs):
            next(run, None)
        run.close()
        assert running(tmp_path) == 0
    tune(path, trials=16, studies_dir=tmp_path / "studies")
    assert any(record.state == "pruned" for record in uninterrupted.values()), "else the rules were not put to the test"
    assert trials_of(tmp_path) == uninterrupted


FOLDED = JUDGED.replace("{source: sklearn:wine}", "{source: sklearn:wine, split: {folds: 3}}")


@pytest.mark.parametrize("text", [JUDGED, FOLDED], ids=["plain", "folds"])
def test_a_trial_that_was_cut_off_goes_on_from_its_state(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)
    steps: list[int] = []
    step = tasks.TaskRun.step

    def counted(run: tasks.TaskRun) -> Epoch:
        steps.append(run.task.number)
        return step(run)

    monkeypatch.setattr(tasks.TaskRun, "step", counted)
    path = write(tmp_path / "small.yaml", text)
    tune(path, trials=5, studies_dir=tmp_path / "alone" / "studies")
    alone, whole = trials_of(tmp_path / "alone"), len(steps)
    steps.clear()
    for epochs in (4, 1, 9, 13):
        run = conduct(prepare(path, studies_dir=tmp_path / "studies"))
        for _ in range(epochs):
            next(run, None)
        run.close()
        if len(steps) < whole:
            assert list((tmp_path / "studies" / "small" / "checkpoints").iterdir())
    tune(path, trials=5, studies_dir=tmp_path / "studies")
    assert trials_of(tmp_path) == alone
    assert len(steps) == whole, "an epoch was trained twice"
    assert not (tmp_path / "studies" / "small" / "checkpoints").exists()


def test_a_confirmation_that_was_cut_off_goes_on_from_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "STATE_RATIO", 0.0)
    text = JUDGED.replace("confirm: false", "confirm: true")
    path = write(tmp_path / "small.yaml", text)
    alone = tune(path, trials=3, studies_dir=tmp_path / "alone").document
    run = conduct(prepare(path, overrides=[Override("budget.trials", "3", "test")], studies_dir=tmp_path / "studies"))
    going = 0
    for news in run:
        going += isinstance(news, Repeating)
        if going == 4:
            break
    run.close()
    kept = [place.name for place in (tmp_path / "studies" / "small" / "checkpoints").iterdir()]
    assert any(name.startswith("repeat-") for name in kept), kept
    again = tune(path, trials=3, studies_dir=tmp_path / "studies").document
    for key in ("confirmed", "best", "trials", "test"):
        assert again[key] == alone[key]


@pytest.mark.slow
def test_the_same_trial_is_the_same_with_one_worker_and_with_two(tmp_path: Path) -> None:
    space = SMALL + "stopping: none\nsearch: {sampler: random}\n"
    for workers in (1, 2):
        path = write(tmp_path / str(workers) / "small.yaml", space)
        tune(path, trials=10, workers=workers, studies_dir=path.parent / "studies")
    assert trials_of(tmp_path / "1") == trials_of(tmp_path / "2")
    models = [tmp_path / workers / "studies" / "small" / "model.safetensors" for workers in "12"]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert not workers_below(tmp_path)


def test_a_second_run_of_a_study_at_once_is_refused_in_one_line(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = conduct(prepare(write(tmp_path / "small.yaml")))
    try:
        next(run)
        said = call(capsys, "run", "small.yaml")
        assert (said.code, said.out) == (2, "")
        assert said.err == (
            f"tuner: study 'small' is being run by process {os.getpid()}; wait, or choose --study-name\n"
        )
        assert call(capsys, "show", "small").code == 0, "reading is allowed meanwhile"
        assert call(capsys, "run", "small.yaml", "--study-name", "other", "--trials", "1").code == 0
    finally:
        run.close()
    assert call(capsys, "run", "small.yaml").code == 0


def test_a_study_under_way_shows_its_running_trial(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = conduct(prepare(write(tmp_path / "small.yaml")))
    next(run)
    assert call(capsys, "show", "small", "--json").document["trials"]["running"] == 1
    assert "No trial is complete" in call(capsys, "show", "small").out
    assert "under way" in call(capsys, "show", "small", "--trial", "0").out
    run.close()
    assert call(capsys, "list").out.splitlines()[1].split()[:3] == ["small", "1", "1"]


def test_the_time_that_a_killed_run_has_taken_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.tuning.KEEP_TIME", 0.0)
    run = conduct(prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies"))
    for news in run:
        if isinstance(news, TrialRecord) and news.ended and news.number == 1:
            break
    # nothing is closed yet: a kill at this moment finds the storage like this
    kept = open_study("small", studies_dir=tmp_path / "studies").document["seconds"]
    assert kept > 0
    run.close()
    assert open_study("small", studies_dir=tmp_path / "studies").document["seconds"] >= kept
