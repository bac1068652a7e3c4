"""train(): one run of one configuration, as a generator of epochs. The only training loop.

Decides how the weights are learned and how train and validation are measured: alike, in eval mode, on
clean examples, with the very weights that would be exported. Never heard of trials, studies or verdicts:
whoever iterates decides when to stop, and copies the weights it wants to keep.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tuner.augment import augmentation
from tuner.config import RunConfig, min_epochs
from tuner.curve import Epoch, Measure, Standing, rounded
from tuner.data.splits import Part, Splits, Standard
from tuner.errors import DataError
from tuner.metrics import metrics, per_example_loss
from tuner.models import build_model, decays

EVAL_ELEMENTS = 2_000_000  # numbers in one batch of an evaluation: large enough to be fast, small in memory


def train(
    config: RunConfig, splits: Splits, seed: int, folder: Path | None = None
) -> Iterator[tuple[Epoch, nn.Module]]:
    """Yield each epoch with the network that it was measured on (its running average if `training.ema`).

    The network is the caller's to read until the next epoch is asked for. The same seed, data, versions and
    number of threads give the same weights, byte for byte.

    Raises:
        UserCodeError: the space's own model can't be built.
    """
    chance = _Chance(seed)
    with chance.lent():
        model = build_model(config, splits.shape, folder)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(seed)
    step = _Step(config, splits, model, generator)
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
            train_measure, train_losses = measure(network, probe, splits, config)
            val_measure, val_losses = measure(network, splits.val, splits, config)
        standing = Standing.after(standing, number, val_measure.loss, min_epochs(config.training.epochs))
        best = val_losses if standing.best == number else best
        rise, rise_se = _mean_and_error(val_losses - best)
        se_val, se_train = _mean_and_error(val_losses)[1], _mean_and_error(train_losses)[1]
        errors = rounded(se_val), rounded(math.hypot(se_val, se_train)), rounded(rise), rounded(rise_se)
        seconds = rounded(time.perf_counter() - started)
        yield Epoch(number, train_measure, val_measure, *errors, seconds, standing), network


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


def training_probe(splits: Splits, seed: int = 0) -> Part:
    """Return the training rows that the train series is measured on: min(n_train, n_val), the same ones
    whatever the seed of a run.

    Evenly spaced from a random start along the sorted target, equal targets in random order: every class has its
    share to within one row, and every row the same chance.
    """
    y, n = splits.train.y, min(len(splits.train), len(splits.val))
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(y)), y))
    places = ((np.arange(n) + random.random()) * (len(y) / n)).astype(np.int64)
    rows = np.sort(order[np.minimum(places, len(y) - 1)])
    return Part(splits.train.x[rows], y[rows], splits.train.rows[rows])


def measure(network: nn.Module, part: Part, splits: Splits, config: RunConfig) -> tuple[Measure, NDArray[np.float64]]:
    """Return the measure of a part and its per-example losses (n,)."""
    task = splits.shape.task
    outputs = predict(network, part.x, splits.encoder.standard, task)
    losses = per_example_loss(outputs, part.y, task)
    roc_auc = config.score.metric == "roc_auc"
    found = metrics(outputs, part.y, task, splits.encoder.target.restore, roc_auc)
    return Measure(rounded(float(losses.mean())), {name: rounded(value) for name, value in found.items()}), losses


def predict(network: nn.Module, x: NDArray[np.generic], standard: Standard, task: str) -> NDArray[np.float32]:
    """Return log-probabilities (n, classes), or standardized predictions (n, 1), in eval mode."""
    was_training = network.training
    network.eval()
    size = max(1, EVAL_ELEMENTS // max(1, math.prod(x.shape[1:])))
    prepare, found = _input(standard), []
    with torch.inference_mode():
        for i in range(0, len(x), size):
            outputs = network(prepare(torch.from_numpy(x[i : i + size]))).float()
            found.append(outputs.log_softmax(1) if task == "classification" else outputs)
    network.train(was_training)
    return torch.cat(found).numpy()


def sparsity(network: nn.Module) -> float:
    """Return the share of the weights (of the layers that l1 acts on) that are exactly zero."""
    weights = decays(network)[0]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, whole or not at all."""
    tensors = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(tensors, part)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def read_weights(network: nn.Module, path: Path) -> None:
    """Load weights that `write_weights` wrote into a network of the same configuration.

    Raises:
        DataError: the file is missing, damaged, or of another model.
    """
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise DataError(f"{path}: the weights are missing; `tuner run` of the study makes them again") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is no readable safetensors file ({error})") from None
    except RuntimeError as error:
        raise DataError(
            f"{path}: doesn't fit the model; was its code changed? ({str(error).splitlines()[0]})"
        ) from None


def standardized(x: NDArray[np.generic], standard: Standard) -> NDArray[np.float32]:
    """Return encoded examples as the model takes them."""
    return _input(standard)(torch.from_numpy(x)).contiguous().numpy()


def _input(standard: Standard, change: Callable[[Tensor], Tensor] | None = None) -> Callable[[Tensor], Tensor]:
    """Return the way from stored examples to model input: to 0 .. 1, augment if training, standardize."""
    if standard.unit == 1.0 and standard.center == (0.0,) and standard.scale == (1.0,):
        return (lambda x: change(x.float())) if change else (lambda x: x.float())
    center, scale = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (standard.center, standard.scale))

    def prepare(x: Tensor) -> Tensor:
        x = x.float().mul_(standard.unit) if x.dtype != torch.float32 else x * standard.unit
        x = change(x) if change else x
        return ((x - center) / scale).contiguous(memory_format=torch.channels_last)

    return prepare


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


class _Step:
    """One optimization step: AdamW with decoupled l2, warm-up, then proximal l1 on the same weights."""

    def __init__(self, config: RunConfig, splits: Splits, model: nn.Module, generator: torch.Generator) -> None:
        self.model, self.task = model, splits.shape.task
        self.x, self.y = torch.from_numpy(splits.train.x), torch.from_numpy(splits.train.y)
        change = augmentation(config, splits.shape)
        self.prepare = _input(splits.encoder.standard, (lambda x: change(x, generator)) if change else None)
        self.smoothing, self.l1 = config.regularization.label_smoothing, config.regularization.l1
        self.weights, others = decays(model)
        groups: list[dict[str, Any]] = [
            {"params": self.weights, "weight_decay": config.regularization.l2},
            {"params": others, "weight_decay": 0.0},
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
            group["lr"] = rate
        outputs, y = self.model(self.prepare(self.x[rows])), self.y[rows]
        if self.task == "classification":
            loss = nn.functional.cross_entropy(outputs, y, label_smoothing=self.smoothing)
        else:
            loss = nn.functional.mse_loss(outputs[:, 0], y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.l1 > 0:
            self.shrink = rate * self.l1
            soft_threshold(self.weights, self.shrink)


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
