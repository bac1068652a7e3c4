"""The contract of every augmentation, over the whole dict."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.augment import AUGMENT, augmentation, mixing
from tuner.augment.image import CHANGES
from tuner.config import RunConfig
from tuner.data.splits import Kind, Shape
from tuner.errors import UsageError

torch.set_num_threads(1)

KINDS = get_args(Kind)

FLIPS = ("none", "horizontal", "vertical", "both")
IMAGE_SIZES = [(1, 1, 1), (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 5, 9), (2, 1, 6)]
CASES = {
    "image": ("image", {"flip": "both"}),
    "table": ("table", {"categories": 2}),
    "text": ("text", {}),
    "text with marks at its ends": ("text", {"keep_ends": True}),
    "sequence": ("sequence", {}),
    "sequence that wraps": ("sequence", {"shift": 0.5, "wrap": True}),
    "masked sequence": ("sequence", {"masked": True}),
}
each = pytest.mark.parametrize(("kind", "options"), CASES.values(), ids=CASES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(kind: str, n: int = 64, dtype: torch.dtype | None = None) -> torch.Tensor:
    dtype = dtype or (torch.int64 if kind == "text" else torch.float32)
    if kind == "image":
        return torch.rand(n, 3, 12, 10, generator=seeded(9), dtype=dtype)
    if kind == "text":
        return make_texts(n, 12, dtype)
    if kind == "sequence":  # masked or not: a last channel of ones and zeros is a channel, too
        return make_sequences(n, (12, 3), dtype)
    numbers = torch.randn(n, 4, generator=seeded(9), dtype=dtype)
    return torch.cat((numbers, torch.randint(6, (n, 2), generator=seeded(8)).to(dtype)), 1)


def make_texts(n: int, longest: int, dtype: torch.dtype = torch.int64, seed: int = 9) -> torch.Tensor:
    texts = torch.randint(1, 50, (n, longest), generator=seeded(seed), dtype=dtype)
    return texts * (torch.arange(longest) < lengths(n, longest, seed))


def make_sequences(n: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 9) -> torch.Tensor:
    steps, channels = size
    there = (torch.arange(steps) < lengths(n, steps, seed)).to(dtype)[:, :, None]
    values = torch.randn(n, steps, channels - 1, generator=seeded(seed), dtype=dtype)
    return torch.cat((values * there, there), 2)


def lengths(n: int, longest: int, seed: int) -> torch.Tensor:
    return torch.randint(1, longest + 1, (n, 1), generator=seeded(seed))


def test_there_is_an_augmentation_for_every_kind_of_data_and_it_is_tested():
    assert set(AUGMENT) == set(KINDS) == {kind for kind, _ in CASES.values()}


def test_a_change_of_pictures_is_a_function_and_a_line(monkeypatch):
    """What ARCHITECTURE.md promises: nothing else needs to know of it."""
    monkeypatch.setitem(CHANGES, "invert", lambda images, kinds, strength, generator: 1 - images)
    batch = torch.full((4000, 1, 4, 4), 0.25)
    changed = AUGMENT["image"][0](batch, 1.0, seeded())
    inverted = (changed[:, :, 1:3, 1:3] == 0.75).all((1, 2, 3)).float().mean()
    assert abs(float(inverted) - 1 / len(CHANGES)) < 0.03


@each
def test_strength_zero_returns_the_batch_bit_for_bit_and_draws_nothing(kind, options):
    batch, generator = make_batch(kind), seeded()
    kept, state, everywhere = batch.clone(), generator.get_state(), torch.get_rng_state()
    changed = AUGMENT[kind][0](batch, 0.0, generator, **options)
    assert changed is batch
    assert changed.numpy().tobytes() == kept.numpy().tobytes()
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), everywhere)


@each
@pytest.mark.parametrize("strength", [1e-3, 0.5, 1.0])
def test_the_input_is_never_changed_and_the_result_shares_no_memory_with_it(kind, options, strength):
    batch = make_batch(kind)
    kept = batch.clone()
    changed = AUGMENT[kind][0](batch, strength, seeded(), **options)
    assert torch.equal(batch, kept)
    changed.fill_(7)
    assert torch.equal(batch, kept)


@each
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_generators_state_alone_decides(kind, options, strength):
    def run(seed: int, elsewhere: int) -> bytes:
        torch.manual_seed(elsewhere)
        return AUGMENT[kind][0](make_batch(kind), strength, seeded(seed), **options).numpy().tobytes()

    assert run(1, elsewhere=1) == run(1, elsewhere=2)
    assert run(1, elsewhere=1) != run(2, elsewhere=1)


@each
def test_two_calls_in_a_row_differ_and_leave_the_global_generator_alone(kind, options):
    generator, state = seeded(), torch.get_rng_state()
    batch = make_batch(kind)
    first = AUGMENT[kind][0](batch, 1.0, generator, **options)
    assert not torch.equal(first, AUGMENT[kind][0](batch, 1.0, generator, **options))
    assert torch.equal(torch.get_rng_state(), state)


@each
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_shape_and_dtype_stay(kind, options, wide, n):
    dtypes = (torch.int32, torch.int64) if kind == "text" else (torch.float32, torch.float64)
    dtype = dtypes[wide]
    batch = make_batch(kind, n, dtype)
    changed = AUGMENT[kind][0](batch, 1.0, seeded(), **options)
    assert changed.shape == batch.shape
    assert changed.dtype == dtype
    assert changed.isfinite().all()


@each
def test_a_greater_strength_changes_more(kind, options):
    if kind == "image":  # smooth, so that a greater move is a greater change
        ramp = torch.linspace(0, 1, 24)
        batch = (ramp[:, None] * ramp[None, :]).expand(2000, 1, 24, 24)
        options = {"flip": "none"}
    elif kind == "sequence":
        batch = torch.linspace(-1, 1, 48)[None, :, None].repeat(2000, 1, 2)
        batch[:, :, -1] = 1
    else:
        batch = make_batch(kind, 2000)
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    changes = [(AUGMENT[kind][0](batch, s, seeded(), **options) - batch).double() for s in strengths]
    sizes = [(change != 0 if kind == "text" else change.square()).double().mean().item() for change in changes]
    assert sizes[0] == 0
    assert all(less * 1.1 < more for less, more in pairwise(sizes)), sizes


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
    changed = AUGMENT["image"][0](batch, strength, seeded(seed), flip)
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
    changed = AUGMENT["table"][0](batch, strength, seeded(seed), categories)
    assert changed.shape == batch.shape
    assert changed.isfinite().all()
    assert torch.equal(batch, kept)
    for column in range(columns - categories, columns):
        assert set(changed[:, column].tolist()) <= set(batch[:, column].tolist())


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(0, 9),
    longest=st.integers(1, 12),
    strength=st.floats(0, 1),
    keep_ends=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_texts_of_any_length_stay_texts_of_tokens_that_occur(n, longest, strength, keep_ends, seed):
    batch = make_texts(n, longest, seed=seed)
    kept = batch.clone()
    changed = AUGMENT["text"][0](batch, strength, seeded(seed), keep_ends)
    assert torch.equal(batch, kept)
    assert changed.shape == batch.shape
    there = changed != 0
    assert (there[:, 1:] <= there[:, :-1]).all()  # padding at the end alone
    assert there[:, 0].all()
    assert (there.sum(1) <= (batch != 0).sum(1)).all()
    assert set(changed.flatten().tolist()) <= set(batch.flatten().tolist()) | {0}
    if keep_ends:
        assert torch.equal(changed[:, 0], batch[:, 0])
        assert torch.equal(last(changed), last(batch))


def last(texts: torch.Tensor) -> torch.Tensor:
    return texts.gather(1, (texts != 0).sum(1, keepdim=True) - 1)


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(0, 9),
    size=st.tuples(st.integers(1, 12), st.integers(1, 3)),
    strength=st.floats(0, 1),
    shift=st.floats(0, 1),
    wrap=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_masked_sequences_of_any_length_keep_their_mask_and_their_padding(n, size, strength, shift, wrap, seed):
    batch = make_sequences(n, size, seed=seed)
    kept = batch.clone()
    changed = AUGMENT["sequence"][0](batch, strength, seeded(seed), True, shift, wrap)
    assert torch.equal(batch, kept)
    assert changed.shape == batch.shape
    assert changed.isfinite().all()
    assert torch.equal(changed[:, :, -1], batch[:, :, -1])
    assert not changed[batch[:, :, -1] == 0].any()


def configure(strength: float = 0.0, flip: str = "none", **more: object) -> RunConfig:
    sections = {"data": {"source": "sklearn:digits"}, "augmentation": {"strength": strength, "flip": flip}}
    return RunConfig.model_validate(sections).replace({name.replace("__", "."): more[name] for name in more})


def test_a_configuration_binds_strength_and_flip():
    change = augmentation(configure(0.4, "vertical"), Shape("image", "classification", (3, 12, 10), 2))
    batch = make_batch("image")
    assert torch.equal(change(batch, seeded()), AUGMENT["image"][0](batch, 0.4, seeded(), "vertical"))


def test_a_configuration_binds_strength_and_the_columns_of_codes():
    change = augmentation(configure(0.4), Shape("table", "regression", (6,), 1, (6, 6)))
    batch = make_batch("table")
    assert torch.equal(change(batch, seeded()), AUGMENT["table"][0](batch, 0.4, seeded(), 2))


def test_strength_zero_is_no_function_at_all_even_with_a_flip():
    assert augmentation(configure(0.0, "both"), Shape("image", "classification", (1, 8, 8), 2)) is None


@pytest.mark.parametrize("masked", [False, True])
def test_a_configuration_binds_strength_shift_wrap_and_the_mask_of_sequences(masked):
    config = configure(0.4, augmentation__shift=0.3, augmentation__wrap=True)
    change = augmentation(config, Shape("sequence", "classification", (12, 3), 2, masked=masked))
    batch = make_batch("sequence")
    assert torch.equal(change(batch, seeded()), AUGMENT["sequence"][0](batch, 0.4, seeded(), masked, 0.3, True))


@pytest.mark.parametrize(
    ("more", "keep_ends"),
    [
        ({}, False),
        ({"data__tokens": "word"}, False),
        ({"data__tokens": "character"}, False),
        ({"data__tokens": "minilm"}, True),
        ({"model__family": "pretrained"}, True),
    ],
)
def test_the_marks_that_a_backbones_tokenizer_sets_are_left_alone(more, keep_ends):
    change = augmentation(configure(1.0, **more), Shape("text", "classification", (12,), 2, vocabulary=50))
    batch = make_batch("text")
    assert torch.equal(change(batch, seeded()), AUGMENT["text"][0](batch, 1.0, seeded(), keep_ends))


def test_without_mixup_there_is_no_function_for_it():
    for kind in KINDS:
        assert mixing(configure(1.0), Shape(kind, "classification", (4,), 2)) is None


def test_mixup_of_texts_is_refused():
    with pytest.raises(
        UsageError, match=r"augmentation.mixup: is for images, tables and sequences, the data are a text"
    ):
        mixing(configure(augmentation__mixup=0.2), Shape("text", "classification", (4,), 2, vocabulary=9))
