"""What is done while a disk has no room, another program holds a lock or a server is away: wait, and try again.

Decides how often and for how long, and says so once, as a warning of Python's `logging`: whoever shows a run shows
that, too. All that it tries again is written whole or not at all. Knows neither what is written nor where.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuner.data.splits import Splits
from tuner.engine import Engine, Event, Task, Unsaved
from tuner.errors import PassingError, StorageError

LOG = logging.getLogger("tuner")
EVERY, LONGEST = 2.0, 600.0  # seconds between two tries, and until it is given up
Result = TypeVar("Result")


class Patience:
    """Waits for what stands in the way to pass. Whatever else ends a wait, as Ctrl-C does, ends it for good."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.spent = False

    def wait(self, error: PassingError) -> None:
        """Wait for a while after something could not be written.

        Raises:
            StorageError: it has been so for too long.
        """
        now = time.monotonic()
        if self.spent:
            raise error
        if self.since is None:
            self.since = now
            LOG.warning("%s: waiting %s; Ctrl-C stops, nothing is lost", error.what, error.awaited)
        if now - self.since >= LONGEST:
            self.spent = True
            lasted = f"{error.what}; it has been so for {LONGEST / 60:.0f} minutes"
            raise StorageError(f"{lasted}; once that is mended, the same command goes on") from error
        try:
            time.sleep(EVERY)
        except BaseException:
            self.spent = True
            raise

    def over(self) -> None:
        """Say that it has passed, if anything was waited for."""
        if self.since is not None and not self.spent:
            LOG.warning("going on, after %.0f s", time.monotonic() - self.since)
            self.since = None

    def keep_trying(self, write: Callable[[], Result]) -> Result:
        """Return what `write` returns once nothing stands in its way."""
        while True:
            try:
                result = write()
            except PassingError as error:
                self.wait(error)
            except BaseException:
                self.spent = self.spent or self.since is not None
                raise
            else:
                self.over()
                return result


class Patient:
    """An engine that waits where what a task needs or leaves can't be written for now, and then has it done again."""

    def __init__(self, engine: Engine, patience: Patience) -> None:
        self.engine, self.patience = engine, patience
        self.tasks: dict[int, Task] = {}
        self.stops: dict[int, tuple[Path | None, bool]] = {}

    @property
    def slots(self) -> int:
        """How many tasks are trained at a time."""
        return self.engine.slots

    def take(self, splits: Splits) -> int:
        return self.patience.keep_trying(lambda: self.engine.take(splits))

    def drop(self, splits: int) -> None:
        self.engine.drop(splits)

    def start(self, task: Task) -> None:
        self.tasks[task.number] = task
        self.stops.pop(task.number, None)
        self.engine.start(task)

    def next(self, timeout: float | None = None) -> Event | None:
        event = self.engine.next(timeout)
        while isinstance(event, Unsaved) and event.passing:
            self.patience.wait(PassingError(event.error))
            if event.number in self.stops and event.kept:
                self.engine.stop(event.number, *self.stops[event.number])
            else:
                self.engine.start(self.tasks[event.number])
            event = self.engine.next(timeout)
            if not isinstance(event, Unsaved):
                self.patience.over()
        return event

    def go(self, number: int) -> None:
        self.engine.go(number)

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        self.stops[number] = save, newest
        self.engine.stop(number, save, newest)

    def clear(self) -> None:
        self.engine.clear()

    def close(self) -> None:
        self.engine.close()
