"""The ledger of a study: what ended is in it before the database says so, and of a damaged one only what was written is
believed."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from command import tuner, write
from hypothesis import given
from hypothesis import strategies as st

from tuner import ledger
from tuner.errors import StorageError
from tuner.ledger import LEDGER
from tuner.sealing import seal, unseal
from tuner.storage import open_storage
from tuner.store import Store
from tuner.study import open_study
from tuner.tuning import tune

ENTRIES: list[ledger.Entry] = [
    ledger.head({"name": "small"}, "../tuner.db"),
    {"trial": 0, "state": "running", "record": {"x": 0.5}},
    {"trial": 0, "state": "complete", "record": {"x": 0.5, "score": float("nan")}},
    ledger.fact("test", {"looks": 1}),
    {"trial": 1, "state": "failed", "record": {"error": "é\n"}},
    ledger.fact("test", {"looks": 2}),
]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / LEDGER
    ledger.begin(path, ENTRIES)
    return path


def test_the_last_line_of_a_trial_and_of_a_fact_wins(book: Path) -> None:
    found = ledger.read(book)
    assert {number: entry["state"] for number, entry in found.trials.items()} == {0: "complete", 1: "failed"}
    assert found.facts == {"test": {"looks": 2}}
    assert (found.study, found.place, found.damaged) == ({"name": "small"}, "../tuner.db", [])
    assert ledger.proven(book) == ({"name": "small"}, {0, 1})


def test_a_ledger_is_its_owners_alone(book: Path) -> None:
    assert stat.S_IMODE(book.stat().st_mode) == 0o600


def test_a_trial_that_has_only_begun_proves_no_end(tmp_path: Path) -> None:
    ledger.append(tmp_path / LEDGER, *ENTRIES[:2])
    assert ledger.proven(tmp_path / LEDGER) == ({"name": "small"}, set())


def test_after_a_torn_line_the_next_one_begins_on_its_own(book: Path) -> None:
    whole = book.read_bytes()
    book.write_bytes(whole[:-20])
    ledger.append(book, {"trial": 2, "state": "complete", "record": {}})
    found = ledger.read(book)
    assert (sorted(found.trials), found.facts, found.damaged) == ([0, 1, 2], {"test": {"looks": 1}}, [6])


@given(at=st.integers(0), cut=st.booleans(), bits=st.lists(st.integers(0), min_size=1, max_size=3, unique=True))
def test_of_a_damaged_ledger_only_lines_are_believed_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: bool, bits: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    data = bytearray("".join(seal(entry, ledger.ABOUT) + "\n" for entry in ENTRIES).encode())
    if cut:
        del data[at % len(data) :]
    else:
        for bit in bits:
            data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)
    found, written = ledger.read(path), [json.dumps(entry) for entry in ENTRIES]
    for entry in found.trials.values():
        assert json.dumps(entry) in written
    assert all(json.dumps(ledger.fact(key, value)) in written for key, value in found.facts.items())
    assert found.study in (None, {"name": "small"})
    study, trials = ledger.proven(path)
    assert study == found.study
    assert trials == {number for number, entry in found.trials.items() if ledger.ended(entry)}


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1), st.integers(0), st.text())
def test_a_sealed_document_comes_back_as_it_was_or_not_at_all(document: dict[str, Any], bit: int, about: str) -> None:
    about = about.encode("utf-8", "ignore").decode()
    text = seal(document, about)
    assert unseal(text, about) == (document, True)
    data = bytearray(text.encode())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    try:
        found, sealed = unseal(bytes(data), about)
    except ValueError:
        return
    assert not sealed, found  # its checksum is beyond recognition, so it counts as one that never had any


def test_a_checksum_is_of_one_thing_alone() -> None:
    with pytest.raises(ValueError, match="checksum"):
        unseal(seal({"a": 1}, "trial 1"), "trial 2")


# A study's ledger.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    return tmp_path


def stored(folder: Path) -> Store:
    store = Store.load(open_storage(f"sqlite:///{folder}/studies/tuner.db", read_only=True), "small")
    assert store is not None
    return store


def check_complete(folder: Path) -> None:
    """Check that a ledger says of every trial, and of what lasts, what the database says."""
    store, found = stored(folder), ledger.read(folder / "studies/small" / LEDGER)
    assert found.study == json.loads(json.dumps(store.study.to_json()))
    assert [json.dumps(entry) for entry in store.entries(store.records())] == list(
        map(json.dumps, found.trials.values())
    )
    assert found.facts == store.told()
    store.close()


def test_a_ledger_holds_what_the_database_holds(here: Path) -> None:
    tune("small.yaml", confirm=True)
    check_complete(here)


def test_a_study_from_before_there_was_a_ledger_gets_one_when_it_is_run(here: Path) -> None:
    tune("small.yaml", trials=2)
    (here / "studies/small" / LEDGER).unlink()
    open_study("small")
    tune("small.yaml", trials=3)
    check_complete(here)


def test_lines_that_are_lost_from_a_ledger_are_written_again_when_it_is_run(here: Path) -> None:
    tune("small.yaml", trials=2)
    path = here / "studies/small" / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], *lines[5:]])[:-10])
    tune("small.yaml", trials=3)
    check_complete(here)


def test_a_trial_killed_between_ledger_and_database_is_trained_again_and_comes_out_the_same(here: Path) -> None:
    alone = tune("small.yaml", studies_dir="alone").document
    killed = tuner("run", "small.yaml", "--quiet", cwd=here, env={"TUNER_FAULT": "after_ledger:2:kill9"})
    assert killed.code == -9
    store, path = stored(here), here / "studies/small" / LEDGER
    assert [record.state for record in store.records()] == ["complete", "running"]
    assert ledger.read(path).trials[1]["state"] == "complete"
    store.close()
    found = tune("small.yaml").document
    for key in ("best", "trials", "verdicts", "epochs"):
        assert found[key] == alone[key]
    check_complete(here)


def test_nothing_is_acknowledged_that_the_ledger_has_not(here: Path) -> None:
    killed = tuner("run", "small.yaml", "--quiet", cwd=here, env={"TUNER_FAULT": "before_ledger:2:kill9"})
    assert killed.code == -9
    assert ledger.proven(here / "studies/small" / LEDGER)[1] == {0}
    store = stored(here)
    assert [record.state for record in store.records()] == ["complete", "running"]
    store.close()


def test_a_disk_that_is_full_when_the_ledger_is_written_is_waited_for(here: Path) -> None:
    said = tuner("run", "small.yaml", "--quiet", cwd=here, env={"TUNER_FAULT": "before_ledger:2:enospc"})
    assert said.code == 0, said.err
    assert f"{LEDGER}: can't be written (No space left on device" in said.err
    assert "waiting for room" in said.err
    check_complete(here)


def test_a_ledger_that_cannot_be_written_is_an_error_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / LEDGER).mkdir()
    with pytest.raises(StorageError, match="can't be written"):
        ledger.append(tmp_path / LEDGER, ENTRIES[0])
    with pytest.raises(StorageError, match="can't be read"):
        ledger.read(tmp_path / LEDGER)


def test_the_ledger_of_another_study_of_this_name_is_left_as_it_is(here: Path) -> None:
    tune("small.yaml", trials=2)
    path = here / "studies/small" / LEDGER
    mine = ledger.read(path)
    assert mine.study is not None
    ledger.begin(path, [ledger.head({**mine.study, "created": "2020-01-01"}, mine.place)])
    before = path.read_bytes()
    open_study("small")
    with pytest.raises(StorageError, match="is the ledger of another study"):
        tune("small.yaml", trials=3)
    assert path.read_bytes() == before


def test_a_folder_whose_study_was_killed_while_it_was_made_is_used_again(here: Path) -> None:
    (here / "studies/small").mkdir(parents=True)
    ledger.begin(here / "studies/small" / LEDGER, [ledger.head({"name": "small"}, "../tuner.db")])
    assert tune("small.yaml", trials=1).document["trials"]["total"] == 1
    check_complete(here)
