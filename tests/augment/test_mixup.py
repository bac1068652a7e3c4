"""What a mixture of two examples is, and how large the shares are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuner.augment import mixing, mixup
from tuner.augment.mixup import _beta
from tuner.config import RunConfig
from tuner.data.splits import Shape
from tuner.errors import UsageError

IMAGES = Shape("image", "classification", (3, 8, 6), 4)
TABLES = Shape("table", "classification", (7,), 4, (4, 9, 5))
SEQUENCES = Shape("sequence", "regression", (9, 2), 1)
MASKED = Shape("sequence", "classification", (9, 3), 4, masked=True)
SHAPES = {"images": IMAGES, "tables": TABLES, "sequences": SEQUENCES, "masked sequences": MASKED}
each = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(shape: Shape, n: int = 16, seed: int = 9) -> torch.Tensor:
    x = torch.randn(n, *shape.input, generator=seeded(seed))
    for i, cardinality in enumerate(reversed(shape.cardinalities), 1):
        x[:, -i] = torch.randint(cardinality, (n,), generator=seeded(i)).float()
    if shape.masked:
        there = (torch.arange(9) < torch.randint(1, 10, (n, 1), generator=seeded(seed)))[:, :, None]
        x[:, :, -1] = 1
        x = x * there
    return x


def numbers_of(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return what is mixed as numbers: neither codes nor the mask."""
    return x[:, : -len(shape.cardinalities)] if shape.cardinalities else x[..., :-1] if shape.masked else x


@each
def test_alpha_zero_is_the_batch_itself_and_draws_nothing(shape):
    batch, generator = make_batch(shape), seeded()
    state = generator.get_state()
    mixed, partners, share = mixup(batch, shape, 0.0, generator)
    assert mixed is batch
    assert partners.tolist() == list(range(16))
    assert share == 1
    assert torch.equal(generator.get_state(), state)


@each
def test_numbers_are_mixed_with_those_of_the_partner_by_the_share(shape):
    batch = make_batch(shape)
    for seed in range(10):
        mixed, partners, share = mixup(batch, shape, 1.0, seeded(seed))
        assert sorted(partners.tolist()) == list(range(16))
        assert 0 < share < 1
        expected = share * batch + (1 - share) * batch[partners]
        assert torch.allclose(numbers_of(mixed, shape), numbers_of(expected, shape), atol=1e-6)


@each
@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 9), alpha=st.floats(0, 10), seed=st.integers(0, 2**32 - 1))
def test_shape_and_dtype_stay_and_the_batch_and_the_global_generator_are_left_alone(shape, n, alpha, seed):
    batch, everywhere = make_batch(shape, n, seed), torch.get_rng_state()
    kept = batch.clone()
    mixed, partners, share = mixup(batch, shape, alpha, seeded(seed))
    assert torch.equal(batch, kept)
    assert torch.equal(torch.get_rng_state(), everywhere)
    assert mixed.shape == batch.shape
    assert mixed.dtype == batch.dtype
    assert mixed.isfinite().all()
    assert partners.shape == (n,)
    assert share.shape == ()
    assert 0 <= share <= 1
    assert mixed is batch or alpha > 0


@each
def test_the_generators_state_alone_decides(shape):
    batch = make_batch(shape)
    runs = [mixup(batch, shape, 0.5, seeded(seed)) for seed in (1, 1, 2)]
    assert all(torch.equal(*pair) for pair in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0])


def test_codes_stay_codes_of_the_row_or_its_partner_by_the_share():
    n = 3000
    batch = torch.zeros(n, 7)
    batch[:, 4:] = torch.arange(n)[:, None].float() + torch.tensor([0.0, 1e5, 2e5])  # all different
    for seed in range(4):
        mixed, partners, share = mixup(batch, TABLES, 1.0, seeded(seed))
        own, others = mixed[:, 4:] == batch[:, 4:], mixed[:, 4:] == batch[partners][:, 4:]
        assert (own | others).all()
        assert own.float().mean(0).tolist() == pytest.approx([share.item()] * 3, abs=0.04)
        between = own[:, 0] & ~own[:, 1]
        assert between.float().mean().item() == pytest.approx(share.item() * (1 - share.item()), abs=0.04)


def test_a_step_of_masked_sequences_is_there_where_either_has_one():
    batch = make_batch(MASKED, 64)
    mixed, partners, share = mixup(batch, MASKED, 1.0, seeded(2))
    there, theirs = batch[:, :, -1] == 1, batch[partners][:, :, -1] == 1
    assert torch.equal(mixed[:, :, -1], (there | theirs).float())
    assert not mixed[~(there | theirs)].any()
    alone = there & ~theirs
    assert torch.allclose(mixed[alone][:, :-1], share * batch[alone][:, :-1], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    generator = seeded(5)
    shares = [float(_beta(alpha, generator)) for _ in range(2000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.05


@pytest.mark.parametrize("alpha", [1e-320, 1e-300, 1e-9, 1e-5])
def test_the_smallest_alpha_gives_one_example_or_the_other(alpha):
    generator = seeded()
    shares = {round(float(_beta(alpha, generator)), 6) for _ in range(100)}
    assert shares == {0.0, 1.0}


def test_images_in_channels_last_stay_in_it():
    batch = make_batch(IMAGES).contiguous(memory_format=torch.channels_last)
    assert mixup(batch, IMAGES, 0.4, seeded())[0].is_contiguous(memory_format=torch.channels_last)


def test_texts_are_refused():
    shape = Shape("text", "classification", (5,), 2, vocabulary=9)
    with pytest.raises(UsageError, match=r"augmentation.mixup: is for images, tables and sequences"):
        mixup(torch.ones(2, 5, dtype=torch.int64), shape, 0.2, seeded())


@each
def test_a_configuration_binds_alpha(shape):
    config = RunConfig.model_validate({"data": {"source": "sklearn:digits"}, "augmentation": {"mixup": 0.7}})
    batch = make_batch(shape)
    found, expected = mixing(config, shape)(batch, seeded()), mixup(batch, shape, 0.7, seeded())
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
