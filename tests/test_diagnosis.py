"""What is said of a fit and of ranges follows from stored numbers, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuner.curve import Curve
from tuner.diagnosis import _outer_share, at_bounds, diagnose
from tuner.grammar import parse_space
from tuner.record import TrialRecord
from tuner.scoring import Score
from tuner.space import Range

Make = Callable[..., Curve]


def record(curve: Curve, epoch: int, number: int = 0) -> TrialRecord:
    return TrialRecord(number, "complete", {}, 0, curve=curve, score=Score(0.5, epoch, "log_loss", 0.5, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("val", "train", "epoch", "fit", "rate"),
    [
        ([1.0, 0.8, 0.9], [0.9, 0.3, 0.2], 2, "overfit", 0.5 / 1.7),
        ([1.0, 0.8, 0.7], [0.9, 0.7, 0.6], 3, "slightly overfit", 0.1 / 1.4),
        ([1.0, 0.8, 0.7], [0.99, 0.79, 0.69], 3, "underfit", 0.01 / 1.31),
        ([1.0, 0.8, 0.9], [0.99, 0.79, 0.5], 2, "well fitted", 0.01 / 1.21),
        ([1.0, 0.8, 0.9], [1.1, 0.9, 0.8], 2, "well fitted", 0.0),
    ],
)
def test_a_fit_is_told_by_the_gap_its_noise_and_whether_it_still_improved(
    make_curve: Make, val: list[float], train: list[float], epoch: int, fit: str, rate: float
) -> None:
    found = diagnose(record(make_curve(val, train, null=2.0, se_gap=0.02), epoch))
    assert found is not None
    assert found.fit == fit
    assert found.gap == pytest.approx((val[epoch - 1] - train[epoch - 1]) / 2)
    assert found.noise == pytest.approx(0.01)
    assert found.rate == pytest.approx(rate)
    assert ("of the loss of knowing nothing" in found.reason) == ("overfit" in found.fit)
    assert ("no gap beyond noise (2 SE)" in found.reason) != ("overfit" in found.fit)


@pytest.mark.parametrize(
    ("val", "epoch", "budget", "fit", "said"),
    [
        ([1.9, 1.5, 1.3], 3, 60, "underfit", "still improving at epoch 3, where it was ended, with no gap"),
        ([1.9, 1.5, 1.3], 3, 3, "underfit", "still improving at its cap of 3 epochs"),
        ([1.0, 1.2, 1.3], 3, 3, "well fitted", "no longer improving at epoch 3, its last"),
        ([2.6, 2.2, 2.4], 2, 60, "underfit", "at epoch 2 validation is no better than knowing nothing"),
    ],
)
def test_nothing_is_said_of_epochs_that_were_not_run(
    make_curve: Make, val: list[float], epoch: int, budget: int, fit: str, said: str
) -> None:
    curve = make_curve(val, [loss - 0.001 for loss in val], null=2.0, budget=budget)
    found = diagnose(replace(record(curve, epoch), state="pruned"))
    assert found is not None
    assert (found.fit, said in found.reason) == (fit, True), found.reason


def test_a_network_that_knows_nothing_beyond_noise_isnt_well_fitted(make_curve: Make) -> None:
    curve = make_curve([1.999, 1.99, 1.995], [1.999, 1.989, 1.99], null=2.0, se_gap=0.02)
    curve = replace(curve, epochs=tuple(replace(epoch, se_val=0.01) for epoch in curve.epochs))
    found = diagnose(record(curve, 2))
    assert found is not None
    assert (found.fit, "no better than knowing nothing" in found.reason) == ("underfit", True)


def test_a_network_that_knows_nearly_everything_isnt_underfit_for_still_improving(make_curve: Make) -> None:
    curve = make_curve([1.0, 0.1, 0.002], [1.0, 0.1, 0.002], null=2.0)
    found = diagnose(record(curve, 3))
    assert found is not None
    assert (found.fit, "little is left" in found.reason) == ("well fitted", True)


def test_of_a_failed_trial_no_fit_is_told(make_curve: Make) -> None:
    assert diagnose(replace(record(make_curve([7.0, 8.0, 9.0], null=2.0), 3), state="failed")) is None


def test_a_gap_within_two_standard_errors_is_no_overfitting(make_curve: Make) -> None:
    curve = make_curve([1.0, 0.8, 0.9], [0.9, 0.7, 0.6], null=2.0, se_gap=0.051)
    found = diagnose(record(curve, 2))
    assert found is not None
    assert found.fit == "well fitted"


def test_of_a_trial_without_an_epoch_or_a_finite_loss_nothing_is_said(make_curve: Make) -> None:
    assert diagnose(TrialRecord(0, "failed", {}, 0, error="broke")) is None
    assert diagnose(record(make_curve([float("nan"), 0.8]), 1)) is None


SPACE = """
data: {source: sklearn:wine}
model: {width: {low: 4, high: 64, log: true}}
regularization: {dropout: {low: 0.0, high: 0.5}, l2: {low: 1e-4, high: 0.1, log: true, or: 0}}
training: {learning_rate: {low: 1e-3, high: 1e-1, log: true}}
"""


def trials(best: Sequence[dict[str, Any]], others: int = 10) -> dict[int, TrialRecord]:
    values = [*best, *({"model.width": 16} for _ in range(others))]
    return {
        number: TrialRecord(
            number, "complete", {"number": number, **value}, 0, score=Score(1 - number / 100, 1, "", 0.0, 0.0, 0.0, 0.0)
        )
        for number, value in enumerate(values)
    }


def test_ranges_whose_best_trials_lie_at_a_bound_are_told_with_the_advice_to_widen_them() -> None:
    space = parse_space(SPACE, Path())
    best = [{"model.width": width, "training.learning_rate": 0.0011} for width in (60, 62, 64, 20)]
    high, low = at_bounds(space, trials(best))
    assert (high.name, high.side, high.bound, high.trials, high.middle) == ("model.width", "high", 64, 3, 61)
    assert (low.name, low.side, low.bound) == ("training.learning_rate", "low", 1e-3)
    assert high.reason == (
        "model.width: 3 of the best 4 trials lie in the outer tenth of its range, at its high bound 64 (median 61); "
        "widen it"
    )


@pytest.mark.parametrize(("kept", "told"), [(9, True), (4, False)])
def test_a_cap_of_epochs_is_too_low_only_if_the_best_trials_kept_its_last_epoch(
    make_curve: Make, kept: int, told: bool
) -> None:
    space = parse_space("data: {source: sklearn:wine}\ntraining: {epochs: {low: 1, high: 9}}", Path())
    found = {
        number: replace(
            each,
            values={"number": number, "training.epochs": 9},
            curve=make_curve([1.0] * 9),
            score=Score(1 - number / 100, kept, "log_loss", 0.0, 0.0, 0.0, 0.0),
        )
        for number, each in trials([{}] * 4).items()
    }
    assert [bound.name for bound in at_bounds(space, found)] == (["training.epochs"] if told else [])


def test_what_chance_puts_at_a_bound_is_no_reason_to_widen_a_range() -> None:
    space = parse_space(SPACE.replace("width: {", "depth: {low: 1, high: 2}, width: {"), Path())
    for depths, told in (([2, 2, 2, 1], False), ([2, 2, 2, 2], False), ([2] * 10, True)):
        best = [{"model.depth": depth} for depth in depths]
        found = at_bounds(space, trials(best, others=5 * len(best)))
        assert ("model.depth" in [bound.name for bound in found]) is told


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("{low: 1, high: 2}", 1 / 2), ("{low: 100, high: 300, step: 100}", 1 / 3), ("{low: 1, high: 1000}", 1 / 10),
        ("{low: 1, high: 128, log: true}", 0.2), ("{low: 1, high: 5}", 1 / 5),
    ],
)  # fmt: skip
def test_the_outer_tenth_of_few_values_is_as_likely_as_they_are(written: str, share: float) -> None:
    domain = parse_space(f"data: {{source: sklearn:wine}}\nmodel: {{width: {written}}}", Path()).domains["model.width"]
    assert isinstance(domain, Range)
    assert _outer_share(domain, "low") == pytest.approx(share, abs=0.03)


def test_a_bound_beyond_which_nothing_is_allowed_or_values_outside_a_range_are_no_reason() -> None:
    space = parse_space(SPACE, Path())
    dropped = [{"regularization.dropout": 0.0, "regularization.l2": 0} for _ in range(4)]
    assert at_bounds(space, trials(dropped)) == []


def test_a_few_trials_say_nothing_of_ranges() -> None:
    space = parse_space(SPACE, Path())
    assert at_bounds(space, trials([{"model.width": 64}] * 4, others=0)) == []
    pruned = {n: replace(each, state="pruned") for n, each in trials([{"model.width": 64}] * 4).items()}
    assert at_bounds(space, pruned) == []
