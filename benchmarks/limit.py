"""How near training comes to what the processor can do: billions of multiplications and additions a second, per family.

    python benchmarks/limit.py [--epochs 6] [--only mlp cnn ...]

Each family trains on made data of a shape that is usual for it, in this process with one thread, through the training
loop that studies use, with everything that it does in an epoch: batches, augmentation (none here), the step with l1,
l2, dropout and the running average, and the evaluation of both series. Operations are counted by torch's own counter on
the network's forward and backward pass; seconds are those of the fastest epoch but the first, by the processor's clock.
The limit is a product of two matrices of 2048 x 2048 in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tuner.config import RunConfig
from tuner.data.splits import Part, Shape, Splits, Standard, Target
from tuner.devices import Draws
from tuner.feeding import Batches
from tuner.models import build_model
from tuner.training import train
from tuner.workers import keep_memory

SIDE = 2048


@dataclass(frozen=True)
class Made:
    """An encoder of made data: nothing was fitted."""

    shape: Shape
    standard: Standard = field(default_factory=Standard)
    target: Target = field(default_factory=Target)


@dataclass(frozen=True)
class Case:
    """A network and its data: rows for training and validation, the shape of an example, the configuration."""

    rows: tuple[int, int]
    shape: Shape
    values: dict[str, Any]


def table(columns: int, classes: int) -> Shape:
    return Shape("table", "classification", (columns,), classes)


TEXT = Shape("text", "classification", (32,), 6, vocabulary=5000)
WALK = Shape("sequence", "classification", (64, 4), 10)
CASES = {
    "mlp, digits": Case((1437, 360), table(64, 10), {"model.width": 128, "model.depth": 2, "training.batch_size": 64}),
    "mlp, wide table": Case(
        (8000, 2000), table(20, 4), {"model.width": 256, "model.depth": 2, "training.batch_size": 256}
    ),
    "cnn": Case((4000, 1000), Shape("image", "classification", (1, 28, 28), 10), {
        "model.family": "cnn", "model.width": 32, "model.depth": 3, "training.batch_size": 128,
    }),
    "resnet": Case((1000, 250), Shape("image", "classification", (3, 32, 32), 10), {
        "model.family": "resnet", "model.width": 32, "model.depth": 2, "training.batch_size": 128,
    }),
    "conv1d": Case((2000, 500), WALK, {
        "model.family": "conv1d", "model.width": 64, "model.depth": 3, "training.batch_size": 64,
    }),
    "rnn": Case((1000, 250), WALK, {
        "model.family": "rnn", "model.width": 64, "model.depth": 1, "training.batch_size": 64,
    }),
    "transformer": Case((2000, 500), TEXT, {
        "model.family": "transformer", "model.width": 64, "model.depth": 2, "training.batch_size": 64,
    }),
    "textcnn": Case((2000, 500), TEXT, {
        "model.family": "textcnn", "model.width": 64, "model.depth": 1, "training.batch_size": 64,
    }),
}  # fmt: skip
ALL = {
    "regularization.dropout": 0.2,
    "regularization.l1": 1e-3,
    "regularization.l2": 1e-2,
    "training.learning_rate": 1e-3,
}


def data(case: Case) -> Splits:
    rng = np.random.default_rng(0)

    def part(n: int) -> Part:
        y = rng.integers(0, case.shape.outputs, n)
        if case.shape.kind == "text":
            x = rng.integers(1, case.shape.vocabulary, (n, *case.shape.input)).astype(np.int32)
        else:
            x = rng.normal(size=(n, *case.shape.input)).astype(np.float32)
        return Part(x, y, np.arange(n))

    return Splits(part(case.rows[0]), part(case.rows[1]), None, Made(case.shape), "", "")


def operations(config: RunConfig, splits: Splits) -> tuple[float, float]:
    """Return the operations of a step, and of an example's outputs."""
    network = build_model(config, splits.shape)
    x, rows = next(Batches(config, splits, Draws.of(0)).epoch())
    with torch.backends.mkldnn.flags(enabled=False):  # so that recurrent layers are made of what the counter knows
        with FlopCounterMode(display=False) as step:
            nn.functional.cross_entropy(network(x), torch.from_numpy(splits.train.y)[rows]).backward()
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            network.eval()(x)
    return step.get_total_flops(), forward.get_total_flops() / len(x)


def measured(case: Case, epochs: int) -> tuple[float, float]:
    """Return billions of operations a second, and the seconds of an epoch."""
    config = RunConfig.model_validate({"data": {"source": "made"}}).replace(
        {**ALL, **case.values, "training.epochs": epochs}
    )
    splits = data(case)
    step, example = operations(config, splits)
    batches = Batches(config, splits, Draws.of(0))
    work = step * len(splits.train) / batches.size + 2 * example * len(splits.val)
    seconds = list(_epochs(train(config, splits, 0)))
    return work / min(seconds[1:]) / 1e9, min(seconds[1:])


def _epochs(run: Iterator[Any]) -> Iterator[float]:
    began = time.process_time()
    for _ in run:
        yield time.process_time() - began
        began = time.process_time()


def limit() -> float:
    """Return billions of operations a second of a product of large matrices."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    seconds = []
    for _ in range(7):
        began = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - began)
    return 2 * SIDE**3 / min(seconds) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as the command does
    most = limit()
    print(f"float32, one thread: {most:.0f} GF/s at most (torch {torch.__version__})\n")
    print("| network | rows | an epoch, s | GF/s | of the limit |\n|---|---|---|---|---|")
    for name in given.only:
        speed, seconds = measured(CASES[name], given.epochs)
        print(f"| {name} | {CASES[name].rows[0]} | {seconds:.3f} | {speed:.0f} | {speed / most:.0%} |")


if __name__ == "__main__":
    main()
