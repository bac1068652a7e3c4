"""How much memory a study of large data takes: what its workers share, each worker for itself, and the main process.

    python benchmarks/memory.py [--bytes 1000000000] [--only images ...] [--set training.epochs=2 ...]

Needs Linux. Data of so many bytes (as the workers hold them: pixels as bytes, all else as float32) are made in a
temporary folder; then `tuner run` searches over them with 2 workers, a small network and a few short trials, with the
confirmation and everything else that a study does. Every process of it is looked at several times a second, in
/proc/PID/smaps:

- shared: the pages of the files that the workers map the data from, counted once, however many processes map them;
- worker: the memory that one worker has for itself (private pages, clean or dirty, but for those of these files);
- main: the same of the process that reads, judges and writes, while it reads (until a first epoch is over) and after;
- all: everything that the processes take together, pages that several of them map counted once.

All are the largest values that were seen, in megabytes of 10^6 bytes.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

TUNER = [sys.executable, "-m", "tuner"]
FIGURES = re.compile(rb"\d+/\d+\s.*\d\.\d")  # an epoch of a trial and its losses
SHARED_MOST, WORKER_MOST = 2000, 300  # megabytes, aimed at for data of one gigabyte
PAUSE = 0.15  # seconds between two looks
ROWS = 10_000  # made at once
SPACE = """\
study: large
data: {{source: {source}{more}}}
model: {{family: mlp, width: {{low: 4, high: 16}}, depth: 1}}
regularization: {{dropout: {{low: 0.0, high: 0.5}}}}
training: {{epochs: 2, batch_size: 512}}
budget: {{trials: 3, workers: 2}}
"""


def images(path: Path, size: int) -> int:
    """Write pictures of 32 x 32 in color, of ten classes; return how many bytes of numbers they are."""
    rows = size // (32 * 32 * 3)

    def some(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        x = rng.integers(0, 246, (len(y), 32, 32, 3), dtype=np.uint8)
        return x + y[:, None, None, None].astype(np.uint8)

    return _arrays(path, (rows, 32, 32, 3), np.uint8, some)


def sequences(path: Path, size: int) -> int:
    """Write sequences of 100 steps of 10 channels, of ten classes."""

    def some(rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        x = rng.standard_normal((len(y), 100, 10), dtype=np.float32)
        return x + 0.1 * y[:, None, None].astype(np.float32)

    return _arrays(path, (size // 4000, 100, 10), np.float32, some)


def _arrays(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    some: Callable[[np.random.Generator, np.ndarray], np.ndarray],
) -> int:
    """Write X piece by piece and y as an npz file, so that making the data takes no memory."""
    import zipfile

    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, shape[0])
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as file:
            head = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, head)
            for start in range(0, shape[0], ROWS):
                file.write(some(rng, y[start : start + ROWS]).tobytes())
        with archive.open("y.npy", "w") as file:
            npy.write_array(file, y)
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def table(path: Path, size: int) -> int:
    """Write a table of 250 columns of float32 numbers, with two classes, as Parquet."""
    rng, columns, rows = np.random.default_rng(0), 250, size // 1000
    names = [f"x{i}" for i in range(columns)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("target", pa.string())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, ROWS):
            x = rng.standard_normal((columns, min(ROWS, rows - start)), dtype=np.float32)
            y = np.where(x[:5].sum(axis=0) > 0, "yes", "no")
            writer.write_table(pa.table([*x, y], schema=schema))
    return rows * columns * 4


CASES: dict[str, tuple[str, str, Callable[[Path, int], int]]] = {
    "images": ("pictures.npz", "", images),
    "sequences": ("sequences.npz", "", sequences),
    "table": ("table.parquet", ", target: target", table),
}


@dataclass
class Seen:
    """The largest values so far, in bytes, and the second at which the first epoch was over."""

    shared: int = 0
    worker: int = 0
    reading: int = 0
    main: int = 0
    all: int = 0
    files: int = 0
    first: float = 0.0
    track: list[tuple[float, int, int, int]] = field(default_factory=list)


@dataclass
class Taken:
    """What one process takes, in bytes."""

    shared: int = 0
    own: int = 0
    proportional: int = 0


def taken(process: int, folder: Path) -> Taken:
    """Return what a process takes; pages of files in `folder` are shared data."""
    found, is_data = Taken(), False
    marks = {"Pss", "Private_Clean", "Private_Dirty", "Anonymous"}
    for line in Path(f"/proc/{process}/smaps").read_bytes().decode(errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if name in marks:
            size = 1024 * int(rest.split()[0])
            found.proportional += size if name == "Pss" else 0
            if is_data:  # what was written to is a copy of the process's own
                found.shared += size if name == "Pss" else -size if name == "Anonymous" else 0
                found.own += size if name == "Anonymous" else 0
            else:
                found.own += size if name.startswith("Private") else 0
        elif " " in name or "-" in name:
            is_data = str(folder) in line
    return found


def family(process: int) -> Iterator[int]:
    """Yield a process and all that it started."""
    yield process
    with suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from family(int(child))


def look(main: int, data: Path, seen: Seen, began: float) -> None:
    """Look at each process once, and keep what is more than was seen before."""
    shared = total = worker = own = 0
    for process in family(main):
        with suppress(OSError):
            found = taken(process, data)
            shared, total = shared + found.shared, total + found.proportional
            if process == main:
                own = found.own
            elif b"tuner.workers" in Path(f"/proc/{process}/cmdline").read_bytes():
                worker = max(worker, found.own)
    with suppress(OSError):
        seen.files = max(seen.files, sum(file.stat().st_size for file in data.parent.glob(f"{data.name}*/**/*.npy")))
    seen.shared, seen.all, seen.worker = max(seen.shared, shared), max(seen.all, total), max(seen.worker, worker)
    if seen.first:
        seen.main = max(seen.main, own)
    else:
        seen.reading = max(seen.reading, own)
    seen.track.append((time.perf_counter() - began, own, worker, shared))


def measured(space: Path, changes: list[str], folder: Path) -> tuple[Seen, float]:
    """Return what a study took, and its seconds."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    sets = [word for change in changes for word in ("-S", change)]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*TUNER, "run", str(space), "--studies-dir", str(folder), *sets],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    seen, said = Seen(), bytearray()

    def watch() -> None:
        while process.poll() is None:
            look(process.pid, folder / "large" / ".data", seen, began)
            time.sleep(PAUSE)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with suppress(OSError):  # the terminal is closed when the command ends
        while some := os.read(ours, 65536):
            said += some
            if not seen.first and FIGURES.search(re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said)):
                seen.first = time.perf_counter() - began
    code = process.wait()
    seconds = time.perf_counter() - began
    watcher.join()
    os.close(ours)
    if code:
        sys.exit(f"tuner run ended with {code}:\n{said.decode(errors='replace')[-3000:]}")
    return seen, seconds


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values put over those of the space")
    parser.add_argument("--data", type=Path, help="folder where the data are kept, for another time")
    parser.add_argument("--track", action="store_true", help="print what was seen second by second, too")
    given = parser.parse_args()
    print("## Memory for large data\n\n    python benchmarks/memory.py\n")
    names = ("torch", "optuna", "numpy", "pandas")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, {memory / 1e9:.0f} GB, Python "
        f"{platform.python_version()}, {versions}.\nAimed at, for 1 GB and two workers: shared at most "
        f"{SHARED_MOST:,} MB, a worker at most {WORKER_MOST} MB.\n"
    )
    print(
        "| data | MB | shared, MB | a worker, MB | main while reading, MB | main after, MB | all, MB | files, MB | "
        "first epoch, s | the study, s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="tuner-memory-") as temporary:
        for name in given.only:
            file, more, make = CASES[name]
            place = given.data or Path(temporary)
            place.mkdir(parents=True, exist_ok=True)
            path = place / file
            size = make(path, given.bytes) if not path.exists() else given.bytes
            space = Path(temporary) / f"{name}.yaml"
            space.write_text(SPACE.format(source=path.absolute(), more=more))
            seen, seconds = measured(space, given.set, Path(temporary) / name)
            figures = (size, seen.shared, seen.worker, seen.reading, seen.main, seen.all, seen.files)
            print(f"| {name} | {' | '.join(map(megabytes, figures))} | {seen.first:.1f} | {seconds:.0f} |", flush=True)
            if given.track:
                for second, *sizes in seen.track:
                    print(f"    {second:7.2f} {' '.join(f'{megabytes(each):>7}' for each in sizes)}")
            if given.data is None:
                path.unlink()


if __name__ == "__main__":
    main()
