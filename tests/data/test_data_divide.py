"""Which row goes where."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config import Split
from tuner.data.divide import By, Division, divide
from tuner.errors import DataError

shares = st.sampled_from([0.1, 0.2, 0.3, 0.45])
seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=60, deadline=None)


def complete(division: Division, rows: int) -> bool:
    together = np.concatenate(list(division.parts.values()))
    return len(together) == rows and sorted(together) == list(range(rows))


@some
@given(st.lists(st.integers(0, 4), min_size=10, max_size=80), shares, st.sampled_from([0.0, 0.1, 0.3]), seeds)
def test_parts_are_disjoint_complete_and_train_sees_every_class(
    labels: list[int], val: float, test: float, seed: int
) -> None:
    classes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    for by in (By(), By(classes=classes)):
        division = divide(len(labels), Split(val=val, test=test, seed=seed), by, "d")
        assert complete(division, len(labels))
        assert (division.test is None) == (test == 0)
    assert set(classes[division.train]) == set(classes)


@some
@given(st.lists(st.integers(0, 9), min_size=20, max_size=80), shares, shares, seeds, seeds)
def test_groups_never_straddle(groups: list[int], val: float, test: float, seed: int, again: int) -> None:
    by = By(groups=np.array(groups))
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match="too few different values"):
            divide(len(groups), Split(val=val, test=test, groups="g"), by, "d")
        return
    division = divide(len(groups), Split(val=val, test=test, seed=seed, groups="g"), by, "d", again)
    assert complete(division, len(groups))
    parts = [set(np.array(groups)[rows]) for rows in division.parts.values()]
    assert sum(map(len, parts)) == len(set().union(*parts))


@some
@given(st.lists(st.integers(0, 30), min_size=10, max_size=80).filter(lambda t: len(set(t)) > 4), shares, shares)
def test_train_is_before_val_is_before_test_and_equal_times_stay_together(
    times: list[int], val: float, test: float
) -> None:
    t = np.array(times, dtype=np.float64)
    with suppress(DataError):  # cutting the test rows may leave one moment for the rest
        division = divide(len(t), Split(val=val, test=test, time="t"), By(times=t), "d")
        check_order(division, t)


def check_order(division: Division, t: np.ndarray) -> None:
    assert complete(division, len(t))
    assert division.test is not None
    assert t[division.train].max() < t[division.val].min()
    assert t[division.val].max() < t[division.test].min()


@some
@given(seeds, seeds, shares, shares)
def test_test_rows_depend_on_nothing_but_the_data_and_the_split_they_are_asked_for(
    seed: int, again: int, val: float, other: float
) -> None:
    classes = np.arange(100) % 3
    one = divide(100, Split(val=val, test=0.2, seed=seed), By(classes=classes), "d")
    two = divide(100, Split(val=other, test=0.2, seed=seed), By(classes=classes), "d", again)
    assert np.array_equal(one.test, two.test)


def test_another_seed_of_split_draws_other_validation_rows() -> None:
    one, two = (divide(100, Split(), By(classes=np.arange(100) % 2), "d", seed) for seed in (1, 2))
    assert not np.array_equal(one.val, two.val)
    assert np.array_equal(one.test, two.test)


def test_stratified_parts_keep_the_class_frequencies() -> None:
    classes = (np.arange(200) % 10 == 0).astype(np.int64)
    division = divide(200, Split(val=0.2, test=0.2), By(classes=classes), "d")
    assert [classes[rows].sum() for rows in division.parts.values()] == [12, 4, 4]


def test_shares_are_shares_of_all_rows() -> None:
    division = divide(1000, Split(val=0.3, test=0.2), By(), "d")
    assert [len(rows) for rows in division.parts.values()] == [500, 300, 200]


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_an_official_split_is_kept_whatever_the_fractions_say(val: str) -> None:
    official = np.array(["train", "train", val, "test"] * 5)
    division = divide(20, Split(val=0.4, test=0.4, seed=9), By(official=official), "d", 5)
    assert np.array_equal(division.val, np.arange(2, 20, 4))
    assert np.array_equal(division.test, np.arange(3, 20, 4))
    assert division.notes == ("kept the split that the data name",)


def test_an_official_split_without_val_gives_a_share_of_its_train_rows() -> None:
    official = np.array(["train"] * 40 + ["test"] * 10)
    division = divide(50, Split(val=0.25), By(official=official), "d")
    assert len(division.val) == 10
    assert division.val.max() < 40
    assert "it has no val, so 10 rows of train are used for it" in division.notes[0]


def test_an_official_split_without_test_has_none() -> None:
    division = divide(20, Split(), By(official=np.array(["train", "val"] * 10)), "d")
    assert division.test is None


def test_a_class_of_two_rows_is_divided_and_keeps_a_training_row() -> None:
    classes = np.array([0] * 30 + [1] * 2)
    for seed in range(20):
        division = divide(32, Split(val=0.4, test=0.4, seed=seed), By(classes=classes), "d")
        assert 1 in classes[division.train]


@pytest.mark.parametrize(
    ("spec", "by", "message"),
    [
        (
            {"val": 0.5, "test": 0.5},
            {},
            "d: data.split.val 0.5 and data.split.test 0.5 leave no rows to train on; their sum must be below 1",
        ),
        (
            {"groups": "g", "time": "w"},
            {"groups": np.arange(20), "times": np.arange(20.0)},
            "d: data.split.groups and data.split.time can't be combined; leave one out",
        ),
        (
            {},
            {"official": np.array(["train"] * 19 + ["dev"])},
            "d: split says 'dev' in row 20; train, val and test are allowed",
        ),
        ({}, {"official": np.array(["test"] * 20)}, "d: split names no train rows; at least some rows must be train"),
        (
            {"time": "w"},
            {"times": np.zeros(20)},
            "d: data.split.time 'w': too few different values; each part needs at least one of its own",
        ),
        (
            {"time": "w"},
            {"times": np.arange(20.0), "classes": np.array([0, 1] * 9 + [2, 2])},
            "d: test has rows of class 2, which no training row has; leave these rows out or change data.split",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused_in_words(spec: dict[str, Any], by: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        divide(20, Split(**spec), By(**by), "d")
    assert str(caught.value) == message


def test_time_divides_even_with_many_ties() -> None:
    t = np.repeat(np.arange(10.0), 7)
    division = divide(70, Split(val=0.2, test=0.2, time="t"), By(times=t), "d")
    check_order(division, t)
    assert [len(rows) for rows in division.parts.values()] == [42, 14, 14]
