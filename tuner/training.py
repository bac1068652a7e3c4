"""train(): one run of one configuration, as a generator of epochs. The only training loop.

Decides how the weights are learned and how train and validation are measured: alike, in eval mode, on
clean examples, with the very weights that would be exported. Never heard of trials, studies or verdicts:
whoever iterates decides when to stop, and copies the weights it wants to keep.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.augment import augmentation, mixing
from tuner.config import RunConfig, min_epochs
from tuner.curve import Epoch, Standing, rounded
from tuner.data.splits import Splits
from tuner.features import with_features
from tuner.measuring import input_of, measure, training_probe
from tuner.models import build_model, decays, unfrozen


def train(
    config: RunConfig, splits: Splits, seed: int, folder: Path | None = None, cache: Path | None = None
) -> Iterator[tuple[Epoch, nn.Module, NDArray[np.float64]]]:
    """Yield each epoch with the network that it was measured on (its running average if `training.ema`), and what each
    validation example (n,) counts in the score.

    The network is the caller's to read until the next epoch is asked for. The same seed, data, versions and
    number of threads give the same weights, byte for byte. Of a network with a frozen part it is the rest, trained
    on features that are kept in `cache`, where runs share them.

    Raises:
        UserCodeError: the space's own model can't be built.
    """
    chance = _Chance(seed)
    with chance.lent():
        model = build_model(config, splits.shape, folder, splits.encoder.standard)
    feed = with_features(model, splits, config, cache)
    model, splits = feed.model, feed.splits
    _put_channels_last(model)
    generator = torch.Generator().manual_seed(seed)
    step = _Step(config, splits, model, generator, feed.fetch(config.augmentation.strength, generator))
    average = _Average(model, step.per_epoch) if config.training.ema else None
    network = average.network if average else model
    probe = training_probe(splits)
    best, standing = np.zeros(len(splits.val)), None
    for number in range(1, config.training.epochs + 1):
        started = time.perf_counter()
        with chance.lent():
            model.train()
            for rows in _batches(len(splits.train), step.batch, generator):
                step(rows)
                if average:
                    average.update()
            if average:
                average.threshold(step.shrink)
            train_measure, train_losses, _ = measure(network, probe, splits, config)
            val_measure, val_losses, counted = measure(network, splits.val, splits, config)
        standing = Standing.after(standing, number, val_measure.loss, min_epochs(config.training.epochs))
        best = val_losses if standing.best == number else best
        rise, rise_se = _mean_and_error(val_losses - best)
        se_val, se_train = _mean_and_error(val_losses)[1], _mean_and_error(train_losses)[1]
        errors = rounded(se_val), rounded(math.hypot(se_val, se_train)), rounded(rise), rounded(rise_se)
        seconds = rounded(time.perf_counter() - started)
        yield Epoch(number, train_measure, val_measure, *errors, seconds, standing), network, counted


def _put_channels_last(model: nn.Module) -> None:
    """Lay the weights of 2d convolutions out as the batches are: faster on a CPU."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


class _Chance:
    """A run's own state of torch's global generator, lent to it while it works.

    So a run neither disturbs its caller's random numbers nor is disturbed by them, nor by another run.
    """

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def lent(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            try:
                yield
            finally:
                self.state = torch.get_rng_state()


def batch_size(config: RunConfig, examples: int) -> int:
    """Return the batch size; auto is 2^round(log2(clip(n/20, 16, 128))), at most the examples there are."""
    wanted = config.training.batch_size
    if wanted == "auto":
        wanted = 2 ** round(math.log2(min(max(examples / 20, 16), 128)))
    return min(wanted, examples)


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield each epoch's rows in random order; a last batch of one row is left out (it has no spread)."""
    order = torch.randperm(n, generator=generator)
    for rows in torch.split(order, size):
        if len(rows) > 1 or size == 1:
            yield rows


def _mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return float(values.mean()), error


def _examples(config: RunConfig, splits: Splits, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return rows -> training examples as the model takes them, changed at random if they are augmented."""
    x, change = torch.from_numpy(splits.train.x), augmentation(config, splits.shape)
    prepare = input_of(splits.encoder.standard, (lambda batch: change(batch, generator)) if change else None)
    return lambda rows: prepare(x[rows])


class _Step:
    """One optimization step: AdamW with decoupled l2, warm-up, then proximal l1 on the same weights."""

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        model: nn.Module,
        generator: torch.Generator,
        fetch: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.task = model, splits.shape.task
        self.y = torch.from_numpy(splits.train.y)
        self.fetch = fetch or _examples(config, splits, generator)
        self.mix, self.generator = mixing(config, splits.shape), generator
        self.class_weights = _class_weights(splits) if config.training.class_weights else None
        self.halved = config.training.precision == "bfloat16"
        self.smoothing, self.l1 = config.regularization.label_smoothing, config.regularization.l1
        self.weights, others = decays(model)
        slow = unfrozen(model)
        slowly = {id(parameter) for parameter in slow}
        rest = [parameter for parameter in others if id(parameter) not in slowly]
        groups: list[dict[str, Any]] = [
            {"params": self.weights, "weight_decay": config.regularization.l2, "share": 1.0},
            {"params": rest, "weight_decay": 0.0, "share": 1.0},
            {"params": slow, "weight_decay": 0.0, "share": config.training.backbone_rate},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.training.learning_rate,
            weight_decay=0.0,
            fused=True,
        )
        self.batch = batch_size(config, len(splits.train))
        self.per_epoch = steps_per_epoch(len(splits.train), self.batch)
        self.rate = _schedule(config, self.per_epoch)
        self.count, self.shrink = 0, 0.0

    def __call__(self, rows: Tensor) -> None:
        self.count += 1
        rate = self.rate(self.count)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = self.loss(self.fetch(rows), self.y[rows])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.l1 > 0:
            self.shrink = rate * self.l1
            soft_threshold(self.weights, self.shrink)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the training loss of a batch; with mixup the mean of the losses to both partners' targets."""
        if self.mix is None:
            return self.loss_to(y, self.outputs(x))
        mixed, partners, share = self.mix(x, self.generator)
        outputs = self.outputs(mixed)
        return share * self.loss_to(y, outputs) + (1 - share) * self.loss_to(y[partners], outputs)

    def outputs(self, x: Tensor) -> Tensor:
        """Return what the model makes of a batch; in bfloat16 where that is wanted, though no weight is kept so."""
        if not self.halved:
            outputs: Tensor = self.model(x)
            return outputs
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = self.model(x)
        return outputs.float()

    def loss_to(self, y: Tensor, outputs: Tensor) -> Tensor:
        if self.task == "classification":
            return nn.functional.cross_entropy(outputs, y, self.class_weights, label_smoothing=self.smoothing)
        return nn.functional.mse_loss(outputs[:, 0], y)


def _class_weights(splits: Splits) -> Tensor:
    """Return n / (classes * rows of the class) for each class of the training rows: each counts alike."""
    counts = np.bincount(splits.train.y, minlength=splits.shape.outputs)
    return torch.from_numpy(len(splits.train) / (len(counts) * np.maximum(counts, 1))).float()


def soft_threshold(weights: Sequence[Tensor], shrink: float) -> None:
    """w <- sign(w) max(|w| - shrink, 0) in place, so that small weights become exact zeros."""
    with torch.no_grad():
        tensors: Any = list(weights)
        inner: Any = torch._foreach_clamp_max(torch._foreach_clamp_min(tensors, -shrink), shrink)
        torch._foreach_sub_(tensors, inner)


def steps_per_epoch(n: int, size: int) -> int:
    """Return how many batches an epoch of n examples has, without a last one of one row."""
    return n // size + (1 if n % size > 1 else 0)


def _schedule(config: RunConfig, per_epoch: int) -> Callable[[int], float]:
    """Return step (from 1) -> learning rate: linear warm-up, then constant or a cosine to 0 at the cap."""
    total = config.training.epochs * per_epoch
    warmup, peak = config.training.warmup * total, config.training.learning_rate

    def rate(step: int) -> float:
        if step < warmup:
            return peak * step / warmup
        if config.training.schedule == "constant":
            return peak
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    return rate


class _Average:
    """The running average of the weights: decay 1 - 1/(2 steps per epoch), bias-corrected.

    Any epoch's average is a valid end of training, so no schedule needs to know the end beforehand.
    """

    def __init__(self, model: nn.Module, steps_per_epoch: int) -> None:
        self.network = copy.deepcopy(model)
        self.decay, self.power = 1 - 1 / (2 * steps_per_epoch), 1.0
        pairs = list(zip(_tensors(self.network), _tensors(model), strict=True))
        self.own, self.theirs = ([pair[i] for pair in pairs if pair[0].is_floating_point()] for i in (0, 1))
        self.counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        self.power *= self.decay
        torch._foreach_lerp_(self.own, self.theirs, (1 - self.decay) / (1 - self.power))
        for own, their in self.counts:
            own.copy_(their)

    @torch.no_grad()
    def threshold(self, shrink: float) -> None:
        """Set averaged weights that l1 would take to zero in one step to exactly zero."""
        if shrink > 0:
            for weight in decays(self.network)[0]:
                weight.masked_fill_(weight.abs() <= shrink, 0.0)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(parameter.data for parameter in model.parameters()), *model.buffers()]
