"""Tables: fits the encoding of columns on training rows and applies it to any rows.

Decides how a number, a date and a category reach the network: numbers are filled with the median, the
strongly skewed ones go through a logarithm, all are standardized and held within ±10; categories become
codes. Knows no file and no split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.data.checks import is_id
from tuner.data.columns import days_of, moments_of, numbers_of, role_of, texts_of
from tuner.data.raw import counted, listed
from tuner.data.splits import Shape, Standard, Target, Task
from tuner.data.targets import Goal
from tuner.errors import DataError, nearest

Piece = Literal["value", "missing", "year", "month", "weekday", "yearday", "hour", "day", "undated"]
DATE_PIECES: tuple[Piece, ...] = ("year", "month", "weekday", "yearday", "hour", "day", "undated")
LIMIT = 10.0
MANY_CATEGORIES = 50
SKEWED = 2.0


@dataclass(frozen=True, slots=True)
class Number:
    """One input made of a column: `piece` of it, filled, perhaps its logarithm, standardized.

    `log_unit` > 0 asks for sign(x) * log(1 + |x| / log_unit).
    """

    column: str
    piece: Piece
    fill: float = 0.0
    log_unit: float = 0.0
    center: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Category:
    """One code made of a column: 1 + the place in `known`, or 0."""

    column: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """Turns tables into float32 arrays (rows, columns): standardized numbers first, category codes last.

    `columns` are all columns of training in their order; those that are of no use are in neither
    `numbers` nor `categories` and may be missing later.
    """

    columns: tuple[str, ...]
    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    task: Task
    classes: tuple[str, ...]
    target: Target

    @property
    def shape(self) -> Shape:
        """The shape of one encoded row, and what is predicted from it."""
        width = len(self.numbers) + len(self.categories)
        codes = tuple(len(category.known) + 1 for category in self.categories)
        return Shape("table", self.task, (width,), len(self.classes) or 1, codes, self.classes)

    @property
    def standard(self) -> Standard:
        """A table is stored standardized."""
        return Standard()

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that hold text: a CSV reader must leave them as they are."""
        return tuple(category.column for category in self.categories)

    def encode(self, raw: Any) -> NDArray[np.float32]:
        """Return a DataFrame, or an array (rows, columns) in the order of training, as float32 (rows, inputs).

        An unknown category is 0 and a missing or unreadable number the training median.

        Raises:
            DataError: a column is missing, or an array has another number of columns.
        """
        frame = self._frame(raw)
        encoded = np.empty((len(frame), len(self.numbers) + len(self.categories)), dtype=np.float32)
        cache: dict[str, dict[Piece, NDArray[np.float64]]] = {}
        for place, number in enumerate(self.numbers):
            if number.column not in cache:
                cache = {number.column: _pieces(frame[number.column], number.piece in DATE_PIECES)}
            encoded[:, place] = _standardize(cache[number.column][number.piece], number)
        for place, category in enumerate(self.categories, start=len(self.numbers)):
            encoded[:, place] = _codes(frame[category.column], category)
        return encoded

    def _frame(self, raw: Any) -> pd.DataFrame:
        if not isinstance(raw, pd.DataFrame):
            array = np.asarray(raw)
            if array.ndim != 2 or array.shape[1] != len(self.columns):
                expected = f"(rows, {len(self.columns)})"
                raise DataError(f"examples have shape {array.shape}; {expected} was learned: {listed(self.columns)}")
            return pd.DataFrame(array, columns=list(self.columns))
        used = dict.fromkeys([number.column for number in self.numbers] + list(self.texts))
        missing = [f"{name}{nearest(name, list(map(str, raw.columns)))}" for name in used if name not in raw.columns]
        if missing:
            raise DataError(f"examples lack {counted(len(missing), 'column')} that training had: {listed(missing)}")
        there = Counter(raw.columns)
        twice = [name for name in used if there[name] > 1]
        if twice:
            raise DataError(f"examples have columns that occur more than once: {listed(twice)}")
        return raw

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON; `read_encoder` reads it back."""
        document: dict[str, Any] = json.loads(json.dumps({"kind": "table", **asdict(self)}, allow_nan=False))
        return document


def read_encoder(document: dict[str, Any]) -> TableEncoder:
    """Return the encoder that `to_json` wrote.

    Raises:
        KeyError, TypeError: the document is none.
    """
    return TableEncoder(
        columns=tuple(document["columns"]),
        numbers=tuple(Number(**number) for number in document["numbers"]),
        categories=tuple(Category(c["column"], tuple(c["known"])) for c in document["categories"]),
        task=document["task"],
        classes=tuple(document["classes"]),
        target=Target(**document["target"]),
    )


def fit_table(
    frame: pd.DataFrame, rows: NDArray[np.int64], goal: Goal, target: Target
) -> tuple[TableEncoder, list[str]]:
    """Return the encoder of a table whose training rows are `rows`, and notes.

    Raises:
        DataError: no column is of any use.
    """
    numbers, categories = list[Number](), list[Category]()
    dropped: dict[str, list[str]] = {"constant": [], "id-like": []}
    for name in frame.columns:
        column = frame[name].iloc[rows]  # one at a time: all of them are as large as the table
        if is_id(column, rows):
            dropped["id-like"].append(str(name))
        elif role_of(column) == "category":
            known = _known(column)
            categories += [Category(str(name), known)] if _varies(column, known) else []
            dropped["constant"] += [] if _varies(column, known) else [str(name)]
        else:
            found = list(_fit_numbers(column, str(name)))
            numbers += found
            dropped["constant"] += [] if found else [str(name)]
    if not numbers and not categories:
        raise DataError("no column is left to learn from: all are constant, empty or ids")
    columns = tuple(map(str, frame.columns))
    encoder = TableEncoder(columns, tuple(numbers), tuple(categories), goal.task, goal.classes, target)
    filled = [number.column for number in numbers if number.piece in ("missing", "undated")]
    notes = [_tell("dropped", f"{kind} column", names) for kind, names in dropped.items() if names]
    return encoder, notes + ([_tell("filled missing values with the median in", "column", filled)] if filled else [])


def _tell(done: str, noun: str, names: list[str]) -> str:
    return f"{done} {counted(len(names), noun)}: {listed(names)}"


def _known(column: pd.Series[Any]) -> tuple[str, ...]:
    codes, texts = texts_of(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    least = 2 if len(texts) > MANY_CATEGORIES else 1
    return tuple(sorted({text for text, count in zip(texts, counts, strict=True) if count >= least}))


def _varies(column: pd.Series[Any], known: tuple[str, ...]) -> bool:
    return len(np.unique(_codes(column, Category("", known)))) > 1


def _codes(column: pd.Series[Any], category: Category) -> NDArray[np.int64]:
    place = {text: number for number, text in enumerate(category.known, start=1)}
    codes, texts = texts_of(column)
    return np.array([*(place.get(text, 0) for text in texts), 0], dtype=np.int64)[codes]


def _fit_numbers(column: pd.Series[Any], name: str) -> Iterator[Number]:
    for piece, values in _pieces(column, role_of(column) == "date").items():
        known = values[~np.isnan(values)]
        if len(known) and (known != known[0]).any():
            yield _fit_number(name, piece, values, known)


def _fit_number(name: str, piece: Piece, values: NDArray[np.float64], known: NDArray[np.float64]) -> Number:
    with np.errstate(all="ignore"):
        fill = float(np.median(known))
    filled = np.where(np.isnan(values), fill, values)
    unit = _log_unit(filled) if piece == "value" else 0.0
    used = _log(filled, unit) if unit else filled
    with np.errstate(all="ignore"):
        center, scale = float(used.mean()), float(used.std())
    if not np.isfinite([fill, center, scale]).all():
        raise DataError(f"column {name!r}: has values beyond 1e150; choose another unit or drop the column")
    return Number(name, piece, fill, unit, center, scale if scale > 0 else 1.0)


def _log_unit(values: NDArray[np.float64]) -> float:
    """Return the unit of the logarithm that halves a strong skew, or 0 if there is none."""
    before = _skew(values)
    if before <= SKEWED or len(np.unique(values)) <= 10:
        return 0.0
    unit = float(np.median(np.abs(values[values != 0])))
    return unit if _skew(_log(values, unit)) < before / 2 else 0.0


def _skew(values: NDArray[np.float64]) -> float:
    with np.errstate(all="ignore"):
        z = (values - values.mean()) / values.std()
        skew = float(np.abs((z**3).mean()))
    return skew if np.isfinite(skew) else 0.0


def _log(values: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.asarray(np.sign(values) * np.log1p(np.abs(values) / unit))


def _standardize(values: NDArray[np.float64], number: Number) -> NDArray[np.float64]:
    filled = np.where(np.isnan(values), number.fill, values)
    used = _log(filled, number.log_unit) if number.log_unit else filled
    with np.errstate(all="ignore"):
        return np.clip((used - number.center) / number.scale, -LIMIT, LIMIT)


def _pieces(column: pd.Series[Any], is_date: bool) -> dict[Piece, NDArray[np.float64]]:
    """Return the numbers that a column consists of, each (rows,), NaN where missing."""
    if not is_date:
        values = numbers_of(column)
        return {"value": values, "missing": np.isnan(values).astype(np.float64)}
    moments = moments_of(column)
    days = days_of(moments)
    parts = (moments.year, moments.month, moments.day_of_week, moments.day_of_year, moments.hour, days, np.isnan(days))
    return {piece: np.asarray(part, dtype=np.float64) for piece, part in zip(DATE_PIECES, parts, strict=True)}
