"""The convolutional network for texts (Kim 2014): it looks for runs of a few tokens, wherever they stand.

Decides how wide the convolutions are and what becomes of what they find. Weights start as torch's layers start them,
from torch's global generator, tokens' vectors smaller. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear, pad

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
        self.kernels = kernels(model.kernel)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(model.embedding, model.width, kernel, bias=biased) for kernel in self.kernels
        )
        units = model.width * len(self.convolutions)
        layers: list[nn.Module] = [*normalize_units(model.normalization, units), nn.ReLU(), *drop(dropout)]
        hidden, units = hidden_layers(config, units, model.depth - 1)
        self.head = nn.Sequential(*layers, *hidden, nn.Linear(units, shape.outputs))

    def forward(self, x: Tensor) -> Tensor:
        # The largest before the normalization and the ReLU, which then have a value a text in place of one a token.
        alone = torch.compiler.is_exporting() or x.device.type != "cpu"
        found = self._each_by_itself(trimmed(x)) if alone else self._all_in_a_row(x)
        output: Tensor = self.head(torch.cat(found, 1))
        return output

    def _all_in_a_row(self, x: Tensor) -> list[Tensor]:
        """Return the largest value of each convolution's channels over each text, (n, width) each."""
        tokens, places, starts = in_a_row(x, max(self.kernels) - 1)
        vectors = self.embedding(tokens)
        return [
            embedding_bag(places - (kernel - 1) // 2, _all_along(convolution, vectors), starts, mode="max")
            for kernel, convolution in zip(self.kernels, self.convolutions, strict=True)
        ]

    def _each_by_itself(self, x: Tensor) -> list[Tensor]:
        """Return the same for an exported network, whose shapes can't depend on how long the texts are; and on a GPU,
        where torch's largest values in a row have no gradient in bfloat16, nor one that it calls steady.
        """
        vectors, there = self.embedding(x).transpose(1, 2), tokens_mask(x)
        found = []
        for kernel, convolution in zip(self.kernels, self.convolutions, strict=True):
            before = (kernel - 1) // 2
            found.append(masked_max(convolution(pad(vectors, (before, kernel - 1 - before))), there, 2))
        return found


def in_a_row(x: Tensor, gap: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return texts (n, tokens) as one row of tokens, with `gap` zeros before each and after the last; where in the row
    each token stands; and which of these is the first of each text.

    So no convolution is spent on the padding, of which a batch of texts is half.
    """
    there = tokens_mask(x)
    row = pad(pad(x, (gap, 0))[pad(there, (gap, 0), value=True)], (0, gap))
    counts = there.sum(1)
    return row, tokens_mask(row).nonzero()[:, 0], counts.cumsum(0) - counts


def _all_along(convolution: nn.Module, vectors: Tensor) -> Tensor:
    """Return what a convolution finds from each place on, (places, channels).

    A product of matrices for each place of its window: rows of a new length with every batch are what convolutions are
    slow with on a CPU.
    """
    assert isinstance(convolution, nn.Conv1d)
    kernel, places = convolution.kernel_size[0], len(vectors) - convolution.kernel_size[0] + 1
    found = linear(vectors[:places], convolution.weight[:, :, 0], convolution.bias)
    for place in range(1, kernel):
        found = torch.addmm(found, vectors[place : place + places], convolution.weight[:, :, place].t())
    return found
