"""EfficientNet-lite0 (Tan & Le 2019; lite: no squeeze-and-excitation, ReLU6) from the file of its weights.

Decides how pictures are brought to what it was trained on, and how it is computed: each batch normalization is folded
into the convolution before it, so that its running statistics stay as they were learned, trained on or not. Knows
nothing of heads and of training.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from tuner.errors import DataError
from tuner.models.frozen import Front, Unfrozen, fast_products

# repeats, stride of the first, expansion (Tan & Le 2019, table 1); kernels and channels are those of the weights
STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))
UNITS = 1280
EPSILON = 1e-3
CENTER, SCALE = 127 / 255, 128 / 255  # of the pixels, from 0 to 1, that the weights were learned on
IMAGES_AT_ONCE = 32
Tensors = Mapping[str, Tensor]


class Convolution(nn.Module):
    """A convolution with the padding of TensorFlow's SAME, a bias, and ReLU6 if it `bends`."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 1, bends: bool = True) -> None:
        super().__init__()
        self.weight = Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = Parameter(bias, requires_grad=False)
        self.stride, self.bends = stride, bends
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        kernel, padding = self.weight.shape[2], self.weight.shape[2] // 2
        if self.stride > 1:
            sides = (_around(side, kernel, self.stride) for side in (x.shape[3], x.shape[2]))
            x, padding = F.pad(x, [places for side in sides for places in side]), 0
        # on a processor torch's depthwise convolution goes backward in bfloat16 at a quarter of the speed of float32
        plain = self.groups > 1 and torch.is_grad_enabled() and x.device.type == "cpu"
        with torch.autocast(x.device.type, enabled=False) if plain else nullcontext():
            x = F.conv2d(x.float() if plain else x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return F.relu6(x) if self.bends else x


def _around(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and behind a side: as little as lets the windows cover it, the odd one behind."""
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


class Block(nn.Module):
    """An inverted bottleneck: widen, a depthwise convolution, narrow; added to its input where the shapes agree."""

    def __init__(self, layers: list[Convolution], skips: bool) -> None:
        super().__init__()
        self.layers, self.skips = nn.Sequential(*layers), skips
        self.stride, self.channels = layers[-2].stride, len(layers[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.skips else y


class Blocks(Unfrozen):
    """Some last blocks, the convolution after them and the mean over the places."""

    def __init__(self, blocks: list[Block], head: Convolution) -> None:
        super().__init__()
        self.blocks, self.head = nn.Sequential(*blocks), head

    def forward(self, x: Tensor) -> Tensor:
        with fast_products(x):
            x = self.head(self.blocks(x.contiguous(memory_format=torch.channels_last)))
        return x.float().mean((2, 3))


class ImageFront(Front):
    """The frozen part: pictures (n, channels, height, width) -> planes after some blocks, or the mean of the last.

    A picture of one channel is gray, a fourth channel is left out. `center` and `scale` undo how the pictures were
    standardized, so that the network sees the pixels that it was trained on.
    """

    def __init__(
        self, tensors: Tensors, blocks: int, resolution: int, center: tuple[float, ...], scale: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.resolution = resolution
        for name, values in (("center", center), ("scale", scale)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))
        self.stem = Convolution(*folded(tensors, "_conv_stem", "_bn0"), stride=2)
        each = load_blocks(tensors)
        self.blocks = nn.Sequential(*each[:blocks])
        self.end = load_end(tensors) if blocks == len(each) else None
        side, channels = -(-resolution // self.stem.stride), len(self.stem.weight)
        for block in each[:blocks]:
            side, channels = -(-side // block.stride), block.channels
        self.shape = (channels, side, side) if self.end is None else (UNITS,)

    def restore(self, x: Tensor) -> Tensor:
        """Return standardized pictures as pixels from 0 to 1."""
        return x * self.get_buffer("scale") + self.get_buffer("center")

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features of pictures, computed a few at a time."""
        if torch.compiler.is_exporting():
            return self._features(pixels)
        return torch.cat([self._features(some) for some in torch.split(pixels, IMAGES_AT_ONCE)])

    def _features(self, pixels: Tensor) -> Tensor:
        size = (self.resolution, self.resolution)
        sized = F.interpolate(pixels[:, :3], size, mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
        planes = ((sized - CENTER) / SCALE).contiguous(memory_format=torch.channels_last)
        with fast_products(planes):
            planes = self.blocks(self.stem(planes))
            if self.end is not None:
                planes = self.end(planes).float().mean((2, 3))
        found: Tensor = planes.half()
        return found


def folded(tensors: Tensors, convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a convolution with the batch normalization that follows it."""
    gain = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + EPSILON).sqrt()
    shift = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
    return tensors[f"{convolution}.weight"] * gain[:, None, None, None], shift


def load_blocks(tensors: Tensors) -> list[Block]:
    """Return all blocks in their order, frozen."""
    blocks: list[Block] = []
    for repeats, first, expansion in STAGES:
        for repeat in range(repeats):
            name, stride = f"_blocks.{len(blocks)}", 1 if repeat else first
            layers = [Convolution(*folded(tensors, f"{name}._expand_conv", f"{name}._bn0"))] if expansion > 1 else []
            layers.append(Convolution(*folded(tensors, f"{name}._depthwise_conv", f"{name}._bn1"), stride=stride))
            layers.append(Convolution(*folded(tensors, f"{name}._project_conv", f"{name}._bn2"), bends=False))
            blocks.append(Block(layers, skips=repeat > 0))
    return blocks


def load_end(tensors: Tensors) -> Convolution:
    """Return the convolution after the last block, frozen."""
    return Convolution(*folded(tensors, "_conv_head", "_bn1"))


@lru_cache(maxsize=1)
def read_tensors(path: Path) -> Tensors:
    """Return the tensors of the weights file.

    Raises:
        DataError: the file can't be read.
    """
    try:
        with warnings.catch_warnings():  # of files that are then refused
            warnings.simplefilter("ignore")
            found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: is no readable file of weights ({str(error).splitlines()[0]})") from None
    return found
