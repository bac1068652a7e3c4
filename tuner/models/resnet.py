"""The residual network: for images of any size, down to one pixel.

Decides where residual blocks stand and when a picture is halved, for accuracy per second on one CPU thread.
Weights start as torch's layers start them, from torch's global generator: a branch of two such convolutions begins with
a small share of the variance of what it is added to, so that deep networks train without normalization, too.
Plain 2d layers only, so that a model and batches in channels_last stay in it. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.models.layers import drop, normalize_channels

if TYPE_CHECKING:
    from tuner.data.splits import Shape

STAGES = (1, 2, 4, 8)  # times the width
SMALLEST = 4  # pixels of a side that is still halved
GAIN = 0.2  # of a branch at the start; at 0 (Goyal et al. 2017) what is in it would get no gradient
LARGEST = 64  # pixels of a side at which the first convolution looks at every place


def resnet(config: RunConfig, shape: Shape) -> nn.Sequential:
    """Return a network (n, channels, height, width) -> (n, shape.outputs).

    Four stages of 1, 2, 4 and 8 times `width` channels: a 3 x 3 convolution; max-pooling by 2 along each side of 4
    or more pixels; normalization; ReLU; then the stage's share of `depth` residual blocks (He et al. 2016).
    The first convolution takes larger steps on pictures of more than 64 pixels a side. At the end the mean over
    all places, dropout and a linear head.
    """
    channels, height, width = shape.input
    layers: list[nn.Module] = []
    for stage, (times, blocks) in enumerate(zip(STAGES, shares(config.model.depth), strict=True)):
        wider = config.model.width * times
        steps = (1, 1) if stage else (-(-height // LARGEST), -(-width // LARGEST))
        height, width = -(-height // steps[0]), -(-width // steps[1])
        halved = (2 if height >= SMALLEST else 1, 2 if width >= SMALLEST else 1)
        layers += _stage(config, channels, wider, steps, halved)
        layers += [_Block(config, wider) for _ in range(blocks)]
        channels, height, width = wider, height // halved[0], width // halved[1]
    head = [*drop(config.regularization.dropout), nn.Linear(channels, shape.outputs)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def shares(depth: int) -> list[int]:
    """Return how many blocks each stage has: the first none, for there they cost most and gain least; the others alike.

    What can't be divided goes to the second stage, then to the third.
    """
    each, left = divmod(depth, len(STAGES) - 1)
    return [0, *(each + (stage < left) for stage in range(len(STAGES) - 1))]


def _stage(
    config: RunConfig, channels: int, wider: int, steps: tuple[int, int], halved: tuple[int, int]
) -> list[nn.Module]:
    kind, seen = config.model.normalization, (2 * steps[0] + 1, 2 * steps[1] + 1)
    # Batch normalization subtracts a bias again.
    layers: list[nn.Module] = [nn.Conv2d(channels, wider, seen, steps, steps, bias=kind != "batch")]
    if halved != (1, 1):
        # Before the normalization and the ReLU, which then have a quarter of the work.
        layers.append(nn.MaxPool2d(halved))
    return [*layers, *normalize_channels(kind, wider), nn.ReLU()]


class _Block(nn.Module):
    """relu(x + branch(x)); in the branch two 3 x 3 convolutions, dropout between them (Zagoruyko & Komodakis 2016)."""

    def __init__(self, config: RunConfig, channels: int) -> None:
        super().__init__()
        kind = config.model.normalization
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=kind != "batch"),
            *normalize_channels(kind, channels),
            nn.ReLU(),
            *drop(config.regularization.dropout),
            nn.Conv2d(channels, channels, 3, padding=1, bias=kind != "batch"),
        )
        for normalization in normalize_channels(kind, channels):
            nn.init.constant_(normalization.get_parameter("weight"), GAIN)
            self.branch.append(normalization)

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(x)
        return (x + branch).relu()
