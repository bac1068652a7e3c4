"""Tables that hold sequences: a row a sequence of one channel, or a row a step (the long format, with `data.id`).

Decides which rows make a sequence, in which order, and what must be the same in all of them. Knows no file, no split
and no statistics. Between steps only the order counts: how far apart they lie is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from tuner.config import Data
from tuner.data.checks import FEWEST_ROWS, is_id, refuse
from tuner.data.columns import MISSING, days_of, is_number, moments_of, number_of, numbers_of, role_of, texts_of
from tuner.data.ragged import Ragged, ragged_of, tell
from tuner.data.raw import Raw, counted, listed
from tuner.errors import DataError, UsageError, nearest, show

MOST_STEPS = 4096


@dataclass(frozen=True, slots=True)
class Order:
    """Which rows of a long table make which sequence: `rows` by sequence and time, `starts` where each one begins.

    `ids` names the sequences, in order of first appearance. `even` says whether all steps lie equally far apart.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    ids: tuple[str, ...]
    even: bool = True

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each sequence has."""
        return np.diff(np.append(self.starts, len(self.rows)))

    @property
    def owner(self) -> NDArray[np.int64]:
        """The number of the sequence that each of `rows` belongs to."""
        return np.repeat(np.arange(len(self.ids)), self.counts)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The first row of each sequence."""
        return self.rows[self.starts]


def check_settings(data: Data) -> None:
    """Refuse keys of a long table that don't go together.

    Raises:
        UsageError: they don't.
    """
    if data.id is None:
        if data.time is not None:
            raise UsageError(
                f"data.time: {data.time!r} would order the rows of a sequence, and data.id is missing; "
                "name the column there that says which sequence a row belongs to"
            )
        return
    if data.kind not in (None, "sequence") or data.text is not None:
        other = "data.text" if data.text is not None else f"data.kind: {data.kind}"
        raise UsageError(f"data.id: {data.id!r} names sequences, which doesn't go with {other}; leave one of them out")
    if data.time == data.id:
        raise UsageError(f"data.time: {data.time!r} is data.id; name another column or leave it out")


def group_steps(raw: Raw, data: Data) -> Raw:
    """Return a table with a row a step as sequences, a row each; what they may be divided by is in `aside`.

    Raises:
        DataError: rows can't be put together; a line a problem.
    """
    assert isinstance(raw.x, pd.DataFrame)
    try:
        return _grouped(raw, raw.x, data)
    except DataError as error:
        refuse(raw.where, str(error).splitlines())
        raise


def _grouped(raw: Raw, frame: pd.DataFrame, data: Data) -> Raw:
    order = order_rows(frame, str(data.id), data.time)
    aside = [name for name in (data.split.groups, data.split.time) if name is not None]
    known = {data.id, data.time, *aside}
    channels, dropped = without_counters(frame[[name for name in frame.columns if name not in known]])
    problems = [*_check_whole(raw, frame, data, order), *_check_channels(channels), *_check_size(order, data)]
    if problems:
        raise DataError("\n".join(problems))
    sequences, firsts = gather(channels, order, data.length), order.firsts
    return replace(
        raw, x=sequences.x, lengths=sequences.lengths, y=_first(raw.y, firsts), aside=_first(frame[aside], firsts),
        split=None if raw.split is None else raw.split[firsts], columns=tuple(map(str, channels.columns)),
        notes=(*raw.notes, *_notes(order, data), *dropped),
    )  # fmt: skip


def _check_channels(channels: pd.DataFrame) -> list[str]:
    if not len(channels.columns):
        return ["no channel is left; there must be a column of numbers besides the target, data.id and data.time"]
    return check_numbers(channels)


def _first(column: Any, firsts: NDArray[np.int64]) -> Any:
    return None if column is None else column.iloc[firsts].reset_index(drop=True)


def _notes(order: Order, data: Data) -> Iterator[str]:
    yield f"{len(order.rows)} rows are {counted(len(order.ids), 'sequence')}, one for each {data.id}"
    long = 0 if data.length is None else int((order.counts > data.length).sum())
    if long:
        yield f"used the newest {data.length} steps of {counted(long, 'sequence')} that had more"
    if not order.even:
        yield f"steps lie unequally far apart in {data.time}; only their order is used"


def without_counters(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a table without the columns of whole numbers that only name its rows, and a note on them.

    A row's number is no measurement, and in a file that is sorted by the target it would give the target away.
    """
    rows = np.arange(len(frame))
    whole = [name for name, dtype in frame.dtypes.items() if types.is_integer_dtype(dtype)]
    names = [str(name) for name in whole if is_id(frame[name], rows)]
    note = [f"dropped {counted(len(names), 'id-like column')}: {listed(names)}"] if names else []
    return frame.drop(columns=names), note


def order_rows(frame: pd.DataFrame, id_: str, time: str | None) -> Order:
    """Return how rows make sequences: by `id_`, in the order of `time` or, without it, of the table.

    Raises:
        DataError: a row names no sequence or no moment, or two rows of a sequence are of one moment.
    """
    codes, ids = texts_of(frame[id_])
    if (codes < 0).any():
        where = tell(np.flatnonzero(codes < 0), "without a value")
        raise DataError(f"data.id {id_!r}: {where}; fill it in or leave these rows out")
    times = None if time is None else _times(frame[time], time)
    rows = np.argsort(codes, kind="stable") if times is None else np.lexsort((times, codes))
    counts = np.bincount(codes, minlength=len(ids))
    order = Order(rows.astype(np.int64), np.cumsum(counts) - counts, tuple(ids))
    return order if times is None else replace(order, even=_is_even(times[rows], order, str(time)))


def _times(column: pd.Series[Any], name: str) -> NDArray[Any]:
    role = role_of(column)
    if role == "category":
        raise DataError(
            f"data.time {name!r}: holds text that has no order in time; "
            "numbers and dates such as 2024-05-17 are allowed"
        )
    if is_number(column) and column.dtype.kind in "iu" and isinstance(column.dtype, np.dtype):
        return np.asarray(column)  # whole numbers such as nanoseconds would be rounded
    times = numbers_of(column) if role == "number" else days_of(moments_of(column))
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise DataError(f"data.time {name!r}: {tell(bad, 'without a moment')}; fill it in or leave these rows out")
    return times


def _is_even(times: NDArray[Any], order: Order, name: str) -> bool:
    """Return whether the moments of all sequences, in their order, lie equally far apart; refuse equal ones."""
    inside = np.diff(order.owner) == 0
    twice = np.flatnonzero(inside & (times[1:] == times[:-1]))
    if len(twice):
        first, second = np.sort(order.rows[twice[0] : twice[0] + 2]) + 1
        where = tell(np.unique(order.owner[twice]), "with two rows of one moment", order.ids)
        raise DataError(f"data.time {name!r}: {where}, such as rows {first} and {second}; leave one of them out")
    gaps = np.diff(times)[inside].astype(np.float64)
    rounding = 4 * np.spacing(np.abs(times).max().astype(np.float64))
    return not len(gaps) or bool(gaps.max() - gaps.min() <= 1e-6 * gaps.max() + rounding)


def _check_whole(raw: Raw, frame: pd.DataFrame, data: Data, order: Order) -> Iterator[str]:
    """Yield what differs among the rows of a sequence and must not."""
    assert raw.y is not None
    yield from _check_same(f"target {raw.target!r}", raw.y, order)
    if raw.split is not None:
        yield from _check_same("column 'split'", pd.Series(raw.split), order)
    for key, name in (("groups", data.split.groups), ("time", data.split.time)):
        if name is not None:
            yield from _check_same(f"data.split.{key} {name!r}", frame[name], order)


def _check_same(what: str, column: pd.Series[Any], order: Order) -> Iterator[str]:
    try:
        codes = np.asarray(pd.factorize(column)[0]) if is_number(column) else texts_of(column)[0]
    except DataError as error:
        yield str(error)
        return
    different = np.unique(order.owner[codes[order.rows] != codes[order.firsts][order.owner]])
    if len(different):
        where = tell(different, "whose rows differ in it", order.ids)
        yield f"{what}: {where}; all rows of a sequence must say the same"
    missing = np.setdiff1d(order.owner[codes[order.rows] < 0], different)
    if len(missing):
        yield f"{what}: {tell(missing, 'without a value', order.ids)}; fill it in or leave these rows out"


def _check_size(order: Order, data: Data) -> Iterator[str]:
    if len(order.ids) < FEWEST_ROWS:
        yield f"{counted(len(order.ids), 'sequence')}, one for each {data.id}; at least {FEWEST_ROWS} are needed"
    if data.length is None:
        yield from check_lengths(order.counts, order.ids)


def check_lengths(lengths: NDArray[np.int64], ids: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what is wrong with sequences whose length nobody limits."""
    long = np.flatnonzero(lengths > MOST_STEPS)
    if len(long):
        where = tell(long, f"of more than {MOST_STEPS} steps, the longest of {lengths.max()}", ids)
        yield f"{where}; say in data.length how many are used, the newest of each"


def check_numbers(frame: pd.DataFrame) -> list[str]:
    """Return which columns of a table hold no numbers and so can be no part of a sequence."""
    doubtful = [name for name, dtype in frame.dtypes.items() if not _is_plain(dtype)]
    return [problem for name in doubtful for problem in _check_number(frame[name], str(name))]


def _is_plain(dtype: Any) -> bool:
    return types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)


def _check_number(column: pd.Series[Any], name: str) -> Iterator[str]:
    try:
        role = "number" if column.isna().all() else role_of(column)
    except DataError as error:
        yield str(error)
        return
    if role != "number":
        what = "dates" if role == "date" else _show_text(column)
        yield f"column {name!r}: holds {what}, and a sequence is made of numbers; leave it out with data.drop"


def _show_text(column: pd.Series[Any]) -> str:
    codes, texts = texts_of(column)
    odd = [np.isnan(number_of(text)) and text.strip().lower() not in MISSING for text in texts]
    first = int(np.argmax(odd))
    return f"text (such as {show(texts[first])} in row {int(np.argmax(codes == first)) + 1})"


def gather(channels: pd.DataFrame, order: Order, length: int | None) -> Ragged:
    """Return the rows of a long table as sequences, of the longer ones the newest `length` steps.

    Rows without any value at the end of a sequence are not there.

    Raises:
        DataError: a sequence has infinite values or none.
    """
    values = _numbers(channels)[order.rows]
    place = np.arange(len(values)) - order.starts[order.owner]
    lengths = np.maximum.reduceat(np.where(np.isnan(values).all(axis=1), 0, place + 1), order.starts)
    first = np.zeros_like(lengths) if length is None else np.maximum(lengths - length, 0)
    kept = (place >= first[order.owner]) & (place < lengths[order.owner])
    x = np.full((len(order.ids), max(1, (lengths - first).max()), values.shape[1]), np.nan)
    owner = order.owner[kept]
    x[owner, place[kept] - first[owner]] = values[kept]
    return ragged_of(x, ids=order.ids)


def read_long(frame: pd.DataFrame, id_: str, time: str | None, columns: Sequence[str], length: int | None) -> Ragged:
    """Return a long table like the one that was learned from as sequences, in order of first appearance.

    Raises:
        DataError: a column is missing or holds no numbers, or rows can't be put together.
    """
    names = [id_, *([] if time is None else [time]), *columns]
    known = _known(frame, names)
    return gather(_numeric(known[list(columns)]), order_rows(known, id_, time), length)


def read_wide(frame: pd.DataFrame, columns: Sequence[str]) -> Ragged:
    """Return a table with a row a sequence and its steps in `columns` as sequences of one channel.

    Raises:
        DataError: a column is missing or holds no numbers.
    """
    return ragged_of(wide_array(_numeric(_known(frame, columns))))


def _numeric(frame: pd.DataFrame) -> pd.DataFrame:
    problems = check_numbers(frame)
    if problems:
        raise DataError("\n".join(problems))
    return frame


def wide_array(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return a table of numbers as an array (rows, columns, 1)."""
    return _numbers(frame)[:, :, None]


def _numbers(frame: pd.DataFrame) -> NDArray[np.float64]:
    if all(map(_is_plain, frame.dtypes)):
        return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.stack([numbers_of(frame[name]) for name in frame.columns], axis=1)


def _known(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    there = list(map(str, frame.columns))
    missing = [f"{name}{nearest(name, there)}" for name in names if name not in there]
    if missing:
        raise DataError(f"examples lack {counted(len(missing), 'column')} that training had: {listed(missing)}")
    twice = [name for name in names if there.count(name) > 1]
    if twice:
        raise DataError(f"examples have columns that occur more than once: {listed(twice)}")
    return frame[list(names)]
