"""Random changes of sequences, a whole batch at a time.

Decides which changes there are and how far each goes at a strength. Knows which steps are there, but not what a
channel means, and nothing of labels or of the rows beyond the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEVIATION = 0.1  # of a standardized channel
STRETCH = 0.3
BLANK = 0.2  # of a sequence's steps
SHIFT = 0.1  # of a sequence's steps


def sequence(
    batch: Tensor,
    strength: float,
    generator: torch.Generator,
    masked: bool = False,
    shift: float = SHIFT,
    wrap: bool = False,
) -> Tensor:
    """Return randomly changed sequences of the same shape and dtype; the batch itself at strength 0.

    Each sequence is shifted by up to `shift` times the strength s of its length either way, in whole steps, scaled by
    a factor of 1 +- .3 s, given Gaussian noise of standard deviation .1 s, and set to 0, the mean of every channel,
    in a window of up to 20 % s of its steps (jitter and scaling as in Um et al. 2017, the window as in SpecAugment,
    Park et al. 2019). Padding stays 0, and the steps that are there stay as many.

    Args:
        batch: standardized floats (n, steps, channels). It is never changed.
        strength: from 0 (exactly nothing, and nothing is drawn) to 1.
        generator: the only source of chance, on the batch's device.
        masked: whether the last channel is 1 at the steps that are there and 0 at the padding at the end.
        shift: the furthest shift at strength 1, as a share of the sequence's length.
        wrap: what a shift moves out comes in at the other end; else the step at the edge is repeated.
    """
    if strength == 0 or not batch.numel():
        return batch
    n, steps, channels = batch.shape
    values = batch[:, :, : channels - masked]
    there = batch[:, :, -1] != 0 if masked else batch.new_ones((n, steps), dtype=torch.bool)
    draws = torch.rand((n, 4), generator=generator, device=batch.device, dtype=torch.float64)
    lengths, places = there.sum(1), torch.arange(steps, device=batch.device)
    sources = _sources(places, lengths, (draws[:, 0] * 2 - 1) * (shift * strength), wrap)
    values = values.gather(1, sources[:, :, None].expand_as(values))
    values = values * (1 + (draws[:, 1] * 2 - 1) * (STRETCH * strength)).to(batch.dtype)[:, None, None]
    noise = torch.randn(values.shape, generator=generator, device=batch.device, dtype=batch.dtype)
    blank = _window(places, lengths, draws[:, 2] * (BLANK * strength), draws[:, 3])
    values = (values + noise * (DEVIATION * strength)).masked_fill((blank | ~there)[:, :, None], 0)
    return torch.cat((values, batch[:, :, -1:]), 2) if masked else values


def _sources(places: Tensor, lengths: Tensor, shares: Tensor, wrap: bool) -> Tensor:
    """Return (n, steps) where each step is read, all of them places that are there."""
    lengths = lengths.clamp(min=1)[:, None]
    sources = places - (shares[:, None] * lengths).round().long()
    return sources % lengths if wrap else sources.clamp(min=0).minimum(lengths - 1)


def _window(places: Tensor, lengths: Tensor, shares: Tensor, starts: Tensor) -> Tensor:
    """Return (n, steps) which steps lie in a window of a share of each sequence, wherever it fits."""
    widths = (shares * lengths).round().long()
    first = (starts * (lengths - widths + 1)).long()
    return (places >= first[:, None]) & (places < (first + widths)[:, None])
