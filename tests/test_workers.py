"""Engines: what a trial's worker may do, a trial is what it is and none is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, write

import tuner.opening
from tuner.again import TOGETHER, Again, retrain
from tuner.engine import Ended, Failed, Task, Trained, Unsaved
from tuner.planning import Plan, prepare
from tuner.space import Space
from tuner.tasks import InProcess
from tuner.tuning import conduct, tune
from tuner.workers import Parents, Processes, early


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies")


def first_task(plan: Plan) -> Task:
    return Task(0, plan.space.config, 7, plan.space.folder)


def test_an_engine_gives_one_event_for_each_order(plan: Plan, tmp_path: Path) -> None:
    engine = InProcess()
    engine.take(plan.folds[0])
    assert engine.next() is None
    engine.start(first_task(plan))
    event = engine.next()
    assert isinstance(event, Trained)
    assert event.epoch.number == 1
    assert engine.next() is None, "it waits to be told"
    engine.go(0)
    engine.next()
    engine.stop(0, tmp_path / "w.safetensors")
    ended = engine.next()
    assert isinstance(ended, Ended)
    assert ended.model["parameters"] > 0
    assert (tmp_path / "w.safetensors").exists()
    engine.close()


def test_weights_that_cant_be_written_are_no_fault_of_the_trial(plan: Plan, tmp_path: Path) -> None:
    engine = InProcess()
    engine.take(plan.folds[0])
    engine.start(first_task(plan))
    engine.next()
    write(tmp_path / "file", "")
    engine.stop(0, tmp_path / "file" / "w.safetensors")
    event = engine.next()
    assert isinstance(event, Unsaved)
    assert "w.safetensors" in event.error
    engine.close()


def test_a_trial_trained_again_has_the_same_weights(plan: Plan, tmp_path: Path) -> None:
    engine = InProcess()
    engine.take(plan.folds[0])
    for name in ("a", "b"):
        list(retrain(engine, [Again(first_task(plan), 2, tmp_path / name)]))
    engine.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_engine_that_was_cleared_in_the_middle_of_trials_takes_others(plan: Plan, tmp_path: Path) -> None:
    engine = Processes(2, tmp_path / "data", tmp_path / "features")
    try:
        assert engine.take(plan.splits) == 0
        long = plan.space.config.replace({"training.epochs": 50_000})
        for number in (0, 1):
            engine.start(Task(number, long, 7, plan.space.folder))
        engine.next()
        engine.clear()
        jobs = [Again(replace(first_task(plan), number=n), 2, tmp_path / f"{n}") for n in (0, 5, 6)]
        list(retrain(engine, jobs))
    finally:
        engine.close()
    assert len({job.save.read_bytes() for job in jobs}) == 1


def files_of(process: int) -> set[str]:
    """Return the files of shared data that a process maps, as folder/file."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {"/".join(line.split()[-1].split("/")[-2:]) for line in lines if line.endswith(".npy")}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's account of memory")
def test_workers_map_one_copy_of_the_rows_and_only_of_those_that_they_train_on(plan: Plan, tmp_path: Path) -> None:
    engine = Processes(2, tmp_path / "data", tmp_path / "features")
    try:
        for number in (0, 1):
            assert engine.take(plan.splits) == number
        for splits in (0, 1):
            for number in (0, 1):
                engine.start(replace(first_task(plan), number=number, splits=splits))
            assert all(isinstance(engine.next(), Trained) for _ in range(2))
            for worker in engine.workers:
                there = files_of(worker.process)
                assert {f"splits-{splits}/train.x.npy", f"splits-{splits}/val.x.npy"} <= there
                assert {name.split("/")[0] for name in there} == {f"splits-{splits}"}
            for number in (0, 1):
                engine.stop(number, None)
                engine.next()
    finally:
        engine.close()


@pytest.mark.parametrize("in_process", [True, False])
def test_rows_that_are_let_go_leave_nothing_and_others_stay(plan: Plan, tmp_path: Path, in_process: bool) -> None:
    data = tmp_path / "data"
    engine = InProcess() if in_process else Processes(1, data, tmp_path / "features")
    try:
        for _ in range(2):
            engine.take(plan.splits)
        engine.drop(0)
        assert in_process or [place.name for place in data.iterdir()] == ["splits-1"]
        assert engine.take(plan.splits) == 2
        engine.drop(2)
        list(retrain(engine, [Again(replace(first_task(plan), splits=1), 2, tmp_path / "w")]))
    finally:
        engine.close()
    assert (tmp_path / "w").exists()


def test_torchs_settings_are_put_back_when_an_engine_closes(plan: Plan) -> None:
    import torch

    before = torch.get_num_threads()
    engine = InProcess()
    engine.take(plan.folds[0])
    engine.start(first_task(plan))
    assert torch.get_num_threads() == 1
    engine.close()
    assert torch.get_num_threads() == before


class Dying(InProcess):
    """Stands for a worker that dies when it is told to stop, some times."""

    deaths, together = 1, False

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        if Dying.deaths > 0:
            Dying.deaths -= 1
            self.events.append(Failed(number, "the worker process died (signal SIGKILL)", True, Dying.together))
        else:
            super().stop(number, save, newest)


def test_a_trial_whose_worker_died_at_its_end_runs_again_and_is_told_once(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tune(tmp_path / "small.yaml", studies_dir=tmp_path / "alone")
    monkeypatch.setattr(tuner.opening, "InProcess", Dying)
    monkeypatch.setattr(Dying, "deaths", 1)
    ended = [record for record in conduct(plan) if record.state != "running"]
    assert [record.number for record in ended] == [0, 1, 2]
    assert [record.score for record in ended] == [record.score for record in alone.trials.values()]


def test_a_trial_whose_worker_died_twice_has_failed_and_the_search_goes_on(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner.opening, "InProcess", Dying)
    monkeypatch.setattr(Dying, "deaths", 2)
    ended = [record for record in conduct(plan) if record.state != "running"]
    assert [record.state for record in ended] == ["failed", "complete", "complete"]
    assert ended[0].reason == "the worker process died (signal SIGKILL)"
    assert ended[0].score is None


@pytest.mark.parametrize(("deaths", "state"), [(2, "complete"), (TOGETHER + 2, "failed")])
def test_what_takes_all_workers_along_is_held_against_no_trial_unless_it_is_there_each_time(
    deaths: int, state: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner.opening, "InProcess", Dying)
    monkeypatch.setattr(Dying, "deaths", deaths)
    monkeypatch.setattr(Dying, "together", True)
    ended = [record for record in conduct(plan) if record.state != "running"]
    assert [record.state for record in ended] == [state, "complete", "complete"]


def test_every_trial_that_diverges_ends_the_study_with_a_word(tmp_path: Path) -> None:
    space = SMALL.replace("wine", "diabetes").replace("{low: 3e-3, high: 3e-2, log: true}", "10.0")
    space = space.replace("{low: 2, high: 4}", "30").replace("training: {", "training: {warmup: 0.0, ")
    space = space.replace("depth: {low: 1, high: 2}", "depth: {low: 7, high: 8}")
    path = write(tmp_path / "small.yaml", space)
    for _ in range(2):  # the same again, when there is nothing left to run
        with pytest.raises(tuner.TunerError, match=r"every trial diverged \(2 of 2\); trial 0: ") as said:
            tune(path, trials=2, studies_dir=tmp_path / "studies")
        assert said.value.exit_code == 1


def test_the_test_rows_are_never_given_to_what_trains(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Watching(InProcess):
        def start(self, task: Task) -> None:
            seen.append(self.splits[task.splits].test)
            super().start(task)

    monkeypatch.setattr(tuner.opening, "InProcess", Watching)
    for _ in conduct(replace(plan)):
        pass
    assert plan.splits.test is not None
    assert seen == [None] * 3


def test_workers_that_started_early_train_the_same_and_end_where_they_are_not_needed(
    plan: Plan, tmp_path: Path
) -> None:
    space = plan.space
    with early(replace_workers(space, 1)) as none:
        assert (none.spare, none.server) == ([], None), "this process trains itself"
    with early(replace_workers(space, 3)) as parents:
        started, server = list(parents.spare), parents.server
        assert len(started) == 3
        engine = Processes(2, tmp_path / "data", tmp_path / "features", parents)
        assert {worker.parent for worker in engine.workers} < set(started)
        engine.take(plan.splits)
        list(retrain(engine, [Again(first_task(plan), 2, tmp_path / "early")]))
        engine.close()
        assert [parent.wait(0) for parent in started] == [None, 0, 0]
    assert server is not None
    assert not server.alive
    alone = InProcess()
    alone.take(plan.splits)
    list(retrain(alone, [Again(first_task(plan), 2, tmp_path / "alone")]))
    alone.close()
    assert (tmp_path / "early").read_bytes() == (tmp_path / "alone").read_bytes()


def test_workers_that_are_still_starting_are_ended_at_once() -> None:
    parents = Parents(2)
    assert parents.server is not None
    parents.close()
    assert parents.server.process.returncode == -signal.SIGTERM, "it isn't waited for what it imports"


def replace_workers(space: Space, count: int) -> Space:
    return replace(space, config=space.config.replace({"budget.workers": count}))


FAULTS = """
import resource, torch
from tuner.serving import keep_memory
{call}
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        held = [torch.ones(12_000_000) for _ in range(3)]  # as a forward pass makes them
        while held:
            held.pop()  # and a backward pass lets them go
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
print(step())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is another one")
def test_memory_that_is_freed_in_a_step_is_there_for_the_next() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, check=True).stdout)
        for call in ("", "keep_memory()")
    ]
    assert faults[0] > 20 * max(1, faults[1]), faults
