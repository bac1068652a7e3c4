"""What happens to the tokens of a text, how often, and where."""

from __future__ import annotations

import pytest
import torch

from tuner.augment.text import _close_up, _order, text

N, LONG = 2000, 40


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = N, longest: int = LONG) -> torch.Tensor:
    """Texts without a token that occurs twice."""
    return torch.arange(1, longest + 1) + 1000 * torch.arange(n)[:, None]


def marks(*rows: str) -> torch.Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in rows])


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_a_third_each_of_the_tokens_hit_is_deleted_swapped_and_replaced(strength):
    batch = numbered()
    changed = text(batch, strength, seeded())
    deleted = (batch != 0).sum() - (changed != 0).sum()
    strangers = ((changed != 0) & ~(changed[:, :, None] == batch[:, None, :]).any(2)).sum()
    there, following = changed[:, 1:] != 0, changed[:, 1:] - changed[:, :-1]
    swapped = (there & (following == -1)).sum()
    shares = [count.item() / batch.numel() for count in (deleted, strangers, swapped)]
    assert shares[:2] == pytest.approx([strength * 0.2 / 3] * 2, rel=0.07)
    # A swap next to another change doesn't show, or doesn't happen.
    assert strength * 0.2 / 3 * (1 - 0.45 * strength) < shares[2] < strength * 0.2 / 3


def test_a_token_that_replaces_another_comes_as_often_as_it_occurs_in_the_batch():
    batch = torch.full((4000, 20), 3)
    batch[:, ::4] = 7
    changed = text(batch, 1.0, seeded())
    common = (changed == 3).sum() / (changed != 0).sum()
    assert common.item() == pytest.approx(0.75, abs=0.005)


def test_swapped_tokens_change_places_with_their_right_neighbour_and_no_others_move():
    free = marks("xxxxxx", "xxxx..", "xxxxxx", "xxxxxx")
    hit = marks("x..x..", "...x..", ".xxx..", ".....x")
    expected = [[1, 0, 2, 4, 3, 5], [0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert _order(hit, free).tolist() == expected


def test_what_a_deletion_leaves_closes_up_and_one_token_stays():
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0], [5, 6, 0, 0], [5, 0, 0, 0]])
    deleted = marks("x.x.", "..x.", "xx..", "x...")
    assert _close_up(tokens, deleted).tolist() == [[6, 8, 0, 0], [5, 6, 0, 0], [5, 0, 0, 0], [5, 0, 0, 0]]


def test_a_text_of_one_token_keeps_a_token():
    batch = torch.tensor([[4, 0, 0]] * 500)
    changed = text(batch, 1.0, seeded())
    assert torch.equal(changed, batch)  # there is no other token in the batch


def test_marks_at_the_ends_stay_where_they_are_and_never_stand_within_a_text():
    batch = torch.randint(10, 90, (N, 12), generator=seeded(1))
    lengths = torch.randint(1, 13, (N, 1), generator=seeded(2))
    batch *= torch.arange(12) < lengths
    batch[:, 0] = 1
    batch.scatter_(1, (lengths - 1).clamp(min=1), 2)
    changed = text(batch, 1.0, seeded(), keep_ends=True)
    assert not torch.equal(changed, batch)
    assert ((changed == 1).sum(1) == 1).all()
    assert ((changed == 2).sum(1) == 1).all()
    assert (changed[:, 0] == 1).all()
    assert (changed.gather(1, (changed != 0).sum(1, keepdim=True) - 1) == 2).all()


def test_texts_of_nothing_but_marks_stay_as_they_are():
    batch = torch.tensor([[1, 2, 0]] * 50)
    assert torch.equal(text(batch, 1.0, seeded(), keep_ends=True), batch)
