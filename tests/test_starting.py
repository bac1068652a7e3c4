"""`tuner init`: data of every kind get a space that runs as it is written, and what is odd in them is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import Said, call
from PIL import Image

from tuner.grammar import read_space
from tuner.planning import prepare

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def table(folder: Path) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    frame = pd.DataFrame({"a": rng.normal(size=200) + y, "b": rng.choice(["x", "y"], 200), "label": y})
    frame.loc[:19, "a"] = np.nan
    frame.to_csv(folder / "rows.csv", index=False)
    return "rows.csv"


def numbers(folder: Path) -> str:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    pd.DataFrame(x, columns=list("abc")).assign(price=x.sum(1) + rng.normal(size=300)).to_parquet(folder / "p.parquet")
    return "p.parquet"


def texts(folder: Path) -> str:
    rng = np.random.default_rng(0)
    rows = [{"text": " ".join(rng.choice(WORDS, 6)) + f" {'good' if k % 2 else 'bad'}", "target": ["n", "p"][k % 2]}
            for k in range(200)]  # fmt: skip
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "t.jsonl"


def sequences(folder: Path) -> str:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    np.savez(folder / "s.npz", X=(rng.normal(size=(150, 20, 2)) + y[:, None, None]).astype(np.float32), y=y)
    return "s.npz"


def pictures(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for name, low in (("cats", 0), ("dogs", 100)):
        (folder / "pets" / name).mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(low, low + 100, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{k}.png")
    return "pets"


DATA = {"table": table, "numbers": numbers, "text": texts, "sequence": sequences, "image": pictures}


def init(capsys: Any, *words: str) -> Said:
    return call(capsys, "init", *words)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", DATA)
def test_data_of_every_kind_get_a_space_that_is_ready_to_run(here: Path, capsys: Any, kind: str) -> None:
    said = init(capsys, DATA[kind](here), "-o", "sub/space.yaml")
    assert said.code == 0, said.err
    space = read_space(here / "sub" / "space.yaml", [])
    plan = prepare(here / "sub" / "space.yaml", studies_dir=here / "studies")
    assert plan.study.data["kind"] == ("table" if kind == "numbers" else kind)
    assert {"regularization.dropout", "model.width", "training.learning_rate"} <= set(space.domains)
    assert f"next: tuner check {Path('sub/space.yaml')}" in said.err
    assert not (here / "studies").exists(), "nothing but the file is written"
    assert all(len(line) <= 120 for line in (here / "sub" / "space.yaml").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_a_study_of_it_runs(here: Path, capsys: Any, kind: str) -> None:
    assert init(capsys, DATA[kind](here)).code == 0
    words = ["--trials", "2", "--workers", "1", "--no-confirm", "-S", "training.epochs=1"]
    said = call(capsys, "run", "space.yaml", *words, "--json")
    assert said.code == 0, said.err
    assert said.document["best"] is not None


def test_a_target_is_proposed_by_its_name_or_its_place_and_that_is_said(here: Path, capsys: Any) -> None:
    said = init(capsys, table(here))
    assert "--target wasn't given: column 'label' is predicted, by its name" in said.err
    said = init(capsys, numbers(here), "-o", "p.yaml")
    assert "--target wasn't given: column 'price' is predicted, for it is the last one" in said.err
    said = init(capsys, "rows.csv", "--target", "b", "-o", "b.yaml")
    assert "target: b " in (here / "b.yaml").read_text()
    assert "wasn't given" not in said.err


def test_what_is_odd_in_the_data_is_said(here: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["rare", "usual"], [20, 180])
    frame = pd.DataFrame({"a": rng.normal(size=200), "leak": np.where(y == "rare", "r", "u"), "y": y})
    frame.insert(1, "b", rng.normal(size=200))
    frame.loc[:9, "a"] = np.nan
    pd.concat([frame, frame.tail(3)]).to_csv(here / "odd.csv", index=False)
    said = init(capsys, "odd.csv").err
    assert "unbalanced" in said
    assert "missing values in 1 column: a 5%" in said
    assert "3 rows repeat an earlier one" in said
    assert "leak" in said


def test_few_rows_of_a_table_are_scored_over_folds(here: Path, capsys: Any) -> None:
    assert init(capsys, table(here)).code == 0
    assert read_space(here / "space.yaml", []).config.data.split.folds == 5


def test_a_file_that_is_there_is_not_written_over_unless_asked(here: Path, capsys: Any) -> None:
    table(here)
    (here / "space.yaml").write_text("mine")
    said = init(capsys, "rows.csv")
    assert (said.code, said.err) == (2, "tuner: --out space.yaml: is there already; --force writes over it\n")
    assert (here / "space.yaml").read_text() == "mine"
    assert init(capsys, "rows.csv", "--force").code == 0
    assert (here / "space.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "DATA: name a file"), (["none.csv"], "none.csv: there is no such file or folder"),
     (["rows.csv", "--target", "labl"], "rows.csv: data.target: no column 'labl' (did you mean 'label'?)"),
     (["rows.csv", "--kind", "tabel"], "--kind tabel: one of table, image, text, sequence")],
)  # fmt: skip
def test_a_slip_is_one_line_and_nothing_is_written(here: Path, capsys: Any, words: list[str], said: str) -> None:
    table(here)
    found = init(capsys, *words)
    assert found.code in (2, 3)
    assert found.err.startswith(f"tuner: {said}")
    assert len(found.err.splitlines()) == 1
    assert not (here / "space.yaml").exists()


def test_the_ready_spaces_are_listed(capsys: Any) -> None:
    said = init(capsys, "--list")
    assert said.code == 0
    assert "digits.yaml" in said.out
    assert "Handwritten digits" in said.out


def test_names_that_yaml_would_take_for_something_else_are_quoted(here: Path, capsys: Any) -> None:
    table(here)
    frame = pd.read_csv(here / "rows.csv").rename(columns={"label": "yes: #1"})
    (here / "odd dir").mkdir()
    frame.to_csv(here / "odd dir" / "no.csv", index=False)
    assert init(capsys, "odd dir/no.csv", "--target", "yes: #1").code == 0
    assert prepare(here / "space.yaml", studies_dir=here / "studies").space.config.data.target == "yes: #1"


def test_what_gives_the_answer_away_is_told_and_the_rows_are_those_of_the_file_that_is_written(
    here: Path, capsys: Any
) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["stay", "churn"], 300)
    frame = pd.DataFrame({"a": rng.normal(size=300), "closed": y == "churn", "b": rng.normal(size=300), "y": y})
    frame.to_csv(here / "c.csv", index=False)
    said = " ".join(call(capsys, "init", "c.csv", "-o", "c.yaml").err.split())
    assert "column closed alone tells class 'churn' from the other" in said or "tells the class of every row" in said
    checked = call(capsys, "check", "c.yaml", "--json").document["data"]
    assert f"{checked['refit']} train and validation in {checked['folds']} folds, {checked['test']} test" in said


def test_the_data_themselves_are_never_written_over(here: Path, capsys: Any) -> None:
    pd.DataFrame({"a": np.linspace(0, 1, 40) ** 2, "b": [1, 2, 3, 4] * 10, "y": ["p", "q"] * 20}).to_csv(
        here / "d.csv", index=False
    )
    before = (here / "d.csv").read_bytes()
    for words in (["-o", "d.csv"], ["-o", "d.csv", "--force"], ["-o", str(here / "d.csv"), "--force"]):
        refused = call(capsys, "init", "d.csv", *words)
        assert (refused.code, "holds the data themselves" in refused.err) == (2, True)
    assert call(capsys, "init", "d.csv", "-o", "d.yaml").code == 0
    assert call(capsys, "run", "d.yaml", "--trials", "1", "--no-confirm").code == 0
    refused = call(capsys, "predict", "d", "d.csv", "--out", "d.csv")
    assert (refused.code, "holds the data themselves" in refused.err) == (2, True)
    assert (here / "d.csv").read_bytes() == before
    assert call(capsys, "init", "").code == 2


def test_a_column_that_tells_every_class_is_told_once(here: Path, capsys: Any) -> None:
    y = np.random.default_rng(0).integers(0, 2, 200)
    frame = pd.DataFrame({"a": np.random.default_rng(1).normal(size=200), "code": y * 3 + 1, "label": y})
    frame.to_csv(here / "rows.csv", index=False)
    said = init(capsys, "rows.csv")
    assert said.code == 0, said.err
    assert sum("code" in line and "tells" in line for line in (said.out + said.err).splitlines()) == 1


def test_a_column_that_is_dropped_for_an_id_is_not_told_to_be_left_out(here: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    pd.DataFrame({"who": [f"c{n}" for n in range(200)], "a": rng.normal(size=200) + y, "label": y}).to_csv("rows.csv")
    said = init(capsys, "rows.csv")
    assert said.code == 0, said.err
    assert "dropped 2 id-like columns" in said.err
    assert "leave it out" not in said.err


@pytest.mark.parametrize(
    ("last", "proposed"),
    [
        ({"comment": [f"a text {n} of its own" for n in range(200)]}, "kind"),
        ({"updated": pd.date_range("2024-01-01", periods=200).strftime("%Y-%m-%d")}, "kind"),
        ({"Unnamed: 9": np.arange(200)}, "kind"),
        ({"empty": [None] * 200}, "kind"),
        ({"constant": ["k"] * 200}, "kind"),
        ({"size": np.random.default_rng(5).normal(size=200)}, "size"),
        ({"comment": [f"text {n}" for n in range(200)], "class": [0, 1] * 100, "last": [1.5] * 200}, "class"),
    ],
)
def test_what_nobody_wants_to_predict_is_not_proposed(
    here: Path, capsys: Any, last: dict[str, Any], proposed: str
) -> None:
    rng = np.random.default_rng(0)
    pd.DataFrame({"a": rng.normal(size=200), "kind": rng.choice(["x", "y"], 200), **last}).to_csv("t.csv", index=False)
    said = init(capsys, "t.csv")
    assert said.code == 0, said.err
    assert f"column {proposed!r} is predicted" in said.err


def test_a_guess_that_cant_be_predicted_is_told_to_be_one(here: Path, capsys: Any) -> None:
    pd.DataFrame({name: [f"{name} {n}" for n in range(200)] for name in "ab"}).to_csv("t.csv", index=False)
    said = init(capsys, "t.csv")
    assert said.code == 3
    assert said.err.rstrip().endswith("--target COLUMN names what is to be predicted, 'b' was a guess")


def test_each_ready_space_says_in_a_sentence_of_its_own_what_it_is_for(capsys: Any) -> None:
    said = init(capsys, "--list")
    sentences = [line.split("  ")[-1].strip() for line in said.out.splitlines()]
    assert len(set(sentences)) == len(sentences) > 10
    assert all(sentence.endswith(".") for sentence in sentences)
