"""From a source to Splits."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuner.config import BUNDLED, Data, Split
from tuner.data import DATA, Splits, encoder_from_json, load, read_raw
from tuner.errors import DataError, UserCodeError

Read = Callable[..., Splits]
Make = Callable[..., pd.DataFrame]


def images(rows: int = 40, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


Y = np.arange(40) % 2


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, tuner.data; sys.exit(bool({'pandas', 'sklearn', 'pyarrow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_kinds_can_be_read_from_the_register() -> None:
    assert sorted(DATA) == ["image", "sequence", "table", "text"]


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_set_loads_and_its_encoder_survives_json(name: str, tmp_path: Path) -> None:
    splits = load(Data(source=f"sklearn:{name}"), tmp_path)
    assert splits.shape.kind == ("image" if name == "digits" else "table")
    assert splits.shape.task == ("regression" if name == "diabetes" else "classification")
    assert encoder_from_json(splits.encoder.to_json()) == splits.encoder
    assert splits.test is not None
    rows = np.concatenate([splits.train.rows, splits.val.rows, splits.test.rows])
    assert sorted(rows) == list(range(len(rows)))
    raw, count = read_raw(f"sklearn:{name}", splits.encoder)
    assert count == len(rows)
    assert splits.encoder.encode(raw)[splits.val.rows].tobytes() == splits.val.x.tobytes()


def test_digits_are_images_or_a_table() -> None:
    image = load(Data(source="sklearn:digits"), Path())
    assert image.shape.input == (1, 8, 8)
    assert image.encoder.standard.unit == 1 / 16
    assert image.shape.classes == tuple("0123456789")
    assert load(Data(source="sklearn:digits", kind="table"), Path()).shape.kind == "table"


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [((6, 5), (1, 6, 5)), ((6, 5, 3), (3, 6, 5)), ((3, 6, 5), (3, 6, 5)), ((6, 5, 1), (1, 6, 5))],
)
def test_images_are_stored_channels_first_as_uint8(
    read: Read, shape: tuple[int, ...], input_shape: tuple[int, ...]
) -> None:
    x = images(shape=shape)
    splits = read({"X": x, "y": Y}, "d.npz")
    assert splits.shape.input == input_shape
    assert splits.train.x.dtype == np.uint8
    assert splits.encoder.standard.unit == 1 / 255
    stored = splits.train.x * splits.encoder.standard.unit
    assert splits.encoder.standard.center == pytest.approx(stored.mean(axis=(0, 2, 3)))
    assert splits.encoder.standard.scale == pytest.approx(stored.std(axis=(0, 2, 3)))
    again = encoder_from_json(splits.encoder.to_json())
    assert again.encode(x)[splits.val.rows].tobytes() == splits.val.x.tobytes()
    assert again.encode(x.astype(float)).dtype == np.uint8


def test_images_of_floats_are_stored_as_float32_with_a_unit_by_the_training_rows(read: Read) -> None:
    split = ["train"] * 30 + ["val"] * 10
    x = images().astype(np.float64) / 255 * 4
    x[0, 0, 0] = 4
    one = read({"X": x, "y": Y, "split": split}, "d.npz")
    x[30:] *= 100
    two = read({"X": x, "y": Y, "split": split}, "d.npz")
    assert one.train.x.dtype == np.float32
    assert one.encoder.standard.unit == 0.25
    assert one.encoder == two.encoder


def test_images_that_cannot_be_used_are_refused_in_words(read: Read) -> None:
    bad = images().astype(float)
    bad[3, 0, 0] = np.nan
    cases = [
        (bad, {}, "d.npz: images hold 1 pixels that are NaN or infinite (images 4); mend them"),
        (np.full((40, 4, 4), 7), {}, "d.npz: every training image is of one and the same color"),
        (images(shape=(2, 5, 2)), {}, "d.npz: images have shape (40, 2, 5, 2); (rows, height, width), "),
        (images(), {"kind": "table"}, "d.npz: data.kind table needs X of shape (rows, columns), and X has shape"),
        (images().reshape(40, -1), {"kind": "image"}, "d.npz: data.kind image needs X of shape (rows, height, width)"),
        (images(), {"target": "label"}, "d.npz: data.target 'label' names a column, but this source brings its own"),
        (images(), {"split": {"groups": "g"}}, "d.npz: data.split.groups 'g': no array of that name"),
    ]
    for x, data, message in cases:
        with pytest.raises(DataError) as caught:
            read({"X": x, "y": Y}, "d.npz", **data)
        assert str(caught.value).startswith(message)


def test_examples_unlike_those_of_training_are_refused(read: Read) -> None:
    encoder = read({"X": images(), "y": Y}, "d.npz").encoder
    with pytest.raises(DataError, match=r"images have shape \(2, 5, 5\); 1 x 6 x 5 \(channels, height, width\) was"):
        encoder.encode(np.zeros((2, 5, 5)))
    with pytest.raises(DataError, match="values other than 0, 1, "):
        encoder.encode(np.full((2, 6, 5), 0.5))


def test_named_classes_are_the_names_and_those_without_rows_are_left_out(read: Read) -> None:
    splits = read({"X": images(), "y": Y * 2, "classes": ["cat", "dog", "ant"]}, "d.npz")
    assert splits.shape.classes == ("cat", "ant")
    assert "no row has class dog; left out" in splits.notes
    assert read({"X": images(), "y": np.array(["b", "a"])[Y], "classes": ["b", "a"]}, "d.npz").shape.classes == (
        "b",
        "a",
    )
    with pytest.raises(DataError, match=r"target 'y': has 5, but classes has 2 names for 0, 1, \.\.\.$"):
        read({"X": images(), "y": Y * 5, "classes": ["b", "a"]}, "d.npz")


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["10", "9", "1"], "classification", ("1", "9", "10")),
        (["b", "a", "B"], "classification", ("B", "a", "b")),
        ([True, False, True], "classification", ("False", "True")),
        ([2.0, -1.0, 10.0], "classification", ("-1", "2", "10")),
        ([0.5, 1.0, 2.0], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target_and_classes_are_in_order(
    read: Read, table: Make, values: list[Any], task: str, classes: tuple[str, ...]
) -> None:
    splits = read(table(t=values * 20))
    assert splits.shape.task == task
    assert splits.shape.classes == classes
    assert splits.shape.outputs == max(1, len(classes))


def test_many_whole_numbers_are_a_regression_unless_told_otherwise(read: Read, table: Make) -> None:
    frame = table(t=list(range(1, 31)) * 2)
    splits = read(frame)
    assert splits.shape.task == "regression"
    assert "task regression: t has 30 different numbers" in splits.notes
    assert read(frame, task="classification", split={"test": 0}).shape.outputs == 30


def test_a_regression_target_is_standardized_and_restored(read: Read, table: Make) -> None:
    t = np.exp(np.random.default_rng(0).normal(3, 2, 60))
    for transform in ("none", "log"):
        splits = read(table(t=t), target_transform=transform)
        assert splits.train.y.dtype == np.float32
        assert splits.train.y.std() == pytest.approx(1, abs=1e-5)
        assert splits.encoder.target.restore(splits.val.y) == pytest.approx(t[splits.val.rows], rel=1e-4)


def test_the_folders_of_a_parquet_file_are_no_columns(tmp_path: Path, table: Callable[..., pd.DataFrame]) -> None:
    folder = tmp_path / "year=2020"
    folder.mkdir()
    table().to_parquet(folder / "d.parquet")
    splits = load(Data(source="year=2020/d.parquet", target="t"), tmp_path)
    assert "year" not in splits.encoder.columns


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.csv.gz", "semicolon.csv", "bom.csv"])
def test_a_table_means_the_same_in_every_file_format(read: Read, table: Make, name: str) -> None:
    frame = table()
    text = frame.to_csv(index=False)
    content: Any = frame
    if name == "d.csv.gz":
        content = gzip.compress(text.encode())
    elif name == "semicolon.csv":
        content = frame.to_csv(index=False, sep=";")
    elif name == "bom.csv":
        content = "\ufeff" + text
    splits, plain = read(content, name), read(text)
    assert splits.fingerprint == plain.fingerprint
    assert splits.train.x.tobytes() == plain.train.x.tobytes()


def test_a_column_named_split_is_the_official_split_and_no_feature(read: Read, table: Make) -> None:
    splits = read(table(split=["train", "train", "valid", "test"] * 15))
    assert splits.shape.input == (3,)
    assert splits.val.rows.tolist() == list(range(2, 60, 4))
    other = read(table(split=["left", "right"] * 30))
    assert other.shape.input == (4,)
    assert "column split is used as a feature: it says other things than train, val and test" in other.notes
    assert read(table(split=["train"] * 59 + ["test"]), drop=("split",)).shape.input == (3,)


@pytest.mark.parametrize("key", ["groups", "time"])
def test_what_rows_are_divided_by_is_no_feature(read: Read, table: Make, key: str) -> None:
    when = pd.date_range("2020-01-01", periods=20).repeat(3).astype(str)
    splits = read(table(g=when), split={key: "g"})
    assert splits.shape.input == (3,)
    assert any("it is no feature" in note for note in splits.notes)
    of = [set(when[part.rows]) for part in (splits.train, splits.val, splits.test) if part]
    assert sum(map(len, of)) == 20


def test_a_share_of_zero_leaves_no_test_set(read: Read, table: Make) -> None:
    splits = read(table(), split={"test": 0})
    assert splits.test is None
    assert splits.test_hash == ""


def test_another_seed_of_split_leaves_the_test_rows(read: Read, table: Make) -> None:
    one, two = read(table()), read(table(), seed_of_split=3)
    assert one.test is not None
    assert two.test is not None
    assert np.array_equal(one.test.rows, two.test.rows)
    assert one.test_hash == two.test_hash
    assert one.fingerprint != two.fingerprint
    assert set(one.val.rows) != set(two.val.rows)


def test_the_fingerprint_is_the_same_in_every_process(read: Read, table: Make, tmp_path: Path) -> None:
    splits = read(table(when="2020-01-01"))
    code = (
        "import sys, pathlib; from tuner.data import load; from tuner.config import Data;"
        "s = load(Data(source='d.csv', target='t'), pathlib.Path(sys.argv[1])); print(s.fingerprint, s.test_hash)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert done.stdout.split() == [splits.fingerprint, splits.test_hash]


def test_the_fingerprint_changes_with_any_value_and_the_test_hash_only_with_the_test_rows(
    read: Read, table: Make
) -> None:
    frame = table(split=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    seen = {read(frame).fingerprint}
    test_hash = read(frame).test_hash
    for row, column, value in ((0, "a", 0.5), (1, "c", "pink"), (2, "t", "yes"), (45, "b", 9), (3, "split", "val")):
        changed = frame.copy()
        changed.loc[row, column] = value
        splits = read(changed)
        seen.add(splits.fingerprint)
        assert splits.test_hash == test_hash
    assert len(seen) == 6


CODE = """
import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
split = ["train", "train", "val", "test"] * 10


def pair():
    return x, y

def lists():
    return [x.tolist(), y.tolist()]

def mapping():
    return {"X": x, "y": y, "split": split, "classes": ["no", "yes"]}

def frame():
    return pd.DataFrame(x, columns=list("abc")).assign(t=y)

def framed():
    return pd.DataFrame(x, columns=list("abc")), y

def fails():
    return helper()

def helper():
    raise KeyError("nothing here")

def leaves():
    raise SystemExit(3)

def number():
    return 7

def wrong():
    return {"X": x, "target": y}

def ragged():
    return [[1], [1, 2]], y

value = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Splits]:
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(CODE))

    def load_own(attr: str, **data: Any) -> Splits:
        return load(Data(source=f"{module}:{attr}", **data), tmp_path)

    return load_own


def test_own_code_may_return_arrays_a_mapping_or_a_table(own: Callable[..., Splits]) -> None:
    splits = [own("pair"), own("lists"), own("mapping"), own("framed"), own("frame", target="t")]
    assert [s.shape.input for s in splits] == [(3,)] * 5
    assert splits[2].shape.classes == ("no", "yes")
    assert splits[2].val.rows.tolist() == list(range(2, 40, 4))


@pytest.mark.parametrize(
    ("attr", "message"),
    [
        ("fails", "KeyError: 'nothing here' ("),
        ("leaves", "SystemExit: 3 ("),
        ("value", "value is a int, not a function that returns (X, y), a dict"),
        ("pear", "has no pear (did you mean 'pair'?)"),
    ],
)
def test_an_error_of_own_code_names_type_file_and_line(own: Callable[..., Splits], attr: str, message: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        own(attr)
    assert message in str(caught.value)
    if attr == "fails":
        line = CODE.splitlines().index('    raise KeyError("nothing here")') + 1
        assert str(caught.value).endswith(f".py:{line})")


@pytest.mark.parametrize(
    ("attr", "message"),
    [
        ("number", "returned int; allowed are (X, y), a dict with X and y (split, classes, lengths), a torch Dataset"),
        ("wrong", "returned a dict with X, target; X, y, split, classes, lengths are allowed"),
        ("ragged", "X can't be made an array"),
        ("frame", "data.target: say which column to predict"),
    ],
)
def test_a_wrong_result_of_own_code_is_refused(own: Callable[..., Splits], attr: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        own(attr)
    assert message in str(caught.value)


def test_own_code_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"^data.source no_such_module:f: no module named 'no_such_module'; looked"):
        load(Data(source="no_such_module:f"), tmp_path)
    (tmp_path / "own_broken.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(UserCodeError, match=r"^data.source own_broken:f: SyntaxError: .*own_broken.py:2\)$"):
        load(Data(source="own_broken:f"), tmp_path)


def test_an_unknown_bundled_set_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError) as caught:
        load(Data(source="sklearn:digit", split=Split()), Path())
    assert str(caught.value) == (
        "sklearn:digit: no such bundled set (did you mean 'digits'?); "
        "there are digits, breast_cancer, wine, iris, diabetes"
    )
