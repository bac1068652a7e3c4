"""What each change of a picture does, how often and how far."""

from __future__ import annotations

import math

import pytest
import torch

from tuner.augment import image as module_of_image  # the function, by its public name
from tuner.augment.image import (
    ROTATE,
    SCALE,
    SHEAR,
    TRANSLATE,
    _add_noise,
    _change_some,
    _crop,
    _cut_out,
    _flip,
    _inverse_maps,
    _light,
    _move,
)

N = 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spots(n: int, side: int = 33) -> torch.Tensor:
    """Pictures that are black but for one pixel in the middle."""
    pictures = torch.zeros(n, 1, side, side)
    pictures[:, :, side // 2, side // 2] = 1
    return pictures


def center(pictures: torch.Tensor) -> torch.Tensor:
    """Return (n, 2) rows and columns of the center of mass, from the middle."""
    mass = pictures.sum((1, 2, 3))
    where = torch.arange(pictures.shape[2]) - pictures.shape[2] // 2
    return torch.stack(
        ((pictures.sum((1, 3)) @ where.float()) / mass, (pictures.sum((1, 2)) @ where.float()) / mass), 1
    )


@pytest.mark.parametrize(("strength", "most"), [(1.0, 4), (0.5, 2), (0.25, 1), (0.01, 0)])
def test_the_crop_shifts_by_whole_pixels_up_to_an_eighth_of_the_side(strength, most):
    pictures = _crop(spots(N), strength, seeded())
    assert torch.equal(pictures.sum((1, 2, 3)), torch.ones(N))
    assert set(center(pictures).flatten().tolist()) == set(range(-most, most + 1))


@pytest.mark.parametrize(("flip", "variants"), [("none", 1), ("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_declared_flips_happen_half_of_the_time_along_each_axis_and_no_others(flip, variants):
    picture = torch.arange(6.0).view(1, 1, 2, 3)
    axes = {"none": [()], "horizontal": [(), (3,)], "vertical": [(), (2,)], "both": [(), (3,), (2,), (2, 3)]}[flip]
    flipped = _flip(picture.expand(N, -1, -1, -1), flip, seeded())
    shares = [(flipped == picture.flip(axis)).all(3).all(2).float().mean().item() for axis in axes]
    assert shares == pytest.approx([1 / variants] * variants, abs=0.03)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_the_share_of_pictures_that_get_a_change_is_the_strength_and_the_others_keep_every_pixel(strength):
    pictures = torch.rand(N, 1, 9, 9, generator=seeded(1))
    changed = _change_some(pictures.clone(), strength, seeded())
    share = (changed != pictures).flatten(1).any(1).float().mean().item()
    assert strength * 0.93 - 0.02 < share <= strength + 0.02  # a small hole may lie between two pixels


@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_a_rotation_is_rigid_in_pixels_and_at_most_thirty_degrees(size):
    height, width = size
    amounts = torch.linspace(-1, 1, 101)[:, None].expand(-1, 2)
    maps = _inverse_maps(amounts, torch.full((101,), ROTATE), width / height)
    scale = torch.diag(torch.tensor([width / 2, height / 2]))
    pixels = scale @ maps[:, :, :2] @ scale.inverse()
    assert torch.allclose(pixels @ pixels.mT, torch.eye(2).expand(101, 2, 2), atol=1e-5)
    angles = torch.atan2(pixels[:, 1, 0], pixels[:, 0, 0])
    assert torch.allclose(angles, torch.linspace(-math.pi / 6, math.pi / 6, 101), atol=1e-5)
    assert not maps[:, :, 2].any()


def test_a_translation_moves_up_to_a_fifth_of_the_side_both_ways():
    moved = _move(spots(N, 41), torch.full((N,), TRANSLATE), 1.0, seeded())
    places = center(moved)
    assert places.abs().max().item() == pytest.approx(8.2, abs=0.1)
    assert places.mean().item() == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_scale_and_shear_stay_within_their_bounds(strength):
    amounts = (torch.rand(N, 2, generator=seeded()) * 2 - 1) * strength
    zoomed = _inverse_maps(amounts, torch.full((N,), SCALE), 1.0)
    factors = 1 / zoomed[:, 0, 0]
    assert torch.equal(zoomed[:, 0, 0], zoomed[:, 1, 1])
    assert factors.min().item() == pytest.approx(1 - 0.3 * strength, abs=0.01)
    assert factors.max().item() == pytest.approx(1 + 0.3 * strength, abs=0.01)
    slanted = _inverse_maps(amounts, torch.full((N,), SHEAR), 1.0)
    both = torch.stack((slanted[:, 0, 1], slanted[:, 1, 0]), 1)
    assert both.abs().max().item() == pytest.approx(0.3 * strength, abs=0.01)
    assert (both.abs().min(1).values == 0).all()
    assert (both != 0).float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def test_light_changes_brightness_and_contrast_within_their_bounds():
    flat = torch.full((N, 1, 4, 4), 0.5)
    bright = _light(flat, torch.zeros(N), 1.0, seeded())[:, 0, 0, 0]
    assert bright.min().item() == pytest.approx(0.25, abs=0.01)
    assert bright.max().item() == pytest.approx(0.75, abs=0.01)
    striped = torch.tensor([0.2, 0.3]).repeat(8).view(1, 1, 4, 4).expand(N, -1, -1, -1)
    lit = _light(striped, torch.zeros(N), 1.0, seeded())[:, 0, 0]
    contrast = (lit[:, 1] - lit[:, 0]) / (lit[:, 1] + lit[:, 0]) / 0.2
    assert contrast.min().item() == pytest.approx(0.5, abs=0.02)
    assert contrast.max().item() == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_noise_has_its_deviation(strength):
    noisy = _add_noise(torch.full((200, 1, 16, 16), 0.5), torch.empty(0), strength, seeded())
    assert noisy.std().item() == pytest.approx(0.1 * strength, rel=0.03)


def test_a_hole_is_a_black_square_up_to_half_of_the_side_through_all_channels():
    holed = _cut_out(torch.ones(N, 2, 20, 20), torch.empty(0), 1.0, seeded())
    black = holed == 0
    assert torch.equal(black[:, 0], black[:, 1])
    rows, columns = black[:, 0].any(2).sum(1), black[:, 0].any(1).sum(1)
    assert torch.equal(black[:, 0].sum((1, 2)), rows * columns)
    assert rows.max().item() == columns.max().item() == 10
    assert 0.15 < rows.float().mean().item() / 20 < 0.3


def test_the_public_function_crops_flips_and_changes():
    pictures = torch.rand(64, 1, 16, 16, generator=seeded(3))
    generator = seeded()
    expected = _change_some(_flip(_crop(pictures, 0.5, generator), "both", generator), 0.5, generator)
    assert torch.equal(module_of_image(pictures, 0.5, seeded(), "both"), expected)
