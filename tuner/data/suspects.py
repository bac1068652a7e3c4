"""Columns of a table that may give the answer away, or that name a row: told for the user to judge, never dropped.

What is known only after the answer is (a date of leaving, a price in another currency) makes a network look perfect
that is of no use. Whether a column is such a one can't be seen in the data; that it alone tells the answer can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from tuner.data.raw import listed

FEWEST_OF_CLASS = 5  # rows by which anything can be said of a class
FEWEST_OF_IDS, OWN_SHARE = 20, 0.9  # rows, and the share of different values, from which a text names its row
TELLS, SAME_ORDER = 0.998, 0.999  # area under the ROC curve, rank correlation: beyond them a column gives the answer


def suspects(rows: pd.DataFrame, y: NDArray[Any], classes: Sequence[str]) -> list[str]:
    """Return a sentence on each such column of the training rows; `y` are class numbers, or the target.

    A column is suspected if it alone tells a class from all others, or the order of the target; or if it is text of
    which nearly each row has its own.
    """
    found: dict[str, list[str]] = {}
    for name in rows.columns:
        column = rows[name]
        words = not pd.api.types.is_numeric_dtype(column)
        if words and _is_own(column):
            said = "has nearly as many different values as rows; if it names the row, leave it out"
        elif told := _gives_away(column, y, classes, words):
            said = f"alone tells {told}; if it isn't known before the answer is, leave it out"
        else:
            continue
        found.setdefault(said, []).append(str(name))
    return [f"column {listed(names)} {said}: data.drop" for said, names in found.items()]


def _is_own(column: pd.Series[Any]) -> bool:
    if len(column) < FEWEST_OF_IDS or column.nunique() <= OWN_SHARE * len(column):
        return False
    return bool(pd.to_datetime(column.astype(str), errors="coerce", format="ISO8601").isna().mean() > 0.5)  # no dates


def _gives_away(column: pd.Series[Any], y: NDArray[Any], classes: Sequence[str], words: bool) -> str:
    """Return what a column alone tells of what is to be predicted, nearly without error; nothing if it doesn't."""
    if words:
        codes = np.asarray(pd.factorize(column)[0])
        if codes.max(initial=0) + 1 > len(codes) / 5 or not classes:
            return ""
        values = np.zeros(len(codes))
    else:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        codes = np.array([])
        if np.isnan(values).mean() > 0.5 or np.nanstd(values) == 0:
            return ""
        values = np.where(np.isnan(values), np.nanmedian(values), values)
    if not classes:
        order = float(spearmanr(values, y).statistic)
        return "the order of the target" if abs(order) >= SAME_ORDER else ""
    for number, name in enumerate(classes):
        own = y == number
        if not FEWEST_OF_CLASS <= own.sum() < len(own):
            continue
        # of words, the share of the class among the rows with the same one stands for a number
        scores = pd.Series(own.astype(float)).groupby(codes).transform("mean").to_numpy() if words else values
        area = float(roc_auc_score(own, scores))
        if max(area, 1 - area) >= TELLS:
            return f"class {name!r} from {'the other' if len(classes) == 2 else 'all others'}"
    return ""
