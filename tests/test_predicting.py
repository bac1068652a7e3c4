"""Predictions name the examples that aren't rows of a table: images by file, sequences by id."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, write
from PIL import Image


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_predictions_of_a_folder_name_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, level in (("dark", 30), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(level, 20, (10, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    text = "study: p\ndata: {source: pictures}\nmodel: {family: cnn, width: 4, depth: 1}\ntraining: {epochs: 8}\n"
    assert call(capsys, "run", write(tmp_path / "p.yaml", text + "budget: {trials: 2}\n")).code == 0
    found = rows_of(call(capsys, "predict", "p", "pictures").out)
    assert [row["file"] for row in found][:2] == ["dark/0.png", "dark/1.png"]
    assert len(found) == 40
    assert sum(row["prediction"] == row["file"].split("/")[0] for row in found) > 30
    one = rows_of(call(capsys, "predict", "p", "pictures/light/3.png").out)
    assert [row["file"] for row in one] == ["3.png"]


def test_predictions_of_long_sequences_name_the_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = ["who,when,speed,kind"]
    for person in range(30):
        kind = "ab"[person % 2]
        lines += [f"p{person},{t},{rng.normal() + 3 * (kind == 'b'):.3f},{kind}" for t in range(rng.integers(4, 8))]
    write(tmp_path / "long.csv", "\n".join(lines))
    data = "{source: long.csv, id: who, time: when, target: kind}"
    text = f"study: l\ndata: {data}\nmodel: {{family: rnn, width: 8, depth: 1}}\ntraining: {{epochs: 10}}\n"
    assert call(capsys, "run", write(tmp_path / "l.yaml", text + "budget: {trials: 2}\n")).code == 0
    found = rows_of(call(capsys, "predict", "l", "long.csv").out)
    assert [row["id"] for row in found] == [f"p{person}" for person in range(30)]
    assert {row["prediction"] for row in found} <= {"a", "b"}
