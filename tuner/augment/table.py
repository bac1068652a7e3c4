"""Random changes of the rows of a table, a whole batch at a time.

Decides how far a cell moves at a strength. Knows only which columns hold category codes, not what
any column means, and nothing of labels or of the rows beyond the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEVIATION = 0.3  # of a standardized column
SWAPS = 0.15


def table(batch: Tensor, strength: float, generator: torch.Generator, categories: int = 0) -> Tensor:
    """Return randomly changed rows of the same shape and dtype; the batch itself at strength 0.

    Each cell is, with probability .15 times the strength s, replaced by the same column's value of another
    row of the batch (the swap noise of VIME, Yoon et al. 2020, and SCARF, Bahri et al. 2022): a category code
    becomes a code that occurs. Numbers then get Gaussian noise of standard deviation .3 s.

    Args:
        batch: floats (n, columns), standardized numbers first, then category codes. It is never changed.
        strength: from 0 (exactly nothing, and nothing is drawn) to 1.
        generator: the only source of chance, on the batch's device.
        categories: how many of the last columns hold codes.
    """
    if strength == 0 or not batch.numel():
        return batch
    rows = _swap(batch, SWAPS * strength, generator)
    numbers = rows[:, : batch.shape[1] - categories]
    noise = torch.randn(numbers.shape, generator=generator, device=batch.device, dtype=batch.dtype)
    numbers += noise * (DEVIATION * strength)
    return rows


def _swap(batch: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return a copy in which some cells hold another row's value; a lone row has no other."""
    n = len(batch)
    swapped = torch.rand(batch.shape, generator=generator, device=batch.device) < probability
    steps = torch.randint(1, max(n, 2), batch.shape, generator=generator, device=batch.device)
    others = (torch.arange(n, device=batch.device)[:, None] + steps) % n
    return torch.where(swapped, batch.gather(0, others), batch)
