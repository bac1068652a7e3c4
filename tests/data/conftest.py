from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuner.config import Data, Split
from tuner.data import Splits, load


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Splits]:
    """Write a file (text, bytes, a table or arrays) and load it."""

    def read_file(content: Any, name: str = "d.csv", seed_of_split: int | None = None, **data: Any) -> Splits:
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path) if name.endswith("parquet") else content.to_csv(path, index=False)
        elif isinstance(content, dict):
            np.savez(path, **content)
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        data["split"] = Split(**data.get("split", {}))
        if name.endswith(("csv", "csv.gz", "parquet")):
            data.setdefault("target", "t")
        return load(Data(**{"source": name, **data}), tmp_path, seed_of_split)

    return read_file


def table(rows: int = 60, **columns: Any) -> pd.DataFrame:
    """A table that is in order: two numbers, a category and a target t of two classes."""
    random = np.random.default_rng(0)
    plain = {
        "a": random.normal(size=rows),
        "b": random.integers(0, 5, rows),
        "c": random.choice(["red", "green", "blue"], rows),
        "t": np.array(["no", "yes"])[np.arange(rows) % 2],
    }
    return pd.DataFrame({**plain, **columns})


@pytest.fixture(name="table")
def give_table() -> Callable[..., pd.DataFrame]:
    return table
