"""A training loop of the user's own, as a generator of epochs like `training.train`: `training.loop: my_pkg.train:fit`.

    def fit(run):
        model = run.build_model().to(run.device)
        optimizer = torch.optim.Adam(model.parameters(), run.config.training.learning_rate)
        run.checkpoint(model, optimizer=optimizer)
        for epoch in range(run.resume(), run.config.training.epochs):
            ...
            if run.report(train=train_loss, val=val_loss):
                break

The function runs in a thread of its own, in turns with the one who judges: while it waits in `report` nothing else of
it happens, so that its epochs are judged, kept and resumed as those of tuner's own loop are. Decides what a loop has to
tell, and what becomes of that. Never heard of trials, studies or verdicts.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.checkpoint import State
from tuner.config import RunConfig
from tuner.course import NONE, Course, Floats, mean_and_error
from tuner.curve import Measure, rounded
from tuner.data.splits import Part, Shape, Splits, Standard
from tuner.devices import device_of, steady
from tuner.errors import UsageError
from tuner.measuring import input_of, measure, training_probe
from tuner.models import build_model
from tuner.own_code import blaming, caller, check_signature, definition, fault, find_own
from tuner.own_metric import own_metric
from tuner.packing import packed, unpacked
from tuner.remembering import Chance
from tuner.scoring import CLASSIFICATION, LOSS, LOWER_IS_BETTER, PER_NULL_LOSS, metric_of
from tuner.training import Moment

LAST = 5.0  # seconds for a loop that was told that its run is over
LOSS_NAME = "loss"
RATES = tuple(name for name in CLASSIFICATION if name not in LOWER_IS_BETTER)
Figure = float | Tensor | Floats
Figures = Figure | Mapping[str, Figure]


class Examples(Dataset[tuple[Tensor, Tensor]]):
    """Rows of the data as a model takes them, for a DataLoader or as a whole; copies of them, which may be changed.

    `examples[i]` is one example and its target; of a slice or an array of row numbers x is (n, *shape.input), float32
    and standardized (texts are int64 token numbers), and y is (n,): int64 class numbers, or the float32 standardized
    target.
    """

    def __init__(self, part: Part, standard: Standard, rows: NDArray[np.int64] | None = None) -> None:
        self._part, self._prepare = part, input_of(standard)
        self._rows = np.arange(len(part)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        if isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there is no row {rows}; there are {len(self)}")
            x, y = self[np.array([rows])]
            return x[0], y[0]
        # an array of them, so that what is taken is a copy
        places = self._rows[rows.numpy() if isinstance(rows, Tensor) else rows]
        return self._prepare(torch.from_numpy(self._part.x[places])), torch.from_numpy(self._part.y[places])


class Run:
    """What a loop of the user's own trains, and whom it tells.

    `config` is the configuration, `seed` the trial's: torch's generators, NumPy's and Python's have been
    seeded by it. `train` and `val` are the training and validation rows, drawn anew for each run of a confirmation,
    `probe` as many of the training rows, by which train is measured as validation is, and `shape` says what they look
    like. `device` is where to train.
    """

    def __init__(self, config: RunConfig, splits: Splits, seed: int, folder: Path | None, turns: _Turns) -> None:
        self.config, self.seed = config, seed
        self.device = device_of(config, splits)
        standard = splits.encoder.standard
        self.train, self.val = Examples(splits.train, standard), Examples(splits.val, standard)
        self.probe = Examples(splits.train, standard, training_probe(splits) if len(splits.val) else None)
        self._splits, self._folder, self._turns = splits, folder, turns
        self._telling = _Telling(config, splits, folder)
        self._objects: dict[str, Any] = {}
        self._model: nn.Module | None = None
        self._asked = False

    @property
    def shape(self) -> Shape:
        """What a model of the rows has to take and to return."""
        return self._splits.shape

    def build_model(self) -> nn.Module:
        """Return an untrained network of the family and size that the configuration names.

        Raises:
            UsageError: the family doesn't take such data, or these are the loop's own.
        """
        if self.shape.kind == "none":
            raise UsageError("run.build_model: nothing is known of the loop's own data; build the model in the loop")
        return build_model(self.config, self.shape, self._folder, self._splits.encoder.standard)

    def checkpoint(self, model: nn.Module | None = None, **others: Any) -> None:
        """Say once what the run's state is: its model, whose weights are kept as they are at the best epoch, and all
        else that has a `state_dict` and a `load_state_dict`, such as optimizers and schedules.

        Raises:
            TypeError: something has neither.
            RuntimeError: `resume` was called before.
        """
        if self._asked:
            raise RuntimeError("run.checkpoint: comes before run.resume, which puts into their state what it names")
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"run.checkpoint: model is a {type(model).__name__}, not a torch.nn.Module")
        self._model, self._objects = model, {**({} if model is None else {"model": model}), **others}
        for name, each in self._objects.items():
            if not (callable(getattr(each, "state_dict", None)) and callable(getattr(each, "load_state_dict", None))):
                raise TypeError(
                    f"run.checkpoint: {name} is a {type(each).__name__}, which has no state_dict and load_state_dict"
                )

    def resume(self) -> int:
        """Put what `checkpoint` named into the state in which an earlier run of this trial was cut off, if there is
        one; return how many epochs are done. A loop that never asks begins at its start after a kill.

        Raises:
            RuntimeError: nothing was named, or it was asked before.
        """
        if self._asked or not self._objects:
            what = "was called before" if self._asked else "needs to know of what; say run.checkpoint(...) before"
            raise RuntimeError(f"run.resume: {what}")
        self._asked = True
        return int(self._turns.say(_Resuming()))

    def report(self, train: Figures | None = None, val: Figures | None = None) -> bool:
        """Tell how an epoch went; return whether the run is over.

        Args:
            train, val: the loss on training and validation rows, measured alike: in evaluation mode, on clean examples.
                Each is one number, or the losses of all examples (n,), by whose spread it is known what is noise; or a
                mapping of `loss` and of metrics by their names. Without both, tuner measures the model itself.

        Raises:
            UserCodeError: what is told can't be.
        """
        return bool(self._turns.say(_Reported(*self._telling.read(train, val, self._model))))


class _Reported(NamedTuple):
    """Measures of train and validation, the losses of their examples, and what each validation example counts."""

    train: Measure
    val: Measure
    losses: tuple[Floats, Floats]
    counted: Floats


class _Resuming(NamedTuple):
    pass


class _Returned(NamedTuple):
    pass


class _Turns:
    """A function in a thread of its own, in turns with the one who listens: one of both waits at any time."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function, self.process = function, os.getpid()
        self.said, self.answers = SimpleQueue[Any](), SimpleQueue[Any]()
        self.thread: threading.Thread | None = None
        self.over = False

    def say(self, what: Any) -> Any:
        """Say something, in the function's thread, and wait for the answer."""
        if os.getpid() != self.process or threading.current_thread() is not self.thread:
            raise RuntimeError("run: may be told by the very thread that the loop was called in alone, and by no other")
        if self.over:
            raise RuntimeError("the run is over, as run.report has said")
        self.said.put(what)
        return self.answers.get()

    def _work(self) -> None:
        torch.set_num_threads(1)  # which a thread has for itself
        try:
            self.function()
            self.said.put(_Returned())
        except BaseException as error:
            self.said.put(error)

    def next(self, answer: Any) -> Any:
        """Let the function begin, or go on with an answer; return what it says next, or raise what it raises."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, name="training.loop", daemon=True)
            self.thread.start()
        else:
            self.answers.put(answer)
        said = self.said.get()
        if isinstance(said, BaseException):
            raise said
        return said

    def end(self) -> None:
        """Let the function come to its end: whatever it says now, its run is over."""
        self.over = True
        self.answers.put(True)
        if self.thread is not None:
            self.thread.join(LAST)


def train_own(
    config: RunConfig, splits: Splits, seed: int, folder: Path | None = None, resumed: State | None = None
) -> Iterator[Moment]:
    """Yield each epoch that the loop of the user's own reports, as `training.train` does.

    Raises:
        UserCodeError: the loop fails, returns before it is told to, or tells what can't be.
        KeyError: the state that is to be resumed is of another loop.
    """
    loop, label = check_loop(config, folder), f"training.loop {config.training.loop}"
    course, counted, resumes = Course(config.training.epochs), NONE, False

    def call() -> None:
        with blaming(label, definition(loop)):
            loop(run)

    turns, answer = _Turns(call), 0
    run = Run(config, splits, seed, folder, turns)
    chance = Chance(seed, run.device)

    def state() -> State:
        return _state(run, course, counted, chance)

    try:
        while True:
            started = time.perf_counter()
            # also of what the loop draws before it says anything
            with chance.lent(), steady(run.device, strict=False):
                said = turns.next(answer)
            if isinstance(said, _Returned):
                what = f"returned after epoch {len(course.epochs)} of {course.budget}; it goes on until run.report says"
                what += " that it is over, which the study's rules decide"
                raise fault(label, what, definition(loop))
            if isinstance(said, _Resuming):
                resumes = True
                if resumed is not None:
                    _put_back(resumed, run, chance)
                    counted = resumed.tensors["more.counted"].numpy()
                    course = Course(course.budget, resumed.epochs, resumed.tensors["more.best"].numpy())
                    yield Moment(course.epochs[-1], run._model, counted, state)
                answer = len(course.epochs)
                continue
            if resumed is not None and not resumes:
                raise KeyError("the loop never asks to be resumed")
            counted = said.counted
            epoch = course.then(said.train, said.val, said.losses, time.perf_counter() - started)
            yield Moment(epoch, run._model, counted, state if resumes else None)
            answer = False
    finally:
        with chance.lent():
            turns.end()


def check_loop(config: RunConfig, folder: Path | None) -> Callable[[Run], object]:
    """Return the loop of the user's own that a configuration names.

    Raises:
        UserCodeError: it isn't there, or can't be called with a run.
    """
    label = f"training.loop {config.training.loop}"
    loop = find_own(str(config.training.loop), folder, label, "a function (run)")
    check_signature(label, loop, ("run",))
    if inspect.isgeneratorfunction(loop):
        raise fault(label, "is a generator; it calls run.report where it yields", definition(loop))
    return loop


class _Telling:
    """How what a loop reports becomes measures."""

    def __init__(self, config: RunConfig, splits: Splits, folder: Path | None) -> None:
        self.config, self.splits, self.label = config, splits, f"training.loop {config.training.loop}"
        self.task = splits.shape.task
        self.metric, self.own = metric_of(config.score, self.task), own_metric(config, folder)
        self.names: set[str] | None = None

    def fault(self, reason: str) -> Exception:
        return fault(self.label, f"run.report: {reason}", caller())

    def read(
        self, train: Figures | None, val: Figures | None, model: nn.Module | None
    ) -> tuple[Measure, Measure, tuple[Floats, Floats], Floats]:
        """Return the measures of train and validation, the losses of their examples, and what each validation example
        counts in the score.

        Raises:
            UserCodeError: something isn't there, or not what it has to be.
        """
        if train is None and val is None:
            return self._measured(model)
        if train is None or val is None:
            raise self.fault("needs both train and val, or neither, and then tuner measures the model")
        of_train, train_losses = self._figures(train, "train")
        of_val, val_losses = self._figures(val, "val")
        names = set(of_val.metrics)
        if names != set(of_train.metrics) or names != (self.names or names):
            told = sorted(names ^ set(of_train.metrics)) or sorted(names ^ (self.names or names))
            raise self.fault(f"{', '.join(told)} isn't told each time, of train and of val alike")
        self.names = names
        return of_train, of_val, (train_losses, val_losses), val_losses if self.metric in PER_NULL_LOSS else NONE

    def _measured(self, model: nn.Module | None) -> tuple[Measure, Measure, tuple[Floats, Floats], Floats]:
        if not len(self.splits.val):
            raise self.fault("needs train and val, since the data are the loop's own")
        if model is None:
            raise self.fault("without figures tuner measures the model; say run.checkpoint(model) before")
        splits, config, probe = self.splits, self.config, training_probe(self.splits)
        train, train_losses, _ = measure(model, splits.train, splits, config, probe, self.own)
        val, val_losses, counted = measure(model, splits.val, splits, config, None, self.own)
        return train, val, (train_losses, val_losses), counted

    def _figures(self, given: Figures, part: str) -> tuple[Measure, Floats]:
        """Return a part's measure, and the losses of its examples if they were told."""
        figures = dict(given) if isinstance(given, Mapping) else {LOSS_NAME: given}
        arrays = {str(name): self._numbers(value, f"{part} {name}") for name, value in figures.items()}
        if LOSS_NAME not in arrays:
            raise self.fault(f"{part} has no {LOSS_NAME}, by which epochs are judged")
        if (twice := LOSS[self.task]) in arrays:
            raise self.fault(f"{part} has {twice} beside {LOSS_NAME}, which is shown by that name; tell one of them")
        losses = arrays.pop(LOSS_NAME)
        loss, metrics = rounded(float(losses.mean())), {name: float(each.mean()) for name, each in arrays.items()}
        if wrong := [name for name in RATES if not 0 <= metrics.get(name, 0) <= 1]:
            raise self.fault(f"{part} {wrong[0]} is {metrics[wrong[0]]:g}; it goes from 0 to 1")
        if self.task == "regression":
            metrics[LOSS[self.task]] = loss
        if self.metric != LOSS[self.task] and self.metric not in metrics:
            raise self.fault(
                f"the score is by {self.metric}, which {part} doesn't have; tell it beside the loss, as "
                f"{part}={{'loss': ..., '{self.metric}': ...}}"
            )
        own = arrays.get(self.metric, NONE)
        error = mean_and_error(own)[1] if own.ndim else 0.0
        plain = {name: rounded(value) for name, value in metrics.items()}
        return Measure(loss, plain, rounded(error)), losses if losses.ndim and len(losses) > 1 else NONE

    def _numbers(self, value: Figure, what: str) -> Floats:
        """Return one number (), or those of all examples (n,)."""
        try:
            found: Any = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else value
            numbers = np.array(found, dtype=np.float64)  # a copy: the loop may use its array again
        except (TypeError, ValueError, RuntimeError):
            raise self.fault(f"{what} is a {type(value).__name__}, not a number or an array of them") from None
        if not numbers.size:
            raise self.fault(f"{what} is empty")
        return numbers.ravel() if numbers.ndim else numbers


def _state(run: Run, course: Course, counted: Floats, chance: Chance) -> State:
    """Return the state of a run whose loop waits in `report`."""
    tensors = {
        "objects": packed({name: each.state_dict() for name, each in run._objects.items()}),
        **chance.tensors, "more.best": torch.from_numpy(course.best).clone(),
        "more.counted": torch.from_numpy(counted).clone(),
    }  # fmt: skip
    return State(course.budget, tuple(course.epochs), tensors, {"chance": chance.facts()})


def _put_back(state: State, run: Run, chance: Chance) -> None:
    """Put all that a loop has named into the state that it had.

    Raises:
        KeyError: it is of another loop.
    """
    try:
        read = unpacked(state.tensors["objects"], run.device)
        if set(read) == set(run._objects):
            for name, each in run._objects.items():
                each.load_state_dict(read[name])
            chance.put_back(state.tensors, state.facts["chance"])
            return
    except Exception as error:  # whatever the user's objects say to it
        raise KeyError(f"the state can't be put back: {error}") from error
    raise KeyError("the state is of another loop")
