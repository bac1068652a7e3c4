"""What becomes of sequences: their kind, their steps, their gaps, and the tables that hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config import Data, Split
from tuner.data import Splits, encoder_from_json, load, load_folds, read_raw
from tuner.data.loading import split_sequences
from tuner.data.ragged import ragged_of
from tuner.data.raw import Raw
from tuner.data.sequence import SequenceEncoder, looks_sequential
from tuner.errors import DataError, UsageError

Read = Callable[..., Splits]
Y = np.arange(40) % 2
PARTS = ["train"] * 28 + ["val"] * 6 + ["test"] * 6


def walks(rows: int = 40, steps: int = 12, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 3, (rows, steps, channels)).cumsum(axis=1)


def some_lengths(rows: int = 40, steps: int = 12) -> np.ndarray:
    return np.concatenate(([steps, 1], np.random.default_rng(1).integers(1, steps + 1, rows - 2)))


def long_table(x: np.ndarray, lengths: np.ndarray, y: np.ndarray = Y, **columns: np.ndarray) -> pd.DataFrame:
    """A row a step, the sequences one after the other; `columns` hold a value for each sequence."""
    owner = np.repeat(np.arange(len(x)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    channels = {f"c{i}": x[owner, step, i] for i in range(x.shape[2])}
    whole = {name: np.asarray(values)[owner] for name, values in columns.items()}
    return pd.DataFrame({"who": [f"p{i}" for i in owner], "when": step, **channels, **whole, "t": y[owner]})


def same(one: Splits, two: Splits) -> bool:
    parts = [(one.train, two.train), (one.val, two.val), (one.test, two.test)]
    return all(a is not None and b is not None and a.x.tobytes() == b.x.tobytes() for a, b in parts)


def told(read: Callable[[], Any], error: type[Exception] = DataError) -> str:
    """Return what an error says, and see that it is one line."""
    with pytest.raises(error) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_sequences_of_one_length_are_standardized_by_channel_and_have_no_mask(read: Read) -> None:
    x = walks()
    splits = read({"X": x, "y": Y}, "d.npz")
    assert splits.shape.kind == "sequence"
    assert splits.shape.input == (12, 3)
    assert not splits.shape.masked
    assert splits.train.x.dtype == np.float32
    assert splits.train.x.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-6)
    assert splits.train.x.std(axis=(0, 1)) == pytest.approx(1, abs=1e-6)


def test_shorter_sequences_are_padded_at_the_end_and_the_last_channel_says_where(read: Read) -> None:
    lengths = some_lengths()
    splits = read({"X": walks(), "y": Y, "lengths": lengths, "split": PARTS}, "d.npz")
    assert splits.shape.masked
    assert splits.shape.input == (12, 4)
    for part in (splits.train, splits.val, splits.test):
        assert part is not None
        there = np.arange(12) < lengths[part.rows][:, None]
        assert np.array_equal(part.x[:, :, -1], there)
        assert not part.x[~there].any()
    assert "sequences have 1 to 12 steps; shorter ones are padded at the end and masked" in splits.notes


def test_what_lies_behind_the_lengths_changes_neither_the_encoding_nor_the_fingerprint(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    one = read({"X": x, "y": Y, "lengths": lengths}, "d.npz")
    behind = np.arange(12) >= lengths[:, None]
    for junk in (1e9, np.nan, np.inf, 0):
        x[behind] = junk
        two = read({"X": x, "y": Y, "lengths": lengths}, "d.npz")
        assert same(one, two)
        assert (one.fingerprint, one.test_hash, one.encoder) == (two.fingerprint, two.test_hash, two.encoder)
    wide = np.concatenate([x, np.full((40, 5, 3), 7.0)], axis=1)
    assert read({"X": wide, "y": Y, "lengths": lengths}, "d.npz").fingerprint == one.fingerprint


def test_statistics_come_from_the_training_rows_alone(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    one = read({"X": x, "y": Y, "lengths": lengths, "split": PARTS}, "d.npz")
    x[28:] *= 1e6
    lengths[28:] = np.minimum(lengths[28:] + 1, 12)
    two = read({"X": x, "y": Y, "lengths": lengths, "split": PARTS}, "d.npz")
    assert one.encoder == two.encoder
    assert one.train.x.tobytes() == two.train.x.tobytes()
    assert one.test_hash != two.test_hash
    assert np.abs(two.val.x).max() == 10


def test_the_test_hash_depends_on_the_test_rows_alone(read: Read) -> None:
    x, lengths = walks(), np.minimum(some_lengths(), 9)
    one = read({"X": x, "y": Y, "lengths": lengths, "split": PARTS}, "d.npz")
    two = read({"X": x, "y": Y, "lengths": [12, *lengths[1:]], "split": PARTS}, "d.npz")
    assert one.test_hash == two.test_hash
    assert one.fingerprint != two.fingerprint


def test_nan_at_the_end_of_every_channel_ends_a_sequence(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    one = read({"X": x, "y": Y, "lengths": lengths}, "d.npz")
    x[np.arange(12) >= lengths[:, None]] = np.nan
    two = read({"X": x, "y": Y}, "d.npz")
    assert same(one, two)
    assert one.fingerprint == two.fingerprint


def test_missing_values_are_filled_from_those_beside_them(read: Read) -> None:
    x = walks()
    splits = read({"X": x, "y": Y, "split": PARTS}, "d.npz")
    encoder = splits.encoder
    assert isinstance(encoder, SequenceEncoder)
    holes = x[:2].copy()
    holes[0, [0, 1, 5, 6], 0] = np.nan
    holes[0, 11, 1] = np.nan
    holes[1, :, 2] = np.nan
    filled = x[:2].copy()
    filled[0, :2, 0] = x[0, 2, 0]
    filled[0, 5:7, 0] = x[0, 4, 0] + (x[0, 7, 0] - x[0, 4, 0]) * np.array([1, 2]) / 3
    filled[0, 11, 1] = x[0, 10, 1]
    filled[1, :, 2] = encoder.channels[2].center
    assert encoder.encode(holes) == pytest.approx(encoder.encode(filled), abs=1e-6)
    x[:2] = holes
    notes = read({"X": x, "y": Y, "split": PARTS}, "d.npz").notes
    assert (
        "filled 17 missing values in 2 sequences from the values beside them; "
        "1 channel without any with the training mean"
    ) in notes


def test_a_channel_that_is_constant_in_training_is_dropped_and_named(read: Read) -> None:
    x = walks()
    x[:28, :, 1] = 4
    splits = read({"X": x, "y": Y, "split": PARTS}, "d.npz")
    assert splits.shape.input == (12, 2)
    assert "dropped 1 constant channel: 2" in splits.notes
    again = splits.encoder.encode(x)
    assert again[splits.val.rows].tobytes() == splits.val.x.tobytes()
    x[:28] = 4
    assert told(lambda: read({"X": x, "y": Y, "split": PARTS}, "d.npz")) == (
        "d.npz: no channel is left to learn from: all are constant or empty in the training rows"
    )


def test_a_channel_that_tells_the_class_is_noted(read: Read) -> None:
    x = walks()
    x[:, :, 1] = Y[:, None]
    notes = read({"X": x, "y": Y}, "d.npz").notes
    assert "channel 2 tells the class of every row; drop it if it is made from the target" in notes


def test_data_length_keeps_the_newest_steps(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    cut = read({"X": x, "y": Y, "split": PARTS, "lengths": lengths}, "d.npz", length=5)
    assert cut.shape.input == (5, 4)
    newest = np.zeros((40, 5, 3))
    for row, length in enumerate(lengths):
        kept = x[row, max(0, length - 5) : length]
        newest[row, : len(kept)] = kept
    plain = read({"X": newest, "y": Y, "split": PARTS, "lengths": np.minimum(lengths, 5)}, "d.npz")
    assert same(cut, plain)
    assert cut.fingerprint == plain.fingerprint
    more = f"{(lengths > 5).sum()} sequences that had more"
    assert f"used the newest 5 steps of {more}" in cut.notes
    frame = long_table(x, lengths, split=np.array(PARTS))
    long = read(frame, id="who", time="when", length=5)
    assert same(long, cut)
    assert f"used the newest 5 steps of {more}" in long.notes


def test_a_model_of_fixed_length_with_data_length_takes_longer_sequences_later(read: Read) -> None:
    x = walks()
    encoder = read({"X": x, "y": Y}, "d.npz", length=5).encoder
    assert not encoder.shape.masked
    assert np.array_equal(encoder.encode(x), encoder.encode(x[:, -5:]))
    assert told(lambda: encoder.encode(x[:, :4])).endswith("such as 4 steps (row 1, 2, 3, 4, 5, ...); sequences of 5 "
                                                            "steps were learned")  # fmt: skip


def test_more_steps_than_4096_need_data_length(read: Read) -> None:
    x = walks(12, 4100, 1)
    y = Y[:12]
    assert told(lambda: read({"X": x, "y": y, "lengths": [4097, *[9] * 11]}, "d.npz")) == (
        "d.npz: 1 row of more than 4096 steps, the longest of 4097 (row 1); "
        "say in data.length how many are used, the newest of each"
    )
    assert read({"X": x, "y": y, "lengths": [4096, *[9] * 11]}, "d.npz").shape.input[1] == 2
    frame = long_table(x, np.array([9] * 11 + [4100]), y)
    assert "of more than 4096 steps, the longest of 4100 (id p11)" in told(lambda: read(frame, id="who"))
    assert read(frame, id="who", length=4100, split={"test": 0}).shape.masked


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
def test_a_row_a_step_and_an_array_of_the_same_data_come_out_the_same(read: Read, name: str) -> None:
    x, lengths = walks(), some_lengths()
    array = read({"X": x, "y": Y, "lengths": lengths, "split": PARTS}, "d.npz")
    frame = long_table(x, lengths, split=np.array(PARTS))
    long = read(frame, name, id="who", drop=("when",))
    assert same(array, long)
    assert array.fingerprint == long.fingerprint
    assert array.test_hash == long.test_hash
    mixed = frame.sample(frac=1, random_state=0)
    mixed = pd.concat([mixed[mixed["when"] == 0].sort_index(), mixed[mixed["when"] > 0]])
    assert same(array, read(mixed, name, id="who", time="when"))
    mixed["when"] = pd.to_datetime("2024-01-01") + pd.to_timedelta(mixed["when"], unit="h")
    assert same(array, read(mixed, name, id="who", time="when"))


def test_a_table_with_a_number_a_step_is_one_channel(read: Read) -> None:
    x = walks(channels=1)
    frame = pd.DataFrame(x[:, :, 0], columns=[f"s{i}" for i in range(12)]).assign(t=Y, split=PARTS)
    array = read({"X": x, "y": Y, "split": PARTS}, "d.npz")
    assert array.shape.input == (12, 1)
    assert same(array, read(frame, kind="sequence"))
    assert same(array, read({"X": x[:, :, 0], "y": Y, "split": PARTS}, "d.npz", kind="sequence"))
    assert read(frame).shape.kind == "table"
    counted = read(frame.assign(row=np.arange(40)), kind="sequence")
    assert same(array, counted)
    assert "dropped 1 id-like column: row" in counted.notes


def test_a_table_with_a_number_a_step_is_divided_by_its_columns(read: Read) -> None:
    frame = pd.DataFrame(walks(channels=1)[:, :, 0]).assign(t=Y, g=np.repeat(list("abcdefgh"), 5))
    splits = read(frame, kind="sequence", split={"groups": "g"})
    assert splits.shape.input == (12, 1)
    assert splits.test is not None
    groups = [set(frame["g"].iloc[part.rows]) for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, groups)) == 8


@pytest.mark.parametrize("key", ["groups", "time"])
def test_sequences_of_one_group_or_moment_stay_in_one_part(read: Read, key: str) -> None:
    patients = np.repeat(np.arange(10), 4)
    frame = long_table(walks(), some_lengths(), patient=patients)
    splits = read(frame, id="who", time="when", split={key: "patient"}, drop=("patient",))
    assert splits.shape.input[1] == 4
    assert splits.test is not None
    parts = [set(patients[part.rows]) for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, parts)) == 10
    if key == "time":
        assert max(parts[0]) < min(parts[1])
        assert max(parts[1]) < min(parts[2])


def test_steps_that_lie_unequally_far_apart_are_noted(read: Read) -> None:
    frame = long_table(walks(), np.full(40, 12))
    note = "steps lie unequally far apart in when; only their order is used"
    assert note not in read(frame, id="who", time="when").notes
    frame["when"] = frame["when"] * 0.1 + 1e6
    assert note not in read(frame, id="who", time="when").notes
    frame["when"] = (frame["when"] - 1e6) ** 2
    assert note in read(frame, id="who", time="when").notes


def test_a_column_that_counts_the_rows_of_a_long_table_is_no_channel(read: Read) -> None:
    frame = long_table(walks(), np.full(40, 12)).reset_index()
    splits = read(frame, id="who", time="when")
    assert splits.shape.input == (12, 3)
    assert "dropped 1 id-like column: index" in splits.notes


def changed(row: int, column: str, value: Any) -> pd.DataFrame:
    """A long table of 40 sequences of 12 rows, with another value in one place."""
    frame = long_table(walks(), np.full(40, 12), g=np.arange(40) // 4, split=np.array(PARTS))
    kept = frame[column].tolist()
    kept[row] = value
    return frame.assign(**{column: kept})


@pytest.mark.parametrize(
    ("place", "data", "message"),
    [
        (
            (13, "t", 0),
            {},
            "target 't': 1 sequence whose rows differ in it (id p1); all rows of a sequence must say the",
        ),
        ((13, "t", None), {}, "target 't': 1 sequence whose rows differ in it (id p1); all rows"),
        ((13, "split", "val"), {}, "column 'split': 1 sequence whose rows differ in it (id p1); all rows"),
        (
            (13, "g", 7),
            {"split": {"groups": "g"}},
            "data.split.groups 'g': 1 sequence whose rows differ in it (id p1);",
        ),
        (
            (0, "g", 0),
            {"split": {"time": "when"}},
            "data.split.time 'when': 40 sequences whose rows differ in it (id p0",
        ),
        ((13, "who", None), {}, "data.id 'who': 1 row without a value (row 14); fill it in or leave these rows out"),
        (
            (13, "when", None),
            {"time": "when"},
            "data.time 'when': 1 row without a moment (row 14); fill it in or",
        ),
        ((13, "when", "now"), {"time": "when"}, "data.time 'when': holds text that has no order in time; numbers and"),
        (
            (13, "when", 0),
            {"time": "when"},
            "data.time 'when': 1 sequence with two rows of one moment (id p1), such as rows 13 and 14; leave one",
        ),
        ((13, "c1", "high"), {}, "column 'c1': holds text (such as 'high' in row 14), and a"),
        ((13, "c1", np.inf), {}, "1 sequence with infinite values (id p1); replace them"),
        (
            (0, "g", 0),
            {"drop": ("c0", "c1", "c2", "g", "when")},
            "no channel is left; there must be a column of",
        ),
        ((0, "g", 0), {"id": "whom"}, "data.id: no column 'whom' (did you mean 'who'?); columns: who, when"),
        ((0, "g", 0), {"time": "then"}, "data.time: no column 'then' (did you mean 'when'?); columns: who, when"),
        ((0, "g", 0), {"id": "t"}, "data.id: 't' is the target"),
    ],
)
def test_errors_of_a_long_table_name_columns_and_ids(
    read: Read, place: tuple[int, str, Any], data: dict[str, Any], message: str
) -> None:
    said = told(lambda: read(changed(*place), **{"id": "who", **data}))
    assert said.startswith(f"d.csv: {message}")


def test_errors_of_a_long_table_name_sequences_that_are_empty_or_few_and_columns_of_no_use(read: Read) -> None:
    frame = long_table(walks(), np.full(40, 12)).drop(columns="when")
    nothing = frame.assign(**{name: frame[name].mask(frame["who"] == "p3") for name in ("c0", "c1", "c2")})
    assert told(lambda: read(nothing, id="who")) == "d.csv: 1 sequence without any value (id p3); leave these out"
    unknown = frame.assign(t=frame["t"].astype(object).mask(frame["who"] == "p3"))
    assert told(lambda: read(unknown, id="who")).startswith("d.csv: target 't': 1 sequence without a value (id p3);")
    assert told(lambda: read(frame[:96], id="who")) == ("d.csv: 8 sequences, one for each who; at least 10 are needed")
    dated = frame.assign(day="2024-01-01")
    assert told(lambda: read(dated, id="who")) == (
        "d.csv: column 'day': holds dates, and a sequence is made of numbers; leave it out with data.drop"
    )


def test_every_problem_of_a_long_table_is_told_in_one_go(read: Read) -> None:
    frame = changed(13, "t", 0).assign(word="red", mood="calm")
    with pytest.raises(DataError) as caught:
        read(frame, id="who")
    said = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert said == ["target 't'", "column 'word'", "column 'mood'"]


def test_keys_of_a_long_table_that_do_not_go_together_are_refused(read: Read) -> None:
    frame = long_table(walks(), np.full(40, 12))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"time": "when"}, "data.time: 'when' would order the rows of a sequence, and data.id is missing; name"),
        (
            {"id": "who", "kind": "table"},
            "data.id: 'who' names sequences, which doesn't go with data.kind: table;",
        ),
        ({"id": "who", "text": "c0"}, "data.id: 'who' names sequences, which doesn't go with data.text; leave one"),
        ({"id": "who", "time": "who"}, "data.time: 'who' is data.id; name another column or leave it out"),
    ]
    for data, message in cases:
        assert told(lambda d=data: read(frame, **d), UsageError).startswith(message)
    assert told(lambda: read({"X": walks(), "y": Y}, "d.npz", id="who")).startswith(
        "d.npz: data.id 'who' names a column"
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"lengths": [0, *[3] * 38, 13]}, "lengths: 2 rows where it is 0, 13 (row 1, 40); whole numbers from 1 to 12"),
        (
            {"lengths": [1.5] + [3] * 39},
            "lengths: 1 row where it is 1.5 (row 1); whole numbers from 1 to 12, the",
        ),
        ({"lengths": [3] * 39}, "lengths has shape (39,) and int64 values; a whole number for each of the 40 rows is"),
        ({"lengths": ["3"] * 40}, "lengths has shape (40,) and <U1 values; a whole number for each of the 40 rows is"),
        ({"X": np.where(np.arange(40)[:, None, None] == 6, np.inf, walks())}, "1 row with infinite values (row 7);"),
        ({"X": np.where(np.arange(40)[:, None, None] == 6, np.nan, walks())}, "1 row without any value (row 7); leave"),
        ({"X": walks() * 1e200}, "channel 1: has values beyond 1e150; choose another unit or leave the channel out"),
    ],
)
def test_errors_of_arrays_name_rows(read: Read, arrays: dict[str, Any], message: str) -> None:
    assert told(lambda: read({"X": walks(), "y": Y, **arrays}, "d.npz")).startswith(f"d.npz: {message}")


def test_problems_of_sequences_and_of_their_target_are_told_in_one_go(read: Read) -> None:
    with pytest.raises(DataError) as caught:
        read({"X": walks(), "y": [np.nan, *Y[1:]], "lengths": [0] * 40}, "d.npz")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["lengths", "target 'y'"]


def test_a_table_of_other_things_than_numbers_is_no_sequence(read: Read, table: Callable[..., pd.DataFrame]) -> None:
    assert told(lambda: read(table(c="red"), kind="sequence")) == (
        "d.csv: column 'c': holds text (such as 'red' in row 1), and a sequence is made of numbers; "
        "leave it out with data.drop; or, if a row is a step, name its sequence in data.id"
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((24, 1), float, "sequence"),
        ((1, 24), float, "sequence"),
        ((100, 9), float, "sequence"),
        ((24, 1), int, "sequence"),
        ((8, 8), float, "image"),
        ((28, 28), float, "image"),
        ((28, 20), float, "image"),
        ((100, 9), np.uint8, "image"),
    ],
)
def test_an_array_is_of_sequences_unless_it_is_about_as_wide_as_high_or_of_bytes(
    read: Read, shape: tuple[int, int], dtype: Any, kind: str
) -> None:
    x = (np.random.default_rng(0).random((40, *shape)) * 200).astype(dtype)
    assert read({"X": x, "y": Y}, "d.npz").shape.kind == kind
    other = "image" if kind == "sequence" else "sequence"
    assert read({"X": x, "y": Y}, "d.npz", kind=other).shape.kind == other


def test_values_below_zero_and_nan_at_the_end_are_of_sequences() -> None:
    x = np.random.default_rng(0).random((40, 28, 20))
    assert not looks_sequential(x)
    assert looks_sequential(x - 0.5)
    x[3, 20:] = np.nan
    assert looks_sequential(x)


def test_what_an_ambiguous_array_was_taken_for_is_noted(read: Read) -> None:
    x = np.random.default_rng(0).random((40, 12, 6))
    note = "X of shape (40, 12, 6) was taken for gray images (rows, height, width); "
    assert f"{note}if it holds sequences, say data.kind: sequence" in read({"X": x, "y": Y}, "d.npz").notes
    note = "X of shape (40, 12, 6) was taken for sequences (rows, steps, channels); "
    assert f"{note}if it holds gray images, say data.kind: image" in read({"X": x - 0.5, "y": Y}, "d.npz").notes
    for kind in ("image", "sequence"):
        assert not any("taken for" in text for text in read({"X": x, "y": Y}, "d.npz", kind=kind).notes)
    swapped = "X has 3 steps of 12 channels; if it is the other way round, swap the axes"
    assert swapped in read({"X": walks().swapaxes(1, 2), "y": Y}, "d.npz").notes


def test_lengths_beside_a_table_or_images_that_are_asked_for_are_not_looked_at(read: Read) -> None:
    x = np.random.default_rng(0).random((40, 8, 8))
    lengths = np.full(40, 99)
    assert read({"X": x, "y": Y, "lengths": lengths}, "d.npz", kind="image").shape.kind == "image"
    assert read({"X": x[:, 0], "y": Y, "lengths": lengths}, "d.npz", kind="table").shape.kind == "table"
    assert read({"X": x[:, 0], "y": Y, "lengths": lengths % 8 + 1}, "d.npz").shape.kind == "sequence"


def test_what_arrays_are_to_be_divided_by_must_be_there_for_each_row(read: Read) -> None:
    for key, value in (("groups", "g"), ("time", "g")):
        said = told(lambda k=key, v=value: read({"X": walks(), "y": Y}, "d.npz", split={k: v}))
        assert said == f"d.npz: data.split.{key} 'g': no array of that name"
        short = {"X": walks(), "y": Y, "g": Y[1:]}
        said = told(lambda k=key, v=value, s=short: read(s, "d.npz", split={k: v}))
        assert said == "d.npz: X has 40 rows and g has 39; they must be as many"
    said = told(lambda: read({"X": walks(), "y": Y}, "d.npz", split={"groups": "X"}))
    assert said == "d.npz: data.split.groups 'X' names a column, and sequences have none; leave it out"


@pytest.mark.parametrize("kind", ["sequence", "image", "table"])
def test_arrays_are_divided_by_another_array_of_the_file(read: Read, kind: str) -> None:
    x = walks()[:, :, 0] if kind == "table" else walks()
    owner = np.repeat(np.arange(10), 4)
    for groups in (owner, owner.astype(str)):
        splits = read({"X": x, "y": Y, "owner": groups}, "d.npz", kind=kind, split={"groups": "owner"})
        parts = [set(owner[part.rows]) for part in (splits.train, splits.val, splits.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 10
        assert splits.train.x.shape[1:] == splits.shape.input
    when = np.random.default_rng(0).permutation(40)
    splits = read({"X": x, "y": Y, "when": when}, "d.npz", kind=kind, split={"time": "when"})
    assert when[splits.train.rows].max() < when[splits.val.rows].min() < when[splits.test.rows].min()


def test_rows_that_training_has_too_are_noted(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    x[[28, 34]], lengths[[28, 34]] = x[0], lengths[0]
    x[29, 0], lengths[29] = x[0, 0], 1
    notes = read({"X": x, "y": Y, "lengths": lengths, "split": PARTS}, "d.npz").notes
    assert any(note.startswith("1 of 6 val rows is identical to training rows") for note in notes)
    assert any(note.startswith("1 of 6 test rows is identical to training rows") for note in notes)


def test_a_regression_target_is_standardized_by_the_training_rows_and_restored(read: Read) -> None:
    t = np.exp(np.random.default_rng(0).normal(3, 1, 40))
    for transform in ("none", "log"):
        frame = long_table(walks(), some_lengths(), t, split=np.array(PARTS))
        splits = read(frame, id="who", target_transform=transform)
        assert splits.shape.outputs == 1
        assert splits.train.y.mean() == pytest.approx(0, abs=1e-5)
        assert splits.encoder.target.restore(splits.val.y) == pytest.approx(t[splits.val.rows], rel=1e-4)


def test_prediction_reads_every_form_of_the_same_sequences(read: Read, tmp_path: Path) -> None:
    x, lengths = walks(), some_lengths()
    frame = long_table(x, lengths)
    ragged = [row[:length] for row, length in zip(x, lengths, strict=True)]
    np.savez(tmp_path / "new.npz", X=x, lengths=lengths)
    array = read({"X": x, "y": Y, "lengths": lengths}, "d.npz")
    for splits in (array, read(frame, id="who", time="when")):
        encoder = splits.encoder
        expected = encoder.encode((x, lengths))
        assert expected[splits.train.rows].tobytes() == splits.train.x.tobytes()
        sources: list[Any] = [(x, lengths), {"X": x, "lengths": lengths}, ragged, tmp_path / "new.npz"]
        tables = [] if splits is array else [frame, dict(frame), tmp_path / "d.csv"]
        for source in sources + tables:
            examples, count = read_raw(source, encoder)
            assert count == 40
            assert encoder.encode(examples).tobytes() == expected.tobytes()
            assert isinstance(source, Path) or encoder.encode(source).tobytes() == expected.tobytes()
        assert encoder.encode(walks(2, 20))[:, :, -1].all()
        assert np.array_equal(encoder.encode(walks(2, 20)), encoder.encode(walks(2, 20)[:, -12:]))


def test_sequences_of_a_long_table_are_predicted_in_order_of_first_appearance(read: Read) -> None:
    x, lengths = walks(), some_lengths()
    frame = long_table(x, lengths)
    encoder = read(frame, id="who", time="when").encoder
    backwards = frame[::-1].drop(columns="t")
    assert np.array_equal(encoder.encode(backwards), encoder.encode(frame)[::-1])


def test_examples_unlike_those_of_training_are_refused(read: Read) -> None:
    x = walks()
    fixed = read({"X": x, "y": Y}, "d.npz").encoder
    frame = long_table(x, np.full(40, 12))
    long = read(frame, id="who", time="when").encoder
    cases: list[tuple[Any, Any, str]] = [
        (fixed, x[:, :, :2], "examples have shape (40, 12, 2); (rows, steps, 3) was learned"),
        (fixed, x[:, :, 0], "examples have shape (40, 12); (rows, steps, 3) was learned"),
        (
            fixed,
            x[:3, :7],
            "3 rows of another length, such as 7 steps (row 1, 2, 3); sequences of 12 steps were",
        ),
        (
            fixed,
            [x[0], x[1, :7]],
            "1 row of another length, such as 7 steps (row 2); sequences of 12 steps were",
        ),
        (
            fixed,
            (x[:2], [12, 13]),
            "lengths: 1 row where it is 13 (row 2); whole numbers from 1 to 12, the steps of",
        ),
        (fixed, np.full((1, 12, 3), np.inf), "1 row with infinite values (row 1); replace them"),
        (fixed, np.full((1, 12, 3), "a"), "sequences hold <U1 values; numbers are allowed"),
        (fixed, x[:0], "no examples: there must be at least one row"),
        (long, frame[:0], "no examples: there must be at least one row"),
        (long, frame.drop(columns=["when", "c1"]), "examples lack 2 columns that training had: when"),
        (
            long,
            frame[:23],
            "1 sequence of another length, such as 11 steps (id p1); sequences of 12 steps were",
        ),
        (long, frame.assign(c1="low"), "column 'c1': holds text (such as 'low' in row 1), and a sequence is made of"),
    ]
    for encoder, examples, message in cases:
        for act in (encoder.encode, lambda e, n=encoder: n.encode(read_raw(e, n)[0])):
            assert told(lambda a=act, e=examples: a(e)).startswith(message)


def test_own_code_may_return_sequences_of_different_lengths(tmp_path: Path) -> None:
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import numpy as np\n"
        "draw = np.random.default_rng(0).normal\n"
        "def f():\n    return [draw(size=(3 + i % 2, 2)) for i in range(20)], [0, 1] * 10\n"
        "def g():\n    return {'X': draw(size=(20, 5)), 'y': [0, 1] * 10, 'lengths': [3, 4] * 10}\n"
    )
    assert load(Data(source=f"{module}:f"), tmp_path).shape.input == (4, 3)
    splits = load(Data(source=f"{module}:g"), tmp_path)
    assert (splits.shape.kind, splits.shape.input) == ("sequence", (4, 2))


@st.composite
def ragged(draw: st.DrawFn) -> tuple[list[np.ndarray], int]:
    channels = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 9), min_size=12, max_size=24))
    number = st.floats(-1e6, 1e6) | st.just(float("nan"))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rows = [random.normal(size=(length, channels)) for length in lengths]
    for row in rows:
        place = draw(st.integers(0, row.size - 1))
        row.flat[place] = draw(number)
        row[-1, 0] = 1.5 + random.random()  # the last step has a value, so that each form has the same lengths
    return rows, channels


@settings(max_examples=40)
@given(ragged(), st.integers(0, 5))
def test_sequences_of_any_lengths_come_out_the_same_in_every_form_and_after_json(
    drawn: tuple[list[np.ndarray], int], padding: int
) -> None:
    rows, channels = drawn
    lengths = np.array([len(row) for row in rows])
    x = np.full((len(rows), lengths.max() + padding, channels), np.nan)
    for place, row in enumerate(rows):
        x[place, : len(row)] = row
    y = pd.Series(np.arange(len(rows)) % 2, name="y")
    data = Data(source="own:f", split=Split(test=0.0, val=0.3))
    given_lengths = split_sequences(data, Raw("own:f", x, y, lengths=lengths))
    by_nan = split_sequences(data, Raw("own:f", x, y))
    assert given_lengths.encoder == by_nan.encoder
    assert given_lengths.fingerprint == by_nan.fingerprint
    encoder = by_nan.encoder
    again = encoder_from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    encoded = encoder.encode((x, lengths))
    assert encoded.shape == (len(rows), *encoder.shape.input)
    assert np.isfinite(encoded).all()
    for form in (x, rows if len(set(lengths)) > 1 else x, ragged_of(x)):
        assert again.encode(form).tobytes() == encoded.tobytes()
    if encoder.shape.masked:
        mask = encoded[:, :, -1]
        assert np.array_equal(mask.sum(axis=1), np.minimum(lengths, encoder.shape.input[0]))
        assert (np.diff(mask, axis=1) <= 0).all()
        assert not encoded[mask == 0].any()
    else:
        assert len(set(lengths)) == 1


def test_each_fold_is_standardized_by_its_own_training_rows(read: Read, tmp_path: Path) -> None:
    read(long_table(walks(), some_lengths()), id="who")
    data = Data(source="d.csv", target="t", id="who", split=Split(folds=3))
    whole, folds = load_folds(data, tmp_path)
    assert len(folds) == 3
    for splits in (whole, *folds):
        there = splits.train.x[splits.train.x[:, :, -1] == 1][:, :-1]
        assert there.mean(axis=0) == pytest.approx(0, abs=1e-5)
        assert splits.shape.masked
    assert len({fold.encoder for fold in folds}) == 3
