"""Raw: what a source holds before anything is decided about it.

Knows where the examples came from, for messages; knows no file format, no split and no encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.errors import DataError

AT_MOST = 20
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Raw:
    """Examples as the source gives them, a row each.

    `x` is a table with named columns (texts too), or an array of images or of sequences (rows, steps, channels);
    `y` the target column (None if it isn't there, as for a prediction); `split` the part that the source assigns to
    each row; `classes` names the values 0, 1, ... of `y`; `lengths` says how many steps of each sequence are there;
    `columns` names their channels where a table had them; `aside` holds the columns that the rows of an array may be
    divided by; `fitted` says that images were brought to one size. `where` opens every message and `target` is what
    `y` is called there.
    """

    where: str
    x: pd.DataFrame | NDArray[Any]
    y: pd.Series[Any] | None = None
    split: NDArray[Any] | None = None
    classes: tuple[str, ...] = ()
    target: str = "y"
    notes: tuple[str, ...] = ()
    lengths: NDArray[np.int64] | None = None
    aside: pd.DataFrame | None = None
    columns: tuple[str, ...] = ()
    fitted: bool = False

    def __len__(self) -> int:
        return len(self.x)


def frame_of(x: NDArray[Any], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a 2-D array (rows, columns) as a table; columns without a name are x0, x1, ..."""
    return pd.DataFrame(x, columns=list(names) if names else [f"x{i}" for i in range(x.shape[1])])


def plain_array(values: Any, what: str) -> NDArray[Any]:
    """Return values as an array.

    Raises:
        DataError: they are none, for instance lists of different lengths.
    """
    try:
        return values.to_numpy() if isinstance(values, (pd.Series, pd.DataFrame)) else np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{what} can't be made an array ({said})") from error


def series_of(values: Any, where: str, name: str) -> pd.Series[Any]:
    """Return the values of a target, one a row, as a column.

    Raises:
        DataError: there is more than one value a row, or the values are of no use as a target.
    """
    array = plain_array(values, f"{where}: {name}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: {name} has shape {array.shape}; one value a row is allowed")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "biufUTOmM":
        raise DataError(f"{where}: {name} holds {array.dtype} values; numbers, texts or booleans are allowed")
    if array.dtype.kind in "UT":
        array = array.astype(object)
    return pd.Series(np.array(array, dtype=array.dtype.newbyteorder("=")), name=name)


def listed(names: Iterable[Any], at_most: int = AT_MOST) -> str:
    """Return names separated by commas, the first `at_most` of them; control characters are
    escaped, and a long name is cut.
    """
    texts = [str(name) if str(name).isprintable() else repr(str(name)) for name in names]
    texts = [text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..." for text in texts]
    more = len(texts) - at_most
    return ", ".join(texts[:at_most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """Return "1 row" or "2 rows"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
