"""Columns that may give the answer away or name a row are told; ordinary ones aren't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from tuner.data.suspects import suspects

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 300)
CLASSES = ("churn", "stay", "upgrade")
PRICE = RNG.lognormal(3, 1, 300)


@pytest.mark.parametrize(
    ("column", "y", "classes", "said"),
    [
        (Y == 0, Y, CLASSES, "alone tells class 'churn' from all others"),
        (np.where(Y == 1, 0.9, 0.1) + RNG.normal(0, 0.02, 300), Y, CLASSES, "alone tells class 'stay' from all others"),
        (np.where(Y == 2, "yes", "no"), Y, CLASSES, "alone tells class 'upgrade' from all others"),
        ((Y == 0) * 2.0, (Y == 0).astype(int), ("a", "b"), "alone tells class 'a' from the other"),
        (0.93 * PRICE + 1, PRICE, (), "alone tells the order of the target"),
        (-np.log(PRICE), PRICE, (), "alone tells the order of the target"),
        ([f"C{n:04d}" for n in [*range(290), *range(10)]], Y, CLASSES, "has nearly as many different values as rows"),
    ],
)
def test_a_column_that_gives_the_answer_or_names_its_row_is_told(
    column: Any, y: Any, classes: Sequence[str], said: str
) -> None:
    rows = pd.DataFrame({"plain": RNG.normal(size=300), "told": column})
    (line,) = suspects(rows, y, classes)
    assert line.startswith("column told ")
    assert said in line
    assert line.endswith("leave it out: data.drop")


@pytest.mark.parametrize(
    ("column", "y", "classes"),
    [
        (Y + RNG.normal(0, 1, 300), Y, CLASSES),
        (np.full(300, np.nan), Y, CLASSES),
        (np.ones(300), Y, CLASSES),
        (RNG.choice(list("abcdef"), 300), Y, CLASSES),
        (pd.date_range("2020-01-01", periods=300).astype(str), Y, CLASSES),
        (PRICE + RNG.normal(0, 3, 300), PRICE, ()),
        (pd.array([None, 1, 2] * 100, dtype="Int64"), Y, CLASSES),
    ],
)
def test_an_ordinary_column_is_no_suspect(column: Any, y: Any, classes: Sequence[str]) -> None:
    assert suspects(pd.DataFrame({"plain": column}), y, classes) == []


def test_in_well_known_tables_nothing_is_suspected() -> None:
    for load in (load_breast_cancer, load_diabetes):
        found = load(as_frame=True)
        classes = [str(name) for name in getattr(found, "target_names", [])]
        assert suspects(found.data, found.target.to_numpy(), classes) == []
