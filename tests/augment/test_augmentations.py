"""The contract of every augmentation, over the whole dict."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.augment import AUGMENT, augmentation
from tuner.config import RunConfig
from tuner.data.splits import Shape
from tuner.errors import UsageError

torch.set_num_threads(1)

FLIPS = ("none", "horizontal", "vertical", "both")
IMAGE_SIZES = [(1, 1, 1), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 5, 9), (2, 1, 6)]
each = pytest.mark.parametrize("kind", AUGMENT)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(kind: str, n: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    if kind == "image":
        return torch.rand(n, 3, 12, 10, generator=seeded(9), dtype=dtype)
    numbers = torch.randn(n, 4, generator=seeded(9), dtype=dtype)
    return torch.cat((numbers, torch.randint(6, (n, 2), generator=seeded(8)).to(dtype)), 1)


def options(kind: str) -> dict[str, object]:
    return {"image": {"flip": "both"}, "table": {"categories": 2}}[kind]


@each
def test_strength_zero_returns_the_batch_bit_for_bit_and_draws_nothing(kind):
    batch, generator = make_batch(kind), seeded()
    kept, state, everywhere = batch.clone(), generator.get_state(), torch.get_rng_state()
    changed = AUGMENT[kind](batch, 0.0, generator, **options(kind))
    assert changed is batch
    assert changed.numpy().tobytes() == kept.numpy().tobytes()
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), everywhere)


@each
@pytest.mark.parametrize("strength", [1e-3, 0.5, 1.0])
def test_the_input_is_never_changed_and_the_result_shares_no_memory_with_it(kind, strength):
    batch = make_batch(kind)
    kept = batch.clone()
    changed = AUGMENT[kind](batch, strength, seeded(), **options(kind))
    assert torch.equal(batch, kept)
    changed.fill_(7)
    assert torch.equal(batch, kept)


@each
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_generators_state_alone_decides(kind, strength):
    def run(seed: int, elsewhere: int) -> bytes:
        torch.manual_seed(elsewhere)
        return AUGMENT[kind](make_batch(kind), strength, seeded(seed), **options(kind)).numpy().tobytes()

    assert run(1, elsewhere=1) == run(1, elsewhere=2)
    assert run(1, elsewhere=1) != run(2, elsewhere=1)


@each
def test_two_calls_in_a_row_differ_and_leave_the_global_generator_alone(kind):
    generator, state = seeded(), torch.get_rng_state()
    batch = make_batch(kind)
    first = AUGMENT[kind](batch, 1.0, generator, **options(kind))
    assert not torch.equal(first, AUGMENT[kind](batch, 1.0, generator, **options(kind)))
    assert torch.equal(torch.get_rng_state(), state)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_shape_and_dtype_stay(kind, dtype, n):
    batch = make_batch(kind, n, dtype)
    changed = AUGMENT[kind](batch, 1.0, seeded(), **options(kind))
    assert changed.shape == batch.shape
    assert changed.dtype == dtype
    assert changed.isfinite().all()


@each
def test_a_greater_strength_changes_more(kind):
    plain = {"image": {"flip": "none"}, "table": {"categories": 2}}[kind]
    if kind == "image":  # smooth, so that a greater move is a greater change
        ramp = torch.linspace(0, 1, 24)
        batch = (ramp[:, None] * ramp[None, :]).expand(2000, 1, 24, 24)
    else:
        batch = make_batch(kind, 2000)
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    sizes = [(AUGMENT[kind](batch, s, seeded(), **plain) - batch).square().mean().item() for s in strengths]
    assert sizes[0] == 0
    assert all(less * 1.2 < more for less, more in pairwise(sizes)), sizes


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from(IMAGE_SIZES),
    n=st.integers(0, 9),
    strength=st.floats(0, 1),
    flip=st.sampled_from(FLIPS),
    seed=st.integers(0, 2**32 - 1),
)
def test_images_of_any_size_stay_images(size, n, strength, flip, seed):
    batch = torch.rand(n, *size, generator=seeded(seed))
    kept = batch.clone()
    changed = AUGMENT["image"](batch, strength, seeded(seed), flip)
    assert changed.shape == batch.shape
    assert changed.dtype == batch.dtype
    assert ((changed >= 0) & (changed <= 1 + 1e-6)).all()
    assert torch.equal(batch, kept)
    assert strength > 0 or changed is batch


@settings(max_examples=60, deadline=None)
@given(
    columns=st.integers(1, 6),
    data=st.data(),
    n=st.integers(0, 40),
    strength=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_of_any_table_stay_codes_of_their_column(columns, data, n, strength, seed):
    categories = data.draw(st.integers(0, columns))
    numbers = torch.randn(n, columns - categories, generator=seeded(seed))
    codes = torch.arange(n)[:, None] % 5 + 10 * torch.arange(categories)
    batch = torch.cat((numbers, codes.float()), 1)
    kept = batch.clone()
    changed = AUGMENT["table"](batch, strength, seeded(seed), categories)
    assert changed.shape == batch.shape
    assert changed.isfinite().all()
    assert torch.equal(batch, kept)
    for column in range(columns - categories, columns):
        assert set(changed[:, column].tolist()) <= set(batch[:, column].tolist())


def configure(strength: float, flip: str = "none") -> RunConfig:
    return RunConfig.model_validate(
        {"data": {"source": "sklearn:digits"}, "augmentation": {"strength": strength, "flip": flip}}
    )


def test_a_configuration_binds_strength_and_flip():
    change = augmentation(configure(0.4, "vertical"), Shape("image", "classification", (3, 12, 10), 2))
    batch = make_batch("image")
    assert torch.equal(change(batch, seeded()), AUGMENT["image"](batch, 0.4, seeded(), "vertical"))


def test_a_configuration_binds_strength_and_the_columns_of_codes():
    change = augmentation(configure(0.4), Shape("table", "regression", (6,), 1, (6, 6)))
    batch = make_batch("table")
    assert torch.equal(change(batch, seeded()), AUGMENT["table"](batch, 0.4, seeded(), 2))


def test_strength_zero_is_no_function_at_all_even_with_a_flip():
    assert augmentation(configure(0.0, "both"), Shape("image", "classification", (1, 8, 8), 2)) is None


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_a_flip_of_a_table_is_refused(strength):
    with pytest.raises(UsageError, match=r"augmentation.flip: both is for images, the data are a table"):
        augmentation(configure(strength, "both"), Shape("table", "classification", (4,), 2))
