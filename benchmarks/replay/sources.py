"""The real data that curves are recorded on: data sets of all four modalities, each at two sizes, clean and with a
fifth of the training labels wrong.

Decides what a bank is: which rows, which space, how long a run is, and on which half of the data sets constants are
chosen. A data set lies in one half only, with everything that is made of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tuner.data import load_folds, load_fresh
from tuner.data.splits import Part, Splits
from tuner.grammar import parse_space
from tuner.space import Space

TEST = 600  # at most so many test rows
VAL = 0.25  # of the rows that aren't test rows
FLIPPED = 0.2
Size = Literal["small", "large"]


def _log(low: float, high: float, **more: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True, **more}


REGULARIZATION = {
    "dropout": {"low": 0.0, "high": 0.6}, "l1": _log(1e-3, 0.3, **{"or": 0}), "l2": _log(1e-5, 1.0, **{"or": 0}),
}  # fmt: skip
STRENGTH = {"strength": {"low": 0.0, "high": 1.0}}
MLP = {"family": "mlp", "width": _log(16, 256), "depth": {"low": 1, "high": 4}}
TEXTCNN = {"family": "textcnn", "embedding": _log(16, 64), "width": _log(16, 64)}
CONV1D = {"family": "conv1d", "width": _log(8, 32), "depth": {"low": 2, "high": 3}}
CNN = {"family": "cnn", "width": _log(4, 12), "depth": {"low": 2, "high": 3}}
RNN = {"family": "rnn", "width": _log(8, 48), "depth": 1}


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as it is recorded: rows for training and validation (small, large), the network, the epochs of a run.

    `half` says what its curves are for: to choose constants or to report what they come to. `regime` is what networks
    do on it: where they underfit, a run's validation loss still falls at its end.
    """

    name: str
    file: str
    kind: str
    target: str
    sizes: tuple[int, int]
    epochs: int
    model: Mapping[str, Any]
    half: Literal["choose", "report"]
    regime: Literal["overfitting", "underfitting"] = "overfitting"
    rate: tuple[float, float] = (3e-4, 1e-2)
    regularization: Mapping[str, Any] = ()  # type: ignore[assignment]
    augmentation: Mapping[str, Any] = ()  # type: ignore[assignment]


SMALL_MLP = {"family": "mlp", "width": _log(4, 16), "depth": 1}
SMALL_CONV1D = {"family": "conv1d", "width": _log(4, 12), "depth": 2}
SLOW = (1e-4, 1e-3)
SHIFTED = {"shift": 0.5, "wrap": True}
SOURCES = (
    Source("digits", "sklearn:digits", "image", "", (150, 800), 60, MLP, "choose"),
    Source("fashion", "image/fashion_mnist_8k.npz", "image", "", (250, 1200), 40, MLP, "choose"),
    Source("fashion, small network", "image/fashion_mnist_8k.npz", "image", "", (800, 3000), 25, SMALL_MLP, "choose",
           "underfitting", SLOW),
    Source("trec6", "text/trec6.jsonl.gz", "text", "label", (300, 1000), 25, TEXTCNN, "choose"),
    Source("italy", "sequence/italy_power_demand.npz", "sequence", "", (80, 240), 50, CONV1D, "choose"),
    Source("credit_g", "tabular/credit_g.csv.gz", "table", "class", (150, 650), 60, MLP, "choose"),
    Source("cifar10", "image/cifar10_5k.npz", "image", "", (300, 800), 25, CNN, "report"),
    Source("spamassassin", "text/spamassassin.jsonl.gz", "text", "label", (200, 800), 30,
           {"family": "bag", "embedding": _log(16, 64), "width": _log(16, 64), "depth": {"low": 1, "high": 2}},
           "report"),
    Source("mnist1d", "mnist1d", "sequence", "", (400, 2000), 50, MLP, "report", augmentation=SHIFTED),
    Source("mnist1d, small network", "mnist1d", "sequence", "", (600, 2000), 25, SMALL_CONV1D, "report",
           "underfitting", SLOW, augmentation=SHIFTED),
    Source("vowels", "sequence/japanese_vowels.npz", "sequence", "", (100, 300), 30, RNN, "report"),
    Source("ames", "tabular/ames_housing.csv.gz", "table", "Sale_Price", (250, 1900), 60, MLP, "report"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bank:
    """One set of curves: a source at one size, clean or with wrong labels."""

    source: Source
    size: Size
    flipped: bool

    @property
    def name(self) -> str:
        """What the bank's file and its row in a table are called."""
        words = self.source.name.replace(", ", "-").replace(" ", "-"), self.size, *(("flipped",) * self.flipped)
        return "_".join(words)

    @property
    def rows(self) -> int:
        """How many rows there are for training and validation."""
        return self.source.sizes[self.size == "large"]


def banks() -> list[Bank]:
    """Return every bank, the quick ones first."""
    sizes: tuple[Size, Size] = ("small", "large")
    return [Bank(source, size, flipped) for size in sizes for source in SOURCES for flipped in (False, True)]


def space_of(bank: Bank, data: Path, folder: Path) -> Space:
    """Return the space of a bank, whose rows are written into `folder`: regularization, size and learning rate."""
    source = bank.source
    section: dict[str, Any] = {"source": str(written(bank, data, folder)), "kind": source.kind}
    section |= {"target": source.target} if source.target else {}
    document = {
        "study": bank.name,
        "data": {**section, "split": {"val": VAL, "test": 0.2}},
        "model": dict(source.model),
        "regularization": {**REGULARIZATION, **dict(source.regularization)},
        "augmentation": {**STRENGTH, **dict(source.augmentation)},
        "training": {"epochs": source.epochs, "learning_rate": _log(*source.rate)},
        "search": {"sampler": "random", "first_trials": False},
        "stopping": "none",
    }
    return parse_space(json.dumps(document), folder)


def splits_of(bank: Bank, space: Space, seed: int | None) -> Splits:
    """Return the rows of a bank, divided by a seed, or those for training and validation together (None); a fifth of
    the training labels is wrong where it says so.

    The rows for validation and test are as they are: only what is learned from is spoiled.
    """
    if seed is None:
        splits = load_folds(space.config.data, space.folder, refit=True)[0]
    else:
        splits = load_fresh(space.config.data, space.folder)(seed)
    if not bank.flipped:
        return splits
    train, chance = splits.train, np.random.default_rng([seed or 0, 20])
    y, some = train.y.copy(), chance.permutation(len(train.y))[: round(FLIPPED * len(train.y))]
    if splits.shape.task == "classification":
        y[some] = (y[some] + chance.integers(1, splits.shape.outputs, len(some))) % splits.shape.outputs
    else:
        y[some] = y[chance.permutation(some)]
    return replace(splits, train=Part(train.x, y, train.rows))


def written(bank: Bank, data: Path, folder: Path) -> Path:
    """Write a bank's rows, a random part of the source's, with a column `split`; return the file."""
    source, folder = bank.source, folder / "rows"
    stem = folder / f"{source.name.replace(', ', '-').replace(' ', '-')}_{bank.size}"
    plain = source.file.endswith(".npz") or "." not in source.file
    path = stem.with_suffix(".npz" if plain else ".jsonl" if ".jsonl" in source.file else ".csv")
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{os.getpid()}{path.suffix}"  # another process may be about to write the same
    (_write_arrays if plain else _write_frame)(source, bank.rows, data, part)
    part.rename(path)
    return path


def _write_frame(source: Source, rows: int, data: Path, path: Path) -> None:
    read = pd.read_json if ".jsonl" in source.file else pd.read_csv
    frame = read(data / source.file, **({"lines": True} if ".jsonl" in source.file else {}))
    official = np.asarray(frame["split"]) if "split" in frame else None
    keys = np.asarray(frame[source.target]) if source.name != "ames" else None
    train, test = _chosen(rows, len(frame), official, keys)
    cut = pd.concat([frame.iloc[train].assign(split="train"), frame.iloc[test].assign(split="test")])
    if ".jsonl" in source.file:
        cut.to_json(path, orient="records", lines=True)
    else:
        cut.to_csv(path, index=False)


def _arrays(file: str, data: Path) -> dict[str, Any]:
    if file == "sklearn:digits":
        from sklearn.datasets import load_digits

        found = load_digits()
        return {"X": (found.images * (255 / 16)).astype(np.uint8), "y": found.target}
    if file == "mnist1d":  # Greydanus & Kobak 2024, made as its authors do; `pip install mnist1d`
        from mnist1d.data import get_dataset_args, make_dataset

        made = make_dataset(get_dataset_args())
        x = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)[..., None]
        split = np.array(["train"] * len(made["y"]) + ["test"] * len(made["y_test"]))
        return {"X": x, "y": np.concatenate([made["y"], made["y_test"]]), "split": split}
    with np.load(data / file) as arrays:
        found = {name: arrays[name] for name in arrays.files if name != "classes"}
    if file.startswith("sequence"):  # the parts that these come in are too unequal to make two sizes of
        found.pop("split", None)
    return found


def _write_arrays(source: Source, rows: int, data: Path, path: Path) -> None:
    arrays = _arrays(source.file, data)
    train, test = _chosen(rows, len(arrays["y"]), arrays.pop("split", None), arrays["y"])
    chosen = np.concatenate([train, test])
    split = np.array(["train"] * len(train) + ["test"] * len(test))
    np.savez(path, **{name: values[chosen] for name, values in arrays.items()}, split=split)


def _chosen(rows: int, total: int, official: Any, keys: Any) -> tuple[Any, Any]:
    """Return row numbers for training and for testing, the classes in their shares; the test rows are the same at
    either size, and training rows of the small size are among those of the large one.
    """
    chance = np.random.default_rng(7)
    order = chance.permutation(total)
    if keys is not None:  # rows of each class evenly along the order
        rank = np.empty(total)
        for key in np.unique(keys):
            its = order[keys[order] == key]
            rank[its] = (np.arange(len(its)) + chance.random()) / len(its)
        order = np.argsort(rank, kind="stable")
    if official is not None:
        pool, rest = (order[official[order] == part] for part in ("train", "test"))
    else:
        some = np.zeros(total, bool)
        some[:: max(2, round(total / min(TEST, total // 3)))] = True
        pool, rest = order[~some], order[some]
    if len(pool) < rows:
        raise SystemExit(f"{rows} rows are wanted for training and there are {len(pool)}")
    return pool[:rows], rest[:TEST]
