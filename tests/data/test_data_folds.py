"""Folds: disjoint, together all rows but the test rows, true to groups and time, encoded by their own training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config import Data, Split
from tuner.data import Splits, load, load_folds
from tuner.data.divide import By, Whole, divide
from tuner.data.folds import Fold
from tuner.errors import DataError


def divided(rows: int, count: int, **by: Any) -> list[Any]:
    spec = by.pop("spec", Split(folds=count))
    return [divide(rows, spec, By(**by), "d.csv", Fold(number)) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(20, 120),
    count=st.integers(2, 8),
    classes=st.integers(2, 4),
    seed=st.integers(0, 99),
    stratify=st.booleans(),
)
def test_every_row_but_the_test_rows_is_held_out_once(
    rows: int, count: int, classes: int, seed: int, stratify: bool
) -> None:
    values = np.random.default_rng(seed).permutation(np.arange(rows) % classes)
    spec = Split(folds=count, seed=seed, stratify=stratify)
    if stratify is False and min(np.bincount(values)) < 8:
        return  # a fold may then hold out all rows of a class, which is refused
    folds = divided(rows, count, spec=spec, classes=values)
    test = folds[0].test
    assert all(np.array_equal(fold.test, test) for fold in folds)
    held_out = np.concatenate([fold.val for fold in folds])
    assert len(np.unique(held_out)) == len(held_out)
    assert np.array_equal(np.sort(np.concatenate((held_out, test))), np.arange(rows))
    for fold in folds:
        assert np.array_equal(np.sort(np.concatenate((fold.train, fold.val, test))), np.arange(rows))


def test_classes_have_their_share_in_every_fold() -> None:
    values = np.array([0] * 80 + [1] * 20)
    for fold in divided(100, 4, spec=Split(folds=4, test=0), classes=values):
        assert np.bincount(values[fold.val]).tolist() == [20, 5]


def test_a_class_with_fewer_rows_than_folds_is_held_out_and_trained_on() -> None:
    values = np.array([0] * 30 + [1] * 27 + [2] * 3)
    folds = divided(60, 5, spec=Split(folds=5, test=0), classes=values)
    assert sum((values[fold.val] == 2).sum() for fold in folds) == 3
    assert all((values[fold.train] == 2).any() for fold in folds)


def test_a_class_with_one_row_outside_the_test_rows_is_trained_on_in_every_fold() -> None:
    values = np.array([0] * 30 + [1] * 29 + [2])
    folds = divided(60, 3, spec=Split(folds=3, test=0), classes=values)
    assert all(59 in fold.train for fold in folds)


def test_the_whole_trains_on_the_rows_of_all_folds_and_on_no_test_row() -> None:
    whole = divide(50, Split(folds=5), By(), "d.csv", Whole())
    fold = divide(50, Split(folds=5), By(), "d.csv", Fold(0))
    assert np.array_equal(whole.train, np.sort(np.concatenate((fold.train, fold.val))))
    assert np.array_equal(whole.test, fold.test)
    assert list(whole.apart) == ["train", "test"]
    assert list(fold.apart) == ["train", "val", "test"]


@pytest.mark.parametrize("classes", [None, np.arange(60) % 2], ids=["numbers", "classes"])
def test_a_group_is_in_one_part_only(classes: Any) -> None:
    groups = np.arange(60) // 4
    for fold in divided(60, 3, spec=Split(folds=3, groups="g"), classes=classes, groups=groups):
        parts = [set(groups[rows]) for rows in fold.parts.values()]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 15


def test_in_time_every_fold_trains_on_the_past_alone() -> None:
    times = np.repeat(np.arange(40.0), 2)[np.random.default_rng(0).permutation(80)]
    folds = divided(80, 4, spec=Split(folds=4, time="t"), times=times)
    for fold in folds:
        assert times[fold.train].max() < times[fold.val].min()
        assert times[fold.val].max() < times[fold.test].min()
    starts = [times[fold.val].min() for fold in folds]
    assert starts == sorted(set(starts))


def test_official_test_rows_stay_and_official_validation_rows_join_the_folds() -> None:
    official = np.array(["train"] * 30 + ["val"] * 10 + ["test"] * 10)
    folds = divided(50, 4, official=official)
    assert all(fold.test.tolist() == list(range(40, 50)) for fold in folds)
    assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(40))


@pytest.mark.parametrize(
    ("rows", "by", "spec", "said"),
    [
        (12, {}, Split(folds=20), "data.split.folds 20: there are only 10 rows besides those for test; take fewer"),
        (40, {"groups": np.arange(40) // 20}, Split(folds=5, test=0, groups="g"), "there are only 2 groups"),
        (40, {"times": np.repeat([1.0, 2.0], 20)}, Split(folds=3, test=0, time="t"), "there is only 1 later moment"),
    ],
)
def test_too_few_rows_for_so_many_folds_are_refused_in_one_line(rows: int, by: Any, spec: Split, said: str) -> None:
    with pytest.raises(DataError) as caught:
        divide(rows, spec, By(**by), "d.csv", Fold(0))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def written(folder: Path, **columns: Any) -> Data:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(5, 3, 60), "t": np.arange(60) % 2} | columns)
    frame.to_csv(folder / "d.csv", index=False)
    return Data(source="d.csv", target="t", split=Split(folds=4))


def test_what_a_fold_holds_out_changes_nothing_in_its_preprocessing(tmp_path: Path) -> None:
    data = written(tmp_path)
    _, folds = load_folds(data, tmp_path)
    frame = pd.read_csv(tmp_path / "d.csv")
    frame.loc[folds[1].val.rows, ["a", "b"]] *= 100
    frame.to_csv(tmp_path / "d.csv", index=False)
    _, after = load_folds(data, tmp_path)
    assert after[1].encoder.to_json() == folds[1].encoder.to_json()
    assert after[0].encoder.to_json() != folds[0].encoder.to_json()
    assert np.array_equal(after[1].train.x, folds[1].train.x)


@pytest.mark.parametrize("names", [["train", "test"], ["train", "val", "test"]])
def test_with_refit_the_whole_is_train_and_validation_and_the_test_rows_stay(names: list[str], tmp_path: Path) -> None:
    data = written(tmp_path, split=np.array(names)[np.arange(60) // 2 % len(names)])
    whole, (fold,) = load_folds(data.model_copy(update={"split": Split()}), tmp_path, refit=True)
    assert np.array_equal(whole.train.rows, np.sort(np.concatenate((fold.train.rows, fold.val.rows))))
    assert whole.test is not None
    assert fold.test is not None
    assert np.array_equal(whole.test.rows, fold.test.rows)
    assert whole.test_hash == fold.test_hash
    assert not [note for note in whole.notes if "identical" in note]


def test_without_folds_the_whole_is_the_one_division(tmp_path: Path) -> None:
    data = written(tmp_path).model_copy(update={"split": Split()})
    whole, folds = load_folds(data, tmp_path)
    assert folds == (whole,)
    assert isinstance(whole, Splits)
    assert np.array_equal(whole.val.x, load(data, tmp_path).val.x)
