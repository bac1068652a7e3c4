"""What a GPU does for training: the time of an epoch on it and on the processor, and of a study whose trials share it.

    python -m benchmarks.gpu [--epochs 4] [--trials 16] [--workers 1 2 4 8]

Needs a GPU that torch can use, and no data: the examples are made, so nothing is learned of how well anything learns.
Printed are milliseconds of an epoch of each network, training and both evaluations, on one thread of the processor and
on the GPU (median of the epochs after the first; each in turn), and what of the GPU's bfloat16; then the seconds of a
study of pictures with as many workers as are named, all on one GPU, from the first trial that ends to the last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.limit import Made
from tuner.config import RunConfig
from tuner.data.splits import Part, Shape, Splits, Standard
from tuner.grammar import Override, read_space
from tuner.machine import gpu
from tuner.planning import plan_of
from tuner.record import TrialRecord
from tuner.training import train
from tuner.tuning import conduct

CLASSES = 10
TABLE = Shape("table", "classification", (30,), CLASSES)
PICTURES = Shape("image", "classification", (3, 32, 32), CLASSES)
STEPS = Shape("sequence", "classification", (100, 6), CLASSES)
TEXTS = Shape("text", "classification", (120,), CLASSES, vocabulary=10_000)
BATCH = {"training.batch_size": 128}
NETWORKS: dict[str, tuple[Shape, int, dict[str, Any]]] = {
    "mlp 128 x 2, table": (TABLE, 10_000, {"model.width": 128, **BATCH}),
    "mlp 512 x 3, table": (TABLE, 10_000, {"model.width": 512, "model.depth": 3, **BATCH}),
    "mlp 2048 x 3, table": (TABLE, 10_000, {"model.width": 2048, "model.depth": 3, **BATCH}),
    "mlp 128 x 2, small batches": (TABLE, 2_000, {"model.width": 128, "training.batch_size": 32}),
    "cnn 32, pictures": (PICTURES, 2_000, {"model.family": "cnn", "model.width": 32, **BATCH}),
    "resnet 32, pictures": (PICTURES, 2_000, {"model.family": "resnet", "model.width": 32, "model.depth": 3, **BATCH}),
    "conv1d 64, sequences": (STEPS, 4_000, {"model.family": "conv1d", **BATCH}),
    "rnn 64, sequences": (STEPS, 4_000, {"model.family": "rnn", **BATCH}),
    "transformer 64, texts": (TEXTS, 2_000, {"model.family": "transformer", **BATCH}),
    "textcnn 64, texts": (TEXTS, 4_000, {"model.family": "textcnn", **BATCH}),
    "bag 64, texts": (TEXTS, 4_000, {"model.family": "bag", **BATCH}),
}
COMMON = {"regularization.dropout": 0.2, "augmentation.strength": 0.5, "model.normalization": "batch"}
WAYS = {"processor": {"training.device": "cpu"}, "GPU": {"training.device": "cuda"},
        "GPU, bfloat16": {"training.device": "cuda", "training.precision": "bfloat16"}}  # fmt: skip

SPACE = """\
study: shared
data: {source: rows.npz}
model: {family: resnet, width: {low: 16, high: 48}, depth: {low: 2, high: 3}, normalization: batch}
regularization: {dropout: {low: 0.0, high: 0.5}}
augmentation: {strength: {low: 0.0, high: 1.0}}
training: {epochs: 4, batch_size: 128}
stopping: none
search: {sampler: random, first_trials: false}
budget: {confirm: false}
"""


def made(shape: Shape, rows: int) -> Splits:
    """Return so many rows, of which a fifth are for validation."""
    rng = np.random.default_rng(0)
    size = (rows, *shape.input)
    if shape.kind == "text":
        x: Any = rng.integers(1, shape.vocabulary, size).astype(np.int32)
        x[np.arange(shape.input[0]) >= rng.integers(10, shape.input[0], rows)[:, None]] = 0
    elif shape.kind == "image":
        x = rng.integers(0, 256, size, dtype=np.uint8)
    else:
        x = rng.normal(size=size).astype(np.float32)
    y = rng.integers(0, CLASSES, rows)
    train, val = (Part(x[part], y[part], part) for part in np.split(np.arange(rows), [rows * 4 // 5]))
    return Splits(train, val, None, Made(shape, Standard(1 / 255) if shape.kind == "image" else Standard()), "", "")


def milliseconds(config: RunConfig, splits: Splits, epochs: int) -> float:
    """Return what an epoch takes, after the first."""
    taken = [moment.epoch.seconds for moment in train(config.replace({"training.epochs": epochs + 1}), splits, 0)]
    return 1000 * statistics.median(taken[1:])


def show_epochs(epochs: int) -> None:
    print(f"{'milliseconds of an epoch':28} {'rows':>7}" + "".join(f"{way:>16}" for way in WAYS) + f"{'GPU':>9}")
    for name, (shape, rows, values) in NETWORKS.items():
        splits = made(shape, rows)
        config = RunConfig.model_validate({"data": {"source": "made"}}).replace(COMMON | values)
        taken = [milliseconds(config.replace(way), splits, epochs) for way in WAYS.values()]
        row = "".join(f"{each:16.1f}" for each in taken)
        print(f"{name:28} {rows:7}{row}{taken[0] / taken[1]:8.1f}x", flush=True)


def seconds(workers: int, trials: int, device: str, folder: Path) -> float:
    """Return how long the trials of a study take, from the first that ends."""
    values = {"budget.workers": workers, "budget.trials": trials + workers, "study": f"{device}-{workers}",
              "training.device": device}  # fmt: skip
    space = read_space(folder / "shared.yaml", [Override(name, str(value), "") for name, value in values.items()])
    ended = []
    for news in conduct(plan_of(space, studies_dir=folder / "studies")):
        if isinstance(news, TrialRecord) and news.ended:
            assert news.state == "complete", news
            ended.append(time.perf_counter())
    return (ended[-1] - ended[workers - 1]) / trials


def show_shared(trials: int, counts: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        splits = made(PICTURES, 5_000)
        x = np.concatenate([splits.train.x, splits.val.x]).transpose(0, 2, 3, 1)
        np.savez(folder / "rows.npz", X=x, y=np.concatenate([splits.train.y, splits.val.y]))
        (folder / "shared.yaml").write_text(SPACE)
        print(f"\n{'workers on one GPU':28} {'s a trial':>9} {'times':>7}")
        first = 0.0
        for count in counts:
            taken = seconds(count, trials, "cuda", folder)
            first = first or taken
            print(f"{count:28} {taken:9.2f} {first / taken:7.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--shared", action="store_true", help="only the study whose trials share the GPU")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = gpu()
    if found is None:
        raise SystemExit("here is no GPU that torch can use")
    print(f"{found.name}, torch {torch.__version__}")
    if not given.shared:
        show_epochs(given.epochs)
    show_shared(given.trials, given.workers)
