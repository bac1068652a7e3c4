"""Reads a CSV, Parquet, JSON lines or npz file, gzipped or not, and says precisely what is wrong with it.

Decides what a readable file is. Knows no target, no split and no kind of data; never unpickles.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow
from numpy.typing import NDArray

from tuner.data.jsonl import read_objects
from tuner.data.memory import give_back
from tuner.data.npz import read_member
from tuner.data.raw import counted, listed
from tuner.errors import DataError, nearest

FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".parquet.gz", ".jsonl", ".jsonl.gz", ".npz")
PLAIN_TEXT = (".txt", ".txt.gz")
ARRAYS = ("X", "y", "split", "classes", "lengths")
BOMB_BYTES = 2 * 1024**3
BOMB_RATIO = 100
MOST_COLUMNS = 100_000
ZEROS_BYTES, ZEROS_RATIO = 128 * 1024**2, 300
CHUNK = 1 << 20
LONGEST_FIELD = 10_000_000
NOTHING = (
    "", "NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "#N/A N/A", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip


def format_of(path: Path, known: tuple[str, ...] = FORMATS) -> str:
    """Return "csv", "parquet", "jsonl" or "npz"; "txt" if that is among the `known` endings.

    Raises:
        DataError: the name ends in none of the known ways.
    """
    for ending in known:
        if path.name.lower().endswith(ending):
            return ending.split(".")[1].replace("tsv", "csv")
    hint = nearest(path.suffix, known) if path.suffix else ""
    raise DataError(f"{path.name}: unknown kind of file{hint}; a name that ends in {', '.join(known)} is allowed")


def read_bytes(path: Path, where: str, known: tuple[str, ...] = FORMATS) -> bytes:
    """Return a file's content, unzipped if its name ends in .gz.

    Raises:
        DataError: it is missing, a folder, unreadable, empty, damaged or a decompression bomb, or its name
            has an unknown ending.
    """
    _refuse_absent(path, where, known)
    try:
        content = _unzip(path, where) if path.name.lower().endswith(".gz") else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{where}: damaged or not a gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{where}: can't be read ({error.strerror or error})") from error
    if not content:
        raise DataError(f"{where}: the file is empty")
    return content


def _refuse_absent(path: Path, where: str, known: tuple[str, ...] = FORMATS) -> None:
    if path.is_dir():
        raise DataError(f"{where}: is a folder; name a file that ends in {', '.join(known)}")
    if path.is_symlink() and not path.exists():
        raise DataError(f"{where}: is a symbolic link that leads nowhere; mend it, or name another file")
    if not path.exists():
        raise DataError(f"{where}: no such file{_neighbour(path)}")
    format_of(path, known)


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f": the folder {path.parent} does not exist"
    try:
        names = sorted(listed([entry.name]) for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return ""
    return nearest(path.name, names) or f" in {path.parent.resolve()}"


def _size_of(path: Path, where: str) -> int:
    """Return the bytes of a file that isn't read as a whole.

    Raises:
        DataError: it is missing, a folder, unreadable or empty.
    """
    _refuse_absent(path, where)
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{where}: can't be read ({error.strerror or error})") from error
    if not size:
        raise DataError(f"{where}: the file is empty")
    return size


def _unzip(path: Path, where: str) -> bytes:
    packed = path.stat().st_size
    chunks, size = [], 0
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > max(BOMB_BYTES, BOMB_RATIO * packed):
                raise DataError(_bomb(where))
            if size > max(ZEROS_BYTES, ZEROS_RATIO * file.tell()):  # one byte over and over is told early
                raise DataError(_bomb(where, ZEROS_BYTES, ZEROS_RATIO))
    return b"".join(chunks)


def _bomb(where: str, size: int = 0, ratio: int = 0) -> str:
    limit = f"{ratio or BOMB_RATIO} times its size and {(size or BOMB_BYTES) / 1024**2:,.0f} MB"
    return f"{where}: unpacks to more than {limit}; unpack it yourself if it is to be trusted"


def read_table(
    path: Path, where: str, texts: Iterable[str] = (), whole: Iterable[str] = (), needed: Iterable[str] = ()
) -> pd.DataFrame:
    """Return a CSV, Parquet or JSON lines file as a table with unique column names.

    Columns in `texts` stay text; those in `whole` stay as a CSV file writes them, even if that is NA or nothing.
    A line of JSON must have those in `whole` and `needed`, if any line has.

    Raises:
        DataError: the file can't be read as a table; the message says where and why.
    """
    _refuse_absent(path, where)
    kind = format_of(path)
    if kind == "csv":
        frame = _read_csv(read_bytes(path, where), where, frozenset(texts), frozenset(whole))
    elif kind == "jsonl":
        frame = read_objects(_decode(read_bytes(path, where), where), where, dict.fromkeys((*whole, *needed)))
    else:
        frame = _read_parquet(path, where)
    frame.columns = pd.Index([str(name) for name in frame.columns], dtype=object)
    _refuse_duplicates(list(frame.columns), where)
    if frame.empty:
        raise DataError(f"{where}: a header but no rows")
    return frame.reset_index(drop=True)


def _refuse_duplicates(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: column names occur more than once: {listed(twice)}; give each column its own name")


def read_lines(path: Path, where: str) -> list[str]:
    """Return the lines of a plain text, without what ends the last one.

    Raises:
        DataError: the file can't be read.
    """
    text = _decode(read_bytes(path, where, (*FORMATS, *PLAIN_TEXT)), where)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _read_csv(content: bytes, where: str, texts: frozenset[str], whole: frozenset[str]) -> pd.DataFrame:
    text = _decode(content, where)
    separator = _separator(text)
    header = _check_lines(text, separator, where)
    dtypes: Any = {name: str for name in header if name in texts}
    try:
        # low_memory would guess a column's type piece by piece, with a warning where pieces disagree.
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, index_col=False, low_memory=False, dtype=dtypes,
            keep_default_na=False, na_values=list(NOTHING),
        )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: can't be read as CSV ({_one_line(error)})") from error
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns:
        # pandas leaves these words in a column that has an integer too big for it.
        frame[name] = frame[name].mask(frame[name].isin(NOTHING))
    if kept := [name for name in header if name in whole]:
        frame[kept] = pd.read_csv(io.StringIO(text), sep=separator, usecols=kept, dtype=str, na_filter=False)[kept]
    return frame


def _decode(content: bytes, where: str) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        form = "UTF-32" if content[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff") else "UTF-16"
        raise DataError(f"{where}: is {form}, not UTF-8; save it as UTF-8")
    if (place := content.find(b"\0")) >= 0:
        raise DataError(f"{where}: no text (byte 0x00 at offset {place}); save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"byte {content[error.start]:#04x} at offset {error.start}"
        raise DataError(f"{where}: not UTF-8 ({at}); save it as UTF-8") from error


def _separator(text: str) -> str:
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _check_lines(text: str, separator: str, where: str) -> list[str]:
    # pandas fills short rows silently and takes an extra first field for an index, so rows are counted here.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header, line = list[str](), 1
    csv.field_size_limit(LONGEST_FIELD)
    try:
        for row in rows:
            if not header:
                header = row
                _refuse_wide(len(header), where)
            elif row and len(row) != len(header):
                raise DataError(_uneven(where, line, rows.line_num, len(row), len(header)))
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}: line {rows.line_num} can't be read ({error})") from error
    if not any(name.strip() for name in header):
        raise DataError(f"{where}: no header; the first line must name the columns")
    _refuse_duplicates([name for name in header if name], where)
    return header


def _uneven(where: str, line: int, end: int, fields: int, wanted: int) -> str:
    """Say that a row, from one line to another, has other fields than the header."""
    has = f"{where}: line {line} has {counted(fields, 'field')}, the header has {wanted}"
    if end > line:
        return f"{has}; a quote that opens there is closed on line {end} or not at all: close it, or double it if meant"
    return f"{has}; mend the line or quote the field that holds the separator"


def _read_parquet(path: Path, where: str) -> pd.DataFrame:
    if path.name.lower().endswith(".gz"):
        return _parquet_of(io.BytesIO(read_bytes(path, where)), where)
    _size_of(path, where)
    with path.open("rb") as file:  # given a path, pyarrow takes folders such as year=2020 in it for columns
        return _parquet_of(file, where)


def _parquet_of(file: IO[bytes], where: str) -> pd.DataFrame:
    # Arrow's own memory keeps what is freed, as much again as the table; the system's takes it back when told. Without
    # a buffer, what was read of the file doesn't stay beside what was made of it.
    usual = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    try:
        _refuse_long(file, where)
        return pd.read_parquet(file, engine="pyarrow", pre_buffer=False)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{where}: damaged or not a Parquet file ({_one_line(error)})") from error
    finally:
        pyarrow.set_memory_pool(usual)
        give_back()


def _refuse_long(file: IO[bytes], where: str) -> None:
    """Refuse a file that would by its own word be a large multiple of its size: one value may stand for all rows."""
    from pyarrow.parquet import ParquetFile

    about, size = ParquetFile(file).metadata, file.seek(0, io.SEEK_END)
    _refuse_wide(about.num_columns, where)
    if 8 * about.num_rows * about.num_columns > max(BOMB_BYTES, BOMB_RATIO * size):
        raise DataError(_bomb(where))
    file.seek(0)


def _refuse_wide(columns: int, where: str) -> None:
    if columns > MOST_COLUMNS:
        raise DataError(f"{where}: has {columns:,} columns; up to {MOST_COLUMNS:,} columns are read, so leave some out")


def _one_line(error: BaseException) -> str:
    said = re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
    return said if said.isprintable() else ascii(said)[1:-1]


def read_arrays(path: Path, where: str, more: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return the arrays X, y, split, classes and lengths of an npz file and those named in `more`, as far as it has
    them; others are not read.

    Raises:
        DataError: it is no npz file, is damaged, has no X, or an array holds Python objects.
    """
    size = _size_of(path, where)
    try:
        return _load_arrays(path, where, size, more)
    except DataError:
        raise
    # A damaged zip makes zipfile, zlib and numpy raise almost anything; the file is at fault, not the program.
    except Exception as error:
        raise DataError(f"{where}: damaged or not an npz file ({_one_line(error)})") from error


def _load_arrays(path: Path, where: str, size: int, more: Sequence[str]) -> dict[str, NDArray[Any]]:
    with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
        warnings.simplefilter("ignore")
        if sum(entry.file_size for entry in archive.infolist()) > max(BOMB_BYTES, BOMB_RATIO * size):
            raise DataError(_bomb(where))
        there = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        if "X" not in there:
            raise DataError(f"{where}: no array X; it holds {listed(there) or 'nothing'}")
        found = {name: _load_array(archive, there[name], where) for name in (*ARRAYS, *more) if name in there}
    _refuse_wide(found["X"].shape[1] if found["X"].ndim == 2 else 0, where)
    return found


def _load_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    try:
        return read_member(archive, entry)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{where}: array {entry.filename.removesuffix('.npy')} holds pickled Python objects, which are never read; "
            "save it with a dtype of numbers or text"
        ) from error
