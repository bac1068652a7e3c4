"""How a network is measured: the rows that stand for the training set, its outputs, its figures.

Decides what an evaluation is: eval mode, clean examples, batches that are large enough to be fast and small in memory;
and how stored examples become a network's input, in training too. Knows nothing of how the weights came about.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.curve import Measure, rounded
from tuner.data.memory import pieces
from tuner.data.splits import Part, Splits, Standard
from tuner.devices import CPU
from tuner.metrics import metrics, per_example_hit, per_example_loss, told
from tuner.own_metric import OwnMetric
from tuner.scoring import LOSS, PER_NULL_LOSS

EVAL_ELEMENTS = 2_000_000  # numbers in one batch of an evaluation: large enough to be fast, small in memory
WIDENED = 64  # by so much a token, or a step of a sequence, widens in a network
ROWS = 1000  # of a table: of more, what a hidden layer makes leaves the caches
PICTURES, PICTURE_WIDENED = 64, 20  # a convolution's outputs are large: beyond so many pictures they leave the caches


def training_probe(splits: Splits, seed: int = 0) -> NDArray[np.int64]:
    """Return which training rows the train series is measured on, as their places (n,), ascending, in the training
    part: n = min(n_train, n_val), the same ones whatever the seed of a run.

    Evenly spaced from a random start along the sorted target, equal targets in random order: every class has its
    share to within one row, and every row the same chance.
    """
    y, n = splits.train.y, min(len(splits.train), len(splits.val))
    random = np.random.default_rng(seed)
    order = np.lexsort((random.random(len(y)), y))
    places = ((np.arange(n) + random.random()) * (len(y) / n)).astype(np.int64)
    return np.sort(order[np.minimum(places, len(y) - 1)])


def measure(
    network: nn.Module,
    part: Part,
    splits: Splits,
    config: RunConfig,
    rows: NDArray[np.int64] | None = None,
    own: OwnMetric | None = None,
) -> tuple[Measure, NDArray[np.float64], NDArray[np.float64]]:
    """Return the measure of a part, or of those `rows` of it (their places in the part, (n,)), its per-example losses
    (n,) and what each example counts in the score (n,). `own` is the metric of the user's own, if there is one.
    """
    task, y = splits.shape.task, part.y if rows is None else part.y[rows]
    outputs = predict(network, part.x, splits.encoder.standard, task, rows)
    losses = per_example_loss(outputs, y, task)
    metric, restore = config.score.metric or LOSS[task], splits.encoder.target.restore
    found = metrics(outputs, y, task, restore, metric == "roc_auc")
    error = 0.0
    if own is not None:
        found[own.name], error = own.with_error(*told(outputs, y, task, restore))
    figures = {name: rounded(value) for name, value in found.items()}
    whole = Measure(rounded(float(losses.mean())), figures, rounded(error))
    counted = losses if metric in PER_NULL_LOSS else per_example_hit(outputs, y, task, restore)
    return whole, losses, counted


def predict(
    network: nn.Module,
    x: NDArray[np.generic],
    standard: Standard,
    task: str,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return log-probabilities (n, classes), or standardized predictions (n, 1), in eval mode: of all examples, or of
    those in some rows (n,), which are fetched batch by batch, as together they may be large.
    """
    was_training = network.training
    if was_training:  # modes are set module by module, which takes longer than a small network's outputs
        network.eval()
    device = next((each.device for each in network.parameters()), CPU)
    prepare = input_of(standard, None, device)
    order = _by_length(x, rows)
    if order is not None:
        rows = order if rows is None else rows[order]
    count, size = len(x) if rows is None else len(rows), _evaluated_at_once(x, device)
    # What stays of a batch goes where there is room for all of it: a result kept for each would lie between the large
    # ones that are freed, and no later one of these fits into the room of an earlier one.
    together: NDArray[np.float32] | None = None
    with torch.inference_mode():
        for i in range(0, count, size):
            batch = x[i : i + size] if rows is None else x[rows[i : i + size]]
            outputs = network(prepare(torch.from_numpy(batch).to(device))).float().cpu()
            outputs = _log_probabilities(outputs) if task == "classification" else outputs
            together = np.empty((count, *outputs.shape[1:]), np.float32) if together is None else together
            together[i : i + size] = outputs.numpy()
    if was_training:
        network.train()
    assert together is not None, "there are rows"
    return together if order is None else np.asarray(together[np.argsort(order)])


def _log_probabilities(outputs: Tensor) -> Tensor:
    """Return the logarithm of the softmax over the classes (n, classes): down the columns of a matrix it takes a tenth
    of the time of one along its rows.
    """
    return outputs.t().contiguous().log_softmax(0).t()


def _evaluated_at_once(x: NDArray[np.generic], device: torch.device) -> int:
    widened = WIDENED if (x.ndim == 3 and x.dtype != np.float16) or x.dtype == np.int32 else 1  # float16: features
    rows = max(1, EVAL_ELEMENTS // max(1, math.prod(x.shape[1:]) * widened))
    if device != CPU:  # where no caches are to be kept to
        return rows
    if x.ndim == 2 and x.dtype == np.float32:
        return min(ROWS, rows)
    return rows if x.ndim != 4 or x.dtype == np.float16 else max(min(PICTURES, rows), rows // PICTURE_WIDENED)


def _by_length(x: NDArray[np.generic], rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return an order of texts, or of some of them, in which those of like length are together, as a network trims what
    is padding in all; None of other examples.
    """
    if x.dtype != np.int32:
        return None
    lengths = [(some != 0).sum(1) for some in pieces(x, rows)]
    return np.argsort(np.concatenate(lengths), kind="stable") if lengths else np.zeros(0, np.int64)


def standardized(x: NDArray[np.generic], standard: Standard) -> NDArray[np.float32]:
    """Return encoded examples as the model takes them."""
    return input_of(standard)(torch.from_numpy(x)).contiguous().numpy()


def input_of(
    standard: Standard, change: Callable[[Tensor], Tensor] | None = None, device: torch.device = CPU
) -> Callable[[Tensor], Tensor]:
    """Return the way from stored examples, on a device, to model input: to 0 .. 1, augment if training, standardize.

    Texts go as they are, as int64 token numbers.
    """
    if standard.unit == 1.0 and standard.center == (0.0,) and standard.scale == (1.0,):
        return lambda x: change(_plain(x)) if change else _plain(x)
    center, scale = (
        torch.tensor(each, dtype=torch.float32, device=device).view(-1, 1, 1)
        for each in (standard.center, standard.scale)
    )

    def prepare(x: Tensor) -> Tensor:
        x = x.float().mul_(standard.unit) if x.dtype != torch.float32 else x * standard.unit
        x = change(x) if change else x
        return channels_last((x - center).div_(scale))

    return prepare


def channels_last(x: Tensor) -> Tensor:
    """Return pictures (n, channels, height, width) with their channels side by side, which convolutions prefer.

    Of a single channel torch can't tell that they are, and takes the slow way (pooling took five times as long), unless
    the strides say so.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    height, width = x.shape[2:]
    return x if x.shape[1] > 1 else x.as_strided(x.shape, (height * width, 1, width, 1))


def _plain(x: Tensor) -> Tensor:
    return x.long() if x.dtype == torch.int32 else x.float()
