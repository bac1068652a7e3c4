"""What the families for texts share: tokens as vectors, and the hidden layers behind a pooled text.

Decides how the vectors of tokens start. Knows nothing of how they are pooled.
"""

from __future__ import annotations

import torch
from torch import nn

from tuner.config import RunConfig
from tuner.models.layers import drop, normalize_units

START = 0.1


def embedding(rows: int, units: int, padding: int | None = 0) -> nn.Embedding:
    """Return a table of vectors whose numbers start with standard deviation .1; those of `padding` are and stay 0.

    torch's own start at 1: then the vectors of rare tokens, which training hardly moves, are noise that drowns the
    others.
    """
    table = nn.Embedding(rows, units, padding_idx=padding)
    with torch.no_grad():
        table.weight.mul_(START)
    return table


def hidden_layers(config: RunConfig, units: int, count: int) -> tuple[list[nn.Module], int]:
    """Return `count` times linear to `width`, normalization, ReLU and dropout, and how many units come out."""
    width, kind = config.model.width, config.model.normalization
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(nn.Linear(units, width, bias=kind != "batch"))  # batch normalization subtracts a bias again
        layers += [*normalize_units(kind, width), nn.ReLU(), *drop(config.regularization.dropout)]
        units = width
    return layers, units
