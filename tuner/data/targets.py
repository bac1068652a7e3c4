"""Reads the target: which task it is, which classes there are, how a regression target is stored.

Knows no features and no split, except that statistics come from the rows it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.config import Data
from tuner.data.columns import is_truth, number_of, numbers_of, role_of, texts_of
from tuner.data.raw import Raw, counted, listed
from tuner.data.splits import Target, Task
from tuner.errors import DataError

FEW_NUMBERS = 20


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be predicted: class numbers (n,) int64 of `classes`, or numbers (n,) float64."""

    task: Task
    values: NDArray[Any]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Outputs a model needs: one a class, or one."""
        return len(self.classes) or 1


def infer_task(data: Data, raw: Raw) -> tuple[Task, str]:
    """Return the task and a note that says why, "" where it was said.

    Numbers with fractions, or more than max(20, square root of the rows) different whole numbers, are a
    regression; few whole numbers, texts, booleans and named classes a classification.
    """
    if data.task is not None:
        return data.task, ""
    y, name = column(raw), raw.target
    if raw.classes or y.dtype.kind == "b" or role_of(y) != "number" or is_truth(y):
        return "classification", ""
    numbers = numbers_of(y)
    few = max(FEW_NUMBERS, int(len(numbers) ** 0.5))
    different = len(np.unique(numbers))
    fractions = bool((numbers != np.round(numbers)).any())
    if not fractions and different <= few:
        return "classification", f"task classification: {name} has {different} different whole numbers"
    what = "numbers with fractions" if fractions else f"{different} different numbers"
    return "regression", f"task regression: {name} has {what}"


def read_goal(data: Data, raw: Raw) -> Goal:
    """Return the target as class numbers or as numbers; its values were checked by `checks.check_target`.

    Raises:
        DataError: log is asked for classes or for numbers that are not positive.
    """
    task, note = infer_task(data, raw)
    notes: tuple[str, ...] = (note,) if note else ()
    if task == "regression":
        return Goal("regression", _numbers(data, raw), notes=notes)
    if data.target_transform != "none":
        raise DataError(
            f"{raw.where}: data.target_transform {data.target_transform} is for regression, and {raw.target} "
            "holds classes; leave it out or say data.task: regression"
        )
    values, classes, unused = _classes(raw)
    noun = "class" if len(unused) == 1 else "classes"
    missing = (f"no row has {noun} {listed(unused)}; left out",) if unused else ()
    return Goal("classification", values, classes, (*notes, *missing))


def column(raw: Raw) -> pd.Series[Any]:
    """Return the target of a source that must have one.

    Raises:
        DataError: it has none.
    """
    if raw.y is None:
        raise DataError(f"{raw.where}: no target; an array y with a value a row is needed")
    return raw.y


def _numbers(data: Data, raw: Raw) -> NDArray[np.float64]:
    numbers = numbers_of(column(raw))
    bad = np.flatnonzero(numbers <= 0)
    if data.target_transform == "log" and len(bad):
        raise DataError(
            f"{raw.where}: data.target_transform log needs positive values, and {raw.target} has "
            f"{counted(len(bad), 'row')} that {'is' if len(bad) == 1 else 'are'} not (first in row {bad[0] + 1}: "
            f"{numbers[bad[0]]:g}); leave these rows out or leave the transform out"
        )
    return numbers


def _classes(raw: Raw) -> tuple[NDArray[np.int64], tuple[str, ...], list[str]]:
    codes, texts = texts_of(column(raw))
    order, unused = sorted_classes(texts), list[str]()
    names = order
    if raw.classes:
        by_number = not set(texts) <= set(raw.classes)
        known = [str(i) for i in range(len(raw.classes))] if by_number else list(raw.classes)
        order = [text for text in known if text in set(texts)]
        names = [raw.classes[int(text)] for text in order] if by_number else order
        unused = [name for name, text in zip(raw.classes, known, strict=True) if text not in set(texts)]
    place = {text: number for number, text in enumerate(order)}
    return np.array([place[text] for text in texts], dtype=np.int64)[codes], tuple(names), unused


def sorted_classes(texts: list[str]) -> list[str]:
    """Return class names in order: by number if all are numbers, else as texts."""
    numbers = [number_of(text) for text in texts]
    if np.isnan(numbers).any():
        return sorted(set(texts))
    return [text for _, text in sorted(set(zip(numbers, texts, strict=True)))]


def fit_target(goal: Goal, train: NDArray[np.int64], log: bool) -> Target:
    """Return how the training rows' targets are standardized; the identity for classes."""
    if goal.task == "classification":
        return Target()
    values = goal.values[train]
    values = np.log(values) if log else values
    spread = float(values.std())
    return Target(center=float(values.mean()), scale=spread if spread > 0 else 1.0, log=log)


def store(goal: Goal, target: Target) -> NDArray[Any]:
    """Return targets as a Part holds them: (n,) int64 class numbers or float32 standardized numbers."""
    if goal.task == "classification":
        return goal.values
    values = np.log(goal.values) if target.log else goal.values
    return np.asarray((values - target.center) / target.scale, dtype=np.float32)
