"""Identifies data by content: the same rows give the same SHA-256 in every process and on every machine.

Decides which bytes stand for a value. Knows nothing of what the rows mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.data.columns import is_number, texts_of
from tuner.data.memory import pieces, slices
from tuner.data.ragged import Ragged

NUMBER = 8  # bytes of one, and of a code
Rows = NDArray[np.int64]
Examples = pd.DataFrame | NDArray[Any] | Ragged


def fingerprint(x: Examples, y: pd.Series[Any], parts: Mapping[str, Rows]) -> str:
    """Return the SHA-256 of all rows and of the part that each is in."""
    digest = hashlib.sha256()
    _add_examples(digest, x, y)
    for name, rows in parts.items():
        _add_text(digest, name)
        _add_array(digest, rows)
    return digest.hexdigest()


def hash_rows(x: Examples, y: pd.Series[Any], rows: Rows) -> str:
    """Return the SHA-256 of some rows alone, whatever the others are."""
    digest = hashlib.sha256()
    if isinstance(x, pd.DataFrame):
        _add_table(digest, x, rows)
    elif isinstance(x, Ragged):
        _add_sequences(digest, x, rows)
    else:
        _add_array(digest, x, rows)
    _add_column(digest, y.iloc[rows])
    return digest.hexdigest()


def hash_each(x: Examples) -> NDArray[Any]:
    """Return a short hash of each row's features (n,), equal for equal rows."""
    if isinstance(x, pd.DataFrame):
        codes = [texts_of(x[name])[0] if not is_number(x[name]) else x[name] for name in x.columns]
        plain = {i: np.asarray(column) for i, column in enumerate(codes)}
        some = (pd.DataFrame({i: v[part] for i, v in plain.items()}) for part in slices(len(x), NUMBER * len(plain)))
        return np.concatenate([np.asarray(pd.util.hash_pandas_object(piece, index=False)) for piece in some])
    if isinstance(x, Ragged):
        there = zip(x.x, x.lengths, strict=True)
        return np.array([hashlib.blake2b(row[:length].tobytes(), digest_size=16).digest() for row, length in there])
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=16).digest() for piece in pieces(x) for row in piece])


def _add_examples(digest: Any, x: Examples, y: pd.Series[Any]) -> None:
    if isinstance(x, pd.DataFrame):
        _add_table(digest, x)
    elif isinstance(x, Ragged):
        _add_sequences(digest, x)
    else:
        _add_array(digest, x)
    _add_column(digest, y)


def _add_table(digest: Any, x: pd.DataFrame, rows: Rows | None = None) -> None:
    for name in x.columns:
        _add_text(digest, str(name))
        _add_column(digest, x[name] if rows is None else x[name].iloc[rows])


def _add_sequences(digest: Any, x: Ragged, rows: Rows | None = None) -> None:
    # Steps that aren't there stand for nothing: how many pad a sequence depends on the others.
    lengths = x.lengths if rows is None else x.lengths[rows]
    _add_array(digest, lengths)
    _add_shape(digest, x.x.dtype, (int(lengths.sum()), x.x.shape[2]))
    for piece in x.pieces(rows):
        _add_values(digest, piece.x[piece.present])


def _add_column(digest: Any, column: pd.Series[Any]) -> None:
    if is_number(column):
        whole = column.dtype.kind in "iu" if isinstance(column.dtype, np.dtype) else False
        numbers = column.to_numpy() if whole else column.to_numpy(dtype=np.float64, na_value=np.nan)
        # A NaN has many bit patterns; adding 0 also makes -0.0 and 0.0 one value.
        _add_array(digest, np.asarray(numbers) if whole else np.where(np.isnan(numbers), np.nan, numbers + 0.0))
        return
    codes, texts = texts_of(column)
    _add_array(digest, codes)
    for text in texts:
        _add_text(digest, text)


def _add_array(digest: Any, array: NDArray[Any], rows: Rows | None = None) -> None:
    _add_shape(digest, array.dtype, array.shape if rows is None else (len(rows), *array.shape[1:]))
    for piece in pieces(array, rows):
        _add_values(digest, piece)


def _add_shape(digest: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    _add_text(digest, f"{dtype.kind}{dtype.itemsize}{shape}")


def _add_values(digest: Any, values: NDArray[Any]) -> None:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest.update(little.reshape(-1).view(np.uint8))


def _add_text(digest: Any, text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    digest.update(len(encoded).to_bytes(8, "little") + encoded)
