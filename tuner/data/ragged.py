"""Ragged: sequences of different lengths in one array, and what is missing within them.

Decides where a sequence ends and what stands in its gaps, and works through sequences in pieces, for they may be larger
than memory. Knows no table, no split and no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data import memory
from tuner.data.raw import counted, listed, plain_array
from tuner.errors import DataError

EXACT_IN_FLOAT32 = ("b", "i1", "u1", "i2", "u2", "f2", "f4")


@dataclass(frozen=True, slots=True)
class Ragged:
    """Sequences, a row each: `x` (n, steps, channels) floats, of which `lengths` (n,) steps are there, from the start.

    Behind them `x` is 0; NaN is a missing value within a sequence. `ids` names the sequences in messages; without
    it they are rows, counted from 1.
    """

    x: NDArray[Any]
    lengths: NDArray[np.int64]
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Ragged:
        return Ragged(self.x[rows], self.lengths[rows])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which steps are there (n, steps)."""
        return np.asarray(np.arange(self.x.shape[1]) < self.lengths[:, None])

    def pieces(self, rows: NDArray[np.int64] | None = None) -> Iterator[Ragged]:
        """Yield the sequences, or those of some rows, some at a time."""
        count = len(self) if rows is None else len(rows)
        for part in memory.slices(count, self.x[:1].nbytes):
            yield self[part] if rows is None else self[rows[part]]

    def last(self, steps: int) -> Ragged:
        """Return the newest `steps` steps of each sequence; those that have fewer stay as they are."""
        if self.x.shape[1] <= steps:
            return self

        def newest(piece: Ragged) -> NDArray[Any]:
            places = np.maximum(piece.lengths - steps, 0)[:, None] + np.arange(steps)
            return np.take_along_axis(piece.x, places[:, :, None], axis=1)

        kept = memory.joined(map(newest, self.pieces()), len(self))
        return replace(self, x=self.x[:, :steps] if kept is None else kept, lengths=np.minimum(self.lengths, steps))

    def tell(self, rows: NDArray[Any], what: str) -> str:
        """Return "2 rows WHAT (row 3, 9)" for row numbers from 0, or the same of sequences by their ids."""
        return tell(rows, what, self.ids)


def tell(rows: NDArray[Any], what: str, ids: Sequence[str] = ()) -> str:
    """Return "2 rows WHAT (row 3, 9)" for row numbers from 0, or the same of sequences by their ids."""
    first = [ids[row] for row in rows[:5]] if ids else (rows[:5] + 1).tolist()
    noun, key = ("sequence", "id") if ids else ("row", "row")
    return f"{counted(len(rows), noun)} {what} ({key} {listed(first)}{', ...' if len(rows) > 5 else ''})"


def ragged_of(x: NDArray[Any], lengths: Any = None, ids: tuple[str, ...] = ()) -> Ragged:
    """Return an array (n, steps, channels) as sequences; without `lengths` each ends before the NaN at its end.

    Raises:
        DataError: there are infinite values, sequences without a value or wrong lengths; a line a problem.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"sequences hold {x.dtype} values; numbers are allowed")
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise DataError(f"sequences have shape {x.shape}; (rows, steps, channels) is allowed")
    wanted = np.float32 if x.dtype.str[1:] in EXACT_IN_FLOAT32 else np.float64
    ends = _ends(x) if lengths is None else lengths_of(lengths, len(x), x.shape[1])
    raw, infinite = Ragged(x[:, : max(1, ends.max(initial=1))], ends, ids), np.zeros(len(x), dtype=bool)

    def cleaned() -> Iterator[NDArray[Any]]:
        start = 0
        for piece in raw.pieces():
            some = _clean(piece, wanted)
            infinite[start : start + len(some)] = np.isinf(some).any(axis=(1, 2))
            start += len(some)
            yield some

    if x.dtype == wanted and all(map(_same_bits, cleaned(), (piece.x for piece in raw.pieces()))):
        sequences = raw  # as it should be: a copy would be as large
    else:
        found = memory.joined(cleaned(), len(x))
        sequences = replace(raw, x=raw.x.astype(wanted) if found is None else found)
    _refuse(sequences, np.flatnonzero(infinite))
    return sequences


def _clean(piece: Ragged, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Return sequences (n, steps, channels) as a new array of a type in which equal values have equal bits."""
    some: NDArray[Any] = np.array(piece.x, dtype=dtype)
    some[~piece.present] = 0
    some += 0.0  # -0.0 and 0.0 are one value, and a NaN has many bit patterns
    some[np.isnan(some)] = np.nan
    return some


def _same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    bits = f"u{one.itemsize}"
    return bool(np.array_equal(one.view(bits), other.view(bits)))


def _ends(x: NDArray[Any]) -> NDArray[np.int64]:
    ends = np.full(len(x), x.shape[1], dtype=np.int64)
    short = np.flatnonzero(np.isnan(x[:, -1]).all(axis=1))
    start = 0
    for piece in memory.pieces(x, short):
        there = ~np.isnan(piece).all(axis=2)
        found = np.where(there.any(axis=1), x.shape[1] - there[:, ::-1].argmax(axis=1), 0)
        ends[short[start : start + len(piece)]] = found
        start += len(piece)
    return ends


def _refuse(sequences: Ragged, infinite: NDArray[np.int64]) -> None:
    problems = []
    empty = np.flatnonzero(sequences.lengths == 0)
    if len(infinite):
        problems.append(f"{sequences.tell(infinite, 'with infinite values')}; replace them")
    if len(empty):
        problems.append(f"{sequences.tell(empty, 'without any value')}; leave these out")
    if problems:
        raise DataError("\n".join(problems))


def lengths_of(lengths: Any, rows: int, steps: int) -> NDArray[np.int64]:
    """Return the lengths of `rows` sequences as whole numbers.

    Raises:
        DataError: they are none, not as many as there are rows, or outside 1 .. `steps`.
    """
    array = plain_array(lengths, "lengths")
    if array.shape != (rows,) or array.dtype.kind not in "iuf":
        raise DataError(
            f"lengths has shape {array.shape} and {array.dtype} values; "
            f"a whole number for each of the {rows} rows is needed"
        )
    wrong = np.flatnonzero(~((array >= 1) & (array <= steps) & (array == np.floor(array))))
    if len(wrong):
        where = tell(wrong, f"where it is {listed(np.unique(array[wrong])[:3])}")
        raise DataError(f"lengths: {where}; whole numbers from 1 to {steps}, the steps of X, are allowed")
    return array.astype(np.int64)


def is_ragged(examples: Any) -> bool:
    """Return whether examples are a list of sequences (steps, channels), or (steps,), that differ in length."""
    if not isinstance(examples, (list, tuple)) or not examples:
        return False
    shapes = [shape_of(example) for example in examples]
    alike = {(len(shape), *shape[1:]) for shape in shapes}
    return len(alike) == 1 and len(shapes[0]) in (1, 2) and len(set(shapes)) > 1


def shape_of(example: Any) -> tuple[int, ...]:
    """Return the shape of an array or of nested lists; () if it is neither."""
    try:
        return np.shape(example)
    except (ValueError, TypeError):
        return ()


def padded(examples: Sequence[Any], what: str = "sequences") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return sequences of different lengths as one array (n, steps, channels) and their lengths.

    Raises:
        DataError: they hold other things than numbers.
    """
    arrays = [plain_array(example, what) for example in examples]
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    dtype = np.result_type(*{array.dtype for array in arrays if len(array)})
    if dtype.kind not in "biuf":
        raise DataError(f"{what} hold {dtype} values; numbers are allowed")
    x = np.zeros((len(arrays), lengths.max(), arrays[0].shape[1]), dtype=dtype)
    for row, array in enumerate(arrays):
        x[row, : len(array)] = array
    return x, lengths


def fill_gaps(x: NDArray[np.float64], lengths: NDArray[np.int64]) -> None:
    """Fill the NaN of sequences (n, steps, channels) in place: linearly between known values, the ends by the nearest.

    A channel that is wholly missing in a sequence stays so.
    """
    rows, _, channels = np.nonzero(np.isnan(x))
    for place in np.unique(rows * x.shape[2] + channels):
        row, channel = divmod(int(place), x.shape[2])
        values = x[row, : lengths[row], channel]
        missing = np.isnan(values)
        gaps, known = np.flatnonzero(missing), np.flatnonzero(~missing)
        if len(known):
            values[gaps] = np.interp(gaps, known, values[known])
