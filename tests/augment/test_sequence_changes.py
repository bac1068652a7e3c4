"""What happens to the steps of a sequence, and how far."""

from __future__ import annotations

import pytest
import torch

from tuner.augment.sequence import _sources, _window, sequence

N = 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_noise_has_its_deviation_and_every_sequence_a_factor_of_its_own(strength):
    batch = torch.full((N, 100, 2), 5.0)
    changed = sequence(batch, strength, seeded(), shift=0)
    there = changed != 0
    factors = (changed.sum((1, 2)) / there.sum((1, 2))) / 5
    assert factors.min().item() == pytest.approx(1 - 0.3 * strength, abs=0.01)
    assert factors.max().item() == pytest.approx(1 + 0.3 * strength, abs=0.01)
    assert factors.mean().item() == pytest.approx(1, abs=0.01)
    noise = (changed - factors[:, None, None] * 5)[there]
    assert noise.std().item() == pytest.approx(0.1 * strength, rel=0.02)


@pytest.mark.parametrize(("strength", "most"), [(1.0, 20), (0.5, 10), (0.01, 0)])
def test_a_window_of_up_to_a_fifth_of_the_steps_is_set_to_the_mean(strength, most):
    blank = (sequence(torch.full((N, 100, 3), 9.0), strength, seeded()) == 0).all(2)
    assert blank.sum(1).max().item() == most
    assert blank.sum(1).min().item() == 0
    edges = (blank[:, 1:] != blank[:, :-1]).sum(1) + blank[:, 0] + blank[:, -1]
    assert set(edges.tolist()) <= {0, 2}  # one window
    if most:
        share = blank.float().mean(0)
        assert (share > 0).all()
        assert share[20:80].std() < 0.1 * share[20:80].mean() + 0.01


def test_the_window_of_a_shorter_sequence_lies_within_it():
    lengths = torch.tensor([1, 5, 10, 100]).repeat(N)
    draws = torch.rand(2, len(lengths), generator=seeded(), dtype=torch.float64)
    window = _window(torch.arange(100), lengths, draws[0] * 0.2, draws[1])
    assert not (window & (torch.arange(100) >= lengths[:, None])).any()
    assert window.sum(1).view(N, 4).amax(0).tolist() == [0, 1, 2, 20]


def test_a_shift_repeats_the_step_at_the_edge_or_wraps():
    places, lengths, shares = torch.arange(5), torch.tensor([5, 5, 5, 3]), torch.tensor([0.0, 0.4, -0.4, 0.4])
    repeated = _sources(places, lengths, shares, wrap=False)
    assert repeated.tolist()[:3] == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [2, 3, 4, 4, 4]]
    assert repeated[3, :3].tolist() == [0, 0, 1]
    wrapped = _sources(places, lengths, shares, wrap=True)
    assert wrapped.tolist()[:3] == [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2], [2, 3, 4, 0, 1]]
    assert wrapped[3, :3].tolist() == [2, 0, 1]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("strength", "shift", "most"), [(1.0, 0.1, 5), (0.5, 0.1, 2), (1.0, 0.5, 25), (1.0, 0.0, 0)])
def test_a_shift_goes_up_to_its_share_of_the_length_either_way(strength, shift, most, wrap):
    spots = torch.zeros(N, 50, 1)
    spots[:, 25] = 1000  # that noise doesn't hide
    found = sequence(spots, strength, seeded(), shift=shift, wrap=wrap)[:, :, 0].abs()
    seen = found.amax(1) > 100  # neither blank nor out of the sequence
    places = found.argmax(1)[seen] - 25
    assert places.abs().max().item() <= most
    assert {-most, most} <= set(places.tolist()) | {25, -25}
    assert set(places.tolist()) >= set(range(1 - most, most))


def test_wrapping_at_full_shift_keeps_every_step():
    batch = torch.arange(1.0, 13.0)[None, :, None].repeat(N, 1, 1)
    lengths = torch.full((N,), 12)
    draws = torch.rand(N, generator=seeded(), dtype=torch.float64) * 2 - 1
    sources = _sources(torch.arange(12), lengths, draws, wrap=True)
    assert torch.equal(batch[:, :, 0].gather(1, sources).sort(1).values, batch[:, :, 0])


def test_nothing_comes_from_the_padding_and_nothing_goes_there():
    lengths = torch.arange(1, 21)[:, None]
    there = (torch.arange(20) < lengths).float()[:, :, None]
    batch = torch.cat((there * 1000, there), 2)
    for wrap in (False, True):
        changed = sequence(batch, 1.0, seeded(), masked=True, shift=1.0, wrap=wrap)
        assert torch.equal(changed[:, :, 1:], there)
        assert not changed[:, :, :1][there == 0].any()
        values = changed[:, :, :1][there == 1]
        assert ((values > 600) | (values == 0)).all()


def test_the_channels_of_a_step_stay_together():
    batch = torch.randn(64, 30, 1, generator=seeded(3)).expand(-1, -1, 3) * 1000
    changed = sequence(batch, 1.0, seeded())
    assert torch.allclose(changed[:, :, 0], changed[:, :, 2], atol=1.5)
