"""What the layers of our own promise: dropout, a table's columns, and padding that nothing sees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tuner.models.conv1d import dilations
from tuner.models.layers import (
    Dropout,
    masked_max,
    masked_mean,
    normalize_steps,
    steps_and_mask,
    tokens_mask,
    trimmed,
)
from tuner.models.mlp import Columns, embedding_size
from tuner.models.resnet import shares
from tuner.models.rnn import turned


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    y = Dropout(share)(torch.ones(1_000_000))
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=3e-3)
    kept = y[y != 0]
    rounded = min(round(share * 256), 255) / 256
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - rounded)))
    assert y.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [(1,), (3, 5), (2, 3, 5, 7), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_shape_and_dtype_of_any_input(size, dtype):
    y = Dropout(0.5)(torch.ones(size, dtype=dtype))
    assert y.shape == size
    assert y.dtype == dtype
    assert set(y.flatten().tolist()) <= {0.0, 2.0}


def test_dropout_follows_the_seed_and_sends_gradients_only_through_what_it_kept():
    def run(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        x = torch.ones(50, requires_grad=True)
        y = Dropout(0.5)(x)
        y.sum().backward()
        return y.detach(), x.grad

    y, gradient = run(1)
    assert torch.equal(y, gradient)
    assert torch.equal(y, run(1)[0])
    assert not torch.equal(y, run(2)[0])


def test_dropout_near_one_still_keeps_something_finite():
    torch.manual_seed(0)
    assert Dropout(0.9999999)(torch.ones(1000)).isfinite().all()


def test_dropout_in_evaluation_mode_is_the_input_itself():
    x = torch.ones(3)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize(("cardinality", "size"), [(1, 2), (2, 2), (3, 3), (10, 6), (100, 21), (10_000, 50)])
def test_the_size_of_an_embedding_follows_the_rule(cardinality, size):
    assert embedding_size(cardinality) == size


def test_every_column_of_codes_has_an_embedding_of_its_own():
    columns = Columns(1, (3, 4, 3))
    x = torch.tensor([[0.5, 1, 1, 1], [0.5, 2, 1, 1], [0.5, 1, 3, 1], [0.5, 1, 1, 2]])
    y = columns(x)
    assert y.shape == (4, columns.units)
    assert torch.equal(y[:, :1], x[:, :1])
    changed = [set((y[0] != row).nonzero().flatten().tolist()) for row in y[1:]]
    assert [len(places) for places in changed] == [embedding_size(c) for c in (3, 4, 3)]
    assert not changed[0] & changed[1]
    assert not changed[0] & changed[2]
    assert not changed[1] & changed[2]
    first, second, third = y[0, 1:].split([embedding_size(c) for c in (3, 4, 3)])  # of code 1, in three columns
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)
    assert not torch.equal(second, third)


def test_the_unknown_code_starts_at_zero_and_the_highest_code_is_known():
    columns = Columns(0, (3, 7))
    assert not columns(torch.zeros(1, 2)).any()
    assert columns(torch.tensor([[2.0, 6.0]])).all()


TOKENS = torch.tensor([[4, 0, 0, 0, 0], [2, 3, 1, 0, 0], [5, 5, 0, 0, 0]])
MASK = tokens_mask(TOKENS)[:, :3]


def sequences(channels: int = 2) -> torch.Tensor:
    """Return three sequences (3, 5, channels + 1) of 1, 3 and 2 steps; the last channel is the mask."""
    there = tokens_mask(TOKENS)[:, :, None]
    x = torch.randn(3, 5, channels, generator=torch.Generator().manual_seed(0))
    return torch.cat((x * there, there.float()), 2)


def test_tokens_are_there_where_they_are_not_0():
    assert MASK.tolist() == [[True, False, False], [True, True, True], [True, True, False]]


def test_texts_are_trimmed_to_the_longest_and_never_to_nothing():
    assert torch.equal(trimmed(TOKENS), TOKENS[:, :3])
    assert trimmed(torch.zeros(2, 4, dtype=torch.int64)).shape == (2, 1)


def test_a_masked_sequence_is_parted_into_channels_and_mask_and_trimmed():
    x, mask = steps_and_mask(sequences(), masked=True)
    assert torch.equal(x, sequences()[:, :3, :2])
    assert torch.equal(mask, MASK)


def test_a_sequence_without_a_mask_stays_as_it_is():
    x, mask = steps_and_mask(sequences(), masked=False)
    assert torch.equal(x, sequences())
    assert mask is None


@pytest.mark.parametrize("dim", [1, 2, -1, -2])
def test_pooled_values_are_those_of_the_steps_that_are_there(dim):
    x = sequences()[:, :3, :2] - 9  # so that the zeros of padding would be the largest
    rows = list(zip(x, MASK, strict=True))
    given = x if dim in (1, -2) else x.transpose(1, 2)
    assert torch.allclose(masked_max(given, MASK, dim), torch.stack([row[there].amax(0) for row, there in rows]))
    assert torch.allclose(masked_mean(given, MASK, dim), torch.stack([row[there].mean(0) for row, there in rows]))


def test_without_a_mask_pooling_is_over_all_steps():
    x = sequences()
    assert torch.equal(masked_max(x, None, 1), x.amax(1))
    assert torch.equal(masked_mean(x, None, 1), x.mean(1))


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_a_normalization_of_steps_sees_those_that_are_there_alone(kind):
    (layer,) = normalize_steps(kind, 4)
    plain = nn.BatchNorm1d(4) if kind == "batch" else nn.LayerNorm(4)
    x = sequences(4)[:, :3, :4]
    found = layer(x.transpose(1, 2), MASK).transpose(1, 2)
    assert torch.allclose(found[MASK], plain(x[MASK]), atol=1e-6)
    assert all(torch.allclose(own, other) for own, other in zip(layer.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_a_mask_of_all_steps_is_as_good_as_none(kind):
    (layer,) = normalize_steps(kind, 4)
    x = sequences(4)[:, :3, :4].transpose(1, 2)
    assert torch.allclose(layer(x), layer(x, torch.ones(3, 3, dtype=torch.bool)), atol=1e-6)


def test_sequences_are_turned_within_their_own_length_and_turned_back():
    steps = torch.arange(1, 6).expand(3, 5)[:, :, None]
    lengths = torch.tensor([5, 3, 1])
    found = turned(steps, lengths)
    assert found[:, :, 0].tolist()[0] == [5, 4, 3, 2, 1]
    assert found[:, :3, 0].tolist()[1] == [3, 2, 1]
    assert found[:, :1, 0].tolist()[2] == [1]
    assert torch.equal(turned(found, lengths), steps)


@pytest.mark.parametrize(
    ("kernel", "steps", "apart"),
    [(1, 40, [1]), (3, 1, [1]), (63, 40, [1]), (3, 8, [1, 2]), (5, 40, [1, 2, 4, 8]), (2, 9, [1, 2, 4, 8])],
)
def test_convolutions_reach_twice_as_far_as_long_as_the_sequence_bears_it(kernel, steps, apart):
    assert dilations(kernel, steps) == apart


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 32])
def test_every_residual_block_stands_in_one_stage(depth):
    assert sum(shares(depth)) == depth
