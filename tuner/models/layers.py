"""What several families are built of: normalization and dropout, both absent when not wanted, and padding.

Decides what `normalization` and `dropout` of a configuration mean as layers, and how padding at the end of texts and
sequences is told from what is there and kept out of a pooled value. Knows no family.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["none", "batch", "layer"]

BYTES = 1 << 8  # values of a byte, of which chance gives eight at a time


class Dropout(nn.Module):
    """Zero a share of the units while training and scale the others so that the mean stays (Srivastava et al. 2014).

    Does what `nn.Dropout` does, in a fraction of the time on a CPU: the mask is drawn as bytes, eight to a random
    number, which rounds the share to a multiple of 1/256; the scale is that of the rounded share. Draws from torch's
    global generator.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = min(round(share * BYTES), BYTES - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with units zeroed, x itself in evaluation mode."""
        if not self.training:
            return x
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        drawn = draws.view(torch.int8)[: x.numel()].view(x.shape)
        kept = drawn >= self.dropped - BYTES // 2
        return x * (kept.to(x.dtype) * (BYTES / (BYTES - self.dropped)))

    def extra_repr(self) -> str:
        """Return the share of units dropped, for `print(model)`."""
        return f"{self.dropped / BYTES:.4g}"


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


def normalize_steps(kind: Normalization, channels: int) -> list[nn.Module]:
    """Return the normalization of a sequence (n, channels, steps); `layer` is over the channels of each step alone.

    The layers may be told which steps are there, as a second argument (n, steps): then padding has no part in it.
    """
    match kind:
        case "batch":
            return [StepBatchNorm(channels)]
        case "layer":
            return [StepLayerNorm(channels)]
        case "none":
            return []


class AveragePool(nn.Module):
    """The mean of each of so many windows, which may overlap (torch's adaptive average pooling).

    On a GPU by products of matrices: torch adds the gradients of windows that overlap in any order there, so that they
    would come out otherwise each time.
    """

    def __init__(self, places: tuple[int, int]) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        """Return means (n, channels, *places) of pictures (n, channels, height, width)."""
        if x.device.type == "cpu":
            return nn.functional.adaptive_avg_pool2d(x, self.places)
        rows, columns = (_windows(side, count, x) for side, count in zip(x.shape[2:], self.places, strict=True))
        return rows @ x @ columns.t()

    def extra_repr(self) -> str:
        """Return how many windows there are along each side, for `print(model)`."""
        return f"{self.places}"


def _windows(side: int, count: int, like: Tensor) -> Tensor:
    """Return what places of a side the mean of each window is made of, (count, side)."""
    starts, places = torch.arange(count, device=like.device)[:, None] * side, torch.arange(side, device=like.device)
    inside = ((places >= starts // count) & (places < -(-(starts + side) // count))).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


class StepBatchNorm(nn.BatchNorm1d):
    """Batch normalization of (n, channels, steps) over the steps that are there; padding comes out as zeros."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x with every channel brought to mean 0 and variance 1, then scaled and shifted."""
        if mask is None:
            return super().forward(x)
        if torch.compiler.is_exporting():  # where no shape can depend on what is in the mask; nothing is trained there
            return super().forward(x) * mask[:, None]
        steps = x.transpose(1, 2)
        found = torch.zeros_like(steps)
        found[mask] = super().forward(steps[mask])
        return found.transpose(1, 2)


class StepLayerNorm(nn.LayerNorm):
    """Layer normalization of each step of (n, channels, steps): unlike a GroupNorm of one group it sees no padding."""

    def forward(self, x: Tensor, _mask: Tensor | None = None) -> Tensor:
        """Return x with the channels of every step brought to mean 0 and variance 1, then scaled and shifted."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def tokens_mask(x: Tensor) -> Tensor:
    """Return which of the token numbers (n, tokens) are there: all but 0, the padding."""
    return x != 0


def trimmed(x: Tensor) -> Tensor:
    """Return token numbers (n, tokens) without the columns at the end that are padding in every row; one stays."""
    return x[:, : _longest(tokens_mask(x))]


def steps_and_mask(x: Tensor, masked: bool) -> tuple[Tensor, Tensor | None]:
    """Return a sequence's channels (n, steps, channels) and which steps are there, (n, steps); None if not masked.

    Steps at the end that are padding in every row are left out; one stays.
    """
    if not masked:
        return x, None
    mask = x[:, :, -1] != 0
    longest = _longest(mask)
    return x[:, :longest, :-1], mask[:, :longest]


def _longest(mask: Tensor) -> int:
    """Return how many steps are kept: as many as the longest row has; in an exported network, whose shapes can't depend
    on what is in them, all.
    """
    return mask.shape[1] if torch.compiler.is_exporting() else max(1, int(mask.sum(1).max()))


def masked_max(x: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Return the largest value along the steps, `dim` 1 or 2 of x, of those that `mask` (n, steps) has."""
    return (x if mask is None else x.masked_fill(~_across(mask, dim), -torch.inf)).amax(dim)


def masked_mean(x: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """Return the mean along the steps, `dim` 1 or 2 of x, of those that `mask` (n, steps) has."""
    if mask is None:
        return x.mean(dim)
    return x.masked_fill(~_across(mask, dim), 0).sum(dim) / mask.sum(1, keepdim=True).clamp(min=1)


def _across(mask: Tensor, dim: int) -> Tensor:
    """Return the mask with a dimension more, to lie across the channels of x."""
    return mask.unsqueeze(3 - dim % 3)
