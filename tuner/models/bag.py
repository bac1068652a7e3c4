"""The bag of tokens and of pairs of tokens (fastText, Joulin et al. 2017): the cheapest network for texts.

Decides how tokens and pairs become units, and that nothing but pairs tells their order. Pairs have no vocabulary: a
hash of their two tokens' numbers is their place in a table of fixed size, and pairs that share a place share a vector.
Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, pad

from tuner.config import RunConfig
from tuner.models.layers import drop, masked_max, tokens_mask, trimmed
from tuner.models.tokens import embedding, hidden_layers

if TYPE_CHECKING:
    from tuner.data.splits import Shape

MOST_PAIRS = 14  # a power of 2: a larger table costs more with each step than it gains on a few thousand texts
FACTOR = 1_000_003  # odd, and so large that pairs of common tokens, which have small numbers, don't meet


def bag(config: RunConfig, shape: Shape) -> nn.Module:
    """Return a network (n, tokens) -> (n, shape.outputs).

    Tokens become vectors of `embedding` numbers, and pairs of neighbours vectors of `width` numbers. The tokens' mean
    and their largest values, and the pairs' mean, go through dropout. Then `depth` - 1 times: linear to `width`,
    normalization, ReLU, dropout; then a linear head. At a depth of 1 it is linear behind the pooling, which on small
    texts is better than a hidden layer; there is nothing to be normalized then.
    """
    return _Network(config, shape)


def places(vocabulary: int) -> int:
    """Return the size of the pairs' table: the power of 2 that holds all pairs, at most 2^14."""
    return 1 << min(MOST_PAIRS, (vocabulary**2 - 1).bit_length())


class _Network(nn.Module):
    def __init__(self, config: RunConfig, shape: Shape) -> None:
        super().__init__()
        model = config.model
        self.tokens = embedding(shape.vocabulary, model.embedding)
        self.pairs = embedding(places(shape.vocabulary), model.width, padding=None)
        hidden, units = hidden_layers(config, 2 * model.embedding + model.width, model.depth - 1)
        self.head = nn.Sequential(*drop(config.regularization.dropout), *hidden, nn.Linear(units, shape.outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = trimmed(x)
        # Pooled as they are looked up: a quarter of the time that it takes to hold the vectors of all tokens.
        mean = embedding_bag(x, self.tokens.weight, mode="mean", padding_idx=0)
        if x.device.type == "cpu":
            largest = embedding_bag(x, self.tokens.weight, mode="max", padding_idx=0)
        else:  # a GPU adds the gradients of largest values in any order
            largest = masked_max(self.tokens(x), tokens_mask(x), 1)
        output: Tensor = self.head(torch.cat((mean, largest, self._pairs(x)), 1))
        return output

    def _pairs(self, x: Tensor) -> Tensor:
        """Return the mean of the pairs' vectors; zeros for a text of one token."""
        x = pad(x, (0, 1))  # a text of one token has a pair, which doesn't count
        places = (x[:, :-1] * FACTOR + x[:, 1:]) % self.pairs.num_embeddings
        there = tokens_mask(x[:, 1:]).to(self.pairs.weight.dtype)
        shares = there / there.sum(1, keepdim=True).clamp(min=1)
        return embedding_bag(places, self.pairs.weight, mode="sum", per_sample_weights=shares)
