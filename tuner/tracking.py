"""Trackers: what a study comes to, told to MLflow, TensorBoard or a hook of the user's own as it goes.

    class Mine:
        def begin(self, study): ...      # a tuner.Study; when it begins, and when it goes on
        def trial(self, record): ...     # a TrialRecord, once each has ended; first those that an earlier run ended
        def end(self, study): ...        # when it is over, or was stopped

Decides when a tracker is told what, and what becomes of one that fails: it is left out from there on, which is said
once, and the study goes on. Each is told in a thread of its own, so that one that waits for a server holds nothing up.
What a tracker is told again, since a study was resumed, it has to know by the trial's number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from tuner.config import MODULE_ATTR
from tuner.errors import UsageError, nearest
from tuner.own_code import blaming, definition, find_own, one_line
from tuner.telling import clean

if TYPE_CHECKING:
    from tuner.record import TrialRecord
    from tuner.study import Study

LOG = logging.getLogger("tuner")
TRACKERS = ("mlflow", "tensorboard")  # each is a module of that name in `integrations`, with a class Tracker
LAST = 30.0  # seconds that a study waits in the end for what its trackers haven't been told yet


class Tracker(Protocol):
    """Is told what a study comes to; any of its methods may be missing. It is made before a space is checked, and so
    writes nothing, and asks no server, before it is told that a study begins.
    """

    def begin(self, study: Study) -> None:
        """The study begins, or goes on."""
        ...

    def trial(self, record: TrialRecord) -> None:
        """A trial has ended."""
        ...

    def end(self, study: Study) -> None:
        """The study is over, or was stopped."""
        ...


def tracker_of(name: str, folder: Path | None = None) -> Tracker:
    """Return the tracker of a name: one of tuner's, or what the user's own `module:attr` makes.

    Raises:
        UsageError: there is none of that name, or its package isn't installed.
        UserCodeError: the user's own can't be made.
    """
    if MODULE_ATTR.match(name):
        label = f"--track {name}"
        make = find_own(name, folder, label, "a class, or a function without arguments")
        with blaming(label, definition(make)):
            own: Tracker = make()
        return own
    if name not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise UsageError(f"--track: unknown tracker {name!r}{nearest(name, TRACKERS)}; one of {known}, or module:attr")
    try:
        tracker: Tracker = import_module(f"tuner.integrations.{name}").Tracker()
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--track {name}: needs {error.name}, which isn't installed; pip install 'overfit-tuner[{name}]'"
        ) from None
    return tracker


class _Told:
    """A tracker that is told in a thread of its own, until it fails."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker, self.name = tracker, name
        self.queue: SimpleQueue[tuple[str, Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (told := self.queue.get()) is not None:
            what, value = told
            try:
                if (method := getattr(self.tracker, what, None)) is not None:
                    method(value)
            except BaseException as error:  # whatever it is, the study goes on
                LOG.warning("%s", clean(f"tracker {self.name} is left out from here on: {one_line(error)}"))
                return

    def tell(self, what: str, value: Any) -> None:
        if self.thread.is_alive():
            self.queue.put((what, value))

    def close(self) -> None:
        self.queue.put(None)
        self.thread.join(LAST)
        if self.thread.is_alive():
            LOG.warning("tracker %s: wasn't told all, it takes longer than %.0f s", self.name, LAST)


class Trackers:
    """All trackers of a run; none is the usual case."""

    def __init__(self, trackers: Iterable[tuple[str, Tracker]] = ()) -> None:
        self.all: Sequence[_Told] = [_Told(tracker, name) for name, tracker in trackers]

    def __bool__(self) -> bool:
        return bool(self.all)

    def tell(self, what: str, value: Any) -> None:
        """Tell all of them; return at once."""
        for each in self.all:
            each.tell(what, value)

    def close(self) -> None:
        """Wait until all is told, but not for ever."""
        for each in self.all:
            each.close()


@contextmanager
def tracked(names: Sequence[str | Tracker], folder: Path | None) -> Iterator[Trackers]:
    """Hold the trackers of some names, or such ones as they are.

    Raises:
        UsageError, UserCodeError: as `tracker_of` does.
    """
    made = [
        (each, tracker_of(each, folder)) if isinstance(each, str) else (type(each).__name__, each) for each in names
    ]
    trackers = Trackers(made)
    try:
        yield trackers
    finally:
        trackers.close()
