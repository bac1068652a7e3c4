"""The command as the harness runs it: started, watched from outside, killed, and run again.

Decides nothing of what is right: it tells what a run said, how it ended, and which processes it left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import witness as _witness

EPOCHS, SEED, NAME = 12, 3, "chaos"
PATIENCE = 300.0  # seconds in which every run here ends; one that hangs is a finding
SPACE = f"""\
study: {NAME}
seed: {SEED}
data: {{source: sklearn:wine}}
model: {{family: witness:net, width: {{low: 4, high: 12}}}}
regularization: {{dropout: {{low: 0.0, high: 0.5}}, l2: {{low: 1e-4, high: 0.1, log: true}}}}
augmentation: {{strength: {{low: 0.0, high: 0.5}}}}
training: {{epochs: {EPOCHS}, learning_rate: {{low: 3e-3, high: 3e-2, log: true}}}}
stopping: none
search: {{sampler: random}}
budget: {{trials: 6, workers: 2, confirm: false}}
"""


@dataclass
class Place:
    """A folder with one study of the harness; `studies` may lie elsewhere, on a disk of its own."""

    folder: Path
    space: str = SPACE
    studies: Path = Path()
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.studies = self.folder / "studies" if self.studies == Path() else self.studies
        (self.folder / f"{NAME}.yaml").write_text(self.space)
        shutil.copy(_witness.__file__, self.folder / "witness.py")

    @property
    def database(self) -> Path:
        return self.studies / "tuner.db"

    @property
    def left(self) -> Path:
        """The folder of what the study leaves."""
        return self.studies / NAME

    @property
    def account(self) -> Path:
        return self.folder / "account.txt"

    @property
    def said(self) -> Path:
        """What all runs here said, one after the other."""
        return self.folder / "said.txt"

    def processes(self) -> dict[int, list[str]]:
        """Return the live processes that any run here has started: pid -> words of its command line."""
        found, mark = {}, f"CHAOS_MARK={self.mark}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if words != [""]:  # a zombie has none
                        found[int(process.name)] = words
        return found

    def below(self, pid: int) -> set[int]:
        """Return a process and those that it has started."""
        found, there = {pid}, [*self.processes()]
        for _ in range(3):
            for each in there:
                with suppress(OSError):
                    stat = Path(f"/proc/{each}/stat").read_text()
                    if int(stat.rpartition(")")[2].split()[1]) in found:
                        found.add(each)
        return found

    def workers(self) -> list[int]:
        """Return the live worker processes."""
        return sorted(pid for pid, words in self.processes().items() if "tuner.workers" in words)


@dataclass
class Run:
    """One run of the command, in a process group of its own."""

    place: Place
    process: subprocess.Popen[bytes]
    started: float
    account: int  # the length of the account when it began
    said: int  # and of what was said

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        """Return what this run has said so far."""
        with open(self.place.said, errors="replace") as file:
            file.seek(self.said)
            return file.read()

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Return the exit code, as a shell tells it; None if it hasn't ended in time, and it is killed then."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return None
        return code if code >= 0 else 128 - code

    def signal(self, sign: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, sign)

    def kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_all(self) -> None:
        """Kill every process of the run at once, its main one first."""
        for pid in (self.process.pid, *self.place.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def start(place: Place, trials: int, workers: int = 2, pause: float = 0.0, env: Mapping[str, str] | None = None) -> Run:
    """Start the command on the study of a place."""
    words = ["run", f"{NAME}.yaml", "--trials", str(trials), "--workers", str(workers), "--studies-dir"]
    own = {"CHAOS_MARK": place.mark, "CHAOS_ACCOUNT": str(place.account), "CHAOS_PAUSE": str(pause)}
    said = place.said.stat().st_size if place.said.exists() else 0
    account = place.account.stat().st_size if place.account.exists() else 0
    with open(place.said, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner", *words, str(place.studies)], cwd=place.folder,
            env={**os.environ, **own, **(env or {})}, start_new_session=True, preexec_fn=_heed,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=out,
        )  # fmt: skip
    place.started.append(process)
    return Run(place, process, time.monotonic(), account, said)


def _heed() -> None:
    """Heed Ctrl-C, also where a script has started the harness in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def cleaned(place: Place) -> Iterator[Place]:
    """Hold a place, and end what it has started, whatever happens."""
    try:
        yield place
    finally:
        for pid in place.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in place.started:
            process.wait()


def until(true: Callable[[], object], seconds: float = PATIENCE, step: float = 0.005) -> bool:
    """Wait until something is true; tell whether it became so in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= end:
            return False
        time.sleep(step)
    return True


def no_orphans(place: Place, seconds: float = 10.0) -> list[str]:
    """Return what is left of the processes of a run that has ended; those of a dead parent take a moment to end."""
    if until(lambda: not place.processes(), seconds, 0.02):
        return []
    return [f"{pid} {' '.join(words)}" for pid, words in place.processes().items()]
