"""How a batch changes the weights: one optimization step, and the running average of what came of the steps.

Decides what the loss is, how it is minimized and what l1 and l2 do to the weights: AdamW with decoupled l2 (Loshchilov
& Hutter 2019), or an optimizer of the user's own, warm-up, then proximal l1 on the same weights. Gradients come from
autograd, of a plain perceptron from `perceptron`. Never heard of epochs, of validation rows, or of when to stop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tuner.augment import mixing
from tuner.config import MODULE_ATTR, RunConfig
from tuner.data.splits import Splits
from tuner.feeding import Batches
from tuner.models import decays, unfrozen
from tuner.optimizers import AdamW, Optimizer, optimizers
from tuner.perceptron import Perceptron, lay_out


class Step:
    """One optimization step, called with a batch's examples (n, *input) and the numbers of its rows (n,)."""

    def __init__(
        self, config: RunConfig, splits: Splits, model: nn.Module, batches: Batches, folder: Path | None = None
    ) -> None:
        self.mix, self.generator = mixing(config, splits.shape), batches.draws.changes
        self.rate = _schedule(config, batches.per_epoch)
        self.l1, self.count, self.shrink = config.regularization.l1, 0, 0.0
        self.way: _Way = _by_hand(config, splits, model, batches.size) or _ByAutograd(config, splits, model, folder)

    def __call__(self, x: Tensor, rows: Tensor) -> None:
        self.count += 1
        rate = self.rate(self.count)
        if self.mix is None:
            self.way(x, [(1.0, rows)], rate)
        else:
            x, partners, share = self.mix(x, self.generator)
            self.way(x, [(float(share), rows), (1 - float(share), rows[partners])], rate)
        if self.l1 > 0:
            self.shrink = rate * self.l1
            soft_threshold(self.way.weights, self.shrink)


class _Way(Protocol):
    """A way to change the weights by a batch.

    `targets` says whose targets are learned, as row numbers, and by what share (mixup has two).
    """

    @property
    def weights(self) -> Sequence[Tensor]:
        """Those that l1 and l2 act on."""
        ...

    def __call__(self, x: Tensor, targets: Sequence[tuple[float, Tensor]], rate: float) -> None: ...

    def tensors(self, model: nn.Module) -> list[Tensor]:
        """Return the parameters of the model, or of a copy of it, as a step changes them."""
        ...

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """What changes the weights by their gradients."""
        ...


class _ByAutograd:
    """For any network: gradients by autograd."""

    def __init__(self, config: RunConfig, splits: Splits, model: nn.Module, folder: Path | None) -> None:
        self.model, self.task = model, splits.shape.task
        device = next(model.parameters()).device
        self.y = torch.from_numpy(splits.train.y).to(device)
        self.class_weights = _class_weights(splits).to(device) if config.training.class_weights else None
        self.halved = config.training.precision == "bfloat16"
        self.smoothing = config.regularization.label_smoothing
        self.weights, others = decays(model)
        slow = unfrozen(model)
        slowly = {id(parameter) for parameter in slow}
        rest = [parameter for parameter in others if id(parameter) not in slowly]
        self.optimizers = optimizers(config, self.weights, rest, slow, folder)

    def __call__(self, x: Tensor, targets: Sequence[tuple[float, Tensor]], rate: float) -> None:
        outputs = self.outputs(x)
        losses = [share * self.loss(outputs, self.y[rows]) for share, rows in targets]
        self.model.zero_grad()
        sum(losses[1:], losses[0]).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step(rate)

    def outputs(self, x: Tensor) -> Tensor:
        """Return what the model makes of a batch; in bfloat16 where that is wanted, though no weight is kept so."""
        if not self.halved:
            outputs: Tensor = self.model(x)
            return outputs
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = self.model(x)
        return outputs.float()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self.task == "classification":
            return nn.functional.cross_entropy(outputs, y, self.class_weights, label_smoothing=self.smoothing)
        return nn.functional.mse_loss(outputs[:, 0], y)

    def tensors(self, model: nn.Module) -> list[Tensor]:
        return _tensors(model)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [parameter.data for parameter in model.parameters()]


def _by_hand(config: RunConfig, splits: Splits, model: nn.Module, batch: int) -> _ByHand | None:
    """Return the way of a plain perceptron, or None if the model is none."""
    if config.training.precision == "bfloat16" or batch == 1 or MODULE_ATTR.match(config.training.optimizer):
        return None
    found = Perceptron.of(model, splits.shape.task == "classification", batch, len(splits.train) // batch)
    return _ByHand(config, splits, found) if found else None


class _ByHand:
    """For a plain perceptron: the same gradients by hand, AdamW over one block of weights."""

    def __init__(self, config: RunConfig, splits: Splits, model: Perceptron) -> None:
        self.model, self.weights = model, [model.weights]
        weights = _class_weights(splits) if config.training.class_weights else None
        self.targets = _targets(splits, config.regularization.label_smoothing, weights)
        self.sums = self.targets.sum(1, keepdim=True) if weights is not None else None
        self.counts = weights[torch.from_numpy(splits.train.y)] if weights is not None else None
        block = nn.Parameter(model.block)
        block.grad = model.gradient
        self.decay, self.adam = config.regularization.l2, AdamW([block])
        self.optimizers = [self.adam]

    def __call__(self, x: Tensor, targets: Sequence[tuple[float, Tensor]], rate: float) -> None:
        rows = targets[0][1]
        total = rows.shape[0] if self.counts is None else float(self.counts[rows].sum())
        self.model.learn(x, _mixed(self.targets, targets), total, _mixed(self.sums, targets))
        if self.decay:
            self.model.weights.mul_(1 - rate * self.decay)
        self.adam.step(rate)

    def tensors(self, model: nn.Module) -> list[Tensor]:
        return [self.model.block if model is self.model.network else lay_out(model)]


def _mixed(values: Tensor | None, shares: Sequence[tuple[float, Tensor]]) -> Any:
    if values is None:
        return None
    found, *others = [_of(values, rows, share) for share, rows in shares]
    return sum(others, found) if others else found


def _of(values: Tensor, rows: Tensor, share: float) -> Tensor:
    found = values.index_select(0, rows)
    return found if share == 1 else found.mul_(share)


def _targets(splits: Splits, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return what each training row's outputs are to be, (n, outputs): classes smoothed and weighed as torch does."""
    y = torch.from_numpy(splits.train.y)
    if splits.shape.task == "regression":
        return y[:, None]
    targets = torch.zeros(len(y), splits.shape.outputs).scatter_(1, y[:, None], 1.0).mul_(1 - smoothing)
    targets += smoothing / splits.shape.outputs
    return targets if weights is None else targets.mul_(weights)


def _class_weights(splits: Splits) -> Tensor:
    """Return n / (classes * rows of the class) for each class of the training rows: each counts alike."""
    counts = np.bincount(splits.train.y, minlength=splits.shape.outputs)
    return torch.from_numpy(len(splits.train) / (len(counts) * np.maximum(counts, 1))).float()


def soft_threshold(weights: Sequence[Tensor], shrink: float) -> None:
    """w <- sign(w) max(|w| - shrink, 0) in place, so that small weights become exact zeros."""
    for weight in weights:
        own = weight.detach()
        nn.functional.softshrink(own, shrink, out=own)  # type: ignore[call-arg]  # torch has it, its stub not


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


class Average:
    """The running average of the weights: decay 1 - 1/(2 steps per epoch), bias-corrected.

    Any epoch's average is a valid end of training, so no schedule needs to know the end beforehand. `tensors` are what
    a step changes in the model, and in a copy of it.
    """

    def __init__(
        self, model: nn.Module, steps_per_epoch: int, tensors: Callable[[nn.Module], list[Tensor]] = _tensors
    ) -> None:
        self.network = copy.deepcopy(model).eval()
        for module in self.network.modules():
            if isinstance(module, nn.RNNBase):  # a GPU wants the weights of a copy in one piece, too
                module.flatten_parameters()
        self.decay, self.power = 1 - 1 / (2 * steps_per_epoch), 1.0
        self.own, self.theirs = tensors(self.network), tensors(model)
        buffers = [name.rpartition(".") for name, _ in model.named_buffers()]
        self.buffers = [(self.network.get_submodule(at), model.get_submodule(at), name) for at, _, name in buffers]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self.power *= self.decay
        weight = (1 - self.decay) / (1 - self.power)
        torch._foreach_lerp_(self.own, self.theirs, weight)
        for mine, theirs, name in self.buffers:  # looked up each time: a model may put another tensor in one's place
            own, their = getattr(mine, name), getattr(theirs, name)
            if own.is_floating_point():
                own.lerp_(their, weight)
            else:
                own.copy_(their)

    @torch.no_grad()
    def threshold(self, shrink: float) -> None:
        """Set averaged weights that l1 would take to zero in one step to exactly zero."""
        if shrink > 0:
            for weight in decays(self.network)[0]:
                weight.masked_fill_(weight.abs() <= shrink, 0.0)
