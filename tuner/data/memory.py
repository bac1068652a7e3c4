"""Where large arrays live: in memory, or in temporary files that are mapped into it.

Decides by size alone. The arrays made here, as far as they are still in use, may take LIMIT bytes of memory together, a
quarter of what the machine (or the container) has. One that no longer fits lies in a file of the temporary folder
(TMPDIR) that has no name, is its owner's alone and goes with the process. Values are the same in either place, so
results and fingerprints are. What works through large arrays does so in pieces of about PIECE bytes; sums over pieces
depend on PIECE alone. Doesn't know what the rows mean, how much memory other programs use, nor whether the temporary
folder is itself in memory.
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tuner.errors import DataError

PIECE = 1 << 24
CONTAINER = Path("/sys/fs/cgroup/memory.max")


def _physical() -> int:
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # a system that doesn't tell
        return 8 << 30
    try:
        return min(there, int(CONTAINER.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return there


LIMIT = _physical() // 4
_held: WeakValueDictionary[int, NDArray[Any]] = WeakValueDictionary()


def left() -> int:
    """Return how many bytes of memory arrays may still take."""
    return max(0, LIMIT - sum(array.nbytes for array in _held.values()))


def held(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that was made elsewhere, counted from now on."""
    _held[id(array)] = array
    return array


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array to be written: in memory as long as there is room, else in a file.

    Raises:
        DataError: the temporary folder has no room for it.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    return held(np.empty(shape, dtype)) if size <= left() else _mapped(shape, dtype, size)


def give_back() -> None:
    """Have the C library give the system back what was freed in small pieces, which it would keep for later."""
    with suppress(OSError, AttributeError):  # there is no such call but in glibc
        ctypes.CDLL(None).malloc_trim(0)


def _mapped(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    try:
        with tempfile.TemporaryFile(prefix="tuner-") as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        amount = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size} bytes"
        raise DataError(
            f"the data don't fit into memory, and a temporary file of {amount} can't be made ({error.strerror}); "
            "free disk space or name another folder in TMPDIR"
        ) from error


def _reserve(handle: int, size: int) -> None:
    # A page of a mapping that the disk has no room for ends the process, so the room is taken beforehand.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


def slices(rows: int, bytes_a_row: int) -> Iterator[slice]:
    """Yield consecutive slices of `rows` rows of about PIECE bytes each, one row at least."""
    step = max(1, PIECE // max(1, bytes_a_row))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def pieces(x: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Iterator[NDArray[Any]]:
    """Yield an array, or some rows of it, in pieces."""
    count = len(x) if rows is None else len(rows)
    for part in slices(count, x.itemsize * math.prod(x.shape[1:])):
        yield x[part] if rows is None else x[rows[part]]


def gathered(
    x: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Return `change` of an array, or of some rows of it, made in pieces; `change` keeps a row a row.

    Raises:
        DataError: the temporary folder has no room for it.
    """
    out = joined(map(change, pieces(x, rows)), len(x) if rows is None else len(rows))
    return change(x[:0]) if out is None else out


def joined(parts: Iterable[NDArray[Any]], count: int) -> NDArray[Any] | None:
    """Return arrays of `count` rows together as one; None if there is none.

    Raises:
        DataError: the temporary folder has no room for it.
    """
    out: NDArray[Any] | None = None
    start = 0
    for some in parts:
        if len(some) == count:  # no file for what is one piece
            return held(some)
        out = empty((count, *some.shape[1:]), some.dtype) if out is None else out
        out[start : start + len(some)] = some
        start += len(some)
    return out
