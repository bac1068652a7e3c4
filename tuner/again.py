"""Tasks trained once more, each up to an epoch that is known: the runs of a confirmation, and the networks in the end.

Decides that a run whose worker died goes on, and when it is given up. Knows nothing of why they are trained again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.curve import Epoch
from tuner.engine import Ended, Engine, Failed, Task, Trained, Unsaved
from tuner.errors import StorageError, TunerError

TOGETHER = 10  # times that a trial's worker may die with all others


@dataclass(slots=True)
class Deaths:
    """How far a trial was (`place`) each time that its worker died: decides whether it is run again.

    It is, unless it got no further than when it died before: then it is to blame. What took all workers along, as what
    kills the process that forks them, says nothing of one trial, as long as it isn't there each time.
    """

    place: tuple[int, ...] = ()
    together: int = 0

    def spare(self, event: Failed, place: tuple[int, ...]) -> bool:
        """Tell whether a trial that failed is to be run again."""
        if event.died and event.together and self.together < TOGETHER:
            self.together += 1
            return True
        if not event.died or place <= self.place:
            return False
        self.place = place
        return True


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
    """A task was trained again: its epochs and the SHA-256 of its weights as a file, or why it wasn't."""

    job: Again
    epochs: tuple[Epoch, ...]
    error: str = ""
    weights: str = ""


def again(engine: Engine, jobs: Iterable[Again], deadline: float | None = None) -> Iterator[Going | Done]:
    """Train tasks again up to the epochs that they kept; yield each after every epoch and once it is done, until the
    deadline passes.

    No two of the tasks may have one number. One whose worker died is started again, unless it had got no further than
    when it died before.

    Raises:
        StorageError: what a task needs or leaves can't be written.
    """
    waiting, running, deaths = iter(jobs), dict[int, tuple[Again, list[Epoch]]](), defaultdict[int, Deaths](Deaths)
    ahead: Again | None = None
    while True:
        while len(running) < engine.slots and (job := ahead or next(waiting, None)) is not None:
            ahead, running[job.task.number] = None, (job, [])
            engine.start(job.task)
        if not running:
            ahead = None if engine.slots else ahead or next(waiting, None)  # which waits for a slot
            if ahead is None:
                return
        event = engine.next(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if deadline is not None and time.monotonic() >= deadline:
            return
        if event is None:  # a slot more, or less
            continue
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
        if isinstance(event, Failed) and deaths[event.number].spare(event, (len(epochs),)):
            epochs.clear()
            engine.start(job.task)
            continue
        del running[event.number]
        done = Done(job, tuple(epochs))
        yield replace(done, weights=event.weights) if isinstance(event, Ended) else replace(done, error=event.error)


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
