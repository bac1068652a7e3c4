"""A best configuration and a file of examples -> predictions as CSV."""

from __future__ import annotations

from typing import Any

from tuner.best import BestConfig
from tuner.data import read_raw
from tuner.reporting import csv_text


def predictions(best: BestConfig, source: str) -> str:
    """Return CSV with one row an example: the file or the id that it is of, where it has one, the prediction and, for
    classes, a probability for each.

    Raises:
        DataError: the file can't be read or lacks a column that the model was trained on.
    """
    examples, count = read_raw(source, best.encoder)
    names = _names(examples, count)
    if best.encoder.shape.task == "regression":
        values = best.predict(examples)
        return csv_text([row | {"prediction": float(f"{value:.8g}")} for row, value in zip(names, values, strict=True)])
    rows: list[dict[str, Any]] = []
    for row, shares in zip(names, best.predict_proba(examples), strict=True):
        chances = {f"p_{name}": float(f"{share:.6g}") for name, share in zip(best.classes, shares, strict=True)}
        rows.append(row | {"prediction": best.classes[int(shares.argmax())]} | chances)
    return csv_text(rows)


def _names(examples: Any, count: int) -> list[dict[str, Any]]:
    """Return what tells examples apart that aren't the rows of a table: files of images, ids of sequences."""
    for column, attribute in (("file", "names"), ("id", "ids")):
        names = getattr(examples, attribute, ())
        if isinstance(names, tuple) and len(names) == count:
            return [{column: name} for name in names]
    return [{} for _ in range(count)]
