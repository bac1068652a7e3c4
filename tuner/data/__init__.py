"""Data: from what the user names to divided, encoded rows.

`DATA` is the register of kinds; `load` reads a source and hands it to one of them. Importing this
package loads neither pandas nor scikit-learn: the modules that need them are imported when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.data.splits import Encoder, Part, Shape, Splits, Standard, Target
from tuner.errors import DataError

if TYPE_CHECKING:
    from tuner.config import Data
    from tuner.data.raw import Raw

__all__ = ["DATA", "Encoder", "Part", "Shape", "Splits", "Standard", "Target", "encoder_from_json", "load", "read_raw"]


def _table(data: Data, raw: Raw, seed_of_split: int | None) -> Splits:
    from tuner.data.loading import split_table

    return split_table(data, raw, seed_of_split)


def _image(data: Data, raw: Raw, seed_of_split: int | None) -> Splits:
    from tuner.data.loading import split_images

    return split_images(data, raw, seed_of_split)


DATA: dict[str, Callable[[Data, Raw, int | None], Splits]] = {"table": _table, "image": _image}


def load(data: Data, folder: Path, seed_of_split: int | None = None) -> Splits:
    """Read, check, divide and encode the examples that `data` names.

    A relative path in `data.source` starts at `folder`. `seed_of_split` draws other validation rows
    than `data.split.seed` would and leaves the test rows as they are.

    Raises:
        DataError: the data can't be used; a line a problem.
        UserCodeError: the user's own code that should return the data failed.
    """
    from tuner.data.sources import infer_kind, read_source

    raw = read_source(data, folder)
    return DATA[infer_kind(data, raw)](data, raw, seed_of_split)


def encoder_from_json(document: Mapping[str, Any]) -> Encoder:
    """Return the encoder that `Encoder.to_json` wrote.

    Raises:
        DataError: the document is none.
    """
    from tuner.data import image, table

    readers: dict[Any, Callable[[dict[str, Any]], Encoder]] = {"table": table.read_encoder, "image": image.read_encoder}
    try:
        return readers[document["kind"]](dict(document))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the preprocessing is damaged or was written by another version ({error!r})") from error


def read_raw(source: Any, encoder: Encoder) -> tuple[Any, int]:
    """Return examples to predict, as `encoder.encode` takes them, and how many they are.

    `source` is a path (.csv, .parquet, .npz with X), `sklearn:NAME`, a DataFrame, a mapping of columns or
    an array; a target in it is ignored.

    Raises:
        DataError: it can't be read or has no rows.
    """
    from tuner.data.sources import read_examples

    examples = read_examples(source, encoder.shape.kind, getattr(encoder, "texts", ()))
    return examples, len(examples)
