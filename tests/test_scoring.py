"""The score: the exact formula, and what holds for every metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuner.config import Metric
from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.scoring import CLASSIFICATION, LOSS, LOWER_IS_BETTER, REGRESSION, Score, metric_of, score, score_at

METRICS = (*CLASSIFICATION, *REGRESSION)
LOSSES = ("log_loss", "mse")
LAMBDAS = st.floats(0, 10)
MAKE: Callable[..., Curve]


@pytest.fixture(autouse=True, scope="module")
def _make(make_curve: Callable[..., Curve]) -> None:
    global MAKE
    MAKE = make_curve


def one(metric: str, train: float, val: float, **options: Any) -> Curve:
    """A curve whose one epoch has these values of a metric."""
    if metric in LOSSES:
        return MAKE([val], [train], metrics={"mse": (train, val)}, **options)
    pairs = {metric: (train, val), "mse": (2 * train**2, 2 * val**2)}
    return MAKE([0.5], [0.4], metrics=pairs, **options)


def worth(curve: Curve, metric: str, **rule: float) -> Score:
    return score(curve, Rule(**rule), metric)


def test_every_metric_of_the_space_file_is_scored() -> None:
    assert set(METRICS) == set(get_args(Metric))


def test_the_score_is_the_skill_less_a_quarter_of_the_gap_beyond_one_standard_error() -> None:
    found = worth(one("log_loss", 0.3, 0.9, null=2.0, se_gap=0.05), "log_loss")
    gap, noise = 0.6 / 2, 0.05 / 2
    assert found == Score(
        pytest.approx(1 - 0.45 - 0.25 * (gap - noise)), 1, "log_loss", pytest.approx(0.55), pytest.approx(gap),
        pytest.approx(noise), pytest.approx(0.25 * (gap - noise)),
    )  # fmt: skip


def test_price_noise_and_tolerance_are_the_rules() -> None:
    found = worth(one("mse", 0.2, 0.8, null=1.0, se_gap=0.1), "mse", gap_penalty=0.5, noise=1.0, tolerance=0.3)
    assert found.penalty == pytest.approx(0.5 * (0.6 - 0.1 - 0.3))
    assert found.value == pytest.approx(0.2 - found.penalty)


def test_the_kept_epoch_is_scored_and_not_the_one_with_the_best_score() -> None:
    curve = MAKE([1.0, 0.9, 0.8, 0.7, 0.6, 0.59, 0.8, 0.9], [1.0, 0.9, 0.8, 0.7, 0.6, 0.1, 0.1, 0.1])
    rule = Rule(gap_penalty=5.0)
    assert score(curve, rule, "log_loss") == score_at(curve, 6, rule, "log_loss")
    assert score_at(curve, 5, rule, "log_loss").value > score(curve, rule, "log_loss").value


@pytest.mark.parametrize("metric", METRICS)
class TestEveryMetric:
    @settings(max_examples=25)
    @given(train=st.floats(0, 1), val=st.floats(0, 1), low=LAMBDAS, more=LAMBDAS)
    def test_a_higher_price_of_the_gap_never_raises_a_score(
        self, metric: str, train: float, val: float, low: float, more: float
    ) -> None:
        curve = one(metric, train, val)
        assert worth(curve, metric, gap_penalty=low + more).value <= worth(curve, metric, gap_penalty=low).value

    @settings(max_examples=25)
    @given(train=st.floats(0, 1), val=st.floats(0, 1), by=st.floats(0, 1), price=LAMBDAS)
    def test_a_worse_validation_value_never_scores_better(
        self, metric: str, train: float, val: float, by: float, price: float
    ) -> None:
        worse = val + by if metric in LOWER_IS_BETTER else val - by
        assume(metric in LOSSES or metric == "r2" or 0 <= worse <= 1)
        rule = {"gap_penalty": price, "noise": 0.0}
        slack = 1e-9 * (1 + price)
        assert (
            worth(one(metric, train, worse), metric, **rule).value
            <= worth(one(metric, train, val), metric, **rule).value + slack
        )

    @settings(max_examples=25)
    @given(train=st.floats(0, 1), val=st.floats(0, 1), price=LAMBDAS)
    def test_a_gap_within_the_noise_costs_nothing(self, metric: str, train: float, val: float, price: float) -> None:
        found = worth(one(metric, train, val), metric, gap_penalty=price, noise=100.0)
        assume(found.gap <= 100 * found.noise)
        assert (found.penalty, found.value) == (0.0, found.skill)

    def test_a_gap_just_beyond_the_noise_costs_and_one_just_within_does_not(self, metric: str) -> None:
        curve = one(metric, 0.5, 0.6) if metric in LOWER_IS_BETTER else one(metric, 0.6, 0.5)
        free = worth(curve, metric)
        assert free.gap > 0
        edge = free.gap / free.noise
        assert worth(curve, metric, noise=edge * 0.99).penalty > 0
        assert worth(curve, metric, noise=edge * 1.01).penalty == 0

    def test_training_worse_than_validation_is_no_gap_that_pays(self, metric: str) -> None:
        curve = one(metric, 0.9, 0.2) if metric in LOWER_IS_BETTER else one(metric, 0.2, 0.9)
        found = worth(curve, metric, gap_penalty=9.0, noise=0.0)
        assert found.gap < 0
        assert (found.penalty, found.value) == (0.0, found.skill)

    def test_a_better_value_scores_better(self, metric: str) -> None:
        good, bad = (0.2, 0.8) if metric in LOWER_IS_BETTER else (0.8, 0.2)
        assert worth(one(metric, good, good), metric).value > worth(one(metric, good, bad), metric).value

    @pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_scores_below_everything(self, metric: str, broken: float) -> None:
        for train, val in ((broken, 0.5), (0.5, broken), (broken, broken)):
            assert worth(one(metric, train, val), metric).value == -math.inf
            assert worth(one(metric, train, val), metric, gap_penalty=0.0).value == -math.inf

    def test_a_score_comes_back_from_json(self, metric: str) -> None:
        for curve in (one(metric, 0.4, 0.6), one(metric, math.inf, 0.5)):
            found = worth(curve, metric)
            text = json.dumps(found.to_json(), allow_nan=False)
            assert repr(Score.from_json(json.loads(text))) == repr(found)


def test_knowing_nothing_has_skill_zero_and_being_perfect_one() -> None:
    assert worth(one("log_loss", 2.0, 2.0, null=2.0), "log_loss").skill == 0.0
    assert worth(one("log_loss", 0.0, 0.0, null=2.0), "log_loss").skill == 1.0


def test_the_noise_of_a_rate_is_binomial_on_both_sides() -> None:
    found = worth(one("accuracy", 0.9, 0.8, n=400), "accuracy")
    assert found.noise == pytest.approx(math.sqrt(0.8 * 0.2 / 400 + 0.9 * 0.1 / 400))
    assert (found.skill, found.gap) == (0.8, pytest.approx(0.1))


def test_the_noise_of_the_absolute_error_is_that_of_its_own_spread() -> None:
    curve = MAKE([0.5], metrics={"mae": (0.3, 0.5), "mse": (0.1, 0.4)}, n=100)
    assert worth(curve, "mae").noise == pytest.approx(math.sqrt((0.4 - 0.25 + 0.1 - 0.09) / 100))


def test_the_noise_of_the_explained_variance_is_that_of_the_loss_in_units_of_knowing_nothing() -> None:
    found = worth(MAKE([0.5], metrics={"r2": (0.9, 0.7)}, null=4.0, se_gap=0.2), "r2")
    assert (found.skill, found.gap, found.noise) == (0.7, pytest.approx(0.2), 0.05)


def test_the_default_metric_is_the_loss_that_is_trained() -> None:
    assert [metric_of(Rule(), task) for task in LOSS] == ["log_loss", "mse"]


@pytest.mark.parametrize(("metric", "task"), [("r2", "classification"), ("accuracy", "regression")])
def test_a_metric_of_the_other_task_is_refused_with_those_that_apply(metric: str, task: str) -> None:
    with pytest.raises(ValueError, match=f"score.metric: {metric} doesn't apply to {task}; one of .*{LOSS[task]}"):
        metric_of(Rule.model_validate({"metric": metric}), task)
