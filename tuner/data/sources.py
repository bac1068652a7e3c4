"""Opens what `data.source` names: a bundled set, a file, a folder of images, or the user's own code.

Decides where examples come from and which kind of data they are. Knows no split and no encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

from tuner.config import BUNDLED, MODULE_ATTR, Data
from tuner.data.checks import check_columns, check_texts, refuse
from tuner.data.divide import is_official
from tuner.data.files import ARRAYS, PLAIN_TEXT, format_of, read_arrays, read_lines, read_table
from tuner.data.folder import read_folder, read_pictures, scan_folder
from tuner.data.picture import ENDINGS
from tuner.data.raw import Raw, frame_of, listed, plain_array, series_of
from tuner.data.sequence import looks_sequential
from tuner.data.splits import Kind
from tuner.data.steps import check_settings, group_steps
from tuner.data.text import TEXT, is_lines, plain_texts, tell_kind, text_column
from tuner.data.user_code import call, named, raw_of, read_result
from tuner.errors import DataError, UsageError, nearest

SPLIT = "split"
TARGET = "target"


def read_source(data: Data, folder: Path) -> Raw:
    """Return the examples that `data.source` names; a relative path starts at `folder`.

    The target, an official split and dropped columns are taken out of a table; the columns that rows
    are divided by are still in it.

    Raises:
        DataError: the source can't be read or lacks what `data` names.
        UsageError: keys of `data` don't go together.
        UserCodeError: the user's own code failed.
    """
    check_settings(data)
    _refuse_unprintable(data.source)
    path = folder / Path(data.source).expanduser()
    if data.image_size is not None and not path.is_dir():
        raise UsageError("data.image_size: is for a folder of images, and data.source is none; leave it out")
    if data.source.startswith("sklearn:"):
        return _without_target(_bundled(data), data, ("target",))
    if MODULE_ATTR.match(data.source):
        result = read_result(call(data.source, folder), data.source)
        return take_target(named(result), data) if isinstance(result, pd.DataFrame) else _own(result, data)
    if path.is_dir():
        scan = scan_folder(path, data)
        _without_target(Raw(data.source, np.empty((0, 1, 1, 1))), data, ())  # told before any image is read
        return read_folder(scan, data)
    if path.suffix.lower() == ".npz":
        return _own(_arrays(path, data), data)
    return take_target(_table(path, data), data)


def _table(path: Path, data: Data) -> pd.DataFrame:
    target, text = data.target or TARGET, data.text or TEXT
    needed = (target, text) if data.kind in (None, "text") else (target,)
    frame = read_table(path, data.source, needed=needed)
    name = text_column(data, frame)
    if name in frame.columns and format_of(path) == "csv" and check_texts(list(frame[name]), str(name)):
        # A text may well be "NA", 12 or nothing; only now is it known that there are texts.
        return read_table(path, data.source, whole=(str(name),))
    return frame


def _bundled(data: Data) -> Raw:
    name = data.source.removeprefix("sklearn:")
    if name not in BUNDLED:
        raise DataError(f"{data.source}: no such bundled set{nearest(name, BUNDLED)}; there are {', '.join(BUNDLED)}")
    bunch: Any = getattr(datasets, f"load_{name}")()
    classes = tuple(str(name) for name in bunch.target_names) if hasattr(bunch, "target_names") else ()
    y = series_of(bunch.target, data.source, "target")
    if name == "digits" and data.kind != "table":
        return Raw(data.source, np.asarray(bunch.images, dtype=np.float32), y, classes=classes, target="target")
    frame = frame_of(bunch.data, [str(column) for column in bunch.feature_names])
    return Raw(data.source, frame, y, classes=classes, target="target")


def _arrays(path: Path, data: Data) -> Raw:
    """Return the arrays of an npz file; those that the rows are divided by stand beside the examples."""
    named = {"data.split.groups": data.split.groups, "data.split.time": data.split.time}
    asked = {key: name for key, name in named.items() if name is not None and name not in ARRAYS}
    arrays = read_arrays(path, data.source, tuple(asked.values()))
    if "y" not in arrays:
        raise DataError(f"{data.source}: no array y; it holds {', '.join(arrays)}")
    beside = {name: series_of(arrays.pop(name), data.source, name) for name in asked.values() if name in arrays}
    raw = raw_of(data.source, **arrays)
    for name, values in beside.items():
        if len(values) != len(raw):
            found = f"X has {len(raw)} rows and {name} has {len(values)}"
            raise DataError(f"{data.source}: {found}; they must be as many")
    if isinstance(raw.x, pd.DataFrame):
        return replace(raw, x=raw.x.assign(**beside))
    missing = [f"{key} {name!r}: no array of that name" for key, name in asked.items() if name not in beside]
    refuse(data.source, missing)
    return replace(raw, aside=pd.DataFrame(beside)) if beside else raw


def _without_target(raw: Raw, data: Data, names: tuple[str, ...]) -> Raw:
    if data.target is not None and data.target not in names:
        raise DataError(
            f"{data.source}: data.target {data.target!r} names a column, but this source brings its own target; "
            "leave data.target out"
        )
    if data.id is not None:
        raise DataError(
            f"{data.source}: data.id {data.id!r} names a column of a table with a row a step, which brings its target "
            "as a column too; leave data.id out"
        )
    if isinstance(raw.x, pd.DataFrame):
        names_there = [*_names(raw.x, data), raw.target]
        problems = check_columns(data.model_copy(update={"target": raw.target}), names_there)
        refuse(data.source, problems)
        return _without_split(replace(raw, x=_kept(raw.x, data)), data)
    asked = [("split.groups", data.split.groups), ("split.time", data.split.time), ("text", data.text)]
    for key, value in (*asked, *(("drop", name) for name in data.drop)):
        if value is not None and (raw.aside is None or value not in raw.aside):
            noun = f"{infer_kind(data, raw)}s"
            raise DataError(f"{data.source}: data.{key} {value!r} names a column, and {noun} have none; leave it out")
    return raw


def _own(raw: Raw, data: Data) -> Raw:
    return _without_target(raw, data, ("y",))


def take_target(frame: pd.DataFrame, data: Data) -> Raw:
    """Return a table's features and target apart, without dropped columns; an official split is taken out.

    Raises:
        DataError: a column that `data` names isn't there.
    """
    names = _names(frame, data)
    notes = tell_kind(data, frame)
    if data.target is None and TARGET in names and (is_lines(data) or text_column(data, frame) is not None):
        data = data.model_copy(update={"target": TARGET})
    refuse(data.source, check_columns(data, names))
    target = str(data.target)
    x = _kept(frame.drop(columns=[target]), data)
    raw = _without_split(Raw(data.source, x, frame[target], target=target, notes=notes), data)
    return raw if data.id is None else group_steps(raw, data)


def _names(frame: pd.DataFrame, data: Data) -> list[str]:
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise DataError(f"{data.source}: column names occur more than once; give each column its own name")
    return names


def _kept(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    # A column that rows are divided by may be dropped too: it is no feature anyway, and still needed.
    needed = {data.split.groups, data.split.time, data.id, data.time}
    return frame.drop(columns=[name for name in data.drop if name not in needed])


def _without_split(raw: Raw, data: Data) -> Raw:
    assert isinstance(raw.x, pd.DataFrame)
    taken = (data.split.groups, data.split.time, data.id, data.time)
    if raw.split is not None or SPLIT not in raw.x.columns or SPLIT in taken:
        return raw
    split = raw.x[SPLIT].to_numpy()
    if is_official(split):
        return replace(raw, split=split, x=raw.x.drop(columns=[SPLIT]))
    if text_column(data, raw.x) is not None:
        return raw
    note = "column split is used as a feature: it says other things than train, val and test"
    return replace(raw, notes=(*raw.notes, note))


def infer_kind(data: Data, raw: Raw) -> Kind:
    """Return the kind of data: the one that is asked for, or the one that the examples look like.

    Raises:
        DataError: another kind is asked for than the examples can be.
    """
    if data.text is not None and data.kind not in (None, "text"):
        said = f"data.text {data.text!r} is for texts, and data.kind is {data.kind}"
        raise DataError(f"{raw.where}: {said}; leave one of them out")
    possible = _kinds_of(raw, data)
    if data.kind is None:
        return possible[0]
    if data.kind in possible:
        return data.kind
    raise DataError(
        f"{raw.where}: data.kind {data.kind} needs {NEEDED[data.kind]}, and X has shape {tuple(raw.x.shape)}; "
        f"say data.kind: {possible[0]}"
    )


NEEDED = {
    "table": "X of shape (rows, columns)",
    "image": "X of shape (rows, height, width) or with channels",
    "text": "a column of text",
    "sequence": "X of shape (rows, steps, channels), or a table with a number a step",
}


def _kinds_of(raw: Raw, data: Data) -> tuple[Kind, ...]:
    """Return the kinds that examples can be, the likeliest first."""
    if data.id is not None:
        return ("sequence",)
    if isinstance(raw.x, pd.DataFrame):
        if text_column(data, raw.x) is not None:
            return ("text",)
        return ("table", "sequence") if raw.lengths is None else ("sequence", "table")
    if raw.x.ndim == 4:
        return ("image",)
    if raw.lengths is not None:
        return ("sequence", "image")
    return ("sequence", "image") if looks_sequential(raw.x) else ("image", "sequence")


def _refuse_unprintable(name: str) -> None:
    """Refuse a name whose line ends would make several lines of an error, each as if it were one of its own."""
    if not name.isprintable():
        raise DataError(f"{listed([name])}: a name with control characters isn't read; rename it")


def read_examples(source: Any, kind: Kind, texts: tuple[str, ...] = ()) -> Any:
    """Return examples to predict, without a target: what the encoder of `kind` takes.

    `source` is a path (of an image file or a folder of images too), `sklearn:NAME`, a table, a mapping of columns
    or an array. Columns in `texts` are read as text from a CSV file, whatever they look like.

    Raises:
        DataError: there are no examples, or they can't be read.
    """
    if isinstance(source, str) and source.startswith("sklearn:"):
        return _bundled(Data(source=source, kind=kind)).x
    if isinstance(source, (str, Path)):
        _refuse_unprintable(str(source))
        return _read_file(Path(source).expanduser(), kind, texts)
    if kind == "sequence":
        return source  # lists of different lengths are no array: the encoder knows what it takes
    plain = kind == "text" and not isinstance(source, (pd.DataFrame, Mapping))
    # An array of texts would give each as much room as the longest one.
    examples = plain_texts(source) if plain else _examples_of(source)
    if not (plain or np.ndim(examples)) or not len(examples):
        raise DataError("no examples: there must be at least one row")
    return examples


def _read_file(path: Path, kind: Kind, texts: tuple[str, ...]) -> Any:
    if kind == "image" and (path.is_dir() or (path.is_file() and path.suffix.lower() in ENDINGS)):
        return read_pictures(path)
    if path.suffix.lower() == ".npz":
        arrays = read_arrays(path, str(path))
        return arrays if kind == "sequence" else arrays["X"]
    if kind != "text":
        return read_table(path, str(path), texts)
    if path.name.lower().endswith(PLAIN_TEXT):
        return read_lines(path, str(path))
    return read_table(path, str(path), whole=texts)


def _examples_of(source: Any) -> Any:
    if isinstance(source, pd.DataFrame):
        return named(source)
    if isinstance(source, Mapping):
        try:
            return named(pd.DataFrame(dict(source)))
        except ValueError as error:
            raise DataError(f"columns can't be put together ({error})") from error
    return plain_array(source, "examples")
