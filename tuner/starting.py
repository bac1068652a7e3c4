"""start(): a space file to begin with, written for data that are there; what was found in them is said.

Decides which ranges are sensible for data of a kind and a size: a place to begin, not a finding. Reads the data as a
run would, so that what stands in a run's way is told here. Trains nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.config import Data
from tuner.data import DATA, Splits
from tuner.data.checks import USUAL_TARGETS, is_id, leaks
from tuner.data.columns import role_of
from tuner.data.files import read_table
from tuner.data.folds import Fold
from tuner.data.loading import used
from tuner.data.raw import Raw, counted
from tuner.data.sources import infer_kind, read_source
from tuner.data.suspects import FEWEST_OF_CLASS, suspects
from tuner.defaults import default_model
from tuner.document import plain
from tuner.errors import DataError, UsageError, nearest
from tuner.grammar import parse_space
from tuner.space import Space
from tuner.terminal import rows_of

FEW, MANY = 600, 20_000  # rows to train on
KINDS = tuple(DATA)
FOLDS = 5  # of a cross-validation, where rows are few
UNEVEN = 4.0  # times as many rows in the largest class as in the smallest
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".jsonl", ".jsonl.gz")
# beside the package in its source, and where an installation puts data
SPACES = (Path(__file__).parent.parent / "search_spaces", Path(sys.prefix) / "share" / "tuner" / "search_spaces")
Lines = list[tuple[str, str]]  # a line of the file and what is said of it


@dataclass(frozen=True, slots=True)
class Start:
    """A space file to begin with: its text, the space that it is, and what was found in the data, a sentence each."""

    text: str
    space: Space
    found: tuple[str, ...]


def start(source: str, out: Path, *, target: str | None = None, kind: str | None = None) -> Start:
    """Look at data and return a space file for them, as it must be to stand at `out`.

    `source` is what `data.source` may be, a relative path from the current folder.

    Raises:
        DataError: the data can't be used; a line a problem.
        UsageError: it is no data's name.
    """
    if not (source.startswith("sklearn:") or Path(source).expanduser().exists() or re.fullmatch(r"[\w.]+:\w+", source)):
        beside = Path(source).expanduser().parent
        names = sorted(entry.name for entry in beside.iterdir()) if beside.is_dir() else []
        raise DataError(f"{source}: there is no such file or folder{nearest(Path(source).name, names)}")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind {kind}: one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    found, given_target = list[str](), target
    target, said = (target, "") if target or not _is_table(source) else _proposed(source)
    found += [said] if said else []
    try:
        return _started(source, out, target, kind, found)
    except DataError as error:
        if target == given_target:
            raise
        raise DataError(f"{error}; --target COLUMN names what is to be predicted, {target!r} was a guess") from error


def _started(source: str, out: Path, target: str | None, kind: str | None, found: list[str]) -> Start:
    given: dict[str, Any] = {"source": source, "target": target, "kind": kind}
    data = Data.model_validate({name: value for name, value in given.items() if value is not None})
    raw = read_source(data, Path.cwd())
    sort = infer_kind(data, raw)
    few = sort == "table" and raw.split is None and len(raw) * 0.6 < FEW
    data = data.model_copy(update={"split": data.split.model_copy(update={"folds": FOLDS})}) if few else data
    splits = DATA[sort](data, raw, Fold(0) if few else None)  # as the file divides them that is written
    found += [*_looked_at(raw, splits, few), *_suspected(raw, splits), *splits.notes]
    text = _text(source, out, data, raw, splits, few)
    return Start(text, parse_space(text, out.parent, str(out)), tuple(found))


def _is_table(source: str) -> bool:
    return source.lower().endswith(TABLES)


def _proposed(source: str) -> tuple[str | None, str]:
    """Return the column that is likely to be predicted, and how it was picked."""
    frame = read_table(Path(source).expanduser(), source)
    names = [str(name) for name in frame.columns]
    usual = [name for name in names if name.strip().lower() in USUAL_TARGETS]
    if usual:
        return usual[0], f"--target wasn't given: column {usual[0]!r} is predicted, by its name"
    likely = [name for name, (_, column) in zip(names, frame.items(), strict=True) if _may_be_predicted(column)]
    why = "the last one" if likely[-1:] == names[-1:] else "the last one that isn't dates, an id or a text of its own"
    found = likely[-1] if likely else names[-1]
    return found, f"--target wasn't given: column {found!r} is predicted, for it is {why if likely else 'the last one'}"


def _may_be_predicted(column: pd.Series[Any]) -> bool:
    """Tell whether a column may be what people want to know: no date, nothing that names its row, no text of its own,
    and not one value only.

    What is there twice or more in the mean is a class.
    """
    known = column.dropna()
    if known.nunique() < 2 or str(column.name).startswith("Unnamed: ") or is_id(column, np.arange(len(column))):
        return False
    role = role_of(known)
    return role == "number" or (role == "category" and known.nunique() * 2 <= len(known))


def _looked_at(raw: Raw, splits: Splits, few: bool) -> list[str]:
    """Return what the data are: kind and size, classes, missing values, repeated rows."""
    shape = splits.shape
    sides = " x ".join(map(str, shape.input))
    what = f"{counted(shape.outputs, 'class')}" if shape.task == "classification" else "a number to predict"
    said = [f"{shape.kind} {sides}, {what}; rows: {rows_of(_parts(splits, few))}"]
    if shape.task == "classification":
        counts = np.bincount(splits.train.y, minlength=shape.outputs)
        most, least = int(counts.argmax()), int(counts.argmin())
        said.append(
            f"{counts[most]} training rows of each class"
            if counts[most] == counts[least]
            else f"largest class {shape.classes[most]!r} with {counts[most]} training rows, smallest "
            f"{shape.classes[least]!r} with {counts[least]}" + ("" if not _uneven(splits) else ": unbalanced")
        )
        if counts[least] < FEWEST_OF_CLASS:
            said.append(f"of {shape.classes[least]!r} there are too few rows to learn or to judge it by")
    if isinstance(raw.x, pd.DataFrame):
        missing = raw.x.isna().mean()
        holes = missing[missing > 0].sort_values(ascending=False)
        if len(holes):
            worst = ", ".join(f"{name} {share:.0%}" for name, share in holes[:5].items())
            said.append(f"missing values in {counted(len(holes), 'column')}: {worst}")
        twice = int(raw.x.astype(str).duplicated().sum())
        if twice:
            said.append(
                f"{counted(twice, 'row')} {'repeats' if twice == 1 else 'repeat'} an earlier one in every feature"
            )
    return said


def _parts(splits: Splits, few: bool) -> dict[str, Any]:
    """Return how many rows each part has, as a study of the file will say it."""
    found = dict(splits.summary())
    return found | {"folds": FOLDS, "refit": found["train"] + found["val"]} if few else found


def _suspected(raw: Raw, splits: Splits) -> list[str]:
    """Return which columns are suspects, but for those of which a note of `splits` tells already."""
    if not isinstance(raw.x, pd.DataFrame) or splits.shape.kind != "table":
        return []
    classes, rows = splits.shape.classes, raw.x[used(splits.encoder)]
    told = leaks(rows, np.asarray(pd.factorize(raw.y)[0])) if classes and raw.y is not None else []
    return suspects(rows.iloc[splits.train.rows].drop(columns=told), splits.train.y, classes)


def _uneven(splits: Splits) -> bool:
    counts = np.bincount(splits.train.y, minlength=splits.shape.outputs)
    return bool(counts.max() > UNEVEN * max(1, counts.min()))


def _text(source: str, out: Path, data: Data, raw: Raw, splits: Splits, few: bool) -> str:
    shape, n = splits.shape, len(splits.train)
    place = source if ":" in source and not Path(source).exists() else _way(out.parent, Path(source).expanduser())
    sections: list[tuple[str, Lines]] = [
        ("", [(f"study: {_name(source)}", "the name of its folder below studies/"),
              ("seed: 0", "the same seed, the same study")]),
        ("data", _data(place, data, raw, splits, few)),
        ("model", _model(splits, n)),
        ("regularization", _regularization(splits)),
        ("augmentation", _augmentation(shape.kind)),
        ("training", _training(shape.kind, n)),
        ("score", _score(splits)),
        ("budget", [(f"trials: {40 if few or n < MANY else 30}", "in all; or a time: `tuner run FILE --timeout 10m`"),
                    ("workers: 2", "processes that train at the same time")]),
    ]  # fmt: skip
    lines = [f"# A space for {_name(source)}, by `tuner init`: {counted(n, 'row')} to train on.",
             "# Every value may be fixed, or a range that is searched; `tuner check` says what it would cost.",
             ""]  # fmt: skip
    for name, rows in sections:
        lines += [f"{name}:"] if name else []
        indent = "  " if name else ""
        lines += [f"{indent}{line}".ljust(58) + (f"  # {why}" if why else "") for line, why in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _name(source: str) -> str:
    stem = Path(source.split(":")[-1]).name
    for ending in (*TABLES, ".npz"):
        stem = stem.removesuffix(ending)
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64] or "study"


def _way(folder: Path, path: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())


def _word(text: str) -> str:
    """Return a word as YAML has it."""
    return plain({"": text}).split(":", 1)[1].strip() if re.fullmatch(r"[\w ./-]+", text) else json.dumps(text)


def _data(place: str, data: Data, raw: Raw, splits: Splits, few: bool) -> Lines:
    lines: Lines = [(f"source: {_word(place)}", "")]
    lines += [(f"target: {_word(data.target)}", "the column to predict")] if data.target else []
    lines += [(f"kind: {splits.shape.kind}", "")]
    if splits.shape.task == "regression":
        lines.append(("task: regression", "log of the target: target_transform: log"))
    if raw.split is not None:
        lines.append(("# split: the data name their own", ""))
    elif few:
        lines.append((f"split: {{test: 0.2, folds: {FOLDS}}}", "few rows: each trial is scored over five folds"))
    else:
        lines.append(("split: {val: 0.2, test: 0.2}", "rows that belong together: groups: COLUMN"))
    return lines


def _model(splits: Splits, n: int) -> Lines:
    shape = splits.shape
    chosen = default_model(shape, n)
    family, width = chosen["model.family"], int(chosen["model.width"])
    low, high = max(4, width // 4), width * (4 if n < MANY else 8)
    deepest = 2 if n < FEW else 4
    lines: Lines = [
        (f"family: {family}", "others: `tuner init --list`"),
        (f"width: {{low: {low}, high: {high}, log: true}}", "size and regularization are searched together"),
        (f"depth: {{low: 1, high: {max(deepest, int(chosen['model.depth']))}}}", ""),
    ]
    if "model.embedding" in chosen:
        embedding = int(chosen["model.embedding"])
        lines.append((f"embedding: {{low: {embedding // 2}, high: {embedding * 2}, log: true}}", "numbers a token"))
    if family in ("mlp", "cnn"):
        lines.append(("normalization: {choices: [none, batch]}", ""))
    elif "model.normalization" in chosen:
        lines.append((f"normalization: {chosen['model.normalization']}", ""))
    return lines


def _regularization(splits: Splits) -> Lines:
    lines: Lines = [
        ("dropout: {low: 0.0, high: 0.6}", ""),
        ("l1: {low: 1e-3, high: 0.3, log: true, or: 0}", "off, or in the range"),
        ("l2: {low: 1e-5, high: 1.0, log: true, or: 0}", "weight decay"),
    ]
    if splits.shape.task == "classification":
        lines.append(("label_smoothing: {low: 0.0, high: 0.2}", ""))
    return lines


def _augmentation(kind: str) -> Lines:
    what = {
        "table": "noise on numbers, cells swapped between rows", "text": "tokens deleted, swapped and replaced",
        "image": "shifts, turns, brightness, erased patches", "sequence": "noise, scale, shifted and masked steps",
    }[kind]  # fmt: skip
    lines: Lines = [("strength: {low: 0.0, high: 1.0}", what)]
    if kind == "image":
        lines.append(("flip: none", "horizontal, if a mirrored picture keeps its label"))
    return lines


def _training(kind: str, n: int) -> Lines:
    most = {"table": 100, "text": 40, "image": 40, "sequence": 60}[kind]
    sizes = "[16, 32, 64]" if n < FEW else "[32, 64, 128]" if n < MANY else "[128, 256, 512]"
    return [
        (
            f"epochs: {{low: {most // 8}, high: {most if n < MANY else most // 2}}}",
            "a cap: each trial keeps its best epoch",
        ),
        ("learning_rate: {low: 3e-4, high: 1e-2, log: true}", ""),
        (f"batch_size: {{choices: {sizes}}}", ""),
    ]


def _score(splits: Splits) -> Lines:
    if splits.shape.task == "regression":
        return [("metric: mse", "or mae, r2")]
    if _uneven(splits):
        return [("metric: log_loss", "the classes are uneven: or balanced_accuracy, f1, roc_auc")]
    return [("metric: log_loss", "or accuracy, f1, roc_auc")]


def ready() -> list[tuple[str, str]]:
    """Return the ready space files: the path, and what its first line says.

    Raises:
        UsageError: they aren't installed.
    """
    for folder in SPACES:
        if paths := sorted(folder.glob("*.yaml")):
            return [(_near(path), _first(path)) for path in paths]
    raise UsageError("--list: the ready spaces aren't installed; they are in the folder search_spaces of the source")


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _first(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""
