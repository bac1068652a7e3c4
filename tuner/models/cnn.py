"""The convolutional network: for images of any size, down to one pixel.

Decides how convolutions are stacked and when a picture is halved, for accuracy per second on one CPU thread.
Weights start as torch's layers start them, from torch's global generator. Plain 2d layers only, so that a model
and batches in channels_last, the faster memory format, stay in it. Knows nothing of how it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tuner.config import RunConfig
from tuner.models.layers import AveragePool, drop, normalize_channels

if TYPE_CHECKING:
    from tuner.data.splits import Shape

WIDEST = 8  # times the width: beyond it a stage costs more than it gains at these sizes
PLACES = 4  # the head sees at most 4 x 4 places: it keeps where things are, at a bounded number of weights


def cnn(config: RunConfig, shape: Shape) -> nn.Sequential:
    """Return a network (n, channels, height, width) -> (n, shape.outputs).

    `depth` stages: a 3 x 3 convolution to `width` channels, twice as many in every further stage up to
    8 times the width; max-pooling by 2 along each side that still has 2 pixels; normalization; ReLU; dropout.
    Then average pooling to at most 4 x 4 places and a linear head.
    """
    channels, height, width = shape.input
    layers: list[nn.Module] = []
    for stage in range(config.model.depth):
        wider = config.model.width * min(2**stage, WIDEST)
        halved = (min(2, height), min(2, width))
        layers += _stage(config, channels, wider, halved)
        channels, height, width = wider, height // halved[0], width // halved[1]
    places = (min(PLACES, height), min(PLACES, width))
    if places != (height, width):
        layers.append(AveragePool(places))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * places[0] * places[1], shape.outputs))


def _stage(config: RunConfig, channels: int, wider: int, halved: tuple[int, int]) -> list[nn.Module]:
    kind = config.model.normalization
    # Batch normalization subtracts a bias again.
    layers: list[nn.Module] = [nn.Conv2d(channels, wider, 3, padding=1, bias=kind != "batch")]
    if halved != (1, 1):
        # Before the normalization and the ReLU, which then have a quarter of the work.
        layers.append(nn.MaxPool2d(halved))
    return [*layers, *normalize_channels(kind, wider), nn.ReLU(), *drop(config.regularization.dropout)]
