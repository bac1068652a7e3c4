"""What is refused and what is noted, in the words a user reads."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.data import Splits, files
from tuner.errors import DataError

Read = Callable[..., Splits]
Make = Callable[..., pd.DataFrame]
X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.arange(40) % 2


def said(read: Read, *args: Any, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*args, **data)
    return str(caught.value)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


ROWS = "".join(f"{i},{i % 2}\n" for i in range(12))
FILES = {
    "empty": ("d.csv", "", "d.csv: the file is empty"),
    "header only": ("d.csv", "a,t\n", "d.csv: a header but no rows"),
    "blank": ("d.csv", "\n\n", "d.csv: no header; the first line must name the columns"),
    "ragged": (
        "d.csv",
        "a,t\n" + ROWS + "1,2,3\n",
        "d.csv: line 14 has 3 fields, the header has 2; mend the line or quote the field that holds the separator",
    ),
    "short": (
        "d.csv",
        "a,b,t\n1,2\n",
        "d.csv: line 2 has 2 fields, the header has 3; mend the line or quote the field that holds the separator",
    ),
    "duplicate": (
        "d.csv",
        "a,a,t\n1,2,3\n",
        "d.csv: column names occur more than once: a; give each column its own name",
    ),
    "latin-1": (
        "d.csv",
        b"a,t\ncaf\xe9,1\n",
        "d.csv: not UTF-8 (byte 0xe9 at offset 7); save it as UTF-8",
    ),
    "utf-16": ("d.csv", "a,t\n".encode("utf-16"), "d.csv: is UTF-16, not UTF-8; save it as UTF-8"),
    "no gzip": ("d.csv.gz", "a,t\n", "d.csv.gz: damaged or not a gzip file (Not a gzipped file (b'a,'))"),
    "cut gzip": (
        "d.csv.gz",
        gzip.compress(b"a,t\n" * 99)[:-9],
        "d.csv.gz: damaged or not a gzip file (Compressed file ended before the end-of-stream marker was reached)",
    ),
    "no npz": ("d.npz", "abc", "d.npz: damaged or not an npz file (File is not a zip file)"),
    "cut npz": (
        "d.npz",
        npz(X=X, y=Y)[:900],
        "d.npz: damaged or not an npz file (File is not a zip file)",
    ),
    "no X": ("d.npz", npz(data=X, y=Y), "d.npz: no array X; it holds data, y"),
    "no y": ("d.npz", npz(X=X, labels=Y), "d.npz: no array y; it holds X"),
    "lengths": ("d.npz", npz(X=X, y=Y[:9]), "d.npz: X has 40 rows and y has 9; they must be as many"),
    "objects": (
        "d.npz",
        npz(X=X, y=np.array(["a", 1] * 20, dtype=object)),
        "d.npz: array y holds pickled Python objects, which are never read; save it with a dtype of numbers or text",
    ),
    "one-hot": ("d.npz", npz(X=X, y=np.zeros((40, 2))), "d.npz: y has shape (40, 2); one value a row is allowed"),
    "text X": (
        "d.npz",
        npz(X=X.astype(str), y=Y),
        "d.npz: X holds <U32 values; an array of numbers or a DataFrame is allowed",
    ),
    "split": (
        "d.npz",
        npz(X=X, y=Y, split=["train"] * 39 + ["dev"]),
        "d.npz: split says 'dev' in row 40; train, val and test are allowed",
    ),
    "xlsx": (
        "d.xlsx",
        "PK",
        "d.xlsx: unknown kind of file; a name that ends in .csv, .csv.gz, .tsv, .tsv.gz, .parquet, .parquet.gz, "
        ".jsonl, .jsonl.gz, .npz is allowed",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read_is_refused_in_words(read: Read, case: str) -> None:
    name, content, message = FILES[case]
    assert said(read, content, name) == message


def test_garbage_named_parquet_is_refused_in_one_line(read: Read) -> None:
    message = said(read, b"PAR1garbage", "d.parquet")
    assert message.startswith("d.parquet: damaged or not a Parquet file (")
    assert "\n" not in message


def test_a_missing_file_is_named_with_its_nearest_neighbour(read: Read, table: Make, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "credit.csv", index=False)
    assert said(read, None, "credits.csv") == "credits.csv: no such file (did you mean 'credit.csv'?)"
    assert said(read, None, "else/d.csv") == f"else/d.csv: no such file: the folder {tmp_path / 'else'} does not exist"
    (tmp_path / "f.csv").mkdir()
    assert said(read, None, "f.csv").startswith("f.csv: is a folder without images; name a file ")


def test_every_cut_and_many_flips_of_an_npz_are_refused_or_read(read: Read) -> None:
    whole = npz(X=X[:12].astype(np.float16), y=Y[:12])
    for end in range(0, len(whole), 37):
        said(read, whole[:end], "d.npz")
    for at in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        with suppress(DataError):
            read(bytes(damaged), "d.npz")


def test_a_decompression_bomb_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BOMB_BYTES", 100_000)
    bomb = gzip.compress(b"a,t\n" + b"1,1\n" * 10**6)
    assert said(read, bomb, "d.csv.gz").startswith("d.csv.gz: unpacks to more than 100 times its size")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", b"0" * 10**7)
    assert said(read, stream.getvalue(), "d.npz").startswith("d.npz: unpacks to more than 100 times its size")


TARGETS: dict[str, tuple[Any, str]] = {
    "one class": (["a"] * 60, "has one class only, 'a'; there is nothing to learn"),
    "alone": (
        ["a"] * 59 + ["b"],
        "class 'b' has one row only; at least 2 are needed, so give more or leave it out",
    ),
    "missing": ([None, "a", "b"] * 20, "20 rows without a value (row 1, 4, 7, 10, 13, ...); leave these rows out"),
    "missing number": ([1.5, np.nan] + [2.5, 3] * 29, "1 row without a value (row 2); leave these rows out"),
    "mark": (["?", "1.5"] + ["2", "3"] * 29, "1 row without a number (row 1); leave these rows out"),
    "infinite": ([1.5, np.inf] * 30, "30 rows without a finite number"),
    "constant": ([1.5] * 60, "has the value 1.5 in every row; there is nothing to learn"),
    "text": ([f"name {i}" for i in range(60)], "has 60 different values in 60 rows; looks like an id or a text"),
    "comma": ([f"{i},5" for i in range(60)], "has decimal commas (such as '0,5'); write them with a point"),
    "mixed": (
        [f"{i}.5" for i in range(59)] + ["n.a"],
        "mixes numbers and text (such as 'n.a' in row 60); mend these values or drop it",
    ),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_target_that_cannot_be_learned_is_refused_in_words(read: Read, table: Make, case: str) -> None:
    values, message = TARGETS[case]
    assert said(read, table(t=values)).startswith(f"d.csv: target 't': {message}")


def test_a_target_of_the_wrong_kind_for_the_task_is_refused(read: Read, table: Make) -> None:
    assert "regression needs a number in each row" in said(read, table(), task="regression")
    message = said(read, table(), target_transform="log")
    assert message == (
        "d.csv: data.target_transform log is for regression, and t holds classes; "
        "leave it out or say data.task: regression"
    )
    message = said(read, table(t=np.arange(60) - 0.5), target_transform="log")
    assert message == (
        "d.csv: data.target_transform log needs positive values, and t has 1 row that is not "
        "(first in row 1: -0.5); leave these rows out or leave the transform out"
    )


def test_fewer_than_ten_rows_are_refused(read: Read, table: Make) -> None:
    assert said(read, table().head(9)) == "d.csv: 9 rows; at least 10 are needed"


def test_a_target_that_is_not_given_is_proposed(read: Read, table: Make) -> None:
    frame = table()
    assert said(read, frame, target=None) == (
        "d.csv: data.target: say which column to predict, perhaps the last one, 't'; columns: a, b, c, t"
    )
    assert "for instance 'Class'" in said(read, frame.rename(columns={"b": "Class"}), target=None)


def test_every_unknown_column_is_named_at_once(read: Read, table: Make) -> None:
    message = said(
        read, table().rename(columns={"c": "color"}), target="colour", drop=("zz",), split={"groups": "colr"}
    )
    assert message.splitlines() == [
        "d.csv: data.split.groups: no column 'colr' (did you mean 'color'?); columns: a, b, color, t",
        "d.csv: data.drop: no column 'zz'; columns: a, b, color, t",
        "d.csv: data.target: no column 'colour' (did you mean 'color'?); columns: a, b, color, t",
    ]
    assert said(read, table(), drop=("t",)) == "d.csv: data.drop: 't' is the target"


def test_every_problem_of_a_table_is_named_at_once(read: Read, table: Make) -> None:
    frame = table(
        big=np.random.default_rng(0).choice([2**60, 2**60 + 1], 60),
        price=[f"{i % 30},50" for i in range(60)],
        mixed=[f"{i}" for i in range(59)] + ["x"],
        far=[np.inf, -np.inf, 1] * 20,
    )
    frame["copy"] = frame["t"]
    assert said(read, frame).splitlines() == [
        "d.csv: column 'big': holds integers beyond 2**53, which would be rounded; "
        "write them as text or leave the column out with data.drop",
        "d.csv: column 'price': has decimal commas (such as '0,50'); write them with a point",
        "d.csv: column 'mixed': mixes numbers and text (such as 'x' in row 60); mend these values or drop it",
        "d.csv: infinite values in far (40); replace them or leave the columns out with data.drop",
        "d.csv: copy equals the target 't'; leave it out with data.drop: [copy]",
    ]


def test_a_long_column_is_compared_with_the_target_to_its_end(read: Read, table: Make) -> None:
    whole = table(rows=3000)
    assert "copy equals the target 't'" in said(read, whole.assign(copy=whole["t"]))
    other = whole["t"].to_numpy(copy=True)
    other[-1] = "yes" if other[-1] == "no" else "no"
    assert read(whole.assign(copy=other)).shape.input == (4,)


def test_dropping_what_is_wrong_mends_it(read: Read, table: Make) -> None:
    frame = table(far=np.inf, t2=table()["t"])
    assert read(frame, drop=("far", "t2")).shape.input == (3,)


def test_nested_values_are_refused(read: Read, table: Make) -> None:
    frame = table(list=[[1, 2]] * 60)
    assert said(read, frame, "d.parquet") == (
        "d.parquet: column 'list': holds ndarray values; numbers, texts, booleans and dates are allowed"
    )


def test_a_table_of_useless_columns_is_refused(read: Read, table: Make) -> None:
    assert said(read, table()[["t"]]) == "d.csv: no feature column is left; there must be one besides the target"
    frame = table(a=1, b=range(60))[["a", "b", "t"]]
    assert said(read, frame) == "d.csv: no column is left to learn from: all are constant, empty or ids"


def test_classes_that_train_never_saw_are_named(read: Read, table: Make) -> None:
    frame = table(t=["a", "b"] * 28 + ["c", "c", "d", "d"], when=range(60))
    assert said(read, frame, split={"time": "when"}) == (
        "d.csv: test has rows of classes 'c', 'd', which no training row has; leave these rows out or change data.split"
    )


def test_columns_to_divide_by_must_be_filled_and_in_order(read: Read, table: Make) -> None:
    message = said(read, table(g=["x", None] * 30), split={"groups": "g"})
    assert message == "d.csv: data.split.groups 'g' has no value in 30 rows; fill it in or leave these rows out"
    message = said(read, table(), split={"time": "c"})
    assert message == (
        "d.csv: data.split.time 'c' holds text that has no order in time; "
        "numbers and dates such as 2024-05-17 are allowed"
    )


def test_rows_shared_between_parts_are_counted_and_never_an_error(read: Read, table: Make) -> None:
    frame = table(split=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    frame.loc[50:52, ["a", "b", "c"]] = frame.loc[0:2, ["a", "b", "c"]].to_numpy()
    notes = read(frame).notes
    assert notes[-1] == (
        "3 of 10 test rows are identical to training rows, so test looks better than it is; "
        "name what they share in data.split.groups"
    )


def test_a_column_that_tells_the_class_is_noted(read: Read, table: Make) -> None:
    notes = read(table(code=np.arange(60) % 2)).notes
    assert "code tells the class of every row; drop it if it is made from the target" in notes


def test_a_long_column_tells_the_class_if_it_does_in_every_row(read: Read, table: Make) -> None:
    whole = table(rows=3000)
    code = np.where(whole["t"] == "yes", 7.5, 2.5)
    assert any("code tells the class" in note for note in read(whole.assign(code=code)).notes)
    code[-1] = 8.5
    assert not any("code tells the class" in note for note in read(whole.assign(code=code)).notes)


def test_control_characters_in_names_never_reach_the_terminal(read: Read, table: Make) -> None:
    message = said(read, table().rename(columns={"a": "\x1b[31mred"}), target="nope")
    assert "\x1b" not in message


fields = st.sampled_from(
    [
        "1",
        "2.5",
        "",
        "?",
        "NA",
        "1e308",
        "-1e400",
        "inf",
        "true",
        "2020-01-01",
        "3,14",
        "a",
        '"x,y"',
        '"',
        "99" * 12,
        "\0",
    ]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(fields, min_size=3, max_size=3), min_size=8, max_size=20), st.sampled_from("ab?1"))
def test_any_text_is_read_or_refused_in_words(read: Read, rows: list[list[str]], label: str) -> None:
    lines = [",".join([*row, str(i * 0.7), "ab"[i % 2] if label == "b" else row[0]]) for i, row in enumerate(rows)]
    try:
        splits = read("\n".join(["x,when,id,n,t", *lines]))
    except DataError as error:
        refusal = str(error)
    else:
        refusal = "d.csv: none"
        assert np.isfinite(splits.train.x).all()
    assert all(line.startswith("d.csv: ") for line in refusal.splitlines())


def test_a_number_beyond_every_unit_is_refused(read: Read, table: Make) -> None:
    frame = table(a=np.linspace(1, 60, 60) * 1e305)
    assert said(read, frame) == "d.csv: column 'a': has values beyond 1e150; choose another unit or drop the column"


def test_missing_numbers_of_an_array_are_filled_and_noted(read: Read) -> None:
    x = X.copy()
    x[::3, 1] = np.nan
    splits = read({"X": x, "y": Y}, "d.npz")
    assert splits.shape.input == (4,)
    assert splits.notes[-1] == "filled missing values with the median in 1 column: x1"
