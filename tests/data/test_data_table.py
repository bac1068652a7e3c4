"""What becomes of a table's columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data import Splits, encoder_from_json, read_raw
from tuner.data.splits import Target
from tuner.data.table import TableEncoder, fit_table
from tuner.data.targets import Goal
from tuner.errors import DataError

Read = Callable[..., Splits]
Make = Callable[..., pd.DataFrame]


def fit(frame: pd.DataFrame) -> TableEncoder:
    goal = Goal("classification", np.arange(len(frame)) % 2, ("no", "yes"))
    source = frame.iloc[np.repeat(np.arange(len(frame)), 2)].reset_index(drop=True)  # every other row is of training
    return fit_table(source, 2 * np.arange(len(frame)), goal, Target())[0]


numbers = st.one_of(st.floats(allow_infinity=False), st.sampled_from([0.0, -0.0, 1e-300, 1e120, np.nan]))
words = st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["red", "green", "1", "01", "2024-01-01", "true"]))
days = st.one_of(st.none(), st.dates().map(str))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(2, 25))
    kinds = {
        "number": numbers.filter(lambda x: not abs(x) > 1e140),
        "whole": st.integers(-(2**53), 2**53),
        "word": words,
        "flag": st.booleans(),
        "day": days,
    }
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=5, unique=True))
    columns = {name: draw(st.lists(kinds[name], min_size=rows, max_size=rows)) for name in names}
    return pd.DataFrame({**columns, "sure": np.arange(rows) % 2})


@settings(max_examples=60, deadline=None)
@given(frames(), frames())
def test_an_encoder_read_back_from_json_encodes_bit_for_bit_the_same(train: pd.DataFrame, other: pd.DataFrame) -> None:
    encoder = fit(train)
    again = encoder_from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    assert again.shape == encoder.shape
    for frame in (train, other.reindex(columns=train.columns)):
        encoded = encoder.encode(frame)
        assert encoded.dtype == np.float32
        assert encoded.shape == (len(frame), *encoder.shape.input)
        assert np.isfinite(encoded).all()
        assert encoded.tobytes() == again.encode(frame).tobytes()
        first = encoded.shape[1] - len(encoder.shape.cardinalities)
        assert (encoded[:, first:] == np.round(encoded[:, first:])).all()
        assert (encoded[:, first:] < np.array(encoder.shape.cardinalities)).all()
        assert (encoded[:, first:] >= 0).all()


@settings(max_examples=40, deadline=None)
@given(frames(), frames(), frames())
def test_what_stands_in_rows_of_val_and_test_changes_nothing_in_the_encoder(
    train: pd.DataFrame, one: pd.DataFrame, two: pd.DataFrame
) -> None:
    goal = Goal("classification", np.arange(len(train)) % 2, ("no", "yes"))
    alone = fit_table(train, np.arange(len(train)), goal, Target())[0]
    for others in (one, two):
        frame = pd.concat([train, others.reindex(columns=train.columns)], ignore_index=True)
        assert fit_table(frame, np.arange(len(train)), goal, Target())[0] == alone


def test_statistics_of_train_are_untouched_by_changes_of_val_and_test_rows(read: Read, table: Make) -> None:
    frame = table(when=pd.date_range("2020-01-01", periods=60).astype(str), m=[np.nan, 1.0, 2.0] * 20)
    frame["split"] = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    one = read(frame)
    changed = frame.copy()
    changed.loc[40:, "a"] *= 1e6
    changed.loc[40:, "b"] = 77
    changed.loc[40:, "c"] = "violet"
    changed.loc[40:, "m"] = 5.5
    changed.loc[40:, "when"] = "1999-09-09"
    two = read(changed)
    assert one.encoder == two.encoder
    assert one.train.x.tobytes() == two.train.x.tobytes()
    assert one.test_hash != two.test_hash


def test_regression_statistics_come_from_train_alone(read: Read, table: Make) -> None:
    frame = table(t=np.linspace(1, 2, 60), split=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    one = read(frame)
    frame.loc[40:, "t"] += 1000
    two = read(frame)
    assert one.encoder.target == two.encoder.target
    assert one.train.y.mean() == pytest.approx(0, abs=1e-6)
    assert one.train.y.std() == pytest.approx(1, abs=1e-6)


def test_numbers_come_first_standardized_and_category_codes_last(read: Read, table: Make) -> None:
    splits = read(table())
    assert splits.shape.input == (3,)
    assert splits.shape.cardinalities == (4,)
    assert splits.train.x[:, :2].mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert splits.train.x[:, :2].std(axis=0) == pytest.approx(1, abs=1e-6)
    assert set(splits.train.x[:, 2]) == {1, 2, 3}
    assert splits.train.x.dtype == np.float32
    assert splits.train.y.dtype == np.int64


def test_unknown_and_missing_categories_are_code_zero(table: Make) -> None:
    encoder = fit(table()[["c"]])
    codes = encoder.encode(pd.DataFrame({"c": ["blue", "violet", None, "red"]}))
    assert codes.ravel().tolist() == [1, 0, 0, 3]


def test_missing_numbers_are_the_median_and_told_apart() -> None:
    encoder = fit(pd.DataFrame({"a": [1.0, 2.0, 4.0, np.nan] * 5}))
    assert [(number.piece, number.fill) for number in encoder.numbers] == [("value", 2.0), ("missing", 0.0)]
    filled, same = encoder.encode(pd.DataFrame({"a": [np.nan, 2.0]}))
    assert filled[0] == same[0]
    assert filled[1] > same[1]


def test_rare_categories_among_many_are_unknown() -> None:
    often = [f"k{i}" for i in range(60) for _ in range(2)]
    encoder = fit(pd.DataFrame({"c": [*often, "once"]}))
    assert encoder.shape.cardinalities == (61,)
    assert encoder.encode(pd.DataFrame({"c": ["once", "k3"]})).ravel().tolist()[0] == 0


def test_a_strongly_skewed_column_goes_through_a_logarithm() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"money": np.exp(random.normal(0, 2, 300)), "plain": random.normal(size=300)})
    money, plain = fit(frame).numbers
    assert money.log_unit > 0
    assert plain.log_unit == 0


def test_a_value_far_outside_stays_within_ten_standard_deviations(table: Make) -> None:
    encoder = fit(table()[["a"]])
    assert encoder.encode(pd.DataFrame({"a": [1e300, -np.inf]})).ravel().tolist() == [10, -10]


@pytest.mark.parametrize("stored", [str, pd.Timestamp, lambda day: pd.Timestamp(day, tz="UTC")])
def test_dates_become_numbers_however_they_are_stored(stored: Callable[[str], Any]) -> None:
    days = ["2020-02-29", "2021-07-01", "2022-12-31"] * 4
    encoder = fit(pd.DataFrame({"when": [stored(day) for day in days]}))
    assert [number.piece for number in encoder.numbers] == ["year", "month", "weekday", "yearday", "day"]
    by_text = fit(pd.DataFrame({"when": days}))
    assert encoder.numbers == by_text.numbers


def test_few_whole_numbers_and_booleans_are_numbers() -> None:
    encoder = fit(
        pd.DataFrame({"n": [0, 1, 2] * 5, "flag": [True, False, True] * 5, "text": ["True", "false", None] * 5})
    )
    assert encoder.categories == ()
    assert [number.column for number in encoder.numbers] == ["n", "flag", "text", "text"]


def test_marks_of_missing_values_do_not_make_a_column_text() -> None:
    encoder = fit(pd.DataFrame({"n": ["1.5", "?", "2", "n/a"] * 5}))
    assert [(number.column, number.piece) for number in encoder.numbers] == [("n", "value"), ("n", "missing")]


def test_a_category_is_the_same_whether_stored_as_text_or_as_number() -> None:
    encoder = fit(pd.DataFrame({"c": pd.Categorical([1, 2, 3] * 4)}))
    for values in ([3, 1], [3.0, 1.0], ["3", "1"]):
        assert encoder.encode(pd.DataFrame({"c": values})).ravel().tolist() == [3, 1]


def test_an_array_is_read_in_the_order_of_training(read: Read) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[:, 1] = 4
    splits = read({"X": x, "y": np.arange(40) % 2}, "d.npz")
    assert "dropped 1 constant column: x1" in splits.notes
    assert splits.shape.input == (2,)
    again = splits.encoder.encode(x)
    assert again[splits.train.rows].tobytes() == splits.train.x.tobytes()
    with pytest.raises(DataError, match=r"^examples have shape \(40, 2\); \(rows, 3\) was learned: x0, x1, x2$"):
        splits.encoder.encode(x[:, :2])


def test_useless_columns_are_dropped_and_named(read: Read, table: Make) -> None:
    frame = table(one=1, none=np.nan, number=range(5, 65), user_id=np.random.default_rng(0).permutation(60) * 7)
    frame["name"] = [f"person {i}" for i in range(60)]
    splits = read(frame)
    assert splits.shape.input == (3,)
    assert "dropped 2 constant columns: one, none" in splits.notes
    assert "dropped 3 id-like columns: number, user_id, name" in splits.notes


def test_examples_that_lack_a_column_are_refused_with_the_nearest_name(table: Make) -> None:
    encoder = fit(table()[["a", "b", "c"]].rename(columns={"a": "income"}))
    with pytest.raises(DataError) as caught:
        encoder.encode(pd.DataFrame({"incom": [1.0], "b": [1]}))
    assert str(caught.value) == ("examples lack 2 columns that training had: income (did you mean 'incom'?), c")


def test_read_raw_reads_what_encode_takes_with_or_without_the_target(read: Read, table: Make, tmp_path: Any) -> None:
    frame = table(zip=["01234", "1234", "01x"] * 20)
    splits = read(frame)
    frame.drop(columns="t").to_csv(tmp_path / "new.csv", index=False)
    frame.iloc[:1].drop(columns="t").to_parquet(tmp_path / "one.parquet")
    for source in (tmp_path / "d.csv", str(tmp_path / "new.csv"), frame, dict(frame)):
        raw, rows = read_raw(source, splits.encoder)
        assert rows == 60
        assert splits.encoder.encode(raw)[splits.train.rows].tobytes() == splits.train.x.tobytes()
    assert read_raw(tmp_path / "one.parquet", splits.encoder)[1] == 1
    pd.DataFrame({"a": [1.0], "b": [1], "c": ["red"], "zip": ["01234"]}).to_csv(tmp_path / "zip.csv", index=False)
    raw, _ = read_raw(tmp_path / "zip.csv", splits.encoder)
    assert splits.encoder.encode(raw)[0, -1] == 1


def test_examples_without_a_row_are_refused(read: Read, table: Make, tmp_path: Any) -> None:
    splits = read(table())
    for source in (pd.DataFrame({"a": []}), np.zeros((0, 3)), np.array(3.0), []):
        with pytest.raises(DataError, match="there must be at least one row"):
            read_raw(source, splits.encoder)


def test_a_damaged_encoder_document_is_refused() -> None:
    for document in ({}, {"kind": "table"}, {"kind": "sound"}, {"kind": "image", "input": 3}):
        with pytest.raises(DataError, match=r"^the preprocessing is damaged"):
            encoder_from_json(document)
