"""Mixup: training on mixtures of two examples and of their targets (Zhang et al. 2018).

Decides what a mixture of two examples is for each kind of data. How the targets are mixed is the caller's: it is told
who the partners are and how large each one's share is. Knows nothing of losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.special import betaincinv
from torch import Tensor

from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.data.splits import Shape

LEAST = 1e-6  # of alpha: there each example is one of the two already, and far below scipy's inverse fails


def mixup(x: Tensor, shape: Shape, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return mixed examples, the place of each one's partner in the batch, and the share that is its own.

    The share is drawn from Beta(alpha, alpha), once a batch, and the partners are a permutation of the batch. A number
    is share * own + (1 - share) * partner's, so the loss is to be the same mixture of the losses to both targets.
    A table's category code is its own with a probability of the share, each cell by itself. Of masked sequences a step
    is there where either has one, and the values of the one that has ended are 0.

    Args:
        x: floats (n, *shape.input), standardized. It is never changed.
        shape: what the numbers mean.
        alpha: 0 (the batch itself, each its own partner, and nothing is drawn) or more.
        generator: the only source of chance, on the batch's device.

    Raises:
        UsageError: the data are texts, whose token numbers can't be mixed.
    """
    check_mixable(shape)
    if alpha == 0:
        return x, torch.arange(len(x), device=x.device), x.new_ones(())
    share = _beta(alpha, generator).to(x)
    partners = torch.randperm(len(x), generator=generator, device=x.device)
    others = x[partners]
    mixed = torch.lerp(others, x, share)
    if codes := len(shape.cardinalities):
        own = torch.rand((len(x), codes), generator=generator, device=x.device) < share
        mixed[:, -codes:] = torch.where(own, x[:, -codes:], others[:, -codes:])
    if shape.masked:
        mixed[:, :, -1] = torch.maximum(x[:, :, -1], others[:, :, -1])
    return mixed, partners, share


def check_mixable(shape: Shape) -> None:
    """Refuse data that can't be mixed.

    Raises:
        UsageError: they are texts.
    """
    if shape.kind == "text":
        raise UsageError("augmentation.mixup: is for images, tables and sequences, the data are a text; leave it out")


def _beta(alpha: float, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha), by its inverse distribution function: torch's own draw takes no generator."""
    draw = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    alpha = max(alpha, LEAST)
    return torch.tensor(float(betaincinv(alpha, alpha, float(draw))), dtype=torch.float64)
