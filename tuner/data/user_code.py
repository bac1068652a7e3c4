"""Calls the user's own code for examples and turns what it returns into Raw.

Knows the allowed results and whose fault an error is; knows nothing of their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from tuner.data.ragged import is_ragged, padded, shape_of
from tuner.data.raw import Raw, frame_of, listed, plain_array, series_of
from tuner.data.torch_sets import as_arrays
from tuner.errors import DataError
from tuner.own_code import blaming, find_own

KEYS = ("X", "y", "split", "classes", "lengths")
ALLOWED = (
    "(X, y), a dict with X and y (split, classes, lengths), a torch Dataset of pairs, a dict with train, val and test "
    "of these, or a DataFrame together with data.target"
)


def call(name: str, folder: Path) -> Any:
    """Import `module:attr`, looking into `folder` first, call it and return its result.

    Raises:
        UserCodeError: it can't be imported or called, or raises; the message has type, file and line.
    """
    label = f"data.source {name}"
    function = find_own(name, folder, label, f"a function that returns {ALLOWED}")
    with blaming(label):
        return function()


def read_result(result: Any, where: str) -> Raw | pd.DataFrame:
    """Return what user code returned as Raw, or the whole table if its target is still to be taken out.

    Raises:
        DataError: it is none of the allowed results.
    """
    result = as_arrays(result, where)
    if isinstance(result, pd.DataFrame):
        return result
    if isinstance(result, Mapping):
        unknown = [str(key) for key in result if key not in KEYS]
        if unknown or "X" not in result or "y" not in result:
            raise DataError(
                f"{where}: returned a dict with {listed(result) or 'nothing'}; {', '.join(KEYS)} are allowed"
            )
        return raw_of(where, **result)
    if isinstance(result, (tuple, list)) and len(result) == 2:
        return raw_of(where, *result)
    raise DataError(f"{where}: returned {_named(result)}; allowed are {ALLOWED}")


def _named(result: Any) -> str:
    length = f" of {len(result)}" if isinstance(result, (tuple, list)) else ""
    return f"{type(result).__name__}{length}"


def raw_of(where: str, X: Any, y: Any = None, split: Any = None, classes: Any = None, lengths: Any = None) -> Raw:
    """Return arrays as Raw; a 2-D X becomes a table, and sequences (steps, channels) of different lengths an array.

    Raises:
        DataError: an array has a shape or a dtype that can't be used, or lengths differ.
    """
    if lengths is None and is_ragged(X) and len(shape_of(X[0])) == 2:
        X, lengths = padded(X, f"{where}: X")
    x = X if isinstance(X, pd.DataFrame) else array_of(X, where)
    steps = None if lengths is None else plain_array(lengths, f"{where}: lengths")
    names = () if classes is None else tuple(str(name) for name in series_of(classes, where, "classes"))
    parts = None if split is None else series_of(split, where, "split").to_numpy()
    target = None if y is None else series_of(y, where, "y")
    for name, column in (("y", target), ("split", parts)):
        if column is not None and len(column) != len(x):
            raise DataError(f"{where}: X has {len(x)} rows and {name} has {len(column)}; they must be as many")
    return Raw(where, named(x) if isinstance(x, pd.DataFrame) else x, target, parts, names, lengths=steps)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with texts for column names and rows counted from 0."""
    columns = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    return frame.set_axis(pd.Index(columns, dtype=object), axis=1).reset_index(drop=True)


def array_of(x: Any, where: str) -> pd.DataFrame | NDArray[Any]:
    """Return features as an array of images or sequences, or as a table if they are 2-D.

    Raises:
        DataError: they aren't numbers, or have another number of dimensions than 2, 3 or 4.
    """
    array = plain_array(x, f"{where}: X")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: X holds {array.dtype} values; an array of numbers or a DataFrame is allowed")
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"{where}: X has shape {array.shape}; (rows, columns) for a table, (rows, steps, channels) for sequences "
            "and (rows, height, width), (rows, height, width, channels) or (rows, channels, height, width) for images "
            "are allowed"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return frame_of(array) if array.ndim == 2 else array
