"""Cuts texts with the tokenizer of a backbone.

A tokenizer is carried about as the text of its tokenizer.json, so that what was fitted needs no file later. Its numbers
are its own; that 0 is its padding, and nothing else, is seen to here. Needs the package tokenizers, imported when it is
used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.config import AUTO
from tuner.data.tokens import CUT, mended
from tuner.errors import DataError, UsageError, nearest, show

FILE = "tokenizer.json"
MOST = 512
LIMITS = {"sentence_bert_config.json": "max_seq_length", "config.json": "max_position_embeddings"}
PADDINGS = ("[PAD]", "<pad>")
AT_ONCE = 1000


def read_tokenizer(name: str) -> tuple[str, int]:
    """Return the tokenizer of a backbone, by its name or the folder it lies in, and the most tokens that it is for.

    Raises:
        UsageError: there is no such backbone, or what it needs isn't installed, or it pads with another number than 0.
        DataError: the file is damaged.
    """
    file = _file(name)
    try:
        text = file.read_text(encoding="utf-8")
        padding = _padding(_load(text))
    # A damaged file makes the package raise a bare Exception.
    except Exception as error:
        if isinstance(error, UsageError):
            raise
        said = " ".join(str(error).split())[:200]
        raise DataError(f"data.tokens: {file} can't be read as a tokenizer ({said})") from error
    if padding != 0:
        pads = "has no padding" if padding is None else f"pads with token {padding}"
        raise UsageError(f"data.tokens: the tokenizer of {name} {pads}; only one that pads with token 0 can be used")
    return text, _most(file)


def _file(name: str) -> Path:
    from tuner.backbones import BACKBONES, tokenizer_file

    known = [*CUT, *(each for each, backbone in BACKBONES.items() if backbone.kind == "text"), AUTO]
    if name not in known:
        file = Path(name).expanduser() / FILE
        if file.is_file():
            return file
        allowed = f"{', '.join(known)}, or a folder with a {FILE}"
        raise UsageError(
            f"data.tokens: there is no {show(name)}{nearest(Path(name).name, known)}; {allowed} is allowed"
        )
    try:
        return tokenizer_file(name)
    except UsageError as error:
        raise UsageError(str(error).replace("model.backbone", "data.tokens")) from error


def _most(file: Path) -> int:
    """Return the most tokens that the files beside a tokenizer say the backbone takes, at most MOST."""
    found = [MOST]
    for name, key in LIMITS.items():
        try:
            found.append(int(json.loads(file.with_name(name).read_text(encoding="utf-8"))[key]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return min(found)


@lru_cache(maxsize=2)
def _load(text: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "data.tokens: needs a package that isn't there; `pip install tokenizers` installs it"
        ) from None
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    return tokenizer


def _padding(tokenizer: Any) -> int | None:
    numbers = [tokenizer.token_to_id(name) for name in PADDINGS]
    return next((number for number in numbers if number is not None), None)


def vocabulary_of(text: str) -> int:
    """Return how many token numbers a tokenizer has, 0 among them."""
    return int(max(_load(text).get_vocab(with_added_tokens=True).values())) + 1


def fewest(text: str) -> int:
    """Return the fewest tokens that a text of one token has: it and those that the tokenizer adds."""
    return int(_load(text).num_special_tokens_to_add(False)) + 1


def words_of(text: str, numbers: list[int]) -> str:
    """Return the text that token numbers stand for, without those that the tokenizer adds."""
    return str(_load(text).decode(numbers, skip_special_tokens=True))


def cut(text: str, texts: list[str], length: int) -> NDArray[np.int32]:
    """Return texts as token numbers (n, length) by a tokenizer, 0 where a text has ended."""
    return _cut(text, tuple(texts), length).copy()


# A study cuts the same texts once to find their length and once more for every fold.
@lru_cache(maxsize=2)
def _cut(text: str, texts: tuple[str, ...], length: int) -> NDArray[np.int32]:
    tokenizer = _load(text)
    tokenizer.enable_truncation(length)
    cut = np.zeros((len(texts), length), dtype=np.int32)
    unknown = _unknown(text)
    for row, numbers in enumerate(_numbers(tokenizer, texts)):
        # A text may hold the word that stands for padding.
        inside = [number for number in numbers if number] or [unknown]
        cut[row, : len(inside)] = inside
    return cut


def _numbers(tokenizer: Any, texts: tuple[str, ...]) -> Iterator[list[int]]:
    for start in range(0, len(texts), AT_ONCE):
        some = [mended(text) for text in texts[start : start + AT_ONCE]]
        yield from (found.ids for found in tokenizer.encode_batch(some))


def _unknown(text: str) -> int:
    name = json.loads(text).get("model", {}).get("unk_token")
    number = _load(text).token_to_id(name) if isinstance(name, str) else None
    return int(number) if number else 1
