"""Wires the room together: raw examples -> checks -> division -> encoding fitted on train -> Splits.

Decides the order and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.config import Data
from tuner.data import checks
from tuner.data.columns import days_of, is_number, moments_of, numbers_of, role_of, texts_of
from tuner.data.divide import By, Cut, Division, Unseen, divide
from tuner.data.fingerprint import fingerprint, hash_rows
from tuner.data.image import check_pixels, fit_images, layout_of
from tuner.data.memory import gathered, joined, slices
from tuner.data.ragged import Ragged
from tuner.data.raw import Raw, counted
from tuner.data.sequence import fit_sequences, note_constants, note_kind, read_sequences
from tuner.data.splits import Encoder, Part, Splits, Target
from tuner.data.table import fit_table
from tuner.data.targets import Goal, column, fit_target, read_goal, store
from tuner.data.text import TEXT, fit_texts, tell_empty, tell_others, values_of
from tuner.errors import DataError

NUMBER = 8  # bytes of one, or of what points to a text


def split_table(data: Data, raw: Raw, cut: Cut = None) -> Splits:
    """Return a table divided and encoded.

    Raises:
        DataError: its columns, its target or its rows can't be used; every problem found is named.
    """
    assert isinstance(raw.x, pd.DataFrame)
    aside = [name for name in (data.split.groups, data.split.time) if name is not None]
    frame = raw.x.drop(columns=aside)
    problems = checks.check_target(data, raw)
    checks.refuse(raw.where, problems + checks.check_features(frame, column(raw), raw.target))
    goal = read_goal(data, raw)
    by = By(_classes(goal), _groups(data, raw), _times(data, raw), raw.split)
    division = _divide(data, raw, by, goal, cut)
    target = _target(data, raw, goal, division)
    try:
        encoder, notes = fit_table(frame, division.train, goal, target)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    notes += checks.note_leaks(frame[used(encoder)], goal.values, goal.task)
    return _assemble(raw, frame, encoder, goal, division, tuple(notes))


def used(encoder: Any) -> list[str]:
    """Return the columns of a table that its encoder reads: those that were dropped aren't among them."""
    return list(dict.fromkeys([*(number.column for number in encoder.numbers), *encoder.texts]))


def split_images(data: Data, raw: Raw, cut: Cut = None) -> Splits:
    """Return images divided and encoded.

    Raises:
        DataError: the images, their target or their number can't be used.
    """
    images: NDArray[Any] = np.asarray(raw.x)
    checks.refuse(raw.where, _problems_of(images) + checks.check_target(data, raw))
    goal = read_goal(data, raw)
    by = By(_classes(goal), _groups(data, raw), _times(data, raw), raw.split)
    division = _divide(data, raw, by, goal, cut)
    target = _target(data, raw, goal, division)
    try:
        encoder = fit_images(images, division.train, goal, target, raw.fitted)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    return _assemble(raw, images, encoder, goal, division, tuple(note_kind(data, raw)))


def _problems_of(images: NDArray[Any]) -> list[str]:
    problems = []
    for check in (layout_of, check_pixels):
        try:
            check(images)
        except DataError as error:
            problems.append(str(error))
    return problems


def split_sequences(data: Data, raw: Raw, cut: Cut = None) -> Splits:
    """Return sequences divided and encoded.

    Raises:
        DataError: the sequences, their target or their number can't be used; every problem found is named.
    """
    sequences, columns, notes = _read_sequences(data, raw)
    goal = read_goal(data, raw)
    by = By(_classes(goal), _groups(data, raw), _times(data, raw), raw.split)
    division = _divide(data, raw, by, goal, cut)
    target = _target(data, raw, goal, division)
    try:
        encoder, found = fit_sequences(sequences, division.train, goal, target, data, columns)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    notes += found + note_constants(sequences, raw.columns, goal)
    return _assemble(raw, sequences, encoder, goal, division, tuple(notes))


def _read_sequences(data: Data, raw: Raw) -> tuple[Ragged, tuple[str, ...], list[str]]:
    try:
        found = read_sequences(data, raw)
    except DataError as error:
        checks.refuse(raw.where, [*str(error).splitlines(), *checks.check_target(data, raw)])
        raise
    checks.refuse(raw.where, checks.check_target(data, raw))
    return found


def split_texts(data: Data, raw: Raw, cut: Cut = None) -> Splits:
    """Return texts divided and encoded.

    Raises:
        DataError: the texts, their target or their number can't be used; every problem found is named.
        UsageError: `data.tokens` or `data.length` can't be followed.
    """
    assert isinstance(raw.x, pd.DataFrame)
    name = data.text or TEXT
    texts = values_of(raw.x[name])
    checks.refuse(raw.where, checks.check_target(data, raw) + checks.check_texts(texts, name))
    goal = read_goal(data, raw)
    by = By(_classes(goal), _groups(data, raw), _times(data, raw), raw.split)
    division = _divide(data, raw, by, goal, cut)
    target = _target(data, raw, goal, division)
    try:
        encoder, notes = fit_texts(texts, division.train, data, name, goal, target)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    notes += [*tell_others(data, raw.x, name), *tell_empty(texts)]
    notes += checks.note_contradictions(texts, goal.values, goal.task)
    return _assemble(raw, raw.x[[name]], encoder, goal, division, tuple(notes))


def _classes(goal: Goal) -> NDArray[np.int64] | None:
    return goal.values if goal.task == "classification" else None


def _divide(data: Data, raw: Raw, by: By, goal: Goal, cut: Cut) -> Division:
    try:
        return divide(len(raw), data.split, by, raw.where, cut)
    except Unseen as error:
        raise error.named(goal.classes) from error


def _groups(data: Data, raw: Raw) -> NDArray[np.int64] | None:
    if data.split.groups is None:
        return None
    codes, _ = texts_of(_aside(raw, data.split.groups, "groups"))
    return codes


def _times(data: Data, raw: Raw) -> NDArray[np.float64] | None:
    if data.split.time is None:
        return None
    times = _aside(raw, data.split.time, "time")
    if role_of(times) == "category":
        raise DataError(
            f"{raw.where}: data.split.time {data.split.time!r} holds text that has no order in time; "
            "numbers and dates such as 2024-05-17 are allowed"
        )
    values = numbers_of(times) if is_number(times) or role_of(times) == "number" else days_of(moments_of(times))
    return _finite(values, raw, data.split.time)


def _finite(values: NDArray[np.float64], raw: Raw, name: str) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(f"{raw.where}: data.split.time {name!r} is no moment in row {bad[0] + 1}; mend it")
    return values


def _aside(raw: Raw, name: str, key: str) -> pd.Series[Any]:
    table = raw.aside if raw.aside is not None else raw.x
    assert isinstance(table, pd.DataFrame)
    values = table[name]
    missing = int(values.isna().sum())
    if missing:
        raise DataError(
            f"{raw.where}: data.split.{key} {name!r} has no value in {counted(missing, 'row')}; "
            "fill it in or leave these rows out"
        )
    return values


def _target(data: Data, raw: Raw, goal: Goal, division: Division) -> Target:
    values = goal.values[division.train]
    if (values == values[0]).all():
        raise DataError(
            f"{raw.where}: target {raw.target!r} has one value only in the training rows; change data.split"
        )
    return fit_target(goal, division.train, log=data.target_transform == "log")


def _encoded(encoder: Encoder, x: Any, division: Division) -> dict[str, NDArray[Any]]:
    if isinstance(x, Ragged):  # may be larger than memory, as arrays may: no copy of all of it is made
        return {name: _of_sequences(encoder, x, rows) for name, rows in division.parts.items()}
    if isinstance(x, np.ndarray):
        return {name: gathered(x, encoder.encode, rows) for name, rows in division.parts.items()}
    return {name: _of_table(encoder, x, rows) for name, rows in division.parts.items()}


def _of_table(encoder: Encoder, x: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[Any]:
    width = max(len(x.columns), *encoder.shape.input) * NUMBER  # a piece in either form is small
    found = joined((encoder.encode(x.iloc[rows[some]]) for some in slices(len(rows), width)), len(rows))
    assert found is not None, "a part has rows"
    return found


def _of_sequences(encoder: Encoder, x: Ragged, rows: NDArray[np.int64]) -> NDArray[Any]:
    found = joined(map(encoder.encode, x.pieces(rows)), len(rows))
    assert found is not None, "a part has rows"
    return found


def _assemble(raw: Raw, x: Any, encoder: Encoder, goal: Goal, division: Division, notes: tuple[str, ...]) -> Splits:
    y, encoded = store(goal, encoder.target), _encoded(encoder, x, division)
    parts = {name: Part(encoded[name], y[rows], rows) for name, rows in division.parts.items()}
    columns = list(map(str, x.columns)) if isinstance(x, pd.DataFrame) else raw.columns
    shared = checks.note_shared(x, dict(division.apart), columns)
    test = division.test
    return Splits(
        parts["train"],
        parts["val"],
        parts.get("test"),
        encoder,
        fingerprint(x, column(raw), division.parts),
        "" if test is None else hash_rows(x, column(raw), test),
        (*raw.notes, *goal.notes, *division.notes, *notes, *shared),
    )
