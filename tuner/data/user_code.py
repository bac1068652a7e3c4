"""Calls the user's own code for examples and turns what it returns into Raw.

Knows the allowed results and whose fault an error is; knows nothing of their meaning.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from tuner.data.raw import Raw, frame_of, listed, plain_array, series_of
from tuner.errors import DataError, UserCodeError, nearest

KEYS = ("X", "y", "split", "classes")
ALLOWED = "(X, y), a dict with X and y (split, classes), or a DataFrame together with data.target"


def call(name: str, folder: Path) -> Any:
    """Import `module:attr`, looking into `folder` first, call it and return its result.

    Raises:
        UserCodeError: it can't be imported or called, or raises; the message has type, file and line.
    """
    module, attr = name.split(":")
    with _looking_into(folder):
        found = _import(module, name, folder)
        if not hasattr(found, attr):
            public = [known for known in vars(found) if not known.startswith("_")]
            raise UserCodeError(f"{name}: the module {module} has no {attr!r}{nearest(attr, public)}")
        function = getattr(found, attr)
        if not callable(function):
            raise UserCodeError(f"{name}: is a {type(function).__name__}, not a function; it must return {ALLOWED}")
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise UserCodeError(_told(name, error, folder)) from error


@contextmanager
def _looking_into(folder: Path) -> Iterator[None]:
    path = str(folder.resolve())
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if path in sys.path:
            sys.path.remove(path)


def _import(module: str, name: str, folder: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise UserCodeError(_told(name, error, folder)) from error
        raise UserCodeError(f"{name}: no module named {error.name!r} in {folder.resolve()} or installed") from error
    except (Exception, SystemExit) as error:
        raise UserCodeError(_told(name, error, folder)) from error


def _told(name: str, error: BaseException, folder: Path) -> str:
    said = " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError):
        return f"{name}: {type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(folder.resolve())]
    last = (theirs or list(frames))[-1]
    return f"{name}: {type(error).__name__}: {said} ({last.filename}, line {last.lineno})"


def read_result(result: Any, where: str) -> Raw | pd.DataFrame:
    """Return what user code returned as Raw, or the whole table if its target is still to be taken out.

    Raises:
        DataError: it is none of the allowed results.
    """
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


def raw_of(where: str, X: Any, y: Any = None, split: Any = None, classes: Any = None) -> Raw:
    """Return arrays as Raw; a 2-D X becomes a table.

    Raises:
        DataError: an array has a shape or a dtype that can't be used, or lengths differ.
    """
    x = X if isinstance(X, pd.DataFrame) else array_of(X, where)
    names = () if classes is None else tuple(str(name) for name in series_of(classes, where, "classes"))
    parts = None if split is None else series_of(split, where, "split").to_numpy()
    target = None if y is None else series_of(y, where, "y")
    for name, column in (("y", target), ("split", parts)):
        if column is not None and len(column) != len(x):
            raise DataError(f"{where}: X has {len(x)} rows and {name} has {len(column)}; they must be as many")
    return Raw(where, named(x) if isinstance(x, pd.DataFrame) else x, target, parts, names)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with texts for column names and rows counted from 0."""
    columns = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    return frame.set_axis(pd.Index(columns, dtype=object), axis=1).reset_index(drop=True)


def array_of(x: Any, where: str) -> pd.DataFrame | NDArray[Any]:
    """Return features as an array of images, or as a table if they are 2-D.

    Raises:
        DataError: they aren't numbers, or have another number of dimensions than 2, 3 or 4.
    """
    array = plain_array(x, f"{where}: X")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: X holds {array.dtype} values; an array of numbers or a DataFrame is allowed")
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"{where}: X has shape {array.shape}; (rows, columns) for a table and (rows, height, width), "
            "(rows, height, width, channels) or (rows, channels, height, width) for images are allowed"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return frame_of(array) if array.ndim == 2 else array
