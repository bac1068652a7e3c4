"""Cross-validation: which rows of the rest (all but the test rows) one fold holds out.

Decides the folds by the rows, `data.split` and nothing else, so that they are the same for every trial of a study.
Groups stay together; along a time column a fold trains on what lies before the rows that it holds out. Knows no
features and no test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from tuner.config import Split
from tuner.data.raw import counted
from tuner.errors import DataError

if TYPE_CHECKING:
    from tuner.data.divide import By

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a cross-validation, counted from 0; `seed` is that of other folds than those of the study."""

    number: int
    seed: int | None = None


def cut_fold(rest: Rows, spec: Split, by: By, fold: Fold, where: str) -> tuple[Rows, Rows]:
    """Return the training rows and the held-out rows of a fold, both ascending.

    Raises:
        DataError: there are too few rows, groups or moments for so many folds.
    """
    assert spec.folds is not None
    if fold.seed is None:
        return _folds(rest, spec.folds, spec, by, where)[fold.number]
    return _folds(rest, spec.folds, spec.model_copy(update={"seed": fold.seed}), by, where, fresh=True)[fold.number]


def _folds(rest: Rows, count: int, spec: Split, by: By, where: str, fresh: bool = False) -> list[tuple[Rows, Rows]]:
    if by.times is not None:
        return _in_time(rest, by.times, count, where)
    if by.groups is not None:
        _refuse_few(len(np.unique(by.groups[rest])), count, "group", where)
        return [(rest[a], rest[b]) for a, b in _grouped(rest, count, spec, by, fresh)]
    # A class with one row left can't be held out: no other row would teach it.
    pool = rest if by.classes is None else rest[np.bincount(by.classes[rest])[by.classes[rest]] > 1]
    _refuse_few(len(pool), count, "row", where)
    held_out = [np.sort(pool[cut]) for _, cut in _shuffled(pool, count, spec, by.classes)]
    return [(np.setdiff1d(rest, val), val) for val in held_out]


def _refuse_few(there: int, count: int, what: str, where: str) -> None:
    if there < count:
        said = f"only {counted(there, what)} besides those for test"
        raise DataError(f"{where}: data.split.folds {count}: there {'is' if there == 1 else 'are'} {said}; take fewer")


def _shuffled(pool: Rows, count: int, spec: Split, classes: NDArray[np.int64] | None) -> Any:
    if classes is None or not spec.stratify or np.bincount(classes[pool]).max() < count:
        return KFold(count, shuffle=True, random_state=spec.seed).split(pool)
    # scikit-learn warns of classes with fewer rows than folds; each of their rows is still held out once.
    small = np.bincount(classes[pool])[classes[pool]] < count
    merged = np.where(small, -1, classes[pool])
    if 0 < small.sum() < count:
        merged[small] = classes[pool][np.argmax(~small)]
    return StratifiedKFold(count, shuffle=True, random_state=spec.seed).split(pool, merged)


def _grouped(rest: Rows, count: int, spec: Split, by: By, fresh: bool) -> Any:
    assert by.groups is not None
    groups = by.groups[rest]
    if by.classes is None or not spec.stratify or np.bincount(by.classes[rest]).max() < count:
        seed = spec.seed if fresh else None  # the study's own folds of groups are by their sizes
        return GroupKFold(count, shuffle=fresh, random_state=seed).split(rest, groups=groups)
    small = np.bincount(by.classes[rest])[by.classes[rest]] < count
    merged = np.where(small, by.classes[rest][np.argmax(~small)], by.classes[rest])
    return StratifiedGroupKFold(count, shuffle=True, random_state=spec.seed).split(rest, merged, groups)


def _in_time(rest: Rows, times: NDArray[np.float64], count: int, where: str) -> list[tuple[Rows, Rows]]:
    """Cut the moments into `count` + 1 stretches: fold i holds out stretch i + 1 and trains on all before it."""
    order = rest[np.argsort(times[rest], kind="stable")]
    starts = 1 + np.flatnonzero(np.diff(times[order]) > 0)
    _refuse_few(len(starts), count, "later moment", where)
    wanted = np.arange(1, count + 1) * len(order) / (count + 1)
    places = np.searchsorted(starts, wanted)
    # Each stretch begins at a moment of its own, as near as can be to an even share.
    places = np.clip(places, np.arange(count), len(starts) - count + np.arange(count))
    for i in range(1, count):
        places[i] = max(places[i], places[i - 1] + 1)
    edges = [*starts[places].tolist(), len(order)]
    return [(np.sort(order[:a]), np.sort(order[a:b])) for a, b in pairwise(edges)]
