"""The transformer (Vaswani et al. 2017): for sequences and for texts; every step looks at every other.

Decides how steps become vectors that know their place, and how a block is built. Padding acts on nothing: no step
looks at it, and it is left out of what the head sees. Places are sines, so a longer text than any in training
has places too. Weights start as torch's layers start them, from torch's global generator, tokens' vectors smaller.
Knows nothing of how it is trained.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import (
    Normalization,
    drop,
    masked_max,
    masked_mean,
    normalize_steps,
    steps_and_mask,
    tokens_mask,
    trimmed,
)
from tuner.models.tokens import START, embedding

if TYPE_CHECKING:
    from tuner.data.splits import Shape

WIDER = 4
LONGEST_WAVE = 10_000.0
GAIN = 0.1


def transformer(config: RunConfig, shape: Shape) -> nn.Module:
    """Return a network (n, steps, channels) or, for texts, (n, tokens) -> (n, shape.outputs).

    The width is `width` rounded up to a multiple of `heads`. `depth` times: normalization, attention with `heads`
    heads, dropout, added to what there was; normalization, linear to four times the width, ReLU, linear back, dropout,
    added. Then normalization once more, and a linear head on the mean and the largest value of every unit. Without
    normalization what a block adds starts at a tenth (LayerScale, Touvron et al. 2021), so that a deep one
    trains too; `batch` is over the steps that are there.
    """
    return _Network(config, shape)


class _Network(nn.Module):
    def __init__(self, config: RunConfig, shape: Shape) -> None:
        super().__init__()
        model, dropout = config.model, config.regularization.dropout
        width = -(-model.width // model.heads) * model.heads
        text = shape.kind == "text"
        self.masked, self.loudness = shape.masked, START if text else 1.0
        self.embedding = embedding(shape.vocabulary, width) if text else None
        self.linear = None if text else nn.Linear(shape.input[1] - shape.masked, width)
        self.drop = nn.Sequential(*drop(dropout))
        self.blocks = nn.ModuleList(
            _Block(model.normalization, width, model.heads, dropout) for _ in range(model.depth)
        )
        self.normalize = _Normalize(model.normalization, width)
        self.head = nn.Linear(2 * width, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = self._read(x)
        x = self.drop(x + waves(x.shape[1], x.shape[2]).to(x) * self.loudness)
        for block in self.blocks:
            x = block(x, mask)
        x = self.normalize(x, mask)
        output: Tensor = self.head(torch.cat((masked_mean(x, mask, 1), masked_max(x, mask, 1)), 1))
        return output

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.embedding is not None:
            x = trimmed(x)
            return self.embedding(x), tokens_mask(x)
        assert self.linear is not None
        x, mask = steps_and_mask(x, self.masked)
        return self.linear(x), mask


def waves(steps: int, units: int) -> Tensor:
    """Return vectors (steps, units) that tell places: sines and cosines of ever longer waves (Vaswani et al. 2017)."""
    pace = torch.exp(torch.arange(0, units, 2) * (-math.log(LONGEST_WAVE) / units))
    turns = torch.arange(steps)[:, None] * pace
    return torch.stack((turns.sin(), turns.cos()), 2).flatten(1)[:, :units]


class _Block(nn.Module):
    def __init__(self, kind: Normalization, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = _Normalize(kind, width), _Normalize(kind, width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.wider, self.back = nn.Linear(width, WIDER * width), nn.Linear(WIDER * width, width)
        self.drop = nn.Sequential(*drop(dropout))
        gains = [nn.Parameter(torch.full((width,), GAIN)) for _ in range(2)] if kind == "none" else []
        self.gains = nn.ParameterList(gains)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self._gained(0, self.attended(self._attend(self.before(x, mask), mask)))
        return x + self._gained(1, self.back(self.wider(self.between(x, mask)).relu()))

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, steps, width = x.shape
        parts = self.queries_keys_values(x).view(n, steps, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return found.transpose(1, 2).reshape(n, steps, width)

    def _gained(self, part: int, branch: Tensor) -> Tensor:
        dropped: Tensor = self.drop(branch)
        return dropped * self.gains[part] if len(self.gains) else dropped


class _Normalize(nn.Module):
    """The normalization of steps (n, steps, units) that takes no padding for a step; `none` leaves them as they are."""

    def __init__(self, kind: Normalization, units: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(normalize_steps(kind, units))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x.transpose(1, 2), mask).transpose(1, 2)
        return x
