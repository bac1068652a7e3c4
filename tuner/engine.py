"""What an engine promises: it trains tasks, and gives back what happens to them one event at a time.

After each Trained epoch a trial waits for `go` or `stop`, and it ends as Ended or Failed. So the one who judges sees
each epoch before the next begins, and a trial is the same wherever it ran. Knows nothing of scores, verdicts and
storages, nor where an engine trains.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.data.splits import Splits
from tuner.errors import StorageError, TunerError


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to train: its number, configuration and seed, the folder of the user's own code, the number of the
    splits that it is trained on, and where its state is kept meanwhile, from which it goes on if it is cut off.
    """

    number: int
    config: RunConfig
    seed: int
    folder: Path
    splits: int = 0
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A trial finished an epoch and waits for `go` or `stop`. Of one that goes on where it was cut off the first is the
    newest epoch that was kept, after those that came `earlier`.
    """

    number: int
    epoch: Epoch
    earlier: tuple[Epoch, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial was stopped; `model` are facts of its network: parameters, sparsity. `examples` is what some validation
    examples count in the score at its best epoch (see metrics.packed), the same ones in every trial of the same rows.
    `weights` is the SHA-256 of its weights as a file, whether they were saved or not.
    """

    number: int
    model: dict[str, float]
    examples: bytes = b""
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A trial raised, or its worker died (`died`); `error` is one line."""

    number: int
    error: str
    died: bool = False


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What a trial needs or leaves could not be written: no fault of the trial, so it is to be run again."""

    number: int
    error: str


Event = Trained | Ended | Failed | Unsaved


class Engine(Protocol):
    """Trains up to `slots` tasks at a time."""

    slots: int

    def take(self, splits: Splits) -> int:
        """Take in rows to train on; return the number that a task calls them by. The test rows are left out."""
        ...

    def drop(self, splits: int) -> None:
        """Let go of rows that no task is to be trained on any more, by their number."""
        ...

    def start(self, task: Task) -> None:
        """Begin a task; there must be a free slot."""
        ...

    def next(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event; None if none came within `timeout` seconds."""
        ...

    def go(self, number: int) -> None:
        """Let a trial train its next epoch."""
        ...

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        """End a trial, saving the weights of its best epoch, or its newest one's, if `save` is given; Ended follows."""
        ...

    def clear(self) -> None:
        """Give up whatever still runs, to be ready for other tasks."""
        ...

    def close(self) -> None:
        """Give up whatever still runs, for good."""
        ...


@dataclass(frozen=True, slots=True)
class Again:
    """A task to be trained up to the epoch `kept`, whose weights are then saved if `save` is given. `trial` is the
    number of its trial, which the task may not have where several are of one trial.
    """

    task: Task
    kept: int
    save: Path | None = None
    trial: int | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"trial {self.task.number if self.trial is None else self.trial}"


@dataclass(frozen=True, slots=True)
class Going:
    """A task that is being trained again: its epochs so far."""

    job: Again
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """A task was trained again: its epochs, or why it wasn't."""

    job: Again
    epochs: tuple[Epoch, ...]
    error: str = ""


def again(engine: Engine, jobs: Iterable[Again], deadline: float | None = None) -> Iterator[Going | Done]:
    """Train tasks again up to the epochs that they kept; yield each after every epoch and once it is done, until the
    deadline passes.

    No two of the tasks may have one number. One whose worker died is started once more.

    Raises:
        StorageError: what a task needs or leaves can't be written.
    """
    waiting, running, died = iter(jobs), dict[int, tuple[Again, list[Epoch]]](), set[int]()
    while True:
        for job in islice(waiting, engine.slots - len(running)):
            running[job.task.number] = job, []
            engine.start(job.task)
        if not running:
            return
        event = engine.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if event is None or (deadline is not None and time.monotonic() >= deadline):
            return
        job, epochs = running[event.number]
        if isinstance(event, Trained):
            epochs[:] = [*(event.earlier or epochs), event.epoch]
            if event.epoch.number < job.kept:
                engine.go(event.number)
            else:
                # the epoch that was chosen, also where other rows would choose another one
                engine.stop(event.number, job.save, newest=True)
            yield Going(job, tuple(epochs))
            continue
        if isinstance(event, Unsaved):
            raise StorageError(event.error)
        if isinstance(event, Failed) and event.died and event.number not in died:
            died.add(event.number)
            epochs.clear()
            engine.start(job.task)
            continue
        del running[event.number]
        yield Done(job, tuple(epochs), "" if isinstance(event, Ended) else event.error)


def retrain(engine: Engine, jobs: Iterable[Again]) -> Iterator[Going | Done]:
    """Train tasks again and save their weights: on the same rows the same weights, byte for byte. Yield how they go, as
    `again` does.

    Raises:
        TunerError: one can't be trained.
        StorageError: its weights can't be saved.
    """
    for each in again(engine, jobs):
        if isinstance(each, Done) and each.error:
            raise TunerError(f"{each.job.name} can't be trained again: {each.error}")
        yield each
