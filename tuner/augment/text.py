"""Random changes of texts, a whole batch at a time.

Decides how often a token is deleted, swapped or replaced. Knows token numbers alone: not which tokens mean the same,
and nothing of labels or of the rows beyond the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 0.2  # of the tokens that are changed
DELETE, SWAP, REPLACE = range(3)
OPERATIONS = 3


def text(batch: Tensor, strength: float, generator: torch.Generator, keep_ends: bool = False) -> Tensor:
    """Return randomly changed texts of the same shape and dtype; the batch itself at strength 0.

    Each token is hit with probability .2 times the strength s and is then, with equal chances, deleted, swapped with
    the one to its right, or replaced by one drawn from all tokens of the batch (after EDA, Wei & Zou 2019, which
    replaces by synonyms). What a deletion leaves closes up; one token stays at least.

    Args:
        batch: token numbers (n, tokens), 0 for the padding at the end. It is never changed.
        strength: from 0 (exactly nothing, and nothing is drawn) to 1.
        generator: the only source of chance, on the batch's device.
        keep_ends: leave the first and the last token of each text alone: marks that a tokenizer has put there.
    """
    if strength == 0 or not batch.numel():
        return batch
    free = _free(batch, keep_ends)
    draws = torch.rand(batch.shape, generator=generator, device=batch.device)
    # The draw is uniform, so its share of the rate is too, and names the operation; above 1: none.
    kinds = (draws / (RATE * strength) * OPERATIONS).long().masked_fill(~free, OPERATIONS)
    tokens = _replace(batch, kinds == REPLACE, free, generator)
    order = _order(kinds == SWAP, free)
    return _close_up(tokens.gather(1, order), (kinds == DELETE).gather(1, order))


def _free(batch: Tensor, keep_ends: bool) -> Tensor:
    """Return which places hold a token that may be changed."""
    there = batch != 0
    if not keep_ends:
        return there
    follows = torch.zeros_like(there)
    follows[:, :-1] = there[:, 1:]
    follows[:, 0] = False
    return there & follows


def _replace(batch: Tensor, hit: Tensor, free: Tensor, generator: torch.Generator) -> Tensor:
    """Return a copy in which tokens are others of the batch; common ones come often, as they do in texts."""
    known, tokens = batch[free], batch.clone()
    places = torch.rand(int(hit.sum()), generator=generator, device=batch.device, dtype=torch.float64) * len(known)
    tokens[hit] = known[places.long()]
    return tokens


def _order(hit: Tensor, free: Tensor) -> Tensor:
    """Return where each token is read, so that those hit and their right neighbours change places.

    Of neighbours that are both hit the left one alone moves, and one without a neighbour stays.
    """
    swaps = torch.zeros_like(hit)
    swaps[:, :-1] = hit[:, :-1] & free[:, 1:]
    swaps[:, 1:] &= ~hit[:, :-1]
    order = torch.arange(hit.shape[1], device=hit.device) + swaps.long()
    order[:, 1:] -= swaps[:, :-1].long()
    return order


def _close_up(tokens: Tensor, deleted: Tensor) -> Tensor:
    """Return the tokens without those deleted; a row that would lose all keeps its first."""
    kept = (tokens != 0) & ~deleted
    kept[:, 0] |= ~kept.any(1)
    closed = torch.zeros_like(tokens)
    places = torch.arange(tokens.shape[1], device=tokens.device)
    closed[places < kept.sum(1, keepdim=True)] = tokens[kept]
    return closed
