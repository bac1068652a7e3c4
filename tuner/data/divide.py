"""Divides rows into train, validation and test.

Decides which row goes where: an official split is kept, the test rows are chosen first and depend on
nothing but the data and `data.split`, and the validation rows are cut out of the rest with a seed that
may be changed. Knows no features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from tuner.config import Split
from tuner.data.folds import Fold, cut_fold
from tuner.data.raw import counted, listed
from tuner.errors import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Whole:
    """The training and validation rows together, to train on in the end; the validation rows measure nothing then."""


Cut = int | Fold | Whole | None
OFFICIAL = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class By:
    """What rows are divided by, a value a row; None: not by that.

    `classes` are class numbers, `groups` numbers of groups, `times` what orders the rows and `official`
    the part that the source assigns.
    """

    classes: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    official: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Division:
    """Row numbers of each part, ascending; disjoint (but for the whole of a cross-validation), and together all rows
    (but for folds along a time column).
    """

    train: Rows
    val: Rows
    test: Rows | None
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> Mapping[str, Rows]:
        """The parts there are, by name."""
        parts = {"train": self.train, "val": self.val}
        return parts if self.test is None else {**parts, "test": self.test}

    @property
    def apart(self) -> Mapping[str, Rows]:
        """The training rows and the parts that share no row with them."""
        inside = bool(len(self.val)) and bool(np.isin(self.val[0], self.train))
        return {name: rows for name, rows in self.parts.items() if name != "val" or not inside}


def is_official(values: NDArray[Any]) -> bool:
    """Return whether values are only names of parts: train, val (or valid, validation) and test."""
    return len(values) > 0 and {str(value) for value in values} <= OFFICIAL.keys()


def divide(rows: int, spec: Split, by: By, where: str, cut: Cut = None) -> Division:
    """Divide `rows` rows as `spec` says.

    `cut` says which validation rows are wanted: those of another seed than `spec.seed` (of a cross-validation, those of
    a fold by that seed), those of a fold, or (whole) none but to have some; the test rows stay. A seed changes nothing
    where an official split names the validation rows or a time column orders them; folds are made of all rows but the
    test rows.

    Raises:
        DataError: the rows can't be divided so, or a part would be empty.
    """
    if not spec.folds and spec.val + spec.test >= 1:
        raise DataError(
            f"{where}: data.split.val {spec.val:g} and data.split.test {spec.test:g} leave no rows to train on; "
            "their sum must be below 1"
        )
    if by.groups is not None and by.times is not None:
        raise DataError(f"{where}: data.split.groups and data.split.time can't be combined; leave one out")
    division = _officially(spec, by, cut, where) if by.official is not None else _freely(rows, spec, by, cut, where)
    empty = [name for name, part in division.parts.items() if not len(part)]
    if empty:
        raise DataError(f"{where}: no rows are left for {listed(empty)}; give more rows or change data.split")
    _refuse_unseen(division, by, where)
    return division


def _freely(rows: int, spec: Split, by: By, cut: Cut, where: str) -> Division:
    rest, test = np.arange(rows, dtype=np.int64), None
    if spec.test > 0:
        rest, test = _cut(rest, spec.test, spec, by, spec.seed, where)
    train, val = _held_out(rest, spec.val / (1 - spec.test), spec, by, cut, where)
    return Division(train, val, test, notes=(*_manner(spec, by), *_tell_folds(spec)))


def _held_out(rest: Rows, share: float, spec: Split, by: By, cut: Cut, where: str) -> tuple[Rows, Rows]:
    """Return the training and the validation rows among those that are no test rows."""
    if isinstance(cut, Whole):
        first = Fold(0) if spec.folds else None
        return rest, _held_out(rest, share, spec, by, first, where)[1]
    if isinstance(cut, int) and spec.folds:  # as many rows to train on as in the folds of the study
        cut = Fold(0 if by.times is None else spec.folds - 1, seed=cut)
    if isinstance(cut, Fold):
        return cut_fold(rest, spec, by, cut, where)
    return _cut(rest, share, spec, by, spec.seed if cut is None else cut, where)


def _tell_folds(spec: Split) -> tuple[str, ...]:
    return (f"cross-validation: {spec.folds} folds of all rows but the test rows",) if spec.folds else ()


def _officially(spec: Split, by: By, cut: Cut, where: str) -> Division:
    assert by.official is not None
    names = np.array([OFFICIAL.get(str(value), "") for value in by.official])
    if (names == "").any():
        first = int(np.argmax(names == ""))
        said = str(by.official[first])
        raise DataError(f"{where}: split says {said!r} in row {first + 1}; train, val and test are allowed")
    if not (names == "train").any():
        raise DataError(f"{where}: split names no train rows; at least some rows must be train")
    train, val, test = (np.flatnonzero(names == name).astype(np.int64) for name in ("train", "val", "test"))
    note = "kept the split that the data name"
    if not len(val) or spec.folds:
        named = len(val) > 0
        train, val = _held_out(np.sort(np.concatenate((train, val))), spec.val, spec, by, cut, where)
        if not named and not spec.folds:
            note += f"; it has no val, so {counted(len(val), 'row')} of train are used for it"
    elif isinstance(cut, Whole):
        train = np.sort(np.concatenate((train, val)))
    if not len(test):
        note += "; it has no test"
    return Division(train, val, test if len(test) else None, notes=(note, *_tell_folds(spec)))


def _manner(spec: Split, by: By) -> tuple[str, ...]:
    if by.groups is not None:
        return (f"split by {spec.groups}: rows with an equal value are in one part; it is no feature",)
    if by.times is not None:
        return (f"split by {spec.time}: train is the oldest, val later, test the newest; it is no feature",)
    return ()


def _cut(rows: Rows, share: float, spec: Split, by: By, seed: int, where: str) -> tuple[Rows, Rows]:
    """Return the rows kept and the rows cut out, about `share` of them."""
    if len(rows) < 2:
        raise DataError(f"{where}: {counted(len(rows), 'row')} can't be divided; give more rows")
    if by.groups is not None:
        return _cut_groups(rows, share, by.groups, seed, f"{where}: data.split.groups {spec.groups!r}")
    if by.times is not None:
        return _cut_newest(rows, share, by.times, f"{where}: data.split.time {spec.time!r}")
    return _cut_random(rows, share, by.classes, spec.stratify, seed)


def _size(rows: int, share: float) -> int:
    return min(max(1, round(share * rows)), rows - 1)


def _cut_groups(rows: Rows, share: float, groups: NDArray[np.int64], seed: int, where: str) -> tuple[Rows, Rows]:
    count = len(np.unique(groups[rows]))
    if count < 2:
        raise DataError(f"{where}: too few different values; each part needs at least one of its own")
    splitter = GroupShuffleSplit(n_splits=1, test_size=_size(count, share), random_state=seed)
    kept, cut = next(splitter.split(rows, groups=groups[rows]))
    return np.sort(rows[kept]), np.sort(rows[cut])


def _cut_newest(rows: Rows, share: float, times: NDArray[np.float64], where: str) -> tuple[Rows, Rows]:
    order = rows[np.argsort(times[rows], kind="stable")]
    starts = 1 + np.flatnonzero(np.diff(times[order]) > 0)
    if not len(starts):
        raise DataError(f"{where}: too few different values; each part needs at least one of its own")
    # Rows of one moment stay together: cut where a new moment starts, as near as can be.
    wanted = len(rows) - _size(len(rows), share)
    start = int(starts[np.argmin(np.abs(starts - wanted))])
    return np.sort(order[:start]), np.sort(order[start:])


def _cut_random(
    rows: Rows, share: float, classes: NDArray[np.int64] | None, stratify: bool, seed: int
) -> tuple[Rows, Rows]:
    size = _size(len(rows), share)
    if classes is None:
        kept, cut = train_test_split(rows, test_size=size, random_state=seed)
        return np.sort(kept), np.sort(cut)
    # A class with one row left can't be cut and stays.
    pool = rows[np.bincount(classes[rows])[classes[rows]] > 1]
    if len(pool) < 2:
        pool = rows
    size = min(size, len(pool) - 1)
    there = len(np.unique(classes[pool]))
    even = stratify and min(size, len(pool) - size) >= there
    _, cut = train_test_split(pool, test_size=size, random_state=seed, stratify=classes[pool] if even else None)
    cut = cut[~_needed(rows, cut, classes)]
    return np.setdiff1d(rows, cut), np.sort(cut)


def _needed(rows: Rows, cut: Rows, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which cut rows must go back: the first of each class that would have none left."""
    left = np.setdiff1d(rows, cut)
    _, first = np.unique(classes[cut], return_index=True)
    needed = np.zeros(len(cut), dtype=bool)
    needed[first] = ~np.isin(classes[cut[first]], classes[left])
    return needed


def _refuse_unseen(division: Division, by: By, where: str) -> None:
    if by.classes is None:
        return
    for name, rows in division.parts.items():
        unseen = np.setdiff1d(by.classes[rows], by.classes[division.train])
        if len(unseen):
            raise Unseen(name, tuple(int(number) for number in unseen), where)


class Unseen(DataError):
    """A part has classes that no training row has; `named` says it with the classes' names."""

    def __init__(self, part: str, classes: tuple[int, ...], where: str) -> None:
        self.part, self.classes, self.where = part, classes, where
        super().__init__(self._say([str(number) for number in classes]))

    def named(self, names: tuple[str, ...]) -> DataError:
        """Return the error as a user reads it."""
        return DataError(self._say([repr(names[number]) for number in self.classes]))

    def _say(self, names: list[str]) -> str:
        noun = "class" if len(names) == 1 else "classes"
        return (
            f"{self.where}: {self.part} has rows of {noun} {listed(names)}, which no training row has; "
            "leave these rows out or change data.split"
        )
