"""Data: from what the user names to divided, encoded rows.

`DATA` is the register of kinds; `load` reads a source and hands it to one of them. Importing this
package loads neither pandas nor scikit-learn: the modules that need them are imported when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tuner.config import LOOP
from tuner.data.absent import KIND, OWN, absent
from tuner.data.absent import read_encoder as read_nothing
from tuner.data.splits import Encoder, Part, Shape, Splits, Standard, Target, Task
from tuner.errors import DataError

if TYPE_CHECKING:
    from tuner.config import Data
    from tuner.data.divide import Cut
    from tuner.data.raw import Raw

__all__ = [
    "DATA", "Encoder", "Part", "Shape", "Splits", "Standard", "Target", "encoder_from_json", "load", "load_folds",
    "read_raw",
]  # fmt: skip


def _table(data: Data, raw: Raw, cut: Cut) -> Splits:
    from tuner.data.loading import split_table

    return split_table(data, raw, cut)


def _image(data: Data, raw: Raw, cut: Cut) -> Splits:
    from tuner.data.loading import split_images

    return split_images(data, raw, cut)


def _text(data: Data, raw: Raw, cut: Cut) -> Splits:
    from tuner.data.loading import split_texts

    return split_texts(data, raw, cut)


def _sequence(data: Data, raw: Raw, cut: Cut) -> Splits:
    from tuner.data.loading import split_sequences

    return split_sequences(data, raw, cut)


DATA: dict[str, Callable[[Data, Raw, Cut], Splits]] = {
    "table": _table,
    "image": _image,
    "text": _text,
    "sequence": _sequence,
}


def load(data: Data, folder: Path, seed_of_split: int | None = None) -> Splits:
    """Read, check, divide and encode the examples that `data` names.

    A relative path in `data.source` starts at `folder`. `seed_of_split` draws other validation rows
    than `data.split.seed` would and leaves the test rows as they are.

    Raises:
        DataError: the data can't be used; a line a problem.
        UserCodeError: the user's own code that should return the data failed.
    """
    from tuner.data.sources import infer_kind, read_source

    if data.source == LOOP:
        return absent(data)
    raw = read_source(data, folder)
    return DATA[infer_kind(data, raw)](_rooted(data, folder), raw, seed_of_split)


def _rooted(data: Data, folder: Path) -> Data:
    """Return data whose tokenizer, if it is a folder's, is where `folder` has it."""
    from tuner.backbones import BACKBONES
    from tuner.config import AUTO, OWN_TOKENS

    place = folder / Path(data.tokens or "").expanduser()
    if data.tokens in (None, AUTO, *OWN_TOKENS, *BACKBONES) or not place.is_dir():
        return data
    return data.model_copy(update={"tokens": str(place)})


def load_fresh(data: Data, folder: Path) -> Callable[[int], Splits]:
    """Return what makes, for a seed of a split, what `load` returns for it; the source is read once.

    Raises:
        DataError, UserCodeError: as `load` does; and what is returned, where the rows can't be divided by that seed.
    """
    from tuner.data.sources import infer_kind, read_source

    if data.source == LOOP:
        return lambda _: absent(data)
    raw, data = read_source(data, folder), _rooted(data, folder)
    split = DATA[infer_kind(data, raw)]
    return lambda seed: split(data, raw, seed)


def load_folds(data: Data, folder: Path, refit: bool = False) -> tuple[Splits, tuple[Splits, ...]]:
    """Return what the chosen configuration is trained on in the end, and the folds that trials are scored over.

    Both are the one division that `load` returns, without cross-validation and without `refit`. With folds, each is
    encoded by its own training rows alone. With either, what is trained on in the end are the training and validation
    rows of all of them together (its own validation rows are among them: they measure nothing).

    Raises:
        DataError, UserCodeError: as `load` does.
    """
    if data.source == LOOP:
        nothing = absent(data, refit)
        return nothing, (nothing,)
    from tuner.data.divide import Whole
    from tuner.data.folds import Fold
    from tuner.data.sources import infer_kind, read_source

    raw, data = read_source(data, folder), _rooted(data, folder)
    split, count = DATA[infer_kind(data, raw)], data.split.folds
    folds = tuple(split(data, raw, Fold(number)) for number in range(count)) if count else (split(data, raw, None),)
    return (split(data, raw, Whole()) if count or refit else folds[0]), folds


def encoder_from_json(document: Mapping[str, Any]) -> Encoder:
    """Return the encoder that `Encoder.to_json` wrote.

    Raises:
        DataError: the document is none.
    """
    from tuner.data import image, sequence, table, text

    readers: dict[Any, Callable[[dict[str, Any]], Encoder]] = {
        "table": table.read_encoder,
        "image": image.read_encoder,
        "text": text.read_encoder,
        "sequence": sequence.read_encoder,
        KIND: read_nothing,
    }
    try:
        if document["kind"] != KIND and document["task"] not in get_args(Task):
            raise ValueError("task")
        return readers[document["kind"]](dict(document))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the preprocessing is damaged or was written by another version ({error!r})") from error


def read_raw(source: Any, encoder: Encoder) -> tuple[Any, int]:
    """Return examples to predict, as `encoder.encode` takes them, and how many they are.

    `source` is a path (.csv, .parquet, .jsonl, .npz with X, .txt with a text a line, an image or a folder of
    images), `sklearn:NAME`, a DataFrame, a mapping of columns, an array or a list; a target in it is ignored.

    Raises:
        DataError: it can't be read or has no rows.
    """
    from tuner.data.sources import read_examples

    if encoder.shape.kind == KIND:
        raise DataError(OWN)
    examples = read_examples(source, encoder.shape.kind, getattr(encoder, "texts", ()))
    read = getattr(encoder, "read", None)  # sequences: a file's rows may be steps, and only the encoder knows
    examples = examples if read is None else read(examples)
    return examples, len(examples)
