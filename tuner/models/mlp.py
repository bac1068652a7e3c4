"""The multilayer perceptron: for tables, with or without category codes, and for flattened images.

Decides how columns become units and how the hidden layers are stacked. Weights start as torch's layers
start them, from torch's global generator. Knows nothing of how it is trained.
"""

from __future__ import annotations

from math import pow, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import drop, normalize_units

if TYPE_CHECKING:
    from tuner.data.splits import Shape


def mlp(config: RunConfig, shape: Shape) -> nn.Sequential:
    """Return a network (n, *shape.input) -> (n, shape.outputs).

    `depth` times: linear to `width`, normalization, ReLU, dropout; then a linear head.
    """
    width, kind = config.model.width, config.model.normalization
    units, layers = prod(shape.input), list[nn.Module]()
    if shape.cardinalities:
        columns = Columns(units - len(shape.cardinalities), shape.cardinalities)
        units = columns.units
        layers.append(columns)
    elif len(shape.input) > 1:
        layers.append(nn.Flatten())
    for _ in range(config.model.depth):
        layers.append(nn.Linear(units, width, bias=kind != "batch"))  # batch normalization subtracts a bias again
        layers += [*normalize_units(kind, width), nn.ReLU(), *drop(config.regularization.dropout)]
        units = width
    return nn.Sequential(*layers, nn.Linear(units, shape.outputs))


def embedding_size(cardinality: int) -> int:
    """Return min(50, round(1.6 cardinality^.56)): how many numbers stand for a category.

    At least 1. A rule of thumb of fastai's (`emb_sz_rule`), with a lower cap.
    """
    return max(1, min(50, round(1.6 * pow(cardinality, 0.56))))


class Columns(nn.Module):
    """Turn a table's numbers and category codes into units: (n, columns) -> (n, units).

    Every column of codes has an embedding of its own. Those of equal size lie below one another in one
    matrix, so that a table of forty columns costs a few look-ups instead of forty. Code 0, unknown or missing,
    starts at zero: a category never seen in training says nothing unless missing values taught it something.
    """

    def __init__(self, numbers: int, cardinalities: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [embedding_size(cardinality) for cardinality in cardinalities]
        self.numbers = numbers
        self.units = numbers + sum(sizes)
        self.tables = nn.ModuleList()
        self.columns: list[list[int]] = []
        for size in sorted(set(sizes)):
            columns = [i for i, other in enumerate(sizes) if other == size]
            ends = torch.tensor([cardinalities[i] for i in columns]).cumsum(0)
            starts = torch.cat((torch.zeros(1, dtype=torch.int64), ends[:-1]))
            table = nn.Embedding(int(ends[-1]), size)
            with torch.no_grad():
                table.weight[starts] = 0
            self.register_buffer(f"starts_{len(self.tables)}", starts, persistent=False)
            self.columns.append(columns)
            self.tables.append(table)

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers and, beside them, the embedded codes."""
        codes = x[:, self.numbers :].long()
        parts = [x[:, : self.numbers]]
        for i, (columns, table) in enumerate(zip(self.columns, self.tables, strict=True)):
            parts.append(table(codes[:, columns] + self.get_buffer(f"starts_{i}")).flatten(1))
        return torch.cat(parts, 1)
