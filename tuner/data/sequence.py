"""Sequences: standardizes their channels by the training rows and pads them at the end.

Decides which channels are of use, how long the sequences are that a model sees, and whether it is told by a mask
where they end. Knows no file and no split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tuner.config import Data
from tuner.data import checks
from tuner.data.ragged import Ragged, fill_gaps, is_ragged, padded, ragged_of, shape_of
from tuner.data.raw import Raw, counted, listed, plain_array
from tuner.data.splits import Shape, Standard, Target, Task
from tuner.data.steps import check_lengths, check_numbers, read_long, read_wide, wide_array, without_counters
from tuner.data.targets import Goal
from tuner.errors import DataError

LIMIT = 10.0
CHUNK = 1 << 22
SURE_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel that is used: its place among all of an example, and how it is standardized."""

    name: str
    place: int
    center: float
    scale: float


@dataclass(frozen=True, slots=True)
class SequenceEncoder:
    """Turns sequences into float32 arrays (rows, steps, channels), the mask as last channel if they are `masked`.

    An example has `width` channels, of which `channels` are used. `columns` names those of a table: the channels if
    there is a row a step (`id` says which sequence it belongs to, `time` orders them), else the steps of the one
    channel. Of sequences longer than `length`, and under a mask of those longer than `steps`, the newest steps count.
    """

    steps: int
    masked: bool
    width: int
    channels: tuple[Channel, ...]
    columns: tuple[str, ...]
    id: str | None
    time: str | None
    length: int | None
    task: Task
    classes: tuple[str, ...]
    target: Target

    @property
    def shape(self) -> Shape:
        """The shape of one sequence, and what is predicted from it."""
        inputs = (self.steps, len(self.channels) + self.masked)
        return Shape("sequence", self.task, inputs, len(self.classes) or 1, (), self.classes, masked=self.masked)

    @property
    def standard(self) -> Standard:
        """A sequence is stored standardized."""
        return Standard()

    def encode(self, raw: Any) -> NDArray[np.float32]:
        """Return sequences, in any form that `read` takes, as float32 (rows, steps, channels).

        Raises:
            DataError: they have other channels, or another length where all had one in training.
        """
        sequences = self._cut(self.read(raw))
        encoded = np.zeros((len(sequences), *self.shape.input), dtype=np.float32)
        at_once = max(1, CHUNK // (self.steps * self.width))
        for start in range(0, len(sequences), at_once):
            self._fill(encoded[start : start + at_once], sequences[start : start + at_once])
        return encoded

    def read(self, raw: Any) -> Ragged:
        """Return examples as sequences of unstandardized channels.

        They are an array (rows, steps, channels), or (rows, steps) if there is one channel; with their lengths as a
        pair or a mapping of X and lengths; a list of arrays (steps, channels); or a table like that of training.

        Raises:
            DataError: they are none of these, have another number of channels or infinite values.
        """
        read = self._read_table if self._is_table(raw) else self._read_arrays
        sequences = raw if isinstance(raw, Ragged) else read(raw)
        if not len(sequences):
            raise DataError("no examples: there must be at least one row")
        return sequences

    def _is_table(self, raw: Any) -> bool:
        arrays = isinstance(raw, Mapping) and "X" in raw and "X" not in self.columns
        return isinstance(raw, (pd.DataFrame, Mapping)) and not arrays

    def _read_table(self, raw: Any) -> Ragged:
        try:
            frame = raw if isinstance(raw, pd.DataFrame) else pd.DataFrame(dict(raw))
        except ValueError as error:
            raise DataError(f"columns can't be put together ({error})") from error
        frame = frame.set_axis(pd.Index(list(map(str, frame.columns)), dtype=object), axis=1)
        if not len(frame):
            raise DataError("no examples: there must be at least one row")
        if self.id is not None:
            longest = self.steps if self.masked else self.length
            return read_long(frame, self.id, self.time, self.columns, longest)
        return read_wide(frame, self.columns) if self.columns else self._read_arrays(frame.to_numpy())

    def _read_arrays(self, raw: Any) -> Ragged:
        x, lengths = _with_lengths(raw)
        if is_ragged(x):
            x, lengths = padded(x)
        array = plain_array(x, "examples")
        if array.ndim == 2 and self.width == 1:
            array = array[:, :, None]
        if array.ndim != 3 or array.shape[2] != self.width:
            learned = f"(rows, steps, {self.width})" + (" or (rows, steps)" if self.width == 1 else "")
            raise DataError(f"examples have shape {array.shape}; {learned} was learned")
        return ragged_of(array, lengths)

    def _cut(self, sequences: Ragged) -> Ragged:
        if self.masked:
            return sequences.last(self.steps)
        sequences = sequences if self.length is None else sequences.last(self.length)
        wrong = np.flatnonzero(sequences.lengths != self.steps)
        if len(wrong):
            found = f"of another length, such as {sequences.lengths[wrong[0]]} steps"
            raise DataError(f"{sequences.tell(wrong, found)}; sequences of {self.steps} steps were learned")
        return sequences.last(self.steps)

    def _fill(self, encoded: NDArray[np.float32], sequences: Ragged) -> None:
        x = sequences.x[:, :, [channel.place for channel in self.channels]].astype(np.float64)
        fill_gaps(x, sequences.lengths)
        with np.errstate(all="ignore"):
            x -= np.array([channel.center for channel in self.channels])
            x /= np.array([channel.scale for channel in self.channels])
        x[np.isnan(x)] = 0  # the training mean, for a channel that is wholly missing
        np.clip(x, -LIMIT, LIMIT, out=x)
        x[~sequences.present] = 0
        steps = x.shape[1]
        encoded[:, :steps, : len(self.channels)] = x
        if self.masked:
            encoded[:, :steps, -1] = sequences.present

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON; `read_encoder` reads it back."""
        document: dict[str, Any] = json.loads(json.dumps({"kind": "sequence", **asdict(self)}, allow_nan=False))
        return document


def read_encoder(document: dict[str, Any]) -> SequenceEncoder:
    """Return the encoder that `to_json` wrote.

    Raises:
        KeyError, TypeError: the document is none.
    """
    return SequenceEncoder(
        steps=document["steps"],
        masked=document["masked"],
        width=document["width"],
        channels=tuple(Channel(**channel) for channel in document["channels"]),
        columns=tuple(document["columns"]),
        id=document["id"],
        time=document["time"],
        length=document["length"],
        task=document["task"],
        classes=tuple(document["classes"]),
        target=Target(**document["target"]),
    )


def _with_lengths(raw: Any) -> tuple[Any, Any]:
    if isinstance(raw, Mapping):
        return raw["X"], raw.get("lengths")
    pair = isinstance(raw, tuple) and len(raw) == 2
    return raw if pair and len(shape_of(raw[0])) in (2, 3) and len(shape_of(raw[1])) == 1 else (raw, None)


def looks_sequential(x: NDArray[Any]) -> bool:
    """Return whether an array (rows, a, b) is rather one of sequences (steps, channels) than of gray images.

    Gray images are bytes, or about as wide as high: a square, or no side over twice the other and no value
    below 0. Rows that end in NaN are sequences of different lengths.
    """
    _, a, b = x.shape
    if x.dtype == np.uint8 or 0 in x.shape:
        return False
    if x.dtype.kind == "f" and np.isnan(x[:, -1]).all(axis=1).any():
        return True
    return a != b and (max(a, b) > 2 * min(a, b) or bool(np.fmin.reduce(x, axis=None) < 0))


def note_kind(data: Data, raw: Raw) -> list[str]:
    """Return a note on an array (rows, a, b) that could as well be of the other kind."""
    doubtful = isinstance(raw.x, np.ndarray) and raw.x.ndim == 3 and raw.x.dtype != np.uint8
    said = data.kind is not None or raw.lengths is not None or data.source.startswith("sklearn:")
    if not doubtful or said or min(raw.x.shape[1:]) <= SURE_CHANNELS:
        return []
    shape = f"X of shape {raw.x.shape} was taken for"
    if looks_sequential(np.asarray(raw.x)):
        return [f"{shape} sequences (rows, steps, channels); if it holds gray images, say data.kind: image"]
    return [f"{shape} gray images (rows, height, width); if it holds sequences, say data.kind: sequence"]


def read_sequences(data: Data, raw: Raw) -> tuple[Ragged, tuple[str, ...], list[str]]:
    """Return the sequences of a source, the newest `data.length` steps of each; the columns that a table has for them,
    channels or a step each; and notes.

    Raises:
        DataError: they can't be used; a line a problem.
    """
    if isinstance(raw.x, pd.DataFrame):
        frame, notes = _features(data, raw)
        x, columns = wide_array(frame), tuple(map(str, frame.columns))
    else:
        x, columns, notes = raw.x, raw.columns, note_kind(data, raw)
    sequences = ragged_of(x, raw.lengths)
    if data.length is None and (problems := list(check_lengths(sequences.lengths))):
        raise DataError("\n".join(problems))
    used = sequences if data.length is None else sequences.last(data.length)
    return used, columns, [*notes, *_notes(data, raw, sequences, used)]


def _features(data: Data, raw: Raw) -> tuple[pd.DataFrame, list[str]]:
    frame = raw.x
    assert isinstance(frame, pd.DataFrame)
    aside = [name for name in (data.split.groups, data.split.time) if name is not None]
    features, notes = without_counters(frame.drop(columns=aside))
    problems = check_numbers(features) if len(features.columns) else ["no column is left; there must be one a step"]
    if problems:
        raise DataError(
            "\n".join(f"{problem}; or, if a row is a step, name its sequence in data.id" for problem in problems)
        )
    if not data.source.endswith(".npz"):
        notes = [*notes, f"a row is a sequence of {len(features.columns)} steps; if it is a step, say data.id"]
    return features, notes


def _notes(data: Data, raw: Raw, sequences: Ragged, used: Ragged) -> Iterator[str]:
    if isinstance(raw.x, np.ndarray) and not raw.columns and raw.x.shape[1] < raw.x.shape[2]:
        yield "X has {} steps of {} channels; if it is the other way round, swap the axes".format(*raw.x.shape[1:])
    long = int((sequences.lengths > used.lengths).sum())
    if long:
        yield f"used the newest {data.length} steps of {counted(long, 'sequence')} that had more"
    shortest, longest = used.lengths.min(initial=longest_of(used)), longest_of(used)
    if shortest < longest:
        yield f"sequences have {shortest} to {longest} steps; shorter ones are padded at the end and masked"
    values, rows, whole = map(sum, zip((0, 0, 0), *map(_missing, used.pieces()), strict=True))
    if values:
        mean = f"; {counted(whole, 'channel')} without any with the training mean" if whole else ""
        where = counted(rows, "sequence")
        yield f"filled {counted(values, 'missing value')} in {where} from the values beside them{mean}"


def _missing(sequences: Ragged) -> tuple[int, int, int]:
    """Return how many values are missing, from how many sequences, and how many channels of one are wholly."""
    missing = np.isnan(sequences.x)
    whole = missing.sum(axis=1) == sequences.lengths[:, None]
    return int(missing.sum()), int(missing.any(axis=(1, 2)).sum()), int(whole.sum())


def longest_of(sequences: Ragged) -> int:
    """Return the steps of the longest sequence."""
    return int(sequences.lengths.max(initial=0))


def fit_sequences(
    sequences: Ragged, rows: NDArray[np.int64], goal: Goal, target: Target, data: Data, columns: tuple[str, ...]
) -> tuple[SequenceEncoder, list[str]]:
    """Return the encoder of sequences whose training rows are `rows`, and notes.

    What the channels are like comes from the training rows alone; whether there is a mask, from all lengths.

    Raises:
        DataError: no channel is of any use.
    """
    steps, width = int(sequences.lengths[rows].max()), sequences.x.shape[2]
    names = columns if data.id is not None else tuple(str(number + 1) for number in range(width))
    channels = tuple(_fit_channels(sequences, rows, names))
    if not channels:
        raise DataError("no channel is left to learn from: all are constant or empty in the training rows")
    masked = bool((sequences.lengths != steps).any())
    encoder = SequenceEncoder(
        steps, masked, width, channels, columns, data.id, data.time, data.length,
        goal.task, goal.classes, target,
    )  # fmt: skip
    return encoder, list(_tell(sequences, names, encoder))


def _fit_channels(sequences: Ragged, rows: NDArray[np.int64], names: tuple[str, ...]) -> Iterator[Channel]:
    low, high, counts, sums = (np.zeros(len(names)) for _ in range(4))
    low += np.inf
    high -= np.inf

    def values() -> Iterator[NDArray[np.float64]]:
        for piece in sequences.pieces(rows):
            yield piece.x[piece.present].astype(np.float64)

    with np.errstate(all="ignore"):
        for some in values():
            low, high = np.fmin(low, np.fmin.reduce(some)), np.fmax(high, np.fmax.reduce(some))
            counts += (~np.isnan(some)).sum(axis=0)
            sums += np.nansum(some, axis=0)
        centers, squares = sums / counts, np.zeros(len(names))
        for some in values():
            squares += np.nansum((some - centers) ** 2, axis=0)
        scales = np.sqrt(squares / counts)
    for place, name in enumerate(names):
        if not counts[place] or low[place] == high[place]:
            continue
        if not np.isfinite([centers[place], scales[place]]).all():
            raise DataError(f"channel {name}: has values beyond 1e150; choose another unit or leave the channel out")
        yield Channel(name, place, float(centers[place]), float(scales[place]) or 1.0)


def _tell(sequences: Ragged, names: tuple[str, ...], encoder: SequenceEncoder) -> Iterator[str]:
    dropped = [name for name in names if name not in {channel.name for channel in encoder.channels}]
    if dropped:
        yield f"dropped {counted(len(dropped), 'constant channel')}: {listed(dropped)}"
    longer = int((sequences.lengths > encoder.steps).sum())
    if longer:
        are = "is" if longer == 1 else "are"
        what = f"longer than any of training; the newest {encoder.steps} steps are used"
        yield f"{counted(longer, 'sequence')} {are} {what}"


def note_constants(sequences: Ragged, names: tuple[str, ...], goal: Goal) -> list[str]:
    """Return a note on channels that stay the same in each sequence and tell its class."""
    still = np.ones(sequences.x.shape[2], dtype=bool)
    for piece in sequences.pieces():
        still &= ((piece.x == piece.x[:, :1]) | ~piece.present[:, :, None]).all(axis=(0, 1))
    places = np.flatnonzero(still).tolist()
    frame = pd.DataFrame(
        {f"channel {names[place] if names else place + 1}": sequences.x[:, 0, place] for place in places}
    )
    return checks.note_leaks(frame, goal.values, goal.task)
