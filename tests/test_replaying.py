"""`tuner replay`: a trial trained again is the one that was stored, byte for byte; where it isn't, that is said."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, call, files, write

from tuner.rows import about
from tuner.sealing import seal, unseal
from tuner.tuning import tune

NET = """
import torch
def net(config, shape):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape.input[0], {units}), torch.nn.ReLU(),
                               torch.nn.Linear({units}, shape.outputs))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    text = SMALL.replace("{low: 2, high: 4}", "{low: 6, high: 9}")
    tune(write(folder / "small.yaml", text), trials=8, studies_dir=folder / "studies")
    folds = SMALL.replace("study: small", "study: folds").replace("sklearn:wine", "sklearn:wine, split: {folds: 2}")
    tune(write(folder / "folds.yaml", folds), studies_dir=folder / "studies")
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def states(folder: Path) -> dict[int, str]:
    with sqlite3.connect(folder / "studies" / "tuner.db") as connection:
        query = "SELECT number, state FROM trials JOIN studies USING (study_id) WHERE study_name = 'small'"
        found = dict(connection.execute(query))
    connection.close()
    return found


def test_every_trial_comes_out_as_it_was_stored_and_nothing_is_written(here: Path, capsys: Any) -> None:
    before = files(here)
    assert "PRUNED" in states(here).values(), "else only complete trials are put to the test"
    for number in states(here):
        said = call(capsys, "replay", "small", "--trial", str(number))
        assert said.code == 0, said.out + said.err
        assert "every figure and the weights are the same, byte for byte" in said.out
    assert files(here) == before


def test_folds_are_replayed_one_by_one(here: Path, capsys: Any) -> None:
    said = call(capsys, "replay", "folds", "--trial", "1", "--json")
    assert said.code == 0, said.err
    assert said.document["same"] is True
    assert len(said.document["weights"]) == 2
    assert said.document["found"] == said.document["weights"]


@pytest.mark.parametrize(("key", "what"), [("weights", "the weights aren't the same"), ("curve", "epoch 2: val")])
def test_what_differs_is_said_and_is_a_failure(tmp_path: Path, key: str, what: str, capsys: Any) -> None:
    tune(write(tmp_path / "small.yaml"), trials=1, studies_dir=tmp_path / "studies")
    where, covered = "key = 'tuner' AND trial_id = 1", about("small", 0, "complete")
    with sqlite3.connect(tmp_path / "studies" / "tuner.db") as connection:
        (text,) = connection.execute(f"SELECT value_json FROM trial_system_attributes WHERE {where}").fetchone()
        record, _ = unseal(text, covered)
        if key == "weights":
            record["weights"] = ["0" * 64]
        else:
            record["curve"]["series"]["val.loss"][1] += 1e-6
        connection.execute(f"UPDATE trial_system_attributes SET value_json = ? WHERE {where}", [seal(record, covered)])
    connection.close()
    said = call(capsys, "replay", "small", "--trial", "0", "--studies-dir", tmp_path / "studies")
    assert said.code == 1
    assert what in said.out
    assert "nothing is known to have changed since" in said.out


def test_other_code_of_tuners_own_is_named(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.machine.this_code", lambda: "SHA-256 of another")
    tune(write(tmp_path / "small.yaml"), trials=1, confirm=False, studies_dir=tmp_path / "studies")
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "studies" / "tuner.db") as connection:
        where, covered = "key = 'tuner' AND trial_id = 1", about("small", 0, "complete")
        (text,) = connection.execute(f"SELECT value_json FROM trial_system_attributes WHERE {where}").fetchone()
        record = unseal(text, covered)[0] | {"weights": ["0" * 64]}
        connection.execute(f"UPDATE trial_system_attributes SET value_json = ? WHERE {where}", [seal(record, covered)])
    connection.close()
    said = call(capsys, "replay", "small", "--trial", "0", "--studies-dir", tmp_path / "studies")
    assert "changed since: tuner's code SHA-256 of another -> SHA-256" in said.out


@pytest.mark.slow
def test_code_that_was_changed_is_named(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "replayed_net.py", NET.format(units=5))
    space = "study: own\ndata: {source: sklearn:wine}\nmodel: {family: replayed_net:net}\ntraining: {epochs: 2}\n"
    tune(write(tmp_path / "own.yaml", space), trials=1, confirm=False, studies_dir=tmp_path / "studies")
    words = ("replay", "own", "--trial", "0", "--studies-dir", tmp_path / "studies")
    assert call(capsys, *words).code == 0
    write(tmp_path / "replayed_net.py", NET.format(units=6))
    said = call(capsys, *words)
    assert said.code == 1
    assert "changed since: replayed_net SHA-256" in said.out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("small", "--trial", "99"), "tuner: --trial 99: there is none such in study 'small'; its trials are 0 to 7"),
        (("smal", "--trial", "0"), "no study 'smal' (did you mean 'small'?)"),
    ],
)
def test_a_trial_that_is_not_there_is_told_in_one_line(here: Path, words: Any, what: str, capsys: Any) -> None:
    said = call(capsys, "replay", *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert what in said.err
