"""Random changes of pictures, a whole batch at a time.

Decides which changes there are and how far each goes at a strength. Knows nothing of labels, of the
rows beyond the batch, or of when it is called; whether a flip leaves a label true is told to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Flip = Literal["none", "horizontal", "vertical", "both"]

CROP = 0.125  # share of a side that the pad-crop may shift a picture by
ANGLE = math.pi / 6
SHIFT = 0.2  # of a side
ZOOM = 0.3
SLANT = 0.3
LEVEL = 0.5
DEVIATION = 0.1
HOLE = 0.5  # of the shorter side


def image(batch: Tensor, strength: float, generator: torch.Generator, flip: Flip = "none") -> Tensor:
    """Return randomly changed pictures of the same shape and dtype; the batch itself at strength 0.

    Every picture is padded with zeros and cropped back, shifted by up to 12.5 % of each side times
    the strength s (whole pixels), and flipped with probability 1/2 along each declared axis. Then, with
    probability s, one change drawn uniformly, of a size drawn uniformly up to: rotation +-30 degrees s,
    translation +-20 % s of each side, scale 1 +- .3 s, shear +-.3 s, brightness and contrast
    1 +- .5 s each, Gaussian noise of standard deviation .1 s, or a blank square of half the shorter side
    times s (Cutout, DeVries & Taylor 2017). One change a picture, all equally likely, is the scheme of
    TrivialAugment (Müller & Hutter 2021).

    Args:
        batch: floats (n, channels, height, width) from 0 to 1. It is never changed.
        strength: from 0 (exactly nothing, and nothing is drawn) to 1.
        generator: the only source of chance, on the batch's device.
        flip: the flips that leave a picture's label true.
    """
    if strength == 0 or not len(batch):
        return batch
    images = _crop(batch, strength, generator)
    images = _flip(images, flip, generator)
    return _change_some(images, strength, generator)


def _crop(batch: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return a shifted copy; whole pixels, so that what stays in the picture stays exact."""
    n, _, height, width = batch.shape
    reach = [CROP * strength * side for side in (height, width)]
    margins = [int(most + 0.5) for most in reach]
    padded = F.pad(batch, (margins[1], margins[1], margins[0], margins[0]))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    draws = _signed(batch, generator, 2).unbind(1)
    tops, lefts = (
        (draw * most).round().long() + margin for draw, most, margin in zip(draws, reach, margins, strict=True)
    )
    return windows[torch.arange(n, device=batch.device), :, tops, lefts]


def _flip(images: Tensor, flip: Flip, generator: torch.Generator) -> Tensor:
    axes = {"none": (), "horizontal": (3,), "vertical": (2,), "both": (2, 3)}[flip]
    for axis in axes:
        coins = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
        images = torch.where(coins, images.flip(axis), images)
    return images


def _change_some(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Write one change over some of the `images` and return them; the others keep their exact pixels."""
    # The draw is uniform, so its share of the strength is too, and names the change; above 1: none.
    draws = torch.rand(len(images), generator=generator, device=images.device)
    changes = list(CHANGES.values())
    kinds = (draws / strength * len(changes)).clamp(max=len(changes)).long()
    for change in dict.fromkeys(changes):  # those of one function go through it together
        of_it = torch.tensor([other is change for other in changes] + [False], device=images.device)
        rows = of_it[kinds].nonzero()[:, 0]
        if len(rows):
            images[rows] = change(images[rows], kinds[rows], strength, generator)
    return images


def _signed(images: Tensor, generator: torch.Generator, columns: int) -> Tensor:
    """Draw (n, columns) numbers from -1 to 1."""
    size = (len(images), columns)
    return torch.rand(size, generator=generator, device=images.device, dtype=images.dtype) * 2 - 1


def _move(images: Tensor, kinds: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Rotate, translate, scale or shear, all in one bilinear sampling; what comes from outside is zero."""
    amounts = _signed(images, generator, 2) * strength
    matrices = _inverse_maps(amounts, kinds, aspect=images.shape[3] / images.shape[2])
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _inverse_maps(amounts: Tensor, kinds: Tensor, aspect: float) -> Tensor:
    """Return (n, 2, 3) maps from where a pixel is drawn to where it is read, in affine_grid's coordinates.

    Those run from -1 to 1 along each side, so `aspect` (width / height) keeps a rotation rigid in pixels.
    """
    first, second = amounts.unbind(1)
    angle = torch.where(kinds == ROTATE, first * ANGLE, 0)
    shift = torch.where((kinds == TRANSLATE)[:, None], amounts * (2 * SHIFT), 0)
    zoom = torch.where(kinds == SCALE, 1 + first * ZOOM, 1)
    slant = torch.where(kinds == SHEAR, first * SLANT, 0)
    sideways = second > 0
    diagonal = angle.cos() / zoom
    upper = (-angle.sin() + slant * sideways) / aspect
    lower = (angle.sin() + slant * ~sideways) * aspect
    return torch.stack((diagonal, upper, shift[:, 0], lower, diagonal, shift[:, 1]), 1).view(-1, 2, 3)


def _light(images: Tensor, _kinds: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Multiply the brightness, and the distances from each picture's mean, by factors around 1."""
    brightness, contrast = (1 + _signed(images, generator, 2) * (LEVEL * strength)).unbind(1)
    mean = images.mean((1, 2, 3), keepdim=True)
    spread = (images - mean) * contrast[:, None, None, None]
    return ((mean + spread) * brightness[:, None, None, None]).clamp(0, 1)


def _add_noise(images: Tensor, _kinds: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (images + noise * (DEVIATION * strength)).clamp(0, 1)


def _cut_out(images: Tensor, _kinds: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Blank a square, as much of it as lies in the picture, around a random pixel."""
    n, _, height, width = images.shape
    draws = torch.rand(n, 3, 1, generator=generator, device=images.device, dtype=images.dtype)
    half = draws[:, 0] * (HOLE * strength * min(height, width) / 2)
    rows, columns = (
        # A pixel's center is half a pixel from its edge.
        (torch.arange(side, device=images.device) + 0.5 - draws[:, i] * side).abs() < half
        for i, side in ((1, height), (2, width))
    )
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


# Each is called with floats (n, channels, height, width) of its own to change, their places in this list, the strength
# and the generator.
CHANGES: dict[str, Callable[[Tensor, Tensor, float, torch.Generator], Tensor]] = {
    "rotate": _move,
    "translate": _move,
    "scale": _move,
    "shear": _move,
    "light": _light,
    "noise": _add_noise,
    "cutout": _cut_out,
}
ROTATE, TRANSLATE, SCALE, SHEAR = (list(CHANGES).index(name) for name in ("rotate", "translate", "scale", "shear"))
