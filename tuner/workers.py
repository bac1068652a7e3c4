"""An engine that trains in worker processes.

A worker is `python -m tuner.workers`: it maps the shared data, uses one torch thread, and speaks over a pipe of
its own, so that whatever the user's code prints can't disturb it. It dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Self

from tuner.data.shared import open_shared, place_of, write_shared
from tuner.data.splits import Splits
from tuner.engine import Event, Failed, Task, Trained
from tuner.space import Space, own_families
from tuner.tasks import TaskRun, attempt, ending

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    task: Task | None = None
    served: int = 0


def _spawn() -> _Worker:
    ours, theirs = Pipe()
    handle = theirs.fileno()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tuner.workers", str(handle), str(os.getpid())],
        pass_fds=[handle], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )  # fmt: skip
    theirs.close()
    return _Worker(process, ours)


class Spares:
    """Worker processes that start before it is known on which data: starting takes as long as reading these does."""

    def __init__(self, count: int = 0) -> None:
        self.workers = [_spawn() for _ in range(count)]

    def take(self) -> _Worker:
        """Return one of them, or a new one."""
        return self.workers.pop() if self.workers else _spawn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self.workers)


def processes(space: Space, trials: int) -> int:
    """Return how many processes train so many trials; none, if the one that judges does. Code of the user's own trains
    in a process of its own, where it can end nothing but a trial.
    """
    count = min(space.config.budget.workers, max(1, trials))
    return 0 if count == 1 and not own_families(space) else count


def early(space: Space) -> Spares:
    """Start the workers of a study before its data are read; hold them in a `with` statement until it has ended."""
    return Spares(processes(space, space.config.budget.trials))


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
        worker.pipe.close()


class Processes:
    """Trains in `slots` worker processes that map the data in one folder; a worker that died is replaced.

    Features are kept in `cache`, for all of them. The first workers are taken from `spares`.
    """

    def __init__(self, slots: int, data: Path, cache: Path, spares: Spares | None = None) -> None:
        self.slots, self.data, self.cache = slots, data.absolute(), cache.absolute()
        self.count, self.spares = 0, spares or Spares()
        self.workers = [self._hired() for _ in range(slots)]

    def _hired(self) -> _Worker:
        worker = self.spares.take()
        self._send(worker, (self.data, self.cache))
        return worker

    def take(self, splits: Splits) -> int:
        write_shared(splits, place_of(self.data, self.count))
        self.count += 1
        return self.count - 1

    def drop(self, splits: int) -> None:
        # workers that still map the files keep them until they open others
        shutil.rmtree(place_of(self.data, splits), ignore_errors=True)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self.workers if worker.task is None)
        worker.task = task
        self._send(worker, ("start", task))

    def next(self, timeout: float | None = None) -> Event | None:
        busy = {worker.pipe: worker for worker in self.workers if worker.task is not None}
        ready = [busy[pipe] for pipe in wait(list(busy), timeout)]  # type: ignore[index]
        if not ready:
            return None
        worker = min(ready, key=lambda each: each.served)  # so that none waits for a faster one for ever
        worker.served += 1
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if not isinstance(event, Trained):
            worker.task = None
        return event

    def _bury(self, worker: _Worker) -> Failed:
        """Replace a worker that died, and say how it died."""
        assert worker.task is not None
        code, number = worker.process.wait(), worker.task.number
        self._replace(worker)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = "; out of memory?" if code == -signal.SIGKILL else ""
        return Failed(number, f"the worker process died ({how}{memory})", died=True)

    def _replace(self, worker: _Worker) -> None:
        worker.process.wait()
        worker.pipe.close()
        self.workers[self.workers.index(worker)] = self._hired()

    def clear(self) -> None:
        for worker in [worker for worker in self.workers if worker.task is not None]:
            worker.process.kill()
            self._replace(worker)

    def go(self, number: int) -> None:
        self._send(self._of(number), ("go",))

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        # absolute: the user's code may have left the folder that relative paths start at
        self._send(self._of(number), ("stop", save.absolute() if save is not None else None, newest))

    def _of(self, number: int) -> _Worker:
        return next(worker for worker in self.workers if worker.task is not None and worker.task.number == number)

    def _send(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        with suppress(OSError):  # it died; `next` finds out from the closed pipe
            worker.pipe.send(message)

    def close(self) -> None:
        _end(self.workers)


def serve(pipe: Connection, splits_of: Callable[[int], Splits], cache: Path | None = None) -> None:
    """Train the tasks that come over the pipe; features are kept in `cache`, where other workers find them.

    Raises:
        EOFError, ConnectionError: the other end is closed.
    """
    run: TaskRun | None = None
    while True:
        word, *rest = pipe.recv()
        if word == "start":
            task: Task = rest[0]

            def first(task: Task = task) -> Trained:
                nonlocal run
                run = TaskRun(task, splits_of(task.splits), cache)
                return run.first()

            pipe.send(attempt(first, task.number))
        elif word == "go" and run is not None:
            pipe.send(attempt(run.step, run.task.number))
        elif word == "stop" and run is not None:
            pipe.send(ending(run, *rest))
            run = None


def keep_memory() -> None:
    """Have the C library keep what is freed, so that a process holds as much at its end as it did at its most.

    The results of large layers are made anew in every step, and of memory that was given back in between the kernel
    clears each page again: a quarter of the time of a convolutional network's step.
    """
    with suppress(OSError, AttributeError):  # there is no such call but in glibc
        options = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20)):
            options(option, value)


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent ends; where it can't, the closed pipe does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(argv: list[str]) -> None:
    """Run one worker, told the pipe's handle and the parent's process. The first thing that comes over the pipe are the
    folders of the shared data and of features.
    """
    _die_with(int(argv[1]))
    keep_memory()
    os.set_inheritable(int(argv[0]), False)  # a program that the user's code starts must not hold the pipe open
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    import tuner.training  # noqa: F401  # before there is anything to do: it takes a second

    torch.set_num_threads(1)
    pipe = Connection(int(argv[0]))
    with suppress(EOFError, ConnectionError):  # whoever judges is gone
        data, cache = pipe.recv()
        # Only the newest are kept open: what all that came before has been read of would stay in memory.
        newest = lru_cache(maxsize=1)(lambda number: open_shared(place_of(data, number)))
        serve(pipe, newest, cache)


if __name__ == "__main__":
    from tuner import workers  # messages must name classes of `tuner.workers`, not of `__main__`

    workers.main(sys.argv[1:])
