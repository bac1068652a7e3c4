"""Each scenario in its short form: nothing acknowledged is lost or doubled. `make chaos` runs the long one.

`CHAOS_SEED` gives other blows than those of every day; whoever fails names the seed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chaos.concurrency import cold_start, crowd
from chaos.disk import can_mount, fill_disk
from chaos.kills import kill_runs, kill_workers, pause, stop_runs
from chaos.points import fault_points
from chaos.reproduce import reproduce

CHOSEN = int(os.environ.get("CHAOS_SEED", "7"))
pytestmark = pytest.mark.slow
# one after the other, for all are compared with one undisturbed study; the two that take longest by themselves
kills, others = pytest.mark.xdist_group("kills"), pytest.mark.xdist_group("chaos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


def right(figures: dict[str, Any]) -> bool:
    assert not figures["violations"], f"seed {CHOSEN}: {figures}"
    return True


@kills
def test_killed_workers_lose_and_double_no_trial(folder: Path) -> None:
    figures = kill_workers(CHOSEN, folder, kills=8, per_study=8, workers=4)
    assert right(figures)
    assert figures["kills"] == 8


@kills
def test_killed_runs_lose_and_double_no_trial(folder: Path) -> None:
    figures = kill_runs(CHOSEN, folder, kills=3, per_study=3)
    assert right(figures)
    assert figures["kills"] == 3


@others
def test_runs_that_are_told_to_stop_do_so_in_time_and_go_on(folder: Path) -> None:
    figures = stop_runs(CHOSEN, folder, once=1, twice=1)
    assert right(figures)
    assert figures["stops"] == 2


@others
def test_a_pause_of_two_leases_ends_nothing(folder: Path) -> None:
    figures = pause(CHOSEN, folder, rounds=1, seconds=3.0, env={"TUNER_LEASE_SECONDS": "1.5"})
    assert right(figures)
    assert figures["paused"] == 1


@others
def test_faults_at_named_points_lose_and_double_no_trial(folder: Path) -> None:
    points, actions = ("before_tell",), ("kill9", "enospc")
    figures = fault_points(CHOSEN, folder, rounds=1, hold=1.0, points=points, actions=actions, per_study=2)
    assert right(figures)
    assert (figures["fired"], figures["never_fired"]) == (2, [])


@others
def test_a_full_disk_loses_no_trial(folder: Path) -> None:
    if reason := can_mount(folder):
        pytest.skip(reason)
    figures = fill_disk(CHOSEN, folder, levels=1)
    assert right(figures)
    assert figures["full"] == 1


@others
def test_processes_that_start_at_once_on_nothing_all_live_and_one_gets_what_all_want(folder: Path) -> None:
    assert right(cold_start(CHOSEN, folder, rounds=3, processes=4))


@others
def test_processes_that_write_at_once_are_never_told_that_it_is_locked_and_lose_nothing(folder: Path) -> None:
    assert right(crowd(CHOSEN, folder, sqlite=(3, 10), server=(3, 10)))


@others
def test_the_weights_are_the_same_after_kills(folder: Path) -> None:
    figures = reproduce(CHOSEN, folder, trials=4, workers=(1,), spaces=("mlp",))
    assert right(figures)
    assert figures["kills"] == 2
