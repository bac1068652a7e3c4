"""A task, trained step by step in this process; and the engine that needs no other one.

Decides what a run of a task keeps (the weights of its best epoch) and what becomes of an error in it. Whoever holds a
run says when it goes on and when it ends. Knows nothing of worker processes.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tuner.curve import Epoch
from tuner.data.splits import Splits
from tuner.engine import Ended, Event, Failed, Task, Trained, Unsaved
from tuner.errors import PassingError, StorageError, TunerError, no_room
from tuner.faults import point
from tuner.own_code import one_line


class TaskRun:
    """One task being trained, and the weights of its best epoch so far."""

    def __init__(self, task: Task, splits: Splits, cache: Path | None = None) -> None:
        import torch

        from tuner.training import train

        # code of the user's may have changed it in an earlier trial: a trial is the same whatever ran before it
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        self.task = task
        self.epochs = train(task.config, splits, task.seed, task.folder, cache)
        self.weights: dict[str, Any] = {}
        self.examples: Any = None
        self.network: Any = None

    def step(self) -> Epoch:
        point("before_epoch")
        epoch, self.network, examples = next(self.epochs)
        if epoch.standing.best == epoch.number:
            self.examples = examples
            self.weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        return epoch

    def end(self, save: Path | None, newest: bool) -> Ended:
        from tuner.metrics import packed
        from tuner.models import count_parameters
        from tuner.weights import sparsity, write_weights

        if not newest:
            self.network.load_state_dict(self.weights)
        if save is not None:
            write_weights(self.network, save)
        facts = {"parameters": count_parameters(self.network), "sparsity": round(sparsity(self.network), 6)}
        self.close()
        return Ended(self.task.number, facts, packed(self.examples))

    def close(self) -> None:
        self.epochs.close()  # type: ignore[attr-defined]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) if isinstance(error, TunerError) else one_line(error)


def attempt(run: Callable[[], Epoch], number: int) -> Event:
    """Return what became of one step; whatever the user's code raises ends the trial and nothing else."""
    try:
        return Trained(number, run())
    except StorageError as error:
        return Unsaved(number, str(error), passing=isinstance(error, PassingError))
    except BaseException as error:  # also SystemExit, and KeyboardInterrupt where Ctrl-C raises none
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            raise
        return Failed(number, _line(error))


def ending(run: TaskRun, save: Path | None, newest: bool) -> Event:
    """Return what became of a trial's end."""
    try:
        return run.end(save, newest)
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or error
        what = f"the weights of trial {run.task.number} can't be written: {save}: {said}"
        return Unsaved(run.task.number, what, passing=no_room(error), kept=True)
    except (Exception, SystemExit) as error:
        return Failed(run.task.number, _line(error))


class InProcess:
    """Trains one task at a time in this process, with one torch thread; features are kept in `cache`."""

    slots = 1

    def __init__(self, cache: Path | None = None) -> None:
        import torch

        self.splits: dict[int, Splits] = {}
        self.count = 0
        self.cache = cache
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.run: TaskRun | None = None
        self.events: deque[Event] = deque()

    def take(self, splits: Splits) -> int:
        self.splits[self.count] = replace(splits, test=None)
        self.count += 1
        return self.count - 1

    def drop(self, splits: int) -> None:
        del self.splits[splits]

    def start(self, task: Task) -> None:
        def first() -> Epoch:
            self.run = TaskRun(task, self.splits[task.splits], self.cache)
            return self.run.step()

        self.events.append(attempt(first, task.number))

    def next(self, timeout: float | None = None) -> Event | None:
        return self.events.popleft() if self.events else None

    def go(self, number: int) -> None:
        assert self.run is not None
        self.events.append(attempt(self.run.step, number))

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        assert self.run is not None
        self.events.append(ending(self.run, save, newest))

    def clear(self) -> None:
        self.events.clear()
        if self.run is not None:
            self.run.close()

    def close(self) -> None:
        import torch

        self.clear()
        torch.set_num_threads(self.threads)
