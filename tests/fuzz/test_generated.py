"""A small part of the generated files that a release is tried with (`python -m tests.fuzz --count 100000`)."""

from __future__ import annotations

from pathlib import Path

from .generated import SECONDS, run, try_one

COUNT = 2000


def test_generated_files_are_taken_or_refused_as_the_users_mistake_within_a_second(tmp_path: Path) -> None:
    found = run(seed=0, count=COUNT, folder=tmp_path)
    assert found["faults"] == []
    assert (found["tried"], found["tracebacks"]) == (COUNT, 0)
    assert found["slowest"]["seconds"] < SECONDS
    assert all(kind["accepted"] > 0 for kind in found["kinds"].values()), "what is always refused tries little"
    assert set(found["refused"]) == {2, 3}


def test_a_case_is_the_same_every_time(tmp_path: Path) -> None:
    for number in range(40):
        first = try_one(5, number, tmp_path / "a")
        again = try_one(5, number, tmp_path / "b")
        assert (first.kind, first.code, first.fault) == (again.kind, again.code, again.fault)
