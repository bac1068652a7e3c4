"""The four sets of data, what can be chosen on each, and their division, which is the same for all.

Each is written twice: as people have it, with a column that says which rows are for training, validation and test, and
as arrays that a network takes (columns standardized, words as columns of 0 and 1, texts as numbers of their tokens).
tuner reads the first, its peers the second, for which they are charged nothing. Imports no torch.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import HOME

FOLDER = HOME / "time_to_quality"
PARTS = ("train", "val", "test")
SHARE = 0.2  # of the rows for validation, and as many for the test where there is no official one
LONGEST = 64  # tokens

Configuration = dict[str, Any]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Task:
    """A set of data and the space on it, which is that of tuner's space file for data of the kind.

    `epochs` is the most that a trial has, `settings` are what the space file is told of the data.
    """

    name: str
    source: str
    kind: str
    space: str
    metric: str
    epochs: int
    width: tuple[int, int]
    depth: tuple[int, int]
    dropout: float
    rate: Range
    decay: Range
    classes: int  # 0 for a number
    settings: dict[str, Any]

    @property
    def said(self) -> str:
        """What is measured, as the table has it."""
        return "root of the MSE" if self.metric == "mse" else self.metric

    @property
    def file(self) -> Path:
        """The data as people have it."""
        suffix = {"table": "csv", "text": "jsonl"}.get(self.kind, "npz")
        return FOLDER / f"{self.name}.{suffix}"

    @property
    def arrays(self) -> Path:
        """The data as networks take it."""
        return FOLDER / f"{self.name}.arrays.npz"


WIDE = (1e-4, 1.0)
TASKS = {
    task.name: task
    for task in (
        Task(
            "ames", "tabular/ames_housing.csv.gz", "table", "table", "mse", 100, (16, 256), (1, 4), 0.6, (1e-4, 1e-2),
            (1e-5, 1.0), 0, {"data.target": "log_price", "data.kind": "table"},
        ),
        Task(
            "fashion", "image/fashion_mnist_8k.npz", "image", "images", "accuracy", 40, (16, 64), (2, 4), 0.5,
            (3e-4, 1e-2), WIDE, 10, {"augmentation.flip": "horizontal"},
        ),
        Task(
            "vowels", "sequence/japanese_vowels.npz", "sequence", "sequence", "accuracy", 60, (16, 128), (2, 6), 0.5,
            (3e-4, 1e-2), WIDE, 9, {},
        ),
        Task(
            "trec", "text/trec6.jsonl.gz", "text", "text", "accuracy", 40, (32, 256), (1, 2), 0.7, (5e-4, 1e-2), WIDE,
            6, {"data.target": "label", "model.family": "textcnn"},
        ),
    )
}  # fmt: skip
NORMALIZATIONS = ("none", "batch")
EMBEDDING = (64, 256)  # texts
KERNELS = (3, 5, 7)  # sequences
SMOOTHING = 0.2  # at most


class Part(NamedTuple):
    """Examples as a network takes them, and their targets: classes, or standardized numbers (n, 1)."""

    x: NDArray[Any]
    y: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The three parts, the unit of a number that is to be predicted (1 for classes), and how many tokens there are."""

    train: Part
    val: Part
    test: Part
    unit: float
    tokens: int

    @property
    def batch(self) -> int:
        """The rows of a batch: as many as tuner takes by itself."""
        return int(2 ** round(np.log2(min(max(len(self.train.y) / 20, 16), 128))))


def rows(task: Task) -> Rows:
    """Return a task's arrays."""
    with np.load(task.arrays) as found:
        parts = (Part(found[f"x_{part}"], found[f"y_{part}"]) for part in PARTS)
        return Rows(*parts, float(found["unit"]), int(found["tokens"]))


def write(task: Task, data: Path) -> None:
    """Write both forms of a task's data, from a folder of raw data."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    {"table": _table, "image": _pictures, "sequence": _sequences, "text": _texts}[task.kind](task, data / task.source)


def _divided(n: int, official: NDArray[np.str_] | None) -> NDArray[np.str_]:
    """Return to which part each row belongs; an official test set is kept."""
    chance = np.random.default_rng(0)
    split = np.full(n, "train", dtype="<U5")
    order = chance.permutation(n)
    if official is None:
        split[order[: round(SHARE * n)]] = "test"
    else:
        split[official == "test"] = "test"
    left = order[split[order] == "train"]
    split[left[: round(SHARE * len(left))]] = "val"
    return split


def _write_arrays(task: Task, x: NDArray[Any], y: NDArray[Any], split: NDArray[np.str_], **facts: float) -> None:
    parts = {
        f"{name}_{part}": array[split == part] for part in PARTS for name, array in (("x", x), ("y", y))
    }  # fmt: skip
    np.savez(task.arrays, **parts, **({"unit": 1.0, "tokens": 0} | facts))


def _table(task: Task, source: Path) -> None:
    import pandas as pd

    frame = pd.read_csv(source, keep_default_na=False, na_values=[""])
    frame["log_price"] = np.log10(frame.pop("Sale_Price"))
    split = _divided(len(frame), None)
    frame.assign(split=split).to_csv(task.file, index=False)
    target = frame.pop("log_price").to_numpy()
    numbers = frame.select_dtypes("number").columns
    words = pd.get_dummies(frame.drop(columns=numbers)).astype(np.float32)
    known = frame[numbers][split == "train"]
    columns = ((frame[numbers].fillna(known.median()) - known.mean()) / known.std()).astype(np.float32)
    x = np.concatenate((columns.to_numpy(), words.to_numpy()), 1)
    unit = target[split == "train"].std()
    y = (((target - target[split == "train"].mean()) / unit)[:, None]).astype(np.float32)
    _write_arrays(task, x, y, split, unit=unit)


def _pictures(task: Task, source: Path) -> None:
    with np.load(source) as found:
        x, y, split = found["X"], found["y"].astype(np.int64), _divided(len(found["y"]), found["split"])
    np.savez(task.file, X=x, y=y, split=split)
    scaled = x.astype(np.float32)[:, None] / 255
    known = scaled[split == "train"]
    _write_arrays(task, (scaled - known.mean()) / known.std(), y, split)


def _sequences(task: Task, source: Path) -> None:
    with np.load(source) as found:
        x, y, lengths = found["X"].astype(np.float32), found["y"], found["lengths"]
        split = _divided(len(y), found["split"])
    np.savez(task.file, X=x, y=y, split=split, lengths=lengths)
    there = np.arange(x.shape[1]) < lengths[:, None]
    known = x[split == "train"][there[split == "train"]]
    scaled = (x - known.mean(0)) / known.std(0) * there[:, :, None]
    _write_arrays(task, scaled.astype(np.float32), np.unique(y, return_inverse=True)[1].astype(np.int64), split)


def _texts(task: Task, source: Path) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    split = _divided(len(found), np.array([each["split"] for each in found]))
    told = (
        {"text": each["text"], "label": each["label"], "split": str(part)}
        for each, part in zip(found, split, strict=True)
    )
    task.file.write_text("".join(f"{json.dumps(each)}\n" for each in told), encoding="utf-8")
    texts = [re.findall(r"\w+|[^\w\s]", each["text"].lower())[:LONGEST] for each in found]
    counts = Counter(token for text, part in zip(texts, split, strict=True) if part == "train" for token in text)
    numbers = {token: number for number, token in enumerate((t for t, n in counts.items() if n > 1), 2)}
    x = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(x, texts, strict=True):
        row[: len(text)] = [numbers.get(token, 1) for token in text]
    _write_arrays(task, x, np.array([int(each["label"]) for each in found]), split, tokens=len(numbers) + 2)
