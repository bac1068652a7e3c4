"""An engine that trains in worker processes.

A worker is forked from a parent of its own (see `supervising`), and these from `python -m tuner.workers`, which has
imported all that they need (see `forking`): it maps the shared data, uses one torch thread, and speaks over a pipe of
its own, so that whatever the user's code prints can't disturb it. It and all that it started end with the one who
judges. Decides when a worker is worn: one that ran code of the user's, or whose memory has a limit, is replaced after a
task, so that a trial is the same whatever ran before it.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from shutil import rmtree
from typing import Any, Self

from tuner.config import duration, own_code, size_of
from tuner.data.shared import place_of, write_shared
from tuner.data.splits import Splits
from tuner.engine import Event, Failed, Task, Trained, Unsaved
from tuner.forking import PATIENCE, Forked, ForkServer, serve_forks
from tuner.machine import gpu
from tuner.serving import import_parts, keep_memory, work
from tuner.space import Space, own_names
from tuner.supervising import (
    BIRTH,
    BORN,
    BY_MEMORY,
    BY_ORDER,
    END,
    LIMIT,
    ORDER,
    REPORT,
    SOON,
    cause,
    die_with,
)

GRACE, DYING = 10.0, 1.0  # seconds from SIGTERM to SIGKILL, and from a closed pipe to it
# what stands before a message, as multiprocessing has it, and the largest one: no text is so small
SIZE, MOST = struct.Struct("!i"), 1 << 27

WROTE, CLOSED = "wrote into a file that was not its own", "closed a file that was not its own"
BY_PARENT = b"p"  # a worker ended because its parent did


@dataclass(slots=True)
class _Worker:
    """A worker's parent, its place among the others, and of the worker that it has now: its number, process, pipe and
    task.

    `sign` opens each of its messages, and `told` is what of one has come. Of a task: the seconds that it has trained
    and since when it does again. `ended` is how the worker did, `why` what it is ended for.
    """

    parent: Forked
    slot: int
    life: int = 0
    process: int = 0
    pipe: Connection | None = None
    sign: bytes = b""
    told: bytearray = field(default_factory=bytearray)
    task: Task | None = None
    served: int = 0
    spent: float = 0.0
    since: float | None = None
    ended: tuple[int, bytes] | None = None
    why: str = ""

    @property
    def overdue(self) -> float:
        """When its task has taken too long."""
        limit = self.task.config.budget.trial_timeout if self.task is not None else None
        return math.inf if limit is None or self.since is None or self.why else self.since + limit - self.spent

    def order(self, what: bytes, value: float = 0.0) -> None:
        with suppress(OSError):  # its parent died: `next` finds out
            self.parent.control.sendall(ORDER.pack(what, self.life, value))

    def send(self, message: tuple[Any, ...]) -> None:
        with suppress(OSError):  # it died; `next` finds out
            if self.pipe is not None:
                self.pipe.send(message)

    def end(self, why: str, grace: float = 0.0) -> None:
        """Have it ended, and all that it started."""
        self.why, self.since = why, None
        self.order(END, grace)


class Parents:
    """Parents of workers, and the server that forks them. Some are ordered before it is known on which data: the server
    takes as long to start as reading these does.
    """

    def __init__(self, count: int = 0) -> None:
        self.server: ForkServer | None = None
        self.spare = list[Forked]()
        self.spare += [self._fork() for _ in range(count)]

    def take(self) -> Forked:
        """Return one of them, or a new one."""
        while self.spare:
            if (parent := self.spare.pop()).server.alive:
                return parent
            parent.leave()
        return self._fork()

    def _fork(self) -> Forked:
        if self.server is None or not self.server.alive:
            self.close()  # what it was to fork ended with it
            self.server = ForkServer(
                "tuner.workers", {"PYTHONHASHSEED": "0", **os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            )
        return self.server.fork()

    def close(self) -> None:
        """End the server, and all that it forked."""
        while self.spare:
            self.spare.pop().leave()
        if self.server is not None:
            self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def processes(space: Space, trials: int) -> int:
    """Return how many processes train so many trials; none, if the one that judges does. Code of the user's own trains
    in a process of its own, where it can end nothing but a trial, and so does what has a limit of time or memory.
    """
    budget = space.config.budget
    limited = budget.trial_timeout is not None or budget.trial_memory is not None
    count = min(budget.workers, max(1, trials))
    alone = count == 1 and not own_names(space) and not limited
    # who has used a GPU can fork nothing that does, such as what tries the user's code of the next study
    return 0 if alone and (space.config.training.device == "cpu" or gpu() is None) else count


def early(space: Space) -> Parents:
    """Start the workers of a study before its data are read; hold them in a `with` statement until it has ended."""
    return Parents(processes(space, space.config.budget.trials))


class Processes:
    """Trains in `slots` worker processes that map the data in one folder; a worker that died is replaced.

    Features are kept in `cache`, for all of them. The workers' parents are taken from `parents`, which the caller ends.
    """

    def __init__(self, slots: int, data: Path, cache: Path, parents: Parents | None = None) -> None:
        self.slots, self.data, self.cache = slots, data.absolute(), cache.absolute()
        self.count, self.own = 0, parents is None
        self.ears: Sequence[socket.socket] = ()  # what else is listened to: `next` returns None when it is heard
        self.parents = Parents() if parents is None else parents
        self.workers = [_Worker(self.parents.take(), slot) for slot in range(slots)]
        for worker in self.workers:
            self._renew(worker)

    def take(self, splits: Splits) -> int:
        write_shared(splits, place_of(self.data, self.count))
        self.count += 1
        return self.count - 1

    def drop(self, splits: int) -> None:
        # workers that still map the files keep them until they open others
        rmtree(place_of(self.data, splits), ignore_errors=True)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self.workers if worker.task is None)
        if self._is_dead(worker):  # which costs no trial anything
            self._renew(worker)
        worker.task, worker.spent = task, task.spent
        if task.config.budget.trial_memory is not None:
            worker.order(LIMIT, float(task.config.budget.trial_memory))
        self._tell(worker, ("start", task))

    def next(self, timeout: float | None = None) -> Event | None:
        until = math.inf if timeout is None else time.monotonic() + timeout
        while busy := sorted((each for each in self.workers if each.task is not None), key=lambda each: each.served):
            event, spoken = self._hear(busy, until)
            if event is not None or spoken or time.monotonic() >= until:
                return event  # of the one that was heard least, so that none waits for a faster one for ever
            for worker in busy:
                if time.monotonic() >= worker.overdue and worker.task is not None:
                    limit = worker.task.config.budget.trial_timeout or 0.0
                    worker.end(f"took longer than {duration(limit)} (--trial-timeout)", GRACE)
        return None

    def _hear(self, busy: Sequence[_Worker], until: float) -> tuple[Event | None, bool]:
        """Wait for news of workers until some time or until one has taken too long; return the event, if it is one, and
        whether something else was heard.
        """
        theirs = (each for worker in busy for each in (worker.parent.control, worker.pipe))
        waits: list[Any] = [*self.ears, *(each for each in theirs if each is not None)]
        until = min(until, *(worker.overdue for worker in busy))
        heard = wait(waits, None if until == math.inf else max(0.0, until - time.monotonic()))
        for worker in busy:
            if worker.parent.control in heard:
                self._read_report(worker)
            if worker.pipe in heard and (event := self._read(worker)) is not None:
                return event, False
            if worker.ended is not None:
                return self._bury(worker), False
        return None, any(ear in heard for ear in self.ears)

    def _read(self, worker: _Worker) -> Event | None:
        """Return the event that came over a pipe, once all of it is there; end a worker whose pipe isn't in order."""
        assert worker.pipe is not None
        assert worker.task is not None
        try:
            some = os.read(worker.pipe.fileno(), 1 << 20)
        except OSError:
            some = b""
        worker.told += some
        try:
            found = _message(worker.told, worker.sign)
        except ValueError:
            found, worker.why = None, worker.why or WROTE
        if not some or worker.why == WROTE:
            worker.pipe.close()  # so that there is no more to hear of it but its end
            worker.pipe = None
            worker.order(SOON, DYING)
            return None
        if found is None or worker.why:
            return None
        seconds, event = found
        worker.served, worker.since, worker.spent = worker.served + 1, None, worker.spent + seconds
        if isinstance(event, Trained):  # what was trained before the trial was cut off counts, too
            worker.spent += sum(epoch.seconds for epoch in event.earlier)
        if not isinstance(event, Trained) and not (isinstance(event, Unsaved) and event.kept):
            self._finish(worker)
        return event

    def _read_report(self, worker: _Worker) -> None:
        """Read what a worker's parent has to say, if it is only that it is no more."""
        try:
            what, life, value, how = REPORT.unpack(worker.parent.control.recv(REPORT.size, socket.MSG_WAITALL))
        except (OSError, struct.error):
            worker.ended = worker.parent.end(), BY_PARENT
            return
        if life == worker.life and what == BORN:
            worker.process = value
        elif life == worker.life:
            worker.ended = value, how

    def _is_dead(self, worker: _Worker) -> bool:
        """Tell whether a worker without a task, or its parent, has died: nobody listens to it."""
        while worker.ended is None and wait([worker.parent.control], 0):
            self._read_report(worker)
        if worker.ended is None and not worker.parent.server.alive:  # which takes its parent along, in a moment
            worker.ended = worker.parent.end(), BY_PARENT
        return worker.ended is not None

    def _bury(self, worker: _Worker) -> Event | None:
        """Replace a worker that died, and say how it died; what it said before comes first."""
        assert worker.ended is not None
        assert worker.task is not None
        while worker.pipe is not None and wait([worker.pipe], 0):
            if (event := self._read(worker)) is not None:
                return event
        (code, how), why, task, parent = worker.ended, worker.why, worker.task, worker.parent
        self._finish(worker)
        if how == BY_MEMORY:
            return Failed(task.number, f"used more than {size_of(task.config.budget.trial_memory)} (--trial-memory)")
        if why or how == BY_ORDER:
            return Failed(task.number, why or CLOSED)
        together = how == BY_PARENT and not parent.server.alive
        return Failed(task.number, f"the worker process died ({cause(code)})", died=True, together=together)

    def _finish(self, worker: _Worker) -> None:
        """Take a worker's task from it, and replace it if it is worn."""
        assert worker.task is not None
        config, worker.task = worker.task.config, None
        if worker.ended is not None or own_code(config) or config.budget.trial_memory is not None:
            self._renew(worker)

    def _renew(self, worker: _Worker) -> None:
        """Have a worker's parent end the one there is, and fork another."""
        if worker.pipe is not None:
            worker.pipe.close()
        if worker.ended is not None and worker.ended[1] == BY_PARENT:
            worker.parent.leave()
            worker.parent = self.parents.take()
        worker.life, worker.ended, worker.why, worker.sign = worker.life + 1, None, "", secrets.token_bytes(16)
        worker.told.clear()
        worker.pipe, theirs = Pipe()
        with theirs, suppress(OSError):
            socket.send_fds(worker.parent.control, [ORDER.pack(BIRTH, worker.life, 0.0)], [theirs.fileno()])
        worker.send((self.data, self.cache, worker.sign, worker.slot))

    def clear(self) -> None:
        busy = [worker for worker in self.workers if worker.task is not None]
        for worker in busy:
            worker.end("was given up")
        for worker in busy:
            while worker.ended is None and wait([worker.parent.control], PATIENCE):
                self._read_report(worker)
            worker.task = None
            self._renew(worker)

    def go(self, number: int) -> None:
        self._tell(self._of(number), ("go",))

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        # absolute: the user's code may have left the folder that relative paths start at
        self._tell(self._of(number), ("stop", save.absolute() if save is not None else None, newest))

    def _of(self, number: int) -> _Worker:
        return next(worker for worker in self.workers if worker.task is not None and worker.task.number == number)

    def _tell(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        worker.since = time.monotonic()
        worker.send(message)

    def close(self) -> None:
        for worker in self.workers:
            self._is_dead(worker)  # what there was to hear of it is heard
            worker.parent.leave()  # it ends its worker, as it would if this process were gone
            if worker.pipe is not None:
                worker.pipe.close()
        if self.own:
            self.parents.close()
            return
        until = time.monotonic() + PATIENCE
        for worker in self.workers:
            if worker.process:  # one that hasn't begun yet has nothing to end
                worker.parent.wait(max(0.0, until - time.monotonic()))


def _message(told: bytearray, sign: bytes) -> tuple[float, Event] | None:
    """Return what a worker said, and the seconds that it took for it; None if not all of it is there yet.

    Raises:
        ValueError: it isn't a worker's.
    """
    if len(told) < SIZE.size:
        return None
    (size,), text = SIZE.unpack_from(told), told[SIZE.size :]
    if not len(sign) <= size <= MOST or len(text) > size or text[: len(sign)] != sign[: len(text)]:
        raise ValueError
    if len(text) < size:
        return None
    told.clear()
    seconds, event = pickle.loads(text[len(sign) :])
    return seconds, event


def main(argv: list[str]) -> None:
    """Fork the parents of workers, told the handle of the socket that orders come over, and who they come from."""
    die_with(int(argv[1]), signal.SIGHUP)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(int(argv[0]), False)
    keep_memory()
    if sys.platform == "linux":  # elsewhere what libraries have begun may not survive a fork
        import_parts()
        gc.freeze()
    serve_forks(socket.socket(fileno=int(argv[0])), int(argv[1]), work)


if __name__ == "__main__":
    from tuner import workers  # messages must name classes of `tuner.workers`, not of `__main__`

    workers.main(sys.argv[1:])
