"""The convolutional network for texts (Kim 2014): it looks for runs of a few tokens, wherever they stand.

Decides how wide the convolutions are and what becomes of what they find. Weights start as torch's layers start them,
from torch's global generator, tokens' vectors smaller. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import drop, masked_max, normalize_units, tokens_mask, trimmed
from tuner.models.tokens import embedding, hidden_layers

if TYPE_CHECKING:
    from tuner.data.splits import Shape


def textcnn(config: RunConfig, shape: Shape) -> nn.Module:
    """Return a network (n, tokens) -> (n, shape.outputs).

    Tokens become vectors of `embedding` numbers. Convolutions of `kernel`, `kernel` - 1 and `kernel` - 2 tokens, with
    `width` channels each, give the largest value of every channel over the text; then normalization, ReLU and dropout.
    Then `depth` - 1 times: linear to `width`, normalization, ReLU, dropout; then a linear head.
    """
    return _Network(config, shape)


def kernels(widest: int) -> list[int]:
    """Return the widths of the convolutions: up to three, none below one token."""
    return [kernel for kernel in (widest - 2, widest - 1, widest) if kernel >= 1]


class _Network(nn.Module):
    def __init__(self, config: RunConfig, shape: Shape) -> None:
        super().__init__()
        model, dropout = config.model, config.regularization.dropout
        self.embedding = embedding(shape.vocabulary, model.embedding)
        biased = model.normalization != "batch"  # batch normalization subtracts a bias again
        self.convolutions = nn.ModuleList(
            nn.Conv1d(model.embedding, model.width, kernel, bias=biased) for kernel in kernels(model.kernel)
        )
        units = model.width * len(self.convolutions)
        layers: list[nn.Module] = [*normalize_units(model.normalization, units), nn.ReLU(), *drop(dropout)]
        hidden, units = hidden_layers(config, units, model.depth - 1)
        self.head = nn.Sequential(*layers, *hidden, nn.Linear(units, shape.outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = trimmed(x)
        mask, vectors = tokens_mask(x), self.embedding(x).transpose(1, 2)
        # Before the normalization and the ReLU, which then have a value a text in place of one a token.
        found = [masked_max(_all_along(convolution, vectors), mask, 2) for convolution in self.convolutions]
        output: Tensor = self.head(torch.cat(found, 1))
        return output


def _all_along(convolution: nn.Module, vectors: Tensor) -> Tensor:
    """Return a value for each token (n, channels, tokens); beyond the ends a convolution sees zeros."""
    assert isinstance(convolution, nn.Conv1d)
    beyond = convolution.kernel_size[0] - 1
    found: Tensor = convolution(F.pad(vectors, (beyond // 2, beyond - beyond // 2)))
    return found
