"""The layers that several families are built of: normalization and dropout, both absent when not wanted.

Decides what `normalization` and `dropout` of a configuration mean as layers. Knows no family.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["none", "batch", "layer"]

WORDS = 1 << 16


class Dropout(nn.Module):
    """Zero a share of the units while training and scale the others so that the mean stays (Srivastava et al. 2014).

    Does what `nn.Dropout` does, in a third of the time on a CPU: the mask is drawn as 16-bit words, four to a
    random number, which rounds the share to a multiple of 1/65536. Draws from torch's global generator.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = min(round(share * WORDS), WORDS - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with units zeroed, x itself in evaluation mode."""
        if not self.training:
            return x
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        words = draws.view(torch.int16)[: x.numel()].view(x.shape)
        kept = words >= self.dropped - WORDS // 2
        return x * (kept.to(x.dtype) * (WORDS / (WORDS - self.dropped)))

    def extra_repr(self) -> str:
        """Return the share of units dropped, for `print(model)`."""
        return f"{self.dropped / WORDS:.4g}"


def drop(share: float) -> list[nn.Module]:
    """Return a dropout layer, or no layer at all for a share of 0."""
    return [Dropout(share)] if share else []


def normalize_units(kind: Normalization, units: int) -> list[nn.Module]:
    """Return the normalization of a vector (n, units): batch, layer or no layer at all."""
    match kind:
        case "batch":
            return [nn.BatchNorm1d(units)]
        case "layer":
            return [nn.LayerNorm(units)]
        case "none":
            return []


def normalize_channels(kind: Normalization, channels: int) -> list[nn.Module]:
    """Return the normalization of a picture (n, channels, h, w); `layer` is a GroupNorm of one group."""
    match kind:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "none":
            return []
