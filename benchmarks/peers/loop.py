"""The training loop that people write in plain PyTorch, as the tutorials of PyTorch and Optuna have it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.peers.work import ANGLE, SHIFT, Configuration, Data, Work, network


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Pictures, each rotated and shifted at random when it is asked for.

    Pillow does it, as in torchvision's `RandomAffine` on pictures, without what torchvision does around that.
    """

    def __init__(self, x: Tensor, y: Tensor, strength: float) -> None:
        self.pictures = [Image.fromarray(picture) for picture in (x[:, 0] * 255).round().to(torch.uint8).numpy()]
        self.y, self.strength = y, strength

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = self.pictures[index]
        angle, right, down = (2 * torch.rand(3) - 1).mul_(self.strength).tolist()
        cos, sin = math.cos(math.radians(angle * ANGLE)), math.sin(math.radians(angle * ANGLE))
        middle = (picture.width - 1) / 2
        moved = picture.transform(
            picture.size, Image.Transform.AFFINE, (
                cos, sin, middle - cos * middle - sin * middle + right * SHIFT,
                -sin, cos, middle + sin * middle - cos * middle + down * SHIFT,
            ), resample=Image.Resampling.BILINEAR,
        )  # fmt: skip
        return torch.from_numpy(np.array(moved)).unsqueeze(0).float().div_(255), self.y[index]


def loaders(work: Work, chosen: Configuration, data: Data) -> tuple[DataLoader, DataLoader]:
    """Return the batches of the training and of the validation examples."""
    x, y, x_val, y_val = map(torch.from_numpy, data)
    train = Augmented(x, y, chosen["strength"]) if work.pictures else TensorDataset(x, y)
    return (
        DataLoader(train, batch_size=work.batch, shuffle=True),
        DataLoader(TensorDataset(x_val, y_val), batch_size=work.batch),
    )


def penalty(model: nn.Module, l1: float) -> Tensor:
    """Return what L1 adds to the loss."""
    return l1 * sum(parameter.abs().sum() for parameter in model.parameters())


def optimizer(model: nn.Module, chosen: Configuration) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=chosen["lr"], weight_decay=chosen["l2"])


def train(work: Work, chosen: Configuration, data: Data, report: Callable[[int, float], object]) -> float:
    """Train a configuration, report the validation accuracy of every epoch, and return that of the last one."""
    train_loader, val_loader = loaders(work, chosen, data)
    model, accuracy = network(work, chosen), 0.0
    steps = optimizer(model, chosen)
    for epoch in range(work.epochs):
        model.train()
        for x, y in train_loader:
            steps.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y) + penalty(model, chosen["l1"])
            loss.backward()
            steps.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for x, y in val_loader:
                right += int((model(x).argmax(1) == y).sum())
        accuracy = right / len(data.y_val)
        report(epoch, accuracy)
    return accuracy
