"""The convolutional network for sequences: residual and dilated, so that a few blocks see all steps.

Decides how convolutions over the steps are stacked and how far apart the steps lie that each one sees. Padding acts
on nothing: a convolution sees zeros there, as it does beyond a sequence's ends. Weights start as torch's layers
start them, from torch's global generator. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import drop, masked_max, masked_mean, normalize_steps, steps_and_mask

if TYPE_CHECKING:
    from tuner.data.splits import Shape


def conv1d(config: RunConfig, shape: Shape) -> nn.Module:
    """Return a network (n, steps, channels) -> (n, shape.outputs).

    A convolution to `width` channels, `kernel` steps wide; then `depth` residual blocks (He et al. 2016) of two
    such convolutions, each with its normalization, and dropout between the two. The steps that a block's
    convolutions see lie 1, 2, 4, ... apart (Bai et al. 2018), as far as the sequence bears, then 1 apart again.
    The head sees the mean and the largest value of every channel over the steps that are there.
    """
    return _Network(config, shape)


def dilations(kernel: int, steps: int) -> list[int]:
    """Return 1, 2, 4, ...: the distances at which a convolution's outermost steps fit into a sequence."""
    found = [1]
    while 2 * found[-1] * (kernel - 1) < steps and kernel > 1:
        found.append(2 * found[-1])
    return found


class _Network(nn.Module):
    def __init__(self, config: RunConfig, shape: Shape) -> None:
        super().__init__()
        self.masked = shape.masked
        steps, channels = shape.input[0], shape.input[1] - shape.masked
        width = config.model.width
        apart = dilations(config.model.kernel, steps)
        self.stem = _Convolution(config, channels, 1)
        self.blocks = nn.ModuleList(_Block(config, apart[i % len(apart)]) for i in range(config.model.depth))
        self.head = nn.Sequential(*drop(config.regularization.dropout), nn.Linear(2 * width, shape.outputs))

    def forward(self, x: Tensor) -> Tensor:
        x, mask = steps_and_mask(x, self.masked)
        x = self.stem(x.transpose(1, 2), mask).relu()
        for block in self.blocks:
            x = block(x, mask)
        output: Tensor = self.head(torch.cat((masked_mean(x, mask, 2), masked_max(x, mask, 2)), 1))
        return output


class _Block(nn.Module):
    def __init__(self, config: RunConfig, apart: int) -> None:
        super().__init__()
        self.first = _Convolution(config, config.model.width, apart)
        self.drop = nn.Sequential(*drop(config.regularization.dropout))
        self.second = _Convolution(config, config.model.width, apart)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        branch: Tensor = self.second(self.drop(self.first(x, mask).relu()), mask)
        return (x + branch).relu()


class _Convolution(nn.Module):
    """A convolution that keeps the number of steps, then the normalization; neither takes padding for steps."""

    def __init__(self, config: RunConfig, channels: int, apart: int) -> None:
        super().__init__()
        width, kernel, kind = config.model.width, config.model.kernel, config.model.normalization
        beyond = apart * (kernel - 1)
        self.margins = (beyond // 2, beyond - beyond // 2)
        # Batch normalization subtracts a bias again.
        self.convolution = nn.Conv1d(channels, width, kernel, dilation=apart, bias=kind != "batch")
        self.normalizations = nn.ModuleList(normalize_steps(kind, width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask[:, None]
        x = self.convolution(F.pad(x, self.margins))
        for normalization in self.normalizations:
            x = normalization(x, mask)
        return x
