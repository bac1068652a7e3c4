"""What an engine promises: it trains tasks, and gives back what happens to them one event at a time.

After each Trained epoch a trial waits for `go` or `stop`, and it ends as Ended or Failed. So the one who judges sees
each epoch before the next begins, and a trial is the same wherever it ran. Knows nothing of scores, verdicts and
storages, nor where an engine trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.config import RunConfig
from tuner.curve import Epoch
from tuner.data.splits import Splits


@dataclass(frozen=True, slots=True)
class Task:
    """One trial to train: its number, configuration and seed, the folder of the user's own code, the number of the
    splits that it is trained on, and where its state is kept meanwhile, from which it goes on if it is cut off.
    `spent` are the seconds that the trial has trained before, on other folds.
    """

    number: int
    config: RunConfig
    seed: int
    folder: Path
    splits: int = 0
    state: Path | None = None
    spent: float = 0.0


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
    """A trial raised, or its worker died (`died`), perhaps `together` with all others; `error` is one line."""

    number: int
    error: str
    died: bool = False
    together: bool = False


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What a trial needs or leaves could not be written: no fault of the trial, so it is to be run again. It may be
    `passing`, as a full disk is. A run that is `kept` may be stopped once more, to write what it leaves.
    """

    number: int
    error: str
    passing: bool = False
    kept: bool = False


Event = Trained | Ended | Failed | Unsaved


class Engine(Protocol):
    """Trains up to `slots` tasks at a time; of an engine whose workers come and go the number changes, and may be 0."""

    @property
    def slots(self) -> int:
        """How many tasks it trains at a time now."""
        ...

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
        """Wait for the next event; None if none came within `timeout` seconds, or the slots have changed meanwhile."""
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
