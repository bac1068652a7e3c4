"""A user's model that writes down each epoch it trains, where the product never looks.

The harness copies this file beside the space file. A line is one append: what (`b`, training begins in this process,
or `e`, an epoch has been trained), the trial's seed, the process, the epochs trained so far, the hash of the weights
that are measured, and the time. The number of epochs is part of the model's state: who goes on from a checkpoint goes
on counting.
"""

from __future__ import annotations

import hashlib
import os
import time

import torch
from torch import nn

ACCOUNT, PAUSE = os.environ.get("CHAOS_ACCOUNT", ""), float(os.environ.get("CHAOS_PAUSE", "0"))
TRAINED = {}  # the seeds that this process has trained -> the epochs


def digest(tensors) -> str:
    """Return the hash of a network's weights by their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].tobytes())
    return sha.hexdigest()[:16]


class Net(nn.Module):
    """A perceptron that tells what it trains."""

    def __init__(self, config, shape) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(shape.input[0], config.model.width), nn.ReLU(), nn.Dropout(config.regularization.dropout)
        )
        self.head = nn.Linear(config.model.width, shape.outputs)
        # the trial's own seed: what draws the first weights was seeded with it
        self.register_buffer("seed", torch.tensor(torch.initial_seed() % 2**62))
        self.register_buffer("epochs", torch.tensor(0))
        self.fresh = self.begun = False
        self.told = 0

    def forward(self, x):
        if self.training and self.fresh:
            self.begin()
        return self.head(self.body(x))

    def begin(self) -> None:
        """Count an epoch as its first batch comes."""
        if not self.begun:
            self.tell("b")
        self.fresh, self.begun = False, True
        self.epochs += 1
        TRAINED[int(self.seed)] = int(self.epochs)
        time.sleep(PAUSE)

    def train(self, mode=True):
        """Tell of an epoch as it is about to be measured; the network measured may be a running average, a copy."""
        self.fresh = mode
        if not mode and int(self.epochs) > self.told and TRAINED.get(int(self.seed)) == int(self.epochs):
            self.told = int(self.epochs)
            self.tell("e")
        return super().train(mode)

    def tell(self, what) -> None:
        weights = digest({name: value.numpy() for name, value in self.state_dict().items()}) if what == "e" else "-"
        line = f"{what} {int(self.seed)} {os.getpid()} {int(self.epochs)} {weights} {time.monotonic():.4f}\n"
        handle = os.open(ACCOUNT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, line.encode())
        os.close(handle)


def net(config, shape):
    """Return the network, as `model.family: witness:net` names it."""
    return Net(config, shape)
