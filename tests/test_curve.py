"""What a run leaves behind: which epoch is kept, and that a curve survives being stored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.config import min_epochs
from tuner.curve import Curve, Epoch, Measure, Standing, rounded

LOSSES = st.lists(st.floats(0, 30) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=40)
MakeCurve = Callable[..., Curve]


def standings(losses: list[float], first: int) -> list[Standing]:
    found: list[Standing] = []
    for number, loss in enumerate(losses, 1):
        found.append(Standing.after(found[-1] if found else None, number, loss, first))
    return found


def slow_average(losses: list[float], t: int) -> float:
    """EMA_0.5 at epoch t (from 1) by its definition, one weight a loss."""
    clean = [loss if math.isfinite(loss) else math.inf for loss in losses[:t]]
    return math.fsum(
        loss * (0.5 ** (t - 1) if i == 1 else 0.5 ** (t - i + 1)) for i, loss in enumerate(clean, 1)
    )  # fmt: skip


@given(LOSSES, st.integers(1, 12))
def test_the_kept_epoch_is_the_argmin_of_the_smoothed_loss_from_the_first_epoch_that_may_be_kept(
    losses: list[float], first: int
) -> None:
    standing = standings(losses, first)[-1]
    averages = {t: slow_average(losses, t) for t in range(1, len(losses) + 1)}
    assert standing.smoothed == pytest.approx(averages[len(losses)])
    if len(losses) <= first:
        assert standing.best == len(losses)
        return
    lowest = min(averages[t] for t in range(first, len(losses) + 1))
    assert standing.best >= first
    assert averages[standing.best] == pytest.approx(lowest)
    assert standing.value == pytest.approx(lowest)


@given(LOSSES, st.integers(1, 12))
def test_the_lowest_loss_so_far_counts_every_epoch_and_no_loss_that_is_not_finite(
    losses: list[float], first: int
) -> None:
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert standings(losses, first)[-1].lowest == min(finite, default=math.inf)


@given(LOSSES, st.integers(1, 12), st.integers(1, 40))
def test_a_standing_depends_only_on_the_losses_before_it(losses: list[float], first: int, end: int) -> None:
    assert standings(losses[:end], first) == standings(losses, first)[:end]


def test_one_lucky_epoch_is_not_kept_when_its_neighbours_are_bad() -> None:
    losses = [1.0, 0.9, 0.8, 0.7, 0.6, 0.55, 2.0, 2.0, 0.5, 2.0]
    assert standings(losses, 5)[-1].best == 6


def test_of_equal_smoothed_losses_the_earlier_epoch_is_kept() -> None:
    assert standings([0.5] * 8, 5)[-1].best == 5


def test_before_the_first_epoch_that_may_be_kept_the_newest_is() -> None:
    assert [standing.best for standing in standings([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 4)] == [1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("epochs", "first"), [(1, 1), (4, 4), (5, 5), (6, 5), (50, 5), (51, 6), (60, 6), (70, 7), (100, 10), (101, 11)]
)
def test_the_first_epoch_judged_is_the_fifth_or_a_tenth_of_the_cap_and_never_beyond_it(epochs: int, first: int) -> None:
    assert min_epochs(epochs) == first


@given(st.integers(1, 100_000))
def test_a_tenth_is_rounded_up_exactly(epochs: int) -> None:
    assert min_epochs(epochs) == min(epochs, max(5, -(-epochs // 10)))


NUMBER = st.floats(0, 1e6).map(rounded) | st.sampled_from([math.nan, math.inf])


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    names = draw(st.sampled_from([(), ("accuracy",), ("mse", "mae", "r2")]))
    curve, standing = Curve(50, 5, draw(st.floats(0.1, 5)), 10, 20), None
    for number in range(1, draw(st.integers(0, 8)) + 1):
        measures = [Measure(draw(NUMBER), {name: draw(NUMBER) for name in names}) for _ in range(2)]
        standing = Standing.after(standing, number, measures[1].loss, curve.first)
        curve = curve.then(Epoch(number, *measures, *(draw(NUMBER) for _ in range(5)), standing))
    return curve


@given(curves())
def test_a_curve_comes_back_from_json_as_it_was(curve: Curve) -> None:
    back = Curve.from_json(json.loads(json.dumps(curve.to_json(), allow_nan=False)))
    assert repr(back) == repr(curve)  # by their text, for nan differs from itself


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_seven_significant_digits_are_stored_and_rounding_again_changes_nothing(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=1e-6, abs=1e-320)
    assert rounded(rounded(value)) == rounded(value)


def test_a_curve_is_stored_with_seven_digits(make_curve: MakeCurve) -> None:
    doc = make_curve([1 / 3, 2 / 3]).to_json()
    assert doc["series"]["val.loss"] == [0.3333333, 0.6666667]


def test_a_standing_is_made_again_from_what_is_stored(make_curve: MakeCurve) -> None:
    curve = make_curve([1.0, 0.8, 0.6, 0.5, 0.4, 0.35, 0.5, 0.6, 0.7])
    assert Curve.from_json(curve.to_json()).best == curve.best == 6


def test_epochs_are_counted_from_one(make_curve: MakeCurve) -> None:
    curve = make_curve([3.0, 2.0, 1.0])
    assert (curve[1].val.loss, curve[3].val.loss, curve.last.number, len(curve)) == (3.0, 1.0, 3, 3)
    for number in (0, -1, 4):
        with pytest.raises(IndexError, match=f"no epoch {number} in a curve of 3"):
            curve[number]
