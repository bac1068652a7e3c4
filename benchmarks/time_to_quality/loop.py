"""The networks and the loop that people write in plain PyTorch: batches by DataLoader, augmented at once, AdamW.

The networks are of the same kinds as tuner's own, written out as one would for a single set of data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.time_to_quality.tasks import Configuration, Part, Rows, Task


def mlp(chosen: Configuration, inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(chosen["depth"]):
        layers += [nn.Linear(inputs, chosen["width"]), *norm(nn.BatchNorm1d, chosen)]
        layers += [nn.ReLU(), nn.Dropout(chosen["dropout"])]
        inputs = chosen["width"]
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def norm(kind: Callable[[int], nn.Module], chosen: Configuration, width: int | None = None) -> list[nn.Module]:
    return [kind(width or chosen["width"])] if chosen["normalization"] == "batch" else []


def cnn(chosen: Configuration, channels: int, side: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for stage in range(chosen["depth"]):
        width = chosen["width"] * 2**stage
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(2), *norm(nn.BatchNorm2d, chosen, width)]
        layers += [nn.ReLU(), nn.Dropout(chosen["dropout"])]
        channels, side = width, side // 2
    if side > 4:
        layers.append(nn.AdaptiveAvgPool2d(4))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * min(side, 4) ** 2, outputs))


class Residual(nn.Module):
    def __init__(self, chosen: Configuration, apart: int) -> None:
        super().__init__()
        width, kernel = chosen["width"], chosen["kernel"]

        def convolution() -> list[nn.Module]:
            return [nn.Conv1d(width, width, kernel, padding="same", dilation=apart), *norm(nn.BatchNorm1d, chosen)]

        self.branch = nn.Sequential(*convolution(), nn.ReLU(), nn.Dropout(chosen["dropout"]), *convolution())

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.branch(x)).relu()


class Conv1d(nn.Module):
    def __init__(self, chosen: Configuration, steps: int, channels: int, outputs: int) -> None:
        super().__init__()
        width, kernel = chosen["width"], chosen["kernel"]
        apart = [2**i for i in range(8) if i == 0 or 2**i * (kernel - 1) < steps]
        self.stem = nn.Sequential(nn.Conv1d(channels, width, kernel, padding="same"), *norm(nn.BatchNorm1d, chosen))
        self.blocks = nn.Sequential(*(Residual(chosen, apart[i % len(apart)]) for i in range(chosen["depth"])))
        self.head = nn.Sequential(nn.Dropout(chosen["dropout"]), nn.Linear(2 * width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x.transpose(1, 2)).relu())
        found: Tensor = self.head(torch.cat((x.mean(2), x.amax(2)), 1))
        return found


class TextCNN(nn.Module):
    def __init__(self, chosen: Configuration, tokens: int, outputs: int) -> None:
        super().__init__()
        width, vectors = chosen["width"], chosen["embedding"]
        self.embedding = nn.Embedding(tokens, vectors, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(vectors, width, size, padding=size // 2) for size in (3, 4, 5))
        layers: list[nn.Module] = [nn.Dropout(chosen["dropout"])]
        units = 3 * width
        for _ in range(chosen["depth"] - 1):
            layers += [nn.Linear(units, width), nn.ReLU(), nn.Dropout(chosen["dropout"])]
            units = width
        self.head = nn.Sequential(*layers, nn.Linear(units, outputs))

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.embedding(x).transpose(1, 2)
        found: Tensor = self.head(torch.cat([each(vectors).relu().amax(2) for each in self.convolutions], 1))
        return found


def network(task: Task, chosen: Configuration, rows: Rows) -> nn.Module:
    shape, outputs = rows.train.x.shape[1:], task.classes or 1
    if task.kind == "table":
        return mlp(chosen, shape[0], outputs)
    if task.kind == "image":
        return cnn(chosen, shape[0], shape[1], outputs)
    if task.kind == "sequence":
        return Conv1d(chosen, shape[0], shape[1], outputs)
    return TextCNN(chosen, rows.tokens, outputs)


def augmented(task: Task, x: Tensor, strength: float) -> Tensor:
    """Return a batch changed at random, all of it at once: what takes a user a few lines."""
    n = len(x)
    if task.kind == "table":
        return x + 0.1 * strength * torch.randn_like(x)
    if task.kind == "image":  # a mirror image, and a shift by up to an eighth of the side
        x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
        down, right = (int(torch.randint(-3, 4, ())) for _ in range(2))
        return torch.where(torch.rand(n, 1, 1, 1) < strength, x.roll((down, right), (2, 3)), x)
    if task.kind == "sequence":
        return (x + 0.1 * strength * torch.randn_like(x)) * (1 + 0.1 * strength * torch.randn(n, 1, 1))
    lost = torch.rand(x.shape) < 0.1 * strength  # a text's words, some of them unknown
    return torch.where(lost & (x > 0), 1, x)


def reached(task: Task, model: nn.Module, part: Part, unit: float) -> float:
    """Return the accuracy, or the root of the mean squared error below zero: larger is better."""
    model.eval()
    x, y = map(torch.from_numpy, part)
    with torch.no_grad():
        outputs = torch.cat([model(batch) for batch in x.split(256)])
    if task.classes:
        return float((outputs.argmax(1) == y).float().mean())
    return -unit * float((outputs - y).square().mean().sqrt())


def train(
    task: Task, chosen: Configuration, rows: Rows, after: Callable[[int, float, Callable[[], float]], object]
) -> None:
    """Train a configuration; after every epoch tell its number, what it reaches on the validation rows, and how to find
    what it reaches on the test rows.
    """
    model = network(task, chosen, rows)
    x, y = map(torch.from_numpy, rows.train)
    batches = DataLoader(TensorDataset(x, y), batch_size=rows.batch, shuffle=True, drop_last=True)
    steps = torch.optim.AdamW(model.parameters(), lr=chosen["rate"], weight_decay=chosen["decay"])
    loss = nn.CrossEntropyLoss(label_smoothing=chosen["smoothing"]) if task.classes else nn.MSELoss()
    for epoch in range(1, task.epochs + 1):
        model.train()
        for some, targets in batches:
            steps.zero_grad()
            loss(model(augmented(task, some, chosen["strength"])), targets).backward()
            steps.step()
        value = reached(task, model, rows.val, rows.unit)
        after(epoch, value, lambda: reached(task, model, rows.test, rows.unit))
