"""How often and how far the cells of a table move."""

from __future__ import annotations

import pytest
import torch

from tuner.augment.table import _swap, table

N = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_the_share_of_codes_replaced_grows_with_the_strength_to_fifteen_percent(strength):
    codes = torch.arange(N).float()[:, None].expand(-1, 3)  # all different: every swap shows
    changed = table(codes, strength, seeded(), categories=3)
    assert (changed != codes).float().mean(0).tolist() == pytest.approx([0.15 * strength] * 3, abs=0.012)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_numbers_get_noise_of_three_tenths_of_their_deviation(strength):
    same = torch.ones(N, 2)  # all equal: no swap shows
    noise = table(same, strength, seeded()) - same
    assert noise.std(0).tolist() == pytest.approx([0.3 * strength] * 2, rel=0.03)
    assert noise.mean(0).tolist() == pytest.approx([0, 0], abs=0.01)
    assert torch.corrcoef(noise.T)[0, 1].abs() < 0.03


def test_a_swapped_value_is_another_rows_of_the_same_column():
    batch = torch.arange(50.0)[:, None] + torch.tensor([0.0, 100.0])
    swapped = _swap(batch, 1.0, seeded())
    assert (swapped != batch).all()
    assert ((swapped[:, 0] >= 0) & (swapped[:, 0] < 50)).all()
    assert ((swapped[:, 1] >= 100) & (swapped[:, 1] < 150)).all()
    assert not torch.equal(swapped[:, 0] + 100, swapped[:, 1])  # each cell on its own


def test_a_lone_row_swaps_with_nobody():
    codes = torch.tensor([[3.0, 5.0]])
    for seed in range(50):
        assert torch.equal(table(codes, 1.0, seeded(seed), categories=2), codes)


def test_a_swap_reads_the_values_before_the_noise():
    batch = torch.zeros(N, 1)
    assert not _swap(batch, 1.0, seeded()).any()
