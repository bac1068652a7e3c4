"""The recurrent network: for sequences and for texts, read from one end or from both.

Decides how recurrent layers are stacked and what of their outputs the head sees. Padding acts on nothing: it lies
behind what is there for a layer that reads onward, and is kept behind it for one that reads back. Weights start as
torch's layers start them, tokens' vectors smaller, from torch's global generator. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import (
    drop,
    masked_max,
    masked_mean,
    normalize_steps,
    steps_and_mask,
    tokens_mask,
    trimmed,
)
from tuner.models.tokens import embedding

if TYPE_CHECKING:
    from tuner.data.splits import Shape

CELLS: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


def rnn(config: RunConfig, shape: Shape) -> nn.Module:
    """Return a network (n, steps, channels) or, for texts, (n, tokens) -> (n, shape.outputs).

    Tokens become vectors of `embedding` numbers. Then `depth` recurrent layers of `width` units, each with its
    normalization; if `bidirectional`, a second set of units reads from the end. The head sees the last state of every
    unit, its mean and its largest value over the steps that are there. Dropout acts on all that a layer or the
    head is given, but for a sequence's own numbers.
    """
    return _Network(config, shape)


def turned(x: Tensor, lengths: Tensor) -> Tensor:
    """Return x (n, steps, units) with the first `lengths` steps of each row in reverse; what is behind stays behind."""
    steps = torch.arange(x.shape[1], device=x.device)
    places = (lengths[:, None] - 1 - steps) % x.shape[1]
    return x.gather(1, places[:, :, None].expand_as(x))


class _Network(nn.Module):
    def __init__(self, config: RunConfig, shape: Shape) -> None:
        super().__init__()
        model, dropout = config.model, config.regularization.dropout
        self.masked, self.width = shape.masked, model.width
        text = shape.kind == "text"
        self.embedding = embedding(shape.vocabulary, model.embedding) if text else None
        units = model.embedding if text else shape.input[1] - shape.masked
        wide = model.width * (2 if model.bidirectional else 1)
        self.layers = nn.ModuleList(_Layer(config, units if i == 0 else wide) for i in range(model.depth))
        self.drop = nn.Sequential(*drop(dropout))
        self.head = nn.Linear(3 * wide, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = self._read(x)
        n, steps = x.shape[:2]
        lengths = torch.full((n,), steps, device=x.device) if mask is None else mask.sum(1)
        for i, layer in enumerate(self.layers):
            x = layer(self.drop(x) if i else x, lengths, mask)
        onward, back = x[torch.arange(n, device=x.device), lengths - 1, : self.width], x[:, 0, self.width :]
        pooled = torch.cat((onward, back, masked_mean(x, mask, 1), masked_max(x, mask, 1)), 1)
        output: Tensor = self.head(self.drop(pooled))
        return output

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.embedding is None:
            return steps_and_mask(x, self.masked)
        x = trimmed(x)
        return self.drop(self.embedding(x)), tokens_mask(x)


class _Layer(nn.Module):
    """One recurrent layer, or two that read from either end, and the normalization of their outputs.

    The one that reads back is given each row turned round within its own length, which packed sequences
    would do too, at almost three times the time on a CPU.
    """

    def __init__(self, config: RunConfig, units: int) -> None:
        super().__init__()
        model, cell = config.model, CELLS[config.model.cell]
        self.onward = cell(units, model.width, batch_first=True)
        self.back = cell(units, model.width, batch_first=True) if model.bidirectional else None
        wide = model.width * (2 if model.bidirectional else 1)
        self.normalizations = nn.ModuleList(normalize_steps(model.normalization, wide))

    def forward(self, x: Tensor, lengths: Tensor, mask: Tensor | None) -> Tensor:
        found: Tensor = self.onward(x)[0]
        if self.back is not None:
            back = self.back(turned(x, lengths))[0]
            found = torch.cat((found, turned(back, lengths)), 2)
        for normalization in self.normalizations:
            found = normalization(found.transpose(1, 2), mask).transpose(1, 2)
        return found
