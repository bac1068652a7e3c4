"""Says what is wrong with examples, every problem at once and in the user's words.

Decides what data are refused and what is only noted. Knows no file format and fits nothing.
Rows are counted from 1, without a header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tuner.config import Data
from tuner.data.columns import (
    COMMA_NUMBER,
    FORMATTED,
    THOUSANDS,
    is_number,
    number_of,
    numbers_of,
    role_of,
    texts_of,
)
from tuner.data.fingerprint import hash_each
from tuner.data.ragged import Ragged
from tuner.data.raw import Raw, counted, listed
from tuner.data.splits import Task
from tuner.data.targets import column as target_of
from tuner.data.targets import infer_task
from tuner.errors import DataError, nearest

FEWEST_ROWS = 10
FIRST = 1000  # rows that tell most columns from the target
EXACT = 2**53
BEYOND = (
    "holds integers beyond 2**53, which would be rounded; write them as text or leave the column out with data.drop"
)
USUAL_TARGETS = ("target", "label", "class", "y", "outcome", "output")


def refuse(where: str, problems: Sequence[str]) -> None:
    """Raise the problems, a line each, if there are any.

    Raises:
        DataError: there are.
    """
    if problems:
        raise DataError("\n".join(f"{where}: {problem}" for problem in problems))


def check_columns(data: Data, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the columns that `data` names, none of them or another."""
    asked = {"data.split.groups": data.split.groups, "data.split.time": data.split.time}
    asked |= {"data.id": data.id, "data.time": data.time}
    asked |= {"data.text": data.text or ("text" if data.kind == "text" else None)}
    named = [(key, name) for key, name in asked.items() if name is not None]
    named += [("data.drop", name) for name in data.drop]
    problems = [f"{key}: no column {name!r}{_among(name, names)}" for key, name in named if name not in names]
    if data.text in data.drop:
        problems.append(f"data.drop: {data.text!r} holds the texts")
    if data.target is None:
        return [*problems, f"data.target: say which column to predict, {_propose(names)}; columns: {listed(names)}"]
    if data.target not in names:
        return [*problems, f"data.target: no column {data.target!r}{_among(data.target, names)}"]
    return problems + [f"{key}: {name!r} is the target" for key, name in named if name == data.target]


def _among(name: str, names: Sequence[str]) -> str:
    return f"{nearest(name, [listed([known]) for known in names])}; columns: {listed(names)}"


def _propose(names: Sequence[str]) -> str:
    usual = [name for name in names if name.strip().lower() in USUAL_TARGETS]
    return f"for instance {usual[0]!r}" if usual else f"perhaps the last one, {names[-1]!r}"


def check_target(data: Data, raw: Raw) -> list[str]:
    """Return what is wrong with the target."""
    y = target_of(raw)
    if len(y) != len(raw.x):
        return [f"X has {counted(len(raw.x), 'row')} and {raw.target} has {len(y)}; one value a row is needed"]
    if len(y) < FEWEST_ROWS:
        return [f"{counted(len(y), 'row')}; at least {FEWEST_ROWS} are needed"]
    missing = np.flatnonzero(y.isna())
    if len(missing):
        return [f"target {raw.target!r}: {_rows(missing, 'without a value')}; leave these rows out"]
    if types.is_datetime64_any_dtype(y.dtype) or types.is_complex_dtype(y.dtype):
        return [f"target {raw.target!r}: holds {y.dtype} values; numbers, texts or booleans are allowed"]
    text_problems = [] if is_number(y) else list(_check_text(y, f"target {raw.target!r}"))
    if text_problems:
        return text_problems
    unread = np.flatnonzero(np.isnan(numbers_of(y))) if role_of(y) == "number" else missing
    if len(unread):
        return [f"target {raw.target!r}: {_rows(unread, 'without a number')}; leave these rows out"]
    task, _ = infer_task(data, raw)
    return list(_check_numbers(raw, y) if task == "regression" else _check_classes(raw, y))


def _rows(rows: NDArray[Any], what: str) -> str:
    return f"{counted(len(rows), 'row')} {what} (row {listed(rows[:5] + 1)}{', ...' if len(rows) > 5 else ''})"


def _check_numbers(raw: Raw, y: pd.Series[Any]) -> Iterator[str]:
    numbers, name = numbers_of(y), f"target {raw.target!r}"
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        yield f"{name}: {_rows(bad, 'without a finite number')}; regression needs a number in each row"
    elif (numbers == numbers[0]).all():
        yield f"{name}: has the value {numbers[0]:g} in every row; there is nothing to learn"
    elif np.abs(numbers).max() > 1e150:
        yield f"{name}: has values beyond 1e150; choose another unit"


def _check_classes(raw: Raw, y: pd.Series[Any]) -> Iterator[str]:
    codes, texts = texts_of(y)
    counts, name = np.bincount(codes, minlength=len(texts)), f"target {raw.target!r}"
    if raw.classes and (problem := _check_names(raw, texts)):
        yield f"{name}: {problem}"
    elif len(texts) == 1:
        yield f"{name}: has one class only, {texts[0]!r}; there is nothing to learn"
    elif len(texts) > len(y) / 2:
        kind = "looks like an id or a text" if not is_number(y) else "say data.task: regression if it is a quantity"
        yield f"{name}: has {len(texts)} different values in {len(y)} rows; {kind}"
    elif (counts == 1).any():
        alone = [repr(texts[i]) for i in np.flatnonzero(counts == 1)]
        has = "class {} has" if len(alone) == 1 else "classes {} have"
        yield f"{name}: {has.format(listed(alone))} one row only; at least 2 are needed, so give more or leave it out"


def _check_names(raw: Raw, texts: list[str]) -> str:
    known = {str(number) for number in range(len(raw.classes))}
    unknown = [] if set(texts) <= set(raw.classes) else [text for text in texts if text not in known]
    if len(set(raw.classes)) < len(raw.classes):
        return "classes names a class twice"
    return f"has {listed(unknown)}, but classes has {len(raw.classes)} names for 0, 1, ..." if unknown else ""


def check_texts(values: Sequence[Any], name: str) -> list[str]:
    """Return what is wrong with a column of texts: each row must hold one, an empty one too."""
    others = [row for row, value in enumerate(values) if not isinstance(value, str)]
    missing = [row for row in others if is_missing(values[row])]
    strange = [row for row in others if not is_missing(values[row])]
    problems = []
    if missing:
        problems.append(f"column {name!r}: {_rows(np.array(missing), 'without a text')}; leave these rows out")
    if strange:
        kind = type(values[strange[0]]).__name__
        problems.append(
            f"column {name!r}: {_rows(np.array(strange), f'with {kind} values')}; write them as texts or leave them out"
        )
    return problems


def is_missing(value: Any) -> bool:
    """Return whether a value stands for none."""
    return bool(types.is_scalar(value) and pd.isna(value))


def check_features(frame: pd.DataFrame, y: pd.Series[Any], target: str) -> list[str]:
    """Return what is wrong with a table's feature columns, a sentence a problem."""
    if not len(frame.columns):
        return ["no feature column is left; there must be one besides the target"]
    found = {name: list(_check_column(frame[name], str(name))) for name in frame.columns}
    problems = [problem for several in found.values() for problem in several]
    sound = frame[[name for name, several in found.items() if not several]]
    infinite = {str(name): _count_infinite(sound[name]) for name in sound.columns}
    there = [f"{name} ({count})" for name, count in infinite.items() if count]
    if there:
        problems.append(f"infinite values in {listed(there)}; replace them or leave the columns out with data.drop")
    leaks = [str(name) for name in sound.columns if _same(sound[name], y)]
    if leaks:
        problems.append(f"{listed(leaks)} equals the target {target!r}; leave it out with data.drop: [{listed(leaks)}]")
    return problems


def _check_column(column: pd.Series[Any], name: str) -> Iterator[str]:
    name = f"column {name!r}"
    if types.is_complex_dtype(column.dtype):
        yield f"{name}: holds complex numbers; split them into two columns"
    elif is_number(column):
        if column.dtype.kind in "iu" and not is_id(column, np.arange(len(column))) and _beyond(column):
            yield f"{name}: {BEYOND}"
    elif not types.is_datetime64_any_dtype(column.dtype) and not types.is_timedelta64_dtype(column.dtype):
        yield from _check_text(column, name)


def _beyond(column: pd.Series[Any]) -> bool:
    low, high = column.min(), column.max()
    return bool(not pd.isna(low) and (int(low) < -EXACT or int(high) > EXACT))


def _is_beyond(text: str) -> bool:
    digits = text.strip().lstrip("+-")
    return len(digits) > 15 and digits.isdecimal() and int(digits[:400]) > EXACT


def _check_text(column: pd.Series[Any], name: str) -> Iterator[str]:
    strange = next((v for v in column[:1000] if isinstance(v, (list, dict, set, tuple, bytes, np.ndarray))), None)
    if strange is not None:
        yield f"{name}: holds {type(strange).__name__} values; numbers, texts, booleans and dates are allowed"
        return
    try:
        codes, texts = texts_of(column)
    except DataError:
        yield f"{name}: holds values that can't be compared; numbers, texts, booleans and dates are allowed"
        return
    role = role_of(column)
    if role == "number" and any(_is_beyond(text) for text in texts):
        yield f"{name}: {BEYOND}"
    if isinstance(column.dtype, pd.CategoricalDtype) or role != "category":
        return
    numeric = np.array([not np.isnan(number_of(text)) for text in texts])
    formatted = [text for text, plain in zip(texts, numeric, strict=True) if not plain and FORMATTED.fullmatch(text)]
    if formatted and len(formatted) + numeric.sum() == len(texts):
        yield f"{name}: {_mend_format(formatted)}"
    elif len(texts) and numeric.sum() > 20 and numeric.mean() > 0.9:
        odd = int(np.argmin(numeric))
        row = int(np.argmax(codes == odd)) + 1
        yield f"{name}: mixes numbers and text (such as {texts[odd]!r} in row {row}); mend these values or drop it"


def _mend_format(texts: list[str]) -> str:
    """Return how to write numbers that are written for people."""
    if all(THOUSANDS.fullmatch(text) for text in texts):
        mend = "write them without if they mark thousands, with a point if they are decimal"
        return f"has commas in its numbers (such as {texts[0]!r}); {mend}"
    if all(COMMA_NUMBER.fullmatch(text) for text in texts):
        return f"has decimal commas (such as {texts[0]!r}); write them with a point"
    return f"has formatted numbers (such as {texts[0]!r}); write plain ones, such as 1234.5"


def _count_infinite(column: pd.Series[Any]) -> int:
    if is_number(column) and column.dtype.kind != "f" and isinstance(column.dtype, np.dtype):
        return 0
    if not is_number(column) and role_of(column) != "number":
        return 0
    return int(np.isinf(numbers_of(column)).sum())


def _same(column: pd.Series[Any], y: pd.Series[Any]) -> bool:
    if types.is_datetime64_any_dtype(column.dtype) or len(column) != len(y):
        return False
    if is_number(y):
        return bool(np.array_equal(numbers_of(column), numbers_of(y)))
    # Equal columns begin alike, and nearly all others don't; to write out millions of numbers takes minutes.
    return _reads_alike(column[:FIRST], y[:FIRST]) and (len(y) <= FIRST or _reads_alike(column, y))


def _reads_alike(column: pd.Series[Any], y: pd.Series[Any]) -> bool:
    (codes, texts), (y_codes, y_texts) = texts_of(column), texts_of(y)
    return texts == y_texts and bool(np.array_equal(codes, y_codes))


def is_id(column: pd.Series[Any], rows: NDArray[np.int64]) -> bool:
    """Return whether values name their row: all different texts, or all different whole numbers that are
    consecutive, called id or too big to be a quantity.
    """
    if is_number(column) and column.dtype.kind not in "iu":
        return False
    if len(column) < FEWEST_ROWS or not column.is_unique or column.isna().any():
        return False
    if not is_number(column):
        return role_of(column) == "category"
    numbers = numbers_of(column)
    return bool((numbers - rows == numbers[0] - rows[0]).all()) or _is_called_id(str(column.name)) or _beyond(column)


def _is_called_id(name: str) -> bool:
    words = "".join(f"_{c}" if c.isupper() and name[i - 1 : i].islower() else c for i, c in enumerate(name)).lower()
    parts = words.replace("-", "_").replace(" ", "_").replace(".", "_").split("_")
    return bool({"id", "uuid", "guid"} & set(parts)) or words in ("index", "row", "rowid") or "unnamed:" in words


def note_leaks(frame: pd.DataFrame, classes: NDArray[np.int64], task: Task) -> list[str]:
    """Return a note on each column whose values and the classes determine each other."""
    found = leaks(frame, classes) if task == "classification" else []
    return [f"{listed(found)} tells the class of every row; drop it if it is made from the target"] if found else []


def leaks(frame: pd.DataFrame, classes: NDArray[np.int64]) -> list[str]:
    """Return the columns whose values and the classes, numbers (n,), determine each other."""
    return [str(name) for name in frame.columns if _one_to_one(frame[name], classes)]


def _one_to_one(column: pd.Series[Any], classes: NDArray[np.int64]) -> bool:
    different = int(classes.max()) + 1
    if len(column) > FIRST and len(pd.factorize(column[:FIRST])[1]) > different:  # nearly all end here, at no cost
        return False
    codes = np.asarray(pd.factorize(column)[0])
    if int(codes.max(initial=-1)) + 1 != different or (codes < 0).any():
        return False
    return len(np.unique(codes * different + classes)) == different


def note_shared(
    x: pd.DataFrame | NDArray[Any] | Ragged, parts: dict[str, NDArray[np.int64]], columns: Sequence[str]
) -> list[str]:
    """Return a note on rows of val and test whose features a training row has too; `columns` may divide the rows."""
    hashes = hash_each(x)
    what = columns[0] if len(columns) == 1 else "what they share"
    remedy = f"name {what} in data.split.groups" if columns else "leave out what is there twice"
    notes = []
    for name in [name for name in parts if name != "train"]:
        shared = int(np.isin(hashes[parts[name]], hashes[parts["train"]]).sum())
        if shared:
            there, are = counted(len(parts[name]), f"{name} row"), "is" if shared == 1 else "are"
            notes.append(
                f"{shared} of {there} {are} identical to training rows, so {name} looks better than it is; {remedy}"
            )
    return notes


def note_contradictions(texts: Sequence[str], classes: NDArray[np.int64], task: Task) -> list[str]:
    """Return a note on texts that occur with different classes."""
    if task != "classification":
        return []
    pairs = pd.DataFrame({"text": pd.factorize(np.array(texts, dtype=object))[0], "class": classes}).drop_duplicates()
    count = int((pairs["text"].value_counts() > 1).sum())
    return [f"{counted(count, 'text')} {'occurs' if count == 1 else 'occur'} with different targets"] if count else []
