"""Data that don't fit into memory are mapped from files, and come out the same."""

from __future__ import annotations

import errno
import gc
import io
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tuner.config import Data, Split
from tuner.data import Splits, load, memory
from tuner.data.fingerprint import fingerprint, hash_each, hash_rows
from tuner.data.ragged import ragged_of
from tuner.data.raw import series_of
from tuner.data.shared import open_shared, write_shared
from tuner.errors import DataError

Y = np.arange(60) % 3
LITTLE = 4000
DAYS = [f"{1 + i % 28:02}" for i in range(200)]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Leave a few kB of memory, and pieces of a few rows."""

    def make_little() -> None:
        monkeypatch.setattr(memory, "LIMIT", LITTLE)
        monkeypatch.setattr(memory, "PIECE", 1000)

    gc.collect()
    return make_little


def images(dtype: Any = np.uint8, channels: int = 3) -> np.ndarray:
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 9, channels))
    return x.astype(dtype) if np.dtype(dtype).kind == "u" else (x / 255).astype(dtype)


def same(one: Splits, two: Splits) -> None:
    assert (one.fingerprint, one.test_hash, one.notes) == (two.fingerprint, two.test_hash, two.notes)
    assert one.test is not None
    assert two.test is not None
    for a, b in zip((one.train, one.val, one.test), (two.train, two.val, two.test), strict=True):
        assert a.x.dtype == b.x.dtype
        assert np.array_equal(a.x, b.x)
        assert np.array_equal(a.y, b.y)
        assert np.array_equal(a.rows, b.rows)


def mapped(splits: Splits) -> list[bool]:
    return [isinstance(part.x, np.memmap) for part in (splits.train, splits.val, splits.test) if part]


def both(folder: Path, little: Callable[[], None], name: str = "d.npz") -> tuple[Splits, Splits]:
    data = Data(source=name, split=Split(val=0.4, test=0.4))
    whole = load(data, folder)
    assert mapped(whole) == [False] * 3
    little()
    return whole, load(data, folder)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, ">f4"])
def test_arrays_beyond_the_limit_are_mapped_and_the_same(
    tmp_path: Path, little: Callable[[], None], save: Callable[..., None], dtype: Any
) -> None:
    save(tmp_path / "d.npz", X=images(dtype), y=Y)
    whole, pieces = both(tmp_path, little)
    same(whole, pieces)
    assert mapped(pieces) == [True] * 3
    assert whole.encoder.shape == pieces.encoder.shape
    for name in ("center", "scale"):
        exact = 0 if dtype == np.uint8 else 1e-12
        assert getattr(pieces.encoder.standard, name) == pytest.approx(getattr(whole.encoder.standard, name), rel=exact)


def test_where_arrays_live_has_no_say_in_how_they_are_standardized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "d.npz", X=images(np.float32), y=Y)
    monkeypatch.setattr(memory, "PIECE", 1000)
    whole = load(Data(source="d.npz"), tmp_path)
    monkeypatch.setattr(memory, "LIMIT", 0)
    assert load(Data(source="d.npz"), tmp_path).encoder == whole.encoder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_stored_by_columns_are_mapped_and_the_same(
    tmp_path: Path, little: Callable[[], None], save: Callable[..., None]
) -> None:
    save(tmp_path / "d.npz", X=np.asfortranarray(images()), y=Y)
    same(*both(tmp_path, little))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("length", [None, 6])
def test_sequences_beyond_the_limit_are_mapped_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, length: int | None
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 100, (60, 30, 4)).astype(dtype)
    x[:, :, 2] = 5
    if x.dtype.kind == "f":
        x[rng.random(x.shape) < 0.1] = np.nan
        x[7, :, 1] = np.nan
    np.savez(tmp_path / "d.npz", X=x, y=Y, lengths=rng.integers(3, 25, 60))
    data = Data(source="d.npz", length=length, split=Split(val=0.4, test=0.4))
    whole = load(data, tmp_path)
    gc.collect()
    monkeypatch.setattr(memory, "PIECE", 1000)
    pieces = load(data, tmp_path)
    monkeypatch.setattr(memory, "LIMIT", 0)
    files = load(data, tmp_path)
    same(pieces, files)
    assert mapped(files) == [True] * 3
    assert (whole.fingerprint, whole.test_hash, whole.notes) == (files.fingerprint, files.test_hash, files.notes)
    assert np.allclose(whole.train.x, files.train.x, atol=1e-5)
    assert whole.shape == files.shape


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
def test_tables_beyond_the_limit_are_mapped_and_the_same(tmp_path: Path, little: Callable[[], None], name: str) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": rng.normal(size=200), "b": rng.exponential(size=200) ** 3, "many": rng.permutation(200).astype(str),
            "color": rng.choice(["red", "green", "blue", None], 200), "day": "2024-01-" + pd.Series(DAYS).astype(str),
            "gap": np.where(rng.random(200) < 0.2, np.nan, rng.normal(size=200)), "t": np.arange(200) % 2,
        }
    )  # fmt: skip
    table.to_csv(tmp_path / name, index=False) if name == "d.csv" else table.to_parquet(tmp_path / name)
    data = Data(source=name, target="t")
    whole = load(data, tmp_path)
    little()
    pieces = load(data, tmp_path)
    same(whole, pieces)
    assert whole.encoder == pieces.encoder
    assert mapped(pieces) == [True] * 3


def test_sequences_that_are_as_they_should_be_are_not_copied() -> None:
    x = np.random.default_rng(0).normal(size=(60, 5, 2)).astype(np.float32)
    assert np.shares_memory(ragged_of(x).x, x)
    for wrong in (-0.0, -np.float32(np.nan)):
        x[3, 2, 1] = wrong
        found = ragged_of(x).x
        assert not np.shares_memory(found, x)
        assert not np.signbit(found[3, 2, 1])
    assert not np.shares_memory(ragged_of(x.astype(np.float64).astype(">f8")).x, x)


def test_folders_beyond_the_limit_are_mapped_and_the_same(tmp_path: Path, little: Callable[[], None]) -> None:
    for i, pixels in enumerate(images()):
        (tmp_path / "d" / f"class {i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "d" / f"class {i % 3}" / f"{i:02}.png")
    whole, pieces = both(tmp_path, little, "d")
    same(whole, pieces)
    assert mapped(pieces) == [True] * 3


def test_what_was_mapped_can_be_shared_with_workers(tmp_path: Path, little: Callable[[], None]) -> None:
    np.savez(tmp_path / "d.npz", X=images(), y=Y)
    _, splits = both(tmp_path, little)
    write_shared(splits, tmp_path / "shared")
    shared = open_shared(tmp_path / "shared")
    assert np.array_equal(shared.train.x, splits.train.x)
    assert np.array_equal(shared.val.x, splits.val.x)


def test_arrays_that_are_no_longer_used_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(memory, "LIMIT", memory.LIMIT - memory.left() + 1000)
    one = memory.empty((900,), np.uint8)
    assert not isinstance(one, np.memmap)
    assert isinstance(memory.empty((900,), np.uint8), np.memmap)
    half = one[:450]
    del one
    assert isinstance(memory.empty((900,), np.uint8), np.memmap)
    del half
    assert not isinstance(memory.empty((900,), np.uint8), np.memmap)


def test_a_mapped_file_has_no_name_and_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes: list[int] = []
    reserve = memory._reserve

    def look(handle: int, size: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        reserve(handle, size)

    monkeypatch.setattr(memory, "_reserve", look)
    array = memory.empty((10, 10), np.float32)
    array[:] = 1
    assert array.flags.writeable
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "d.npz", X=images(), y=Y)
    code = (
        "import resource, signal, sys; from pathlib import Path; from tuner.config import Data;"
        "from tuner.data import load, memory; from tuner.errors import DataError;"
        "memory.LIMIT, memory.PIECE = 0, 1000; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n    load(Data(source='d.npz'), Path(sys.argv[1]))\n"
        "except DataError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the data don't fit into memory, and a temporary file of 7776 bytes can't be made (")
    assert done.stdout.endswith("; free disk space or name another folder in TMPDIR\n")
    assert done.stdout.count("\n") == 1

    monkeypatch.setattr(memory, "LIMIT", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=os.strerror(errno.ENOENT)):
        memory.empty((10,), np.uint8)


def said(folder: Path) -> str:
    """Return what is said of d.npz, nothing if it can be read."""
    try:
        load(Data(source="d.npz"), folder)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_large_archive_that_was_damaged_is_refused_wherever_it_was(
    tmp_path: Path, little: Callable[[], None], compression: int
) -> None:
    good = io.BytesIO()
    (np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed)(good, X=images(), y=Y)
    whole = good.getvalue()
    little()
    path = tmp_path / "d.npz"
    wrong = 0
    for at in range(40, len(whole), 997):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        wrong += bool(said(tmp_path))
    assert wrong >= len(range(40, len(whole), 997)) - 2
    for end in range(0, len(whole), 1499):
        path.write_bytes(whole[:end])
        assert said(tmp_path).startswith("d.npz: ")


def npz(header: bytes, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("X.npy", header + content)
        y = io.BytesIO()
        np.save(y, Y)
        archive.writestr("y.npy", y.getvalue())
    return stream.getvalue()


def header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (header("|u1", "(60, 9999999999, 9)"), "damaged or not an npz file"),
        (header("|u1", "(60, 8)"), "damaged or not an npz file"),
        (header("|u1", "(60, -8, -9)"), "damaged or not an npz file"),
        (header("|O", "(60, 8, 9)"), "array X holds pickled Python objects, which are never read"),
        (b"no header", "damaged or not an npz file"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_large_archive_that_says_what_is_not_so_is_refused(
    tmp_path: Path, little: Callable[[], None], head: bytes, message: str, compression: int
) -> None:
    (tmp_path / "d.npz").write_bytes(npz(head, bytes(60 * 8 * 9), compression))
    little()
    with pytest.raises(DataError, match=rf"^d\.npz: {message}"):
        load(Data(source="d.npz"), tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, ">i4", np.float32, "U3", bool])
def test_hashes_are_those_of_the_whole_whatever_the_pieces(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).integers(0, 9, (60, 4, 5)).astype(dtype)
    y = series_of(Y, "d", "y")
    parts = {"train": np.arange(40), "val": np.arange(40, 60)}
    rows = np.array([3, 9, 10, 59])
    whole = fingerprint(x, y, parts), hash_rows(x, y, rows), hash_each(x).tolist()
    monkeypatch.setattr(memory, "PIECE", 100)
    assert (fingerprint(x, y, parts), hash_rows(x, y, rows), hash_each(x).tolist()) == whole
    assert (fingerprint(np.asfortranarray(x), y, parts), hash_rows(x[rows], y.iloc[rows], np.arange(4))) == whole[:2]


MEASURE = """
import sys, threading, time
from pathlib import Path
from tuner.config import Data
from tuner.data import load, loading, memory, sources


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.001)


memory.LIMIT = int(sys.argv[2])
before = anonymous()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
load(Data(source="d.npz"), Path(sys.argv[1]))
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(("limit", "copies"), [(0, 0), (1 << 40, 2)])
def test_data_take_no_more_memory_than_they_may(tmp_path: Path, limit: int, copies: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3000, 3, 128, 128), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", X=x, y=np.arange(3000) % 5)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(limit)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < copies * x.nbytes + 8 * memory.PIECE  # what is worked on beside it are pieces
