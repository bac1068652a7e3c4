"""What the layers of our own promise: dropout, and a table's columns."""

from __future__ import annotations

import pytest
import torch

from tuner.models.layers import Dropout
from tuner.models.mlp import Columns, embedding_size


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    y = Dropout(share)(torch.ones(1_000_000))
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=3e-3)
    kept = y[y != 0]
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - share)), rtol=0.01)


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
