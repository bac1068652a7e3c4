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
from tuner.data.divide import By, Division, Unseen, divide
from tuner.data.fingerprint import fingerprint, hash_rows
from tuner.data.image import check_pixels, fit_images, layout_of
from tuner.data.raw import Raw, counted
from tuner.data.splits import Encoder, Part, Splits, Target
from tuner.data.table import fit_table
from tuner.data.targets import Goal, column, fit_target, read_goal, store
from tuner.errors import DataError


def split_table(data: Data, raw: Raw, seed_of_split: int | None = None) -> Splits:
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
    division = _divide(data, raw, by, goal, seed_of_split)
    target = _target(data, raw, goal, division)
    try:
        encoder, notes = fit_table(frame.iloc[division.train], division.train, goal, target)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    notes += checks.note_leaks(frame[list(_used(encoder))], goal.values, goal.task)
    return _assemble(raw, frame, encoder, goal, division, tuple(notes))


def _used(encoder: Any) -> dict[str, None]:
    return dict.fromkeys([*(number.column for number in encoder.numbers), *encoder.texts])


def split_images(data: Data, raw: Raw, seed_of_split: int | None = None) -> Splits:
    """Return images divided and encoded.

    Raises:
        DataError: the images, their target or their number can't be used.
    """
    images: NDArray[Any] = np.asarray(raw.x)
    checks.refuse(raw.where, _problems_of(images) + checks.check_target(data, raw))
    goal = read_goal(data, raw)
    division = _divide(data, raw, By(_classes(goal), official=raw.split), goal, seed_of_split)
    target = _target(data, raw, goal, division)
    try:
        encoder = fit_images(images, division.train, goal, target)
    except DataError as error:
        raise DataError(f"{raw.where}: {error}") from error
    return _assemble(raw, images, encoder, goal, division, ())


def _problems_of(images: NDArray[Any]) -> list[str]:
    problems = []
    for check in (layout_of, check_pixels):
        try:
            check(images)
        except DataError as error:
            problems.append(str(error))
    return problems


def _classes(goal: Goal) -> NDArray[np.int64] | None:
    return goal.values if goal.task == "classification" else None


def _divide(data: Data, raw: Raw, by: By, goal: Goal, seed_of_split: int | None) -> Division:
    try:
        return divide(len(raw), data.split, by, raw.where, seed_of_split)
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
    assert isinstance(raw.x, pd.DataFrame)
    values = raw.x[name]
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


def _assemble(raw: Raw, x: Any, encoder: Encoder, goal: Goal, division: Division, notes: tuple[str, ...]) -> Splits:
    encoded, y = encoder.encode(x), store(goal, encoder.target)
    parts = {name: Part(encoded[rows], y[rows], rows) for name, rows in division.parts.items()}
    shared = checks.note_shared(x, dict(division.parts))
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
