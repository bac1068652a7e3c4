"""Texts: numbers their tokens by a vocabulary, and cuts them to a length, both fitted on the training rows.

Decides which column holds the texts, which tokens are known and how many of a text are kept. Token numbers: 0 is
padding and stands at the end alone, 1 is unknown, then the known ones, the commonest first. Of more than 1,000
different tokens those that occur once are unknown: a word that one text has can only be memorized, and a network
that never meets the unknown in training doesn't know what to do with it. Knows no file and no split.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.config import Data
from tuner.data import pieces
from tuner.data.checks import check_texts, is_missing
from tuner.data.raw import counted, listed
from tuner.data.splits import Shape, Standard, Target, Task
from tuner.data.targets import Goal
from tuner.data.tokens import CUT
from tuner.errors import DataError, UsageError, nearest

TEXT = "text"
UNKNOWN = 1
MANY_TOKENS = 1000
LONGEST_TOKEN = 100
MOST = {"word": 512, "character": 1024}
SAMPLE = 1000
STEP = 8  # tokens of a backbone


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Turns texts into int32 arrays (rows, length) of token numbers below `vocabulary`, 0 where a text has ended.

    `known` are the tokens with the numbers 2, 3, ... if they are words or characters; else `tokenizer` is the text of
    a backbone's tokenizer.json, which has numbers of its own.
    """

    column: str
    tokens: str
    length: int
    vocabulary: int
    task: Task
    classes: tuple[str, ...]
    target: Target
    known: tuple[str, ...] = field(default=(), repr=False)
    tokenizer: str = field(default="", repr=False)

    @property
    def shape(self) -> Shape:
        """The shape of one encoded text, and what is predicted from it."""
        outputs = len(self.classes) or 1
        return Shape("text", self.task, (self.length,), outputs, (), self.classes, vocabulary=self.vocabulary)

    @property
    def standard(self) -> Standard:
        """Token numbers are used as they are stored."""
        return Standard()

    @property
    def texts(self) -> tuple[str, ...]:
        """The column that holds the texts: a reader must leave it as it is written."""
        return (self.column,)

    def encode(self, raw: Any) -> NDArray[np.int32]:
        """Return texts (a DataFrame with their column, or one text a row) as token numbers (rows, length).

        A text without a token is one unknown token.

        Raises:
            DataError: the column is missing, or a row holds no text.
        """
        texts = self._texts(raw)
        if self.tokenizer:
            return pieces.cut(self.tokenizer, texts, self.length)
        encoded = np.zeros((len(texts), self.length), dtype=np.int32)
        cut, number = CUT[self.tokens], {token: place for place, token in enumerate(self.known, start=UNKNOWN + 1)}
        for row, text in enumerate(texts):
            numbers = [number.get(token, UNKNOWN) for token in cut(text)[: self.length]] or [UNKNOWN]
            encoded[row, : len(numbers)] = numbers
        return encoded

    def _texts(self, raw: Any) -> list[str]:
        values = self._column(raw) if isinstance(raw, pd.DataFrame) else plain_texts(raw)
        problems = check_texts(values, self.column)
        if problems:
            raise DataError("\n".join(f"examples: {problem}" for problem in problems))
        return values

    def _column(self, frame: pd.DataFrame) -> list[Any]:
        names = list(map(str, frame.columns))
        if names.count(self.column) != 1:
            what = "have more than one" if self.column in names else "lack the"
            raise DataError(
                f"examples {what} column {self.column!r}, which holds the texts{nearest(self.column, names)}"
            )
        return values_of(frame.iloc[:, names.index(self.column)])

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON; `read_encoder` reads it back."""
        document: dict[str, Any] = json.loads(json.dumps({"kind": "text", **asdict(self)}, allow_nan=False))
        return document


def read_encoder(document: dict[str, Any]) -> TextEncoder:
    """Return the encoder that `to_json` wrote.

    Raises:
        KeyError, TypeError: the document is none.
    """
    return TextEncoder(
        column=document["column"],
        tokens=document["tokens"],
        length=document["length"],
        vocabulary=document["vocabulary"],
        task=document["task"],
        classes=tuple(document["classes"]),
        target=Target(**document["target"]),
        known=tuple(document["known"]),
        tokenizer=document["tokenizer"],
    )


def values_of(column: pd.Series[Any]) -> list[Any]:
    """Return the values of a column as Python has them."""
    return list(column.astype(object))


def plain_texts(raw: Any) -> list[Any]:
    """Return examples that are no table, one text a row, as a list.

    Raises:
        DataError: they are one text, or have another shape.
    """
    if isinstance(raw, str):
        raise DataError("examples are one text; give a list of texts, also for one")
    if isinstance(raw, pd.Series):
        return values_of(raw)
    if isinstance(raw, np.ndarray):
        if raw.shape[1:] not in ((), (1,)) or not raw.ndim:
            raise DataError(f"examples have shape {raw.shape}; one text a row is needed, (rows,) or (rows, 1)")
        return list(raw.reshape(-1).tolist())
    try:
        return list(raw)
    except TypeError:
        raise DataError(f"examples are a {type(raw).__name__}; a list of texts or a table is needed") from None


def text_column(data: Data, frame: pd.DataFrame) -> str | None:
    """Return the name of the column that holds the texts, None if the rows of a table are no texts.

    Where the kind isn't said, a column of the name text is enough in JSON lines; elsewhere its values must look like
    free text, not like a category.
    """
    if data.kind not in (None, "text") or data.id is not None:
        return None
    if data.text is not None or data.kind == "text":
        return data.text or TEXT
    return TEXT if _may_be_texts(data, frame) and (is_lines(data) or _is_free(frame[TEXT])) else None


def _may_be_texts(data: Data, frame: pd.DataFrame) -> bool:
    if list(frame.columns).count(TEXT) != 1 or TEXT in (data.target, *data.drop):
        return False
    values = [value for value in values_of(frame[TEXT]) if not is_missing(value)]
    return sum(isinstance(value, str) for value in values) > len(values) / 2  # the others are mistakes to tell


def is_lines(data: Data) -> bool:
    """Return whether the source is a file of JSON lines."""
    return data.source.lower().removesuffix(".gz").endswith(".jsonl")


def _is_free(column: pd.Series[Any]) -> bool:
    """Return whether a column of text holds sentences, or mostly values of their own, rather than categories."""
    texts = [value for value in values_of(column) if isinstance(value, str)]
    words = np.median([len(text.split()) for text in texts[:SAMPLE]])
    return bool(words >= 3 or len(set(texts)) > len(texts) / 2)


def tell_kind(data: Data, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return a note on a column text that could as well have been read otherwise."""
    if data.kind is not None or data.text is not None or data.id is not None or not _may_be_texts(data, frame):
        return ()
    free = _is_free(frame[TEXT])
    if is_lines(data) and not free:
        return ("kind text: column text holds few short values; if they are categories, say data.kind: table",)
    if not is_lines(data) and not free:
        return ("kind table: column text holds categories; if they are texts, say data.kind: text",)
    return ()


def fit_texts(
    texts: list[str], rows: NDArray[np.int64], data: Data, column: str, goal: Goal, target: Target
) -> tuple[TextEncoder, list[str]]:
    """Return the encoder of texts whose training rows are `rows`, and notes.

    Raises:
        UsageError: `data.tokens` or `data.length` can't be followed.
        DataError: the training texts hold nothing to learn from.
    """
    if len({texts[row] for row in rows}) == 1:
        raise DataError(f"column {column!r}: has the same text in every training row; there is nothing to learn")
    plain = TextEncoder(column, data.tokens or "word", 0, 0, goal.task, goal.classes, target)
    if plain.tokens not in CUT:
        return _fit_pieces(plain, texts, rows, data.length)
    return _fit_words(plain, [texts[row] for row in rows], data)


def _fit_words(plain: TextEncoder, train: list[str], data: Data) -> tuple[TextEncoder, list[str]]:
    tokens = plain.tokens
    found: dict[str, int] = {}
    coded = [_coded(CUT[tokens](text), found) for text in train]
    lengths = np.array([len(codes) for codes in coded])
    length = data.length or _length(lengths, MOST[tokens])
    # Tokens that lie behind the cut in every text would have numbers that no example has.
    counts = np.bincount(np.concatenate([codes[:length] for codes in coded]), minlength=len(found))
    known = _known(found, counts, data.vocabulary)
    if not known:
        raise DataError(f"column {plain.column!r}: no {tokens} of the training texts can be learned from")
    encoder = replace(plain, length=length, vocabulary=len(known) + UNKNOWN + 1, known=known)
    unknown = int(np.count_nonzero(counts)) - len(known)
    return encoder, [*_tell_unknown(tokens, len(known), unknown), *_tell_cut(int((lengths > length).sum()), length)]


def _coded(tokens: list[str], found: dict[str, int]) -> NDArray[np.int64]:
    """Return tokens as numbers in order of appearance; `found` is filled on the way."""
    return np.array([found.setdefault(token, len(found)) for token in tokens], dtype=np.int64)


def _length(lengths: NDArray[np.int64], most: int) -> int:
    usual = int(np.percentile(lengths, 99, method="inverted_cdf"))
    return min(max(usual, 1), most)


def _known(found: dict[str, int], counts: NDArray[np.int64], most: int) -> tuple[str, ...]:
    least = 2 if np.count_nonzero(counts) > MANY_TOKENS else 1
    often = [(-int(counts[code]), token) for token, code in found.items() if counts[code] >= least]
    return tuple(token for _, token in sorted(often) if len(token) <= LONGEST_TOKEN)[:most]


def _fit_pieces(
    plain: TextEncoder, texts: list[str], rows: NDArray[np.int64], asked: int | None
) -> tuple[TextEncoder, list[str]]:
    tokenizer, most = pieces.read_tokenizer(plain.tokens)
    least = pieces.fewest(tokenizer)
    if asked is not None and not least <= asked <= most:
        raise UsageError(f"data.length: {plain.tokens} takes texts of {least} to {most} tokens, and {asked} is said")
    # All texts are cut, because they are cut again later and then cost nothing; only training rows count.
    lengths = np.count_nonzero(pieces.cut(tokenizer, texts, most)[rows], axis=1)
    # Rounded up, so that the folds of a cross-validation agree and share one computation of features.
    length = asked or max(min(-(-_length(lengths, most) // STEP) * STEP, most), least)
    encoder = replace(plain, length=length, vocabulary=pieces.vocabulary_of(tokenizer), tokenizer=tokenizer)
    if length == most:  # what was cut off is not seen here
        return encoder, _tell_cut(int((lengths == most).sum()), length, " or just as many")
    return encoder, _tell_cut(int((lengths > length).sum()), length)


def _tell_unknown(tokens: str, known: int, unknown: int) -> list[str]:
    if not unknown:
        return []
    return [f"{known} different {tokens}s of the training texts are known, {unknown} rarer ones stand for unknown"]


def _tell_cut(longer: int, length: int, doubt: str = "") -> list[str]:
    if not longer:
        return []
    has = "has" if longer == 1 else "have"
    return [f"{counted(longer, 'training text')} {has} more than {length} tokens{doubt}; the first {length} are kept"]


def tell_others(data: Data, frame: pd.DataFrame, text: str) -> list[str]:
    """Return a note on the columns that are not used because the rows are texts."""
    used = (text, data.split.groups, data.split.time)
    others = [name for name in frame.columns if name not in used]
    if not others:
        return []
    choice = "; to use them, say data.kind: table" if data.kind is None and data.text is None else ""
    return [f"left out {counted(len(others), 'column')} beside the text: {listed(others)}{choice}"]


def tell_empty(texts: list[str]) -> list[str]:
    """Return a note on texts that hold nothing but white space."""
    empty = sum(not text.strip() for text in texts)
    return [f"{counted(empty, 'text')} {'is' if empty == 1 else 'are'} empty"] if empty else []
