"""What an engine promises: it trains tasks, and gives back what happens to them one event at a time.

After each Trained epoch a trial waits for `go` or `stop`, and it ends as Ended or Failed. So the one who judges sees
each epoch before the next begins, and a trial is the same wherever it ran. Knows nothing of scores, verdicts and
storages, nor where an engine trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.errors import TunerError


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to train: its number, configuration and seed, the folder of the user's own code, and which fold of
    a cross-validation it is trained on.
    """

    number: int
    config: RunConfig
    seed: int
    folder: Path
    fold: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trial finished an epoch and waits for `go` or `stop`."""

    number: int
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial was stopped; `model` are facts of its network: parameters, sparsity."""

    number: int
    model: dict[str, float]


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

    def start(self, task: Task) -> None:
        """Begin a task; there must be a free slot."""
        ...

    def next(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event; None if none came within `timeout` seconds."""
        ...

    def go(self, number: int) -> None:
        """Let a trial train its next epoch."""
        ...

    def stop(self, number: int, save: Path | None) -> None:
        """End a trial, saving the weights of its best epoch if `save` is given; Ended follows."""
        ...

    def clear(self) -> None:
        """Give up whatever still runs, to be ready for other tasks."""
        ...

    def close(self) -> None:
        """Give up whatever still runs, for good."""
        ...


@dataclass(frozen=True, slots=True)
class Again:
    """A task to be trained up to the epoch `kept`, whose weights are then saved."""

    task: Task
    kept: int
    save: Path


def retrain(engine: Engine, jobs: Sequence[Again]) -> None:
    """Train tasks again up to the epochs that they kept: on the same rows the same weights, byte for byte.

    Raises:
        TunerError: one can't be trained, or its weights can't be saved.
    """
    waiting, running = deque(jobs), dict[int, Again]()
    while waiting or running:
        while waiting and len(running) < engine.slots:
            job = waiting.popleft()
            running[job.task.number] = job
            engine.start(job.task)
        event = engine.next()
        assert event is not None
        job = running[event.number]
        if isinstance(event, Ended):
            del running[event.number]
        elif not isinstance(event, Trained):
            raise TunerError(f"trial {event.number} can't be trained again: {event.error}")
        elif event.epoch.number < job.kept:
            engine.go(event.number)
        else:
            engine.stop(event.number, job.save)
