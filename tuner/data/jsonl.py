"""Reads JSON lines, an object a line, and says which line is wrong.

Decides what such a file is: keys are columns, a key that a line lacks is a missing value, blank lines are skipped.
Knows no target and no kind of data.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import pandas as pd

from tuner.data.raw import counted, listed
from tuner.data.tokens import mended
from tuner.errors import DataError

Row = dict[str, Any]
WORDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
SHOWN = 5


def read_objects(text: str, where: str, needed: Collection[str]) -> pd.DataFrame:
    """Return the objects of a text as a table.

    A column in `needed` that any line has must hold a plain value in each.

    Raises:
        DataError: a line holds no object or one that can't be used; the message names the line.
    """
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows = [_object(line, f"{where}: line {number}") for number, line in numbered]
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise DataError(f"{where}: no rows; a JSON object a line is needed, such as {{'text': 'fine', 'target': 1}}")
    numbers = [number for number, _ in numbered]
    problems = [problem for name in needed if name in names for problem in _problems(rows, name, numbers)]
    if problems:
        raise DataError("\n".join(f"{where}: {problem}" for problem in problems))
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in names})


def _object(line: str, where: str) -> Row:
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error.msg} at character {error.colno}); an object is needed") from error
    except RecursionError:
        raise DataError(f"{where} is nested too deep; an object of plain values is needed") from None
    except ValueError as error:
        raise DataError(f"{where} can't be read ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {_kind(value)}; an object is needed, such as {{'text': 'fine', 'target': 1}}")
    # JSON can write half a character, which no file and no terminal takes.
    return (
        {mended(name): mended(v) if isinstance(v, str) else v for name, v in value.items()} if "\\" in line else value
    )


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = [name for name in row if names.count(name) > 1]
        raise ValueError(f"{listed(twice)} occurs more than once in it; give each key its own name")
    return row


def _kind(value: Any) -> str:
    return WORDS.get(type(value), "null")


def _problems(rows: list[Row], name: str, numbers: list[int]) -> Iterator[str]:
    missing = [number for row, number in zip(rows, numbers, strict=True) if row.get(name) is None]
    if missing:
        lines = f"line {listed(missing[:SHOWN])}{', ...' if len(missing) > SHOWN else ''}"
        yield f"{counted(len(missing), 'line')} without {name!r} ({lines}); add it or leave these lines out"
    for row, number in zip(rows, numbers, strict=True):
        if isinstance(row.get(name), (list, dict)):
            yield f"line {number}: {name!r} holds {_kind(row[name])}; a text or a number is needed"
            return
