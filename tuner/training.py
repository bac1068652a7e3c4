"""train(): one run of one configuration, as a generator of epochs. The only training loop of tuner's own.

Decides how train and validation are measured: alike, in eval mode, on clean examples, with the very weights that would
be exported. What is learned from is `feeding`'s, what a step does `updating`'s. Never heard of trials, studies or
verdicts: whoever iterates decides when to stop, and copies the weights it wants to keep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tuner.checkpoint import State
from tuner.config import RunConfig, own_code
from tuner.course import Course
from tuner.curve import Epoch
from tuner.data.splits import Splits
from tuner.devices import Draws, device_of, steady
from tuner.features import with_features
from tuner.feeding import Batches
from tuner.measuring import measure, training_probe
from tuner.models import build_model
from tuner.own_metric import own_metric
from tuner.remembering import Chance, Memory
from tuner.updating import Average, Step


class Moment(NamedTuple):
    """A run after an epoch: the network that it was measured on (its running average if `training.ema`; None if a loop
    of the user's own doesn't name it), what each validation example (n,) counts in the score, and what makes the state
    to go on from (None if there is no way to go on).
    """

    epoch: Epoch
    network: nn.Module | None
    counted: NDArray[np.float64]
    state: Callable[[], State] | None


def train(
    config: RunConfig,
    splits: Splits,
    seed: int,
    folder: Path | None = None,
    cache: Path | None = None,
    resumed: State | None = None,
) -> Iterator[Moment]:
    """Yield each epoch as a moment; of a run that is resumed first the newest one of its state, once more.

    The network is the caller's to read until the next epoch is asked for, and until then a state can be made. The same
    seed, data, versions, device and number of threads give the same weights, byte for byte, resumed or not. Of a
    network with a frozen part it is the rest, trained on features that are kept in `cache`, where runs share them.

    Raises:
        UserCodeError: the space's own code fails.
        UsageError: there is no such device here.
    """
    device = device_of(config, splits)
    chance = Chance(seed, device)
    with chance.lent():
        model = build_model(config, splits.shape, folder, splits.encoder.standard)
    feed = with_features(model, splits, config, cache, folder)
    model, splits = feed.model.to(device), feed.splits
    _put_channels_last(model)
    draws = Draws.of(seed, device)
    batches = Batches(config, splits, draws, feed.fetch(config.augmentation.strength, draws), folder)
    step = Step(config, splits, model, batches, folder)
    average = Average(model, batches.per_epoch, step.way.tensors) if config.training.ema else None
    network = average.network if average else model
    probe, own = training_probe(splits), own_metric(config, folder)
    course, counted = Course(config.training.epochs), np.zeros(len(splits.val))
    memory = Memory(model, step, average, draws, chance)

    def state() -> State:
        return memory.state(course.budget, course.epochs, {"best": course.best, "counted": counted})

    if resumed is not None:
        best, counted = (memory.put_back(resumed)[name] for name in ("best", "counted"))
        course = Course(course.budget, resumed.epochs, best)
        yield Moment(course.epochs[-1], network.eval(), counted, state)
    for _ in range(len(course.epochs), course.budget):
        started = time.perf_counter()
        with chance.lent(), _no_denormals(), steady(device, strict=not own_code(config)):
            model.train()
            for x, rows in batches.epoch():
                step(x, rows)
                if average:
                    average.update()
            if average:
                average.threshold(step.shrink)
            network.eval()
            train_measure, train_losses, _ = measure(network, splits.train, splits, config, probe, own)
            val_measure, val_losses, counted = measure(network, splits.val, splits, config, None, own)
        losses, seconds = (train_losses, val_losses), time.perf_counter() - started
        yield Moment(course.then(train_measure, val_measure, losses, seconds), network, counted, state)


def _put_channels_last(model: nn.Module) -> None:
    """Lay the weights of 2d convolutions out as the batches are: faster on a CPU."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def _no_denormals() -> Iterator[None]:
    """Have numbers below 1e-38 taken for 0 meanwhile; an operation on them takes many times as long as on others.

    AdamW's means come to such numbers and stay there where a unit has learned nothing for some 800 steps.
    """
    least = torch.tensor(torch.finfo(torch.float32).tiny)
    were_taken = bool(least / 2 == 0)  # the caller may have asked for it, but torch doesn't tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(were_taken)
