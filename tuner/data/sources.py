"""Opens what `data.source` names: a bundled set, a file, or the user's own code.

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
from tuner.data.checks import check_columns, refuse
from tuner.data.divide import is_official
from tuner.data.files import read_arrays, read_table
from tuner.data.raw import Raw, frame_of, plain_array, series_of
from tuner.data.splits import Kind
from tuner.data.user_code import call, named, raw_of, read_result
from tuner.errors import DataError, nearest

SPLIT = "split"


def read_source(data: Data, folder: Path) -> Raw:
    """Return the examples that `data.source` names; a relative path starts at `folder`.

    The target, an official split and dropped columns are taken out of a table; the columns that rows
    are divided by are still in it.

    Raises:
        DataError: the source can't be read or lacks what `data` names.
        UserCodeError: the user's own code failed.
    """
    if data.source.startswith("sklearn:"):
        return _without_target(_bundled(data), data, ("target",))
    if MODULE_ATTR.match(data.source):
        result = read_result(call(data.source, folder), data.source)
        return take_target(named(result), data) if isinstance(result, pd.DataFrame) else _own(result, data)
    path = folder / Path(data.source).expanduser()
    if path.suffix.lower() == ".npz":
        return _own(_arrays(path, data.source), data)
    return take_target(read_table(path, data.source), data)


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


def _arrays(path: Path, where: str) -> Raw:
    arrays = read_arrays(path, where)
    if "y" not in arrays:
        raise DataError(f"{where}: no array y; it holds {', '.join(arrays)}")
    return raw_of(where, **arrays)


def _without_target(raw: Raw, data: Data, names: tuple[str, ...]) -> Raw:
    if data.target is not None and data.target not in names:
        raise DataError(
            f"{data.source}: data.target {data.target!r} names a column, but this source brings its own target; "
            "leave data.target out"
        )
    if isinstance(raw.x, pd.DataFrame):
        problems = check_columns(data.model_copy(update={"target": raw.target}), [*raw.x.columns, raw.target])
        refuse(data.source, problems)
        return _without_split(replace(raw, x=_kept(raw.x, data)), data)
    asked = {"groups": data.split.groups, "time": data.split.time, "drop": data.drop or None}
    for key, value in asked.items():
        if value is not None:
            raise DataError(f"{data.source}: {key} {value!r} names a column, and images have none; leave it out")
    return raw


def _own(raw: Raw, data: Data) -> Raw:
    return _without_target(raw, data, ("y",))


def take_target(frame: pd.DataFrame, data: Data) -> Raw:
    """Return a table's features and target apart, without dropped columns; an official split is taken out.

    Raises:
        DataError: a column that `data` names isn't there.
    """
    names = list(frame.columns)
    if len(set(names)) < len(names):
        raise DataError(f"{data.source}: column names occur more than once; give each column its own name")
    refuse(data.source, check_columns(data, names))
    target = str(data.target)
    x = _kept(frame.drop(columns=[target]), data)
    return _without_split(Raw(data.source, x, frame[target], target=target), data)


def _kept(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    # A column that rows are divided by may be dropped too: it is no feature anyway, and still needed.
    needed = {data.split.groups, data.split.time}
    return frame.drop(columns=[name for name in data.drop if name not in needed])


def _without_split(raw: Raw, data: Data) -> Raw:
    assert isinstance(raw.x, pd.DataFrame)
    if raw.split is not None or SPLIT not in raw.x.columns or SPLIT in (data.split.groups, data.split.time):
        return raw
    split = raw.x[SPLIT].to_numpy()
    if is_official(split):
        return replace(raw, split=split, x=raw.x.drop(columns=[SPLIT]))
    note = "column split is used as a feature: it says other things than train, val and test"
    return replace(raw, notes=(*raw.notes, note))


def infer_kind(data: Data, raw: Raw) -> Kind:
    """Return the kind of data: images if there are height and width, else a table.

    Raises:
        DataError: another kind is asked for than the examples can be.
    """
    kind: Kind = "table" if isinstance(raw.x, pd.DataFrame) else "image"
    if data.kind in (None, kind):
        return kind
    needed = "(rows, columns)" if data.kind == "table" else "(rows, height, width) or with channels"
    raise DataError(
        f"{raw.where}: data.kind {data.kind} needs X of shape {needed}, and X has shape {tuple(raw.x.shape)}; "
        f"say data.kind: {kind}"
    )


def read_examples(source: Any, kind: Kind, texts: tuple[str, ...] = ()) -> Any:
    """Return examples to predict, without a target: what the encoder of `kind` takes.

    `source` is a path, `sklearn:NAME`, a table, a mapping of columns or an array. Columns in `texts`
    are read as text from a CSV file, whatever they look like.

    Raises:
        DataError: there are no examples, or they can't be read.
    """
    if isinstance(source, str) and source.startswith("sklearn:"):
        return _bundled(Data(source=source, kind=kind)).x
    if isinstance(source, (str, Path)):
        return _read_file(Path(source).expanduser(), texts)
    examples = _examples_of(source)
    if not np.ndim(examples) or not len(examples):
        raise DataError("no examples: there must be at least one row")
    return examples


def _read_file(path: Path, texts: tuple[str, ...]) -> Any:
    if path.suffix.lower() == ".npz":
        return read_arrays(path, str(path))["X"]
    return read_table(path, str(path), texts)


def _examples_of(source: Any) -> Any:
    if isinstance(source, pd.DataFrame):
        return named(source)
    if isinstance(source, Mapping):
        try:
            return named(pd.DataFrame(dict(source)))
        except ValueError as error:
            raise DataError(f"columns can't be put together ({error})") from error
    return plain_array(source, "examples")
