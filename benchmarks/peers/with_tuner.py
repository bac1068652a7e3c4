"""tuner, by `tuner.tune` with a space file: the whole call, from reading the file to writing the report.

    python -m benchmarks.peers.with_tuner W1
    python -m benchmarks.peers.with_tuner W2 --bfloat16

What it does besides is inside the clock: it reads and checks the data, measures loss and five metrics on validation
rows and on as many training rows after every epoch, keeps every trial and its weights, and writes the figures and a
report.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tuner
from benchmarks.peers.way import Job, arguments, measure
from benchmarks.peers.work import (
    CHANNELS,
    DEPTHS,
    LOGARITHMIC,
    RANGES,
    STRENGTH,
    WIDTHS,
    WORKS,
    Configuration,
    Data,
    convolutions,
    data,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import nn

    from tuner.config import RunConfig
    from tuner.data import Shape

# L1 here shrinks each weight by the learning rate times l1 after a step. As a term of the loss it goes through AdamW,
# which divides it by the root of the mean squared gradient, about 1e-3 in these works. With this factor the sums of the
# weights' magnitudes come out as the loop's to within a tenth, save that there even the weakest L1 shrinks weights that
# have hardly any gradient, of which networks for pictures have many.
L1 = 1000.0

NAMES = {
    "dropout": "regularization.dropout", "l1": "regularization.l1", "l2": "regularization.l2",
    "lr": "training.learning_rate", "width": "model.width", "depth": "model.depth",
    "c1": "model.options.c1", "c2": "model.options.c2", "strength": "augmentation.strength",
}  # fmt: skip


def cnn(config: RunConfig, shape: Shape) -> nn.Module:
    """The network for pictures that all ways train; tuner's own has another form."""
    options = config.model.options
    return convolutions(options["c1"], options["c2"], config.regularization.dropout, shape.outputs)


def space(job: Job, source: Path, precision: str) -> dict[str, Any]:
    """Return the space file: the ranges that the configurations are from, and these as what is to be tried."""
    bounds = {
        name: {"low": low, "high": high} | ({"log": True} if name in LOGARITHMIC else {})
        for name, (low, high) in RANGES.items()
    }
    bounds["l1"] |= {"low": RANGES["l1"][0] * L1, "high": RANGES["l1"][1] * L1}
    model: dict[str, Any] = {
        "family": "mlp", "width": {"choices": list(WIDTHS)}, "depth": {"low": DEPTHS[0], "high": DEPTHS[-1]}
    }  # fmt: skip
    augmentation: dict[str, Any] = {}
    if job.work.pictures:
        options = {name: {"choices": list(numbers)} for name, numbers in CHANNELS.items()}
        model = {"family": "benchmarks.peers.with_tuner:cnn", "options": options}
        # Not the same change, but one of the same kind at the same strength: every picture is shifted by up to an
        # eighth of its side (the others: 3 of 28 pixels), and a share of them is changed further, by a rotation of up
        # to 30 degrees (the others: all, up to 20) or by one of six other changes.
        augmentation = {"strength": dict(zip(("low", "high"), STRENGTH, strict=True))}
    return {
        "study": "peers", "seed": job.seed, "data": {"source": str(source)}, "model": model,
        "regularization": {name: bounds[name] for name in ("dropout", "l1", "l2")},
        "augmentation": augmentation,
        "training": {
            "epochs": job.work.epochs, "batch_size": job.work.batch, "learning_rate": bounds["lr"],
            "precision": precision, "warmup": 0.0, "ema": False,  # the others have neither
        },
        "stopping": "none",
        "budget": {"trials": len(job.configurations), "workers": 1, "confirm": False},
        "search": {"enqueue": [_point(each) for each in job.configurations], "first_trials": False},
    }  # fmt: skip


def _point(chosen: Configuration) -> Configuration:
    return {NAMES[name]: value * L1 if name == "l1" else value for name, value in chosen.items()}


def write(rows: Data, path: Path) -> None:
    """Write the data as a file for tuner, with the rows' division."""
    split = np.repeat(["train", "val"], [len(rows.y), len(rows.y_val)])
    x = np.concatenate((rows.x, rows.x_val))
    x = x[:, 0] if x.ndim == 4 else x
    np.savez(path, X=x, y=np.concatenate((rows.y, rows.y_val)), split=split)


def search(job: Job, folder: Path, precision: str) -> list[float]:
    with tempfile.TemporaryDirectory(dir=folder) as studies:
        file = Path(studies) / "space.yaml"
        file.write_text(json.dumps(space(job, folder / "data.npz", precision)), encoding="utf-8")  # JSON is YAML, too
        study = tuner.tune(file, studies_dir=studies, storage=f"sqlite:///{studies}/tuner.db")
        if not (study.folder / "report.html").exists():
            raise SystemExit("there is no report")
    curves = []
    for number in range(len(job.configurations)):
        trial = study.trials[number]
        if trial.state != "complete" or trial.curve is None or len(trial.curve) != job.work.epochs:
            raise SystemExit(f"trial {number} is {trial.state} and not a whole one: {trial.reason}")
        curves.append(trial.curve)
    return [curve.last.val.metrics["accuracy"] for curve in curves]


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(data(WORKS[given.work]), Path(folder) / "data.npz")
        precision = "bfloat16" if given.bfloat16 else "float32"
        measure(given, partial(search, folder=Path(folder), precision=precision), ["overfit-tuner", "optuna"])
