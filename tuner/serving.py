"""A worker's side of the pipe: tasks come over it and events go back, whatever the user's code does to this process.

Decides what is put in order between two orders, and who may speak: the process that the pipe was given to, through the
very file that it was. Knows nothing of other workers, nor who forked this one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuner.data.shared import open_shared, place_of
from tuner.data.splits import Splits
from tuner.engine import Event, Failed, Task, Trained, Unsaved
from tuner.own_code import one_line
from tuner.tasks import TaskRun, attempt, ending

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
WAITS = 30.0  # seconds for being ended


class Line:
    """A worker's end of its pipe: for the process that it was given to alone, and as long as it is there.

    The user's code may have closed it, so that its number is another file's; or it may have forked, and come back here
    in a process that nobody waits for.
    """

    def __init__(self, handle: int) -> None:
        self.pipe, self.owner, self.file = Connection(handle), os.getpid(), _file(handle)
        self.sign = b""
        os.register_at_fork(after_in_child=self._drop)

    def _drop(self) -> None:
        with suppress(OSError):
            if _file(self.pipe.fileno()) == self.file:
                os.close(self.pipe.fileno())

    def _check(self) -> None:
        if os.getpid() != self.owner:
            os._exit(0)
        if _file(self.pipe.fileno()) != self.file:
            time.sleep(WAITS)  # whoever judges has seen that it was closed, and has this process ended
            os._exit(1)

    def receive(self) -> Any:
        self._check()
        return self.pipe.recv()

    def send(self, seconds: float, event: Event) -> None:
        self._check()
        self.pipe.send_bytes(self.sign + pickle.dumps((seconds, event)))


def _file(handle: int) -> tuple[int, int] | None:
    """Return what a handle stands for."""
    try:
        found = os.fstat(handle)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def serve(line: Line, splits_of: Callable[[int], Splits], cache: Path | None = None) -> None:
    """Train the tasks that come over the line; features are kept in `cache`, where other workers find them.

    Raises:
        EOFError, ConnectionError: the other end is closed.
    """
    run: TaskRun | None = None
    while True:
        word, *rest = line.receive()
        began = time.monotonic()
        _open_standard_files()
        if word == "start":
            task: Task = rest[0]

            def first(task: Task = task) -> Trained:
                nonlocal run
                run = TaskRun(task, splits_of(task.splits), cache)
                return run.first()

            event = attempt(first, task.number)
        elif word == "go" and run is not None:
            event = attempt(run.step, run.task.number)
        elif word == "stop" and run is not None:
            event = _ending(run, *rest)
            run = run if isinstance(event, Unsaved) else None
        else:
            continue
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):  # it may be anything: what the user's code left there
                stream.flush()
        line.send(time.monotonic() - began, event)


def _ending(run: TaskRun, save: Path | None, newest: bool) -> Event:
    try:
        return ending(run, save, newest)
    except BaseException as error:  # the network's own code may raise what it likes
        return Failed(run.task.number, one_line(error))


def _open_standard_files() -> None:
    """Open those of the first three files that the user's code closed: what is opened next, such as a network's file,
    would be one of them, and be written into by whatever prints.
    """
    for handle in range(3):
        if _file(handle) is None:
            os.open(os.devnull, os.O_RDWR)


def keep_memory() -> None:
    """Have the C library keep what is freed, so that a process holds as much at its end as it did at its most.

    The results of large layers are made anew in every step, and of memory that was given back in between the kernel
    clears each page again: a quarter of the time of a convolutional network's step.
    """
    with suppress(OSError, AttributeError):  # there is no such call but in glibc
        options = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20)):
            options(option, value)


def work(handle: int) -> None:
    """Be a worker, told its pipe's handle. The first thing that comes over the pipe are the folders of the shared data
    and of features, and what opens each message.
    """
    # no program that the user's code starts may hold the pipe open, and who closes all files stops at some number
    high = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _high())
    os.close(handle)
    line = Line(high)
    with suppress(EOFError, ConnectionError):  # whoever judges is gone
        data, cache, line.sign, slot = line.receive()
        import_parts()
        from tuner.devices import take_turn

        take_turn(slot)
        # Only the newest are kept open: what all that came before has been read of would stay in memory.
        newest = lru_cache(maxsize=1)(lambda number: open_shared(place_of(data, number)))
        serve(line, newest, cache)


def _high() -> int:
    """Return a number for a file that is larger than others have, if there may be such a one."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 3 if most == resource.RLIM_INFINITY else max(3, min(most, 4096) - 16)


def import_parts() -> None:
    """Import what a worker needs, whatever its tasks are: it takes seconds."""
    import torch

    import tuner.training
    import tuner.weights  # noqa: F401
    from tuner.data import image, sequence, table, text  # noqa: F401

    torch.set_num_threads(1)
