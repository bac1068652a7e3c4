"""A disk that is full: a file system in memory is filled up to some level before or while a study runs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .kills import PAUSE, Figures, figures, reference
from .oracle import OVER, Oracle, Violation
from .runs import SEED, Place, Run, cleaned, start, until

SIZE, MOST = 64 << 20, 3 << 20  # bytes of the disk, and the most that are left free
TRIALS = 16


def can_mount(folder: Path) -> str:
    """Return why no file system can be mounted here, or nothing."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "only root can mount a file system"
    try:
        with _mounted(folder):
            return ""
    except OSError as error:
        return str(error)


@contextmanager
def _mounted(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "chaos", disk], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(f"mount: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def _fill(disk: Path, free: int) -> None:
    """Fill a disk until so many bytes are free, whatever is written meanwhile."""
    with open(disk / "filler", "wb") as file:
        for _ in range(10):
            space, there = os.statvfs(disk), os.fstat(file.fileno()).st_blocks * 512
            with suppress(OSError):  # it became smaller
                os.posix_fallocate(file.fileno(), 0, max(1, there + space.f_bavail * space.f_frsize - free))
                return


def fill_disk(seed: int, folder: Path, levels: int) -> Figures:
    """Fill the disk at so many levels; what had ended is there, and when there is room again the study goes on."""
    chance, started, found, met, paused = random.Random(seed), time.monotonic(), list[Violation](), 0, 0
    for level in range(levels):
        free = int(MOST * (level / max(1, levels - 1)) ** 3)
        with _mounted(folder / f"level-{level:02d}") as disk:
            place = Place(folder / f"level-{level:02d}", studies=disk / "studies")
            with cleaned(place):
                oracle, late = Oracle(place, SEED), chance.random() < 0.7
                if not late:
                    _fill(disk, free)
                run = oracle.began(start(place, TRIALS, 2, PAUSE / 2))
                if late:
                    wanted = chance.randint(1, TRIALS // 2)
                    until(
                        lambda run=run, oracle=oracle, wanted=wanted: not run.alive or _ended(oracle) >= wanted,
                        step=0.02,
                    )
                    _fill(disk, free)
                _await_rest(run, place)
                met += run.alive or run.process.poll() != 0
                paused += run.alive
                if not run.alive and run.process.poll() not in (0, 4):
                    found.append(Violation("code", f"{free} bytes free: {run.process.poll()}: {run.text()[-800:]}"))
                (disk / "filler").unlink()
                if not run.alive:
                    oracle.after(run)
                    run = oracle.began(start(place, TRIALS))
                found += oracle.finish(run, TRIALS, reference(folder, TRIALS))
    return figures(found, started, levels=levels, full=met, paused=paused)


def _ended(oracle: Oracle) -> int:
    return sum(kept.state in OVER for kept in oracle.look().values())


def _await_rest(run: Run, place: Place, seconds: float = 6.0) -> None:
    """Wait until a run has ended, or has trained and said nothing for a while: then it waits for room."""
    end, before = time.monotonic() + 120, (0, 0)
    while run.alive and time.monotonic() < end:
        until(lambda: not run.alive, seconds, 0.05)
        now = tuple(path.stat().st_size if path.exists() else 0 for path in (place.account, place.said))
        if now == before and now[0]:
            return
        before = now  # type: ignore[assignment]
