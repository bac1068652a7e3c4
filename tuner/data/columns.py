"""Reads one column of a table as numbers, as texts or as moments, and tells which of them it is.

Decides what counts as a number, a date or a category. Knows no statistics and no target.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tuner.errors import DataError

Role = Literal["number", "date", "category"]
MISSING = frozenset({"", "?", "-", "--", ".", "na", "n/a", "nan", "null", "none", "missing", "unknown"})
TRUTH = {"true": 1.0, "false": 0.0}
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(,\d{3})+(\.\d+)?\s*")
FORMATTED = re.compile(r"\s*[+-]?[$€£]?\s?[+-]?\d[\d,.]*\s?[%$€£]?\s*")
COMMA_NUMBER = re.compile(r"\s*[+-]?\d*,\d+\s*")


def role_of(column: pd.Series[Any]) -> Role:
    """Return what a column holds: numbers (booleans too), dates, or categories.

    A text column is of numbers if all its values are, but for marks of a missing value such as '?',
    and of dates if all its values are ISO dates.
    """
    if is_number(column) or types.is_timedelta64_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "date"
    _, texts = texts_of(column)
    if isinstance(column.dtype, pd.CategoricalDtype) or not texts:
        return "category"
    if all(ISO_DATE.fullmatch(text) for text in texts) and not _moments(texts).isna().any():
        return "date"
    known = [text for text in texts if text.strip().lower() not in MISSING]
    return "number" if known and not any(np.isnan(number_of(text)) for text in known) else "category"


def is_number(column: pd.Series[Any]) -> bool:
    """Return whether a column is stored as real numbers or booleans."""
    return types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype)


def number_of(text: str) -> float:
    """Return the number that a text is; true and false are 1 and 0, anything else NaN."""
    text = text.strip().lower()
    if text in TRUTH:
        return TRUTH[text]
    try:
        return float("nan" if "_" in text else text)
    except ValueError:
        return float("nan")


def numbers_of(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Return a column as numbers (n,), NaN where a value is missing or none."""
    if is_number(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    if types.is_timedelta64_dtype(column.dtype):
        return np.asarray(column.dt.total_seconds(), dtype=np.float64)
    codes, texts = texts_of(column)
    return np.array([*map(number_of, texts), np.nan], dtype=np.float64)[codes]


def texts_of(column: pd.Series[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column as (codes (n,), distinct texts in order of appearance); code -1 is missing.

    A number that is whole has no decimal point, so that a column says the same whether it was stored
    as integers, as floats because a value is missing, or as text.

    Raises:
        DataError: it holds lists or other things that can't be compared.
    """
    if types.is_float_dtype(column.dtype):
        column = column.astype(object)
    try:
        codes, uniques = pd.factorize(column)
    except TypeError as error:
        raise DataError(
            f"column {column.name!r}: holds values that aren't numbers, texts, booleans or dates"
        ) from error
    return np.asarray(codes, dtype=np.int64), [_text(value) for value in uniques]


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if np.isfinite(value) and value == int(value) else repr(float(value))
    return str(value)


def moments_of(column: pd.Series[Any]) -> pd.DatetimeIndex:
    """Return a column as UTC moments (n,), NaT where a value is missing or no ISO date."""
    if types.is_datetime64_any_dtype(column.dtype):
        return pd.DatetimeIndex(pd.to_datetime(column, utc=True))
    codes, texts = texts_of(column)
    dates = [text if ISO_DATE.fullmatch(text) else None for text in texts]
    return _moments([*dates, None])[codes]


def _moments(texts: Any) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True))


def days_of(moments: pd.DatetimeIndex) -> NDArray[np.float64]:
    """Return moments as days since 1970 (n,), with fractions; NaN for NaT."""
    epoch = pd.Timestamp("1970-01-01", tz="UTC")
    return np.asarray((moments - epoch) / pd.Timedelta(days=1), dtype=np.float64)


def is_truth(column: pd.Series[Any]) -> bool:
    """Return whether a text column says true and false only."""
    return not is_number(column) and {text.strip().lower() for text in texts_of(column)[1]} <= TRUTH.keys()
