"""Every ready space file is valid, searches what it should, and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, write

from tuner.config import AUTO, FAMILIES
from tuner.grammar import read_space
from tuner.space import Range, families

FOLDER = Path(__file__).parent.parent / "search_spaces"
SPACES = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".yml"))
SEARCHED = (
    "model.width", "model.depth", "regularization.dropout", "regularization.l1", "regularization.l2",
    "augmentation.strength", "training.epochs", "training.learning_rate",
)  # fmt: skip


def make_data(path: Path, folder: Path) -> list[str]:
    """Make small data for a space that is for people's own; return the settings that name them."""
    rng = np.random.default_rng(0)
    source = read_space(path).config.data.source
    if source == "my.csv":
        lines = [f"{a:.3f},{b:.3f},{'ab'[i % 2]},{a + b:.3f}" for i, (a, b) in enumerate(rng.normal(size=(80, 2)))]
        write(folder / source, "\n".join(["p,q,word,y", *lines]))
    elif source == "my.npz":
        x = rng.integers(0, 255, (80, 8, 8, 3), dtype=np.uint8)
        np.savez(folder / source, X=x, y=np.arange(80) % 2)
    elif source == "my_sequences.npz":
        x = rng.normal(size=(80, 12, 2)) + np.arange(80)[:, None, None] % 2
        np.savez(folder / source, X=x, y=np.arange(80) % 2)
    elif source == "my.jsonl":
        words = ["where is the", "who wrote that", "how many of these", "what does it mean"]
        texts = [f"{words[n]} {words[n // 2]} thing?" for n in rng.integers(0, 4, 80)]
        lines = [json.dumps({"text": text, "target": text.split()[0]}) for text in texts]
        write(folder / source, "\n".join(lines))
    else:
        return []
    return ["-S", f"data.source={source}"]


def test_there_is_a_ready_space_for_each_family() -> None:
    found = {family for path in SPACES for family in families(read_space(path))}
    assert AUTO in families(read_space(FOLDER / "text.yaml")), "which is one of these two for texts"
    assert found - {AUTO} | {"textcnn", "bag"} == set(FAMILIES)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_ready_space_searches_size_regularization_augmentation_and_training(path: Path) -> None:
    space = read_space(path)
    assert space.domains.keys() >= set(SEARCHED)
    for name in ("regularization.l1", "regularization.l2"):
        domain = space.domains[name]
        assert isinstance(domain, Range)
        assert (domain.log, domain.alternative) == (True, 0), f"{name} is searched on a log scale, or off"
    for name in ("regularization.dropout", "augmentation.strength"):
        assert 0.0 in space.domains[name], f"{name} can be off"
    learning_rate = space.domains["training.learning_rate"]
    assert isinstance(learning_rate, Range)
    assert learning_rate.log
    assert space.config.data.split.test > 0
    assert not space.notes


@pytest.mark.parametrize("path", SPACES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_ready_space_says_how_to_run_it(path: Path) -> None:
    assert f"`tuner run search_spaces/{path.relative_to(FOLDER)}" in path.read_text()


@pytest.mark.parametrize("path", SPACES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_ready_space_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["training.epochs={low: 2, high: 3}", "training.batch_size=128", "budget.workers=1"]
    words = [word for setting in small for word in ("-S", setting)] + make_data(path, tmp_path)
    words += ["--no-confirm"] if path.name == "text_pretrained.yaml" else []  # which takes longest
    said = call(capsys, "run", path, "--json", "--trials", "3", *words)
    assert said.code == 0, said.err
    document = said.document
    assert document["trials"] == {"total": 3, "complete": 3, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert document["study"] == read_space(path).config.study
    assert document["test"]["looks"] == 1
    assert call(capsys, "best", document["study"]).code == 0
