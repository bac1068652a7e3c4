"""A best configuration and a file of examples -> predictions as CSV."""

from __future__ import annotations

from typing import Any

from tuner.best import BestConfig
from tuner.data import read_raw
from tuner.report import csv_text


def predictions(best: BestConfig, source: str) -> str:
    """Return CSV with one row an example: the prediction and, for classes, a probability for each.

    Raises:
        DataError: the file can't be read or lacks a column that the model was trained on.
    """
    examples, _ = read_raw(source, best.encoder)
    if best.encoder.shape.task == "regression":
        return csv_text([{"prediction": float(f"{value:.8g}")} for value in best.predict(examples)])
    rows: list[dict[str, Any]] = []
    for shares in best.predict_proba(examples):
        row: dict[str, Any] = {"prediction": best.classes[int(shares.argmax())]}
        row |= {f"p_{name}": float(f"{share:.6g}") for name, share in zip(best.classes, shares, strict=True)}
        rows.append(row)
    return csv_text(rows)
