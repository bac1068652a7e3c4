"""A task, trained step by step in this process; and the engine that needs no other one.

Decides what a run of a task keeps (the weights of its best epoch; about once a second its state, so that it can go on
after a kill) and what becomes of an error in it. Whoever holds a run says when it goes on and when it ends. Knows
nothing of worker processes.
"""

from __future__ import annotations

import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from tuner.checkpoint import State, key_of, read_state, write_state
from tuner.curve import Epoch
from tuner.data.splits import Splits
from tuner.engine import Ended, Event, Failed, Task, Trained, Unsaved
from tuner.errors import PassingError, StorageError, TunerError, no_room
from tuner.faults import point
from tuner.own_code import one_line
from tuner.record import REBUILT

if TYPE_CHECKING:
    from tuner.training import Moment

# between two times that a state is kept: at least so many seconds, and times what keeping the first one took
STATE_SECONDS, STATE_RATIO = 1.0, 20.0
LIKE = 64  # examples for which two networks that are one say the same
KEPT = "kept."  # before the names of the weights of the best epoch


class TaskRun:
    """One task being trained, and the weights of its best epoch so far; from where it was cut off, if it was."""

    def __init__(self, task: Task, splits: Splits, cache: Path | None = None) -> None:
        import torch

        # code of the user's may have changed it in an earlier trial: a trial is the same whatever ran before it
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        self.task, self.splits, self.cache = task, splits, cache
        # code of the user's may change the folder that a relative path starts at
        self.state = task.state.absolute() if task.state is not None else None
        self.key = key_of(task.config, task.seed, splits, task.folder) if task.state is not None else ""
        self.weights: dict[str, Any] = {}
        self.examples: Any = None
        self.network: Any = None
        self.resume = read_state(self.key, task.state) if task.state is not None else None
        self.epochs = self._train()
        self.due = time.monotonic() + STATE_SECONDS

    def _train(self) -> Iterator[Moment]:
        from tuner.training import train

        if self.task.config.training.loop is not None:
            from tuner.looping import train_own

            return train_own(self.task.config, self.splits, self.task.seed, self.task.folder, self.resume)
        return train(self.task.config, self.splits, self.task.seed, self.task.folder, self.cache, self.resume)

    def first(self) -> Trained:
        """Train the first epoch, or go back to the newest one that was kept."""
        state = self.resume
        if state is None:
            return Trained(self.task.number, self.step())
        try:
            moment = next(self.epochs)
            self.weights = {
                name.removeprefix(KEPT): value for name, value in state.tensors.items() if name.startswith(KEPT)
            }
            self.examples = state.tensors["examples"].numpy()
        except KeyError:  # the model isn't what it was
            self.resume = None
            self.epochs = self._train()
            return self.first()
        self._take(moment)
        return Trained(self.task.number, moment.epoch, state.epochs[:-1])

    def step(self) -> Epoch:
        """Train an epoch."""
        point("before_epoch")
        moment = next(self.epochs)
        self._take(moment)
        if self.state is not None and moment.state is not None and time.monotonic() >= self.due:
            self._keep(moment.state, self.state)
        return moment.epoch

    def _take(self, moment: Moment) -> None:
        self.network = moment.network
        if moment.epoch.standing.best == moment.epoch.number:
            self.examples = moment.counted
            state = {} if self.network is None else self.network.state_dict()
            self.weights = {name: value.clone() for name, value in state.items()}

    def _keep(self, made: Callable[[], State], path: Path) -> None:
        """Keep the state of the run: at most about once a second, and for a twentieth of the time."""
        import torch

        began = time.monotonic()
        more = {f"{KEPT}{name}": value.contiguous() for name, value in self.weights.items()}
        more["examples"] = torch.from_numpy(self.examples)
        # where it can't be made, which code of the user's may be the reason for, or can't be written, nothing is lost
        # but the time to train it again
        with suppress(Exception):
            state = made()
            write_state(replace(state, tensors={**state.tensors, **more}), self.key, path)
        now = time.monotonic()
        self.due = now + max(STATE_SECONDS, STATE_RATIO * (now - began))

    def end(self, save: Path | None, newest: bool) -> Ended:
        """Save the weights of the best epoch, or the newest one's, if they are to be saved; tell of them."""
        from tuner.metrics import packed
        from tuner.models import count_parameters
        from tuner.weights import sparsity, write_weights

        facts, weights = dict[str, float](), ""
        if self.network is not None:
            if not newest:
                self.network.load_state_dict(self.weights)
            weights = write_weights(self.network, save)
            facts = {"parameters": count_parameters(self.network), "sparsity": round(sparsity(self.network), 6)}
        if self.task.config.training.loop is not None:
            facts[REBUILT] = float(self.network is not None and self._is_rebuilt())
        self.close()
        return Ended(self.task.number, facts, packed(self.examples), weights)

    def _is_rebuilt(self) -> bool:
        """Tell whether the network of a loop of the user's own is one that the configuration builds, too."""
        from tuner.models import build_model

        if not len(self.splits.val):
            return False
        from tuner.measuring import predict

        shape, standard = self.splits.shape, self.splits.encoder.standard
        try:
            built = build_model(self.task.config, shape, self.task.folder, standard)
            built.load_state_dict({name: value.cpu() for name, value in self.network.state_dict().items()})
        except (TunerError, RuntimeError):
            return False
        # the same weights may be those of another function
        some = self.splits.val.x[:LIKE]
        one, other = (predict(each, some, standard, shape.task) for each in (self.network, built))
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))

    def close(self) -> None:
        """Give it up."""
        self.epochs.close()  # type: ignore[attr-defined]
        self.network, self.weights = None, {}
        _give_back()


def _line(error: BaseException) -> str:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        said = re.sub(r"^.*?out of memory\.\s*", "", " ".join(str(error).split()))[:160]
        return f"the GPU has no room for it ({said}); smaller batches, a smaller network or fewer workers need less"
    return " ".join(str(error).split()) if isinstance(error, TunerError) else one_line(error)


def attempt(run: Callable[[], Epoch | Trained], number: int) -> Event:
    """Return what became of one step; whatever the user's code raises ends the trial and nothing else."""
    try:
        done = run()
        return done if isinstance(done, Trained) else Trained(number, done)
    except StorageError as error:
        return Unsaved(number, str(error), passing=isinstance(error, PassingError))
    except BaseException as error:  # also SystemExit, and KeyboardInterrupt where Ctrl-C raises none
        told = isinstance(error, KeyboardInterrupt)  # by Ctrl-C, or by a signal that ends the run as that does
        if told and (type(error) is not KeyboardInterrupt or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN):
            raise
        failed = Failed(number, _line(error))
    _give_back()  # when the error is gone, which held what the step had made
    return failed


def _give_back() -> None:
    from tuner.devices import give_back

    give_back()


def ending(run: TaskRun, save: Path | None, newest: bool) -> Event:
    """Return what became of a trial's end."""
    try:
        return run.end(save, newest)
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or error
        what = f"weights can't be written: {save}: {said}"
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
        def first() -> Trained:
            self.run = TaskRun(task, self.splits[task.splits], self.cache)
            return self.run.first()

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
