"""Splits <-> a folder of arrays that processes map into memory: one copy for any number of workers.

The test rows are left out: what trains can't read them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.splits import Part, Splits

ARRAYS = ("x", "y", "rows")


def write_shared(splits: Splits, folder: Path) -> None:
    """Write the training and validation rows and the encoder; the files are the owner's alone to read."""
    write_arrays(*arrays_of(splits), folder)


def arrays_of(splits: Splits) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the training and validation rows by the names that their files have, and the encoder as a text."""
    parts = (("train", splits.train), ("val", splits.val))
    arrays = {f"{name}.{array}": np.ascontiguousarray(getattr(part, array)) for name, part in parts for array in ARRAYS}
    return arrays, json.dumps(splits.encoder.to_json())


def write_arrays(arrays: Mapping[str, NDArray[Any]], encoder: str, folder: Path) -> None:
    """Write what `arrays_of` returned."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / "encoder.json").write_text(encoder)


def open_shared(folder: Path) -> Splits:
    """Return the splits that `write_shared` wrote, mapped (copy on write) instead of read, without test rows."""
    from tuner.data import encoder_from_json

    parts = {name: Part(*(_mapped(folder / f"{name}.{array}.npy") for array in ARRAYS)) for name in ("train", "val")}
    encoder = encoder_from_json(json.loads((folder / "encoder.json").read_text()))
    return Splits(parts["train"], parts["val"], None, encoder, "", "")


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError as error:
        if "empty" not in str(error):
            raise
        # no rows, of which nothing can be mapped
        return np.asarray(np.load(path, allow_pickle=False))


def place_of(folder: Path, number: int) -> Path:
    """Return where in a folder of several splits those of a number lie."""
    return folder / f"splits-{number}"
