"""OverfitPruner: the same verdicts in a study that never heard of tuner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tuner
from tuner.config import Stopping
from tuner.errors import UsageError
from tuner.stopping import Verdict, judge, peer

OVERFIT = [1.0, 0.8, 0.6, 0.5, 0.45, 0.44, 0.46, 0.5, 0.55, 0.6, 0.65, 0.7]
FALLING = [1.0 * 0.9**n for n in range(30)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def run(study: optuna.Study, val: Sequence[float], train: Sequence[float] | None = None) -> Verdict | None:
    """Run a trial as the documentation says."""
    verdict: Verdict | None = None

    def objective(trial: optuna.Trial) -> float:
        nonlocal verdict
        for step, loss in enumerate(val, start=1):
            verdict = tuner.report(trial, step, train=train[step - 1] if train else 1 / step, val=loss)
            if verdict:
                break
        if trial.should_prune():
            raise optuna.TrialPruned
        return min(val[:step])

    study.optimize(objective, n_trials=1)
    return verdict


def test_a_trial_that_leads_and_overfits_is_over_and_its_value_counts() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50))
    verdict = run(study, OVERFIT)
    assert verdict is not None
    assert (verdict.kind, verdict.outcome, verdict.kept) == ("overfit", "complete", 7), "by the smoothed loss"
    trial = study.trials[0]
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert study.best_value == 0.44
    assert trial.user_attrs["verdict"] == "overfit"
    assert trial.user_attrs["reason"].startswith("stopped at epoch ")
    assert trial.user_attrs["kept"] == 7


def test_a_trial_that_overfits_behind_the_others_is_pruned() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50))
    for _ in range(5):
        assert run(study, FALLING) is None
    verdict = run(study, OVERFIT)
    assert verdict is not None
    assert verdict.outcome == "pruned"
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED


def test_a_diverged_trial_is_pruned() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner())
    verdict = run(study, [1.0, math.nan, 1.0])
    assert verdict is not None
    assert verdict.kind == "diverged"
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED


def test_nothing_is_said_of_a_trial_that_improves_or_whose_training_loss_rises_too() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50))
    assert run(study, FALLING) is None
    assert run(study, OVERFIT, train=[0.1 * n for n in range(1, 20)]) is None
    assert run(study, OVERFIT, train=OVERFIT) is None


def test_where_more_is_better_a_sampler_sees_losses_that_way_and_the_verdicts_are_the_same() -> None:
    lower, higher = (optuna.create_study(pruner=tuner.OverfitPruner(epochs=50), direction=way)
                     for way in ("minimize", "maximize"))  # fmt: skip
    for losses in (FALLING, OVERFIT, [2.0] * 30):
        assert run(lower, losses) == run(higher, losses)
    for one, other in zip(lower.trials, higher.trials, strict=True):
        assert one.state == other.state
        values = one.intermediate_values
        assert other.intermediate_values == {step: -value for step, value in values.items()}


def test_a_verdict_leaves_what_it_compared_and_its_sentence() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50))
    verdict = run(study, OVERFIT)
    assert verdict is not None
    told = study.trials[0].user_attrs
    assert (told["verdict"], told["reason"], told["kept"]) == (verdict.kind, verdict.reason, verdict.kept)
    assert {name: float(value) for name, value in told["numbers"].items()} == dict(verdict.numbers)


def test_a_step_that_is_reported_twice_counts_once() -> None:
    study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50))
    trial = study.ask()
    for step in (1, 2, 2, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's own: it ignores the second one, too
            tuner.report(trial, step, train=0.5, val=0.5)
    assert [step for step, _ in trial.user_attrs["tuner:series"]] == [1, 2, 3]


def test_a_fixed_trial_is_trained_to_its_end() -> None:
    assert tuner.report(optuna.trial.FixedTrial({}), 1, train=0.1, val=9.0) is None


def test_any_studys_pruner_lets_report_judge_by_the_default_rules() -> None:
    study = optuna.create_study(pruner=optuna.pruners.NopPruner(), direction="maximize")
    verdict = run(study, [1.1 - 0.05 * n for n in range(12)] + [0.6 + 0.05 * n for n in range(12)])
    assert verdict is not None
    assert verdict.kind == "overfit"


def test_plain_reports_are_judged_without_the_rule_that_needs_a_training_loss() -> None:
    pruner = tuner.OverfitPruner(epochs=20)
    study = optuna.create_study(pruner=pruner)
    for _ in range(5):
        run(study, FALLING)

    def objective(trial: optuna.Trial) -> float:
        for step in range(1, 20):
            trial.report(0.95, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 0.95

    study.optimize(objective, n_trials=1)
    assert study.trials[-1].state == optuna.trial.TrialState.PRUNED
    verdict = pruner.verdict(study, study.trials[-1])
    assert verdict is not None
    assert verdict.kind == "behind"


def test_with_the_losses_of_examples_a_rise_must_exceed_its_noise() -> None:
    rng = np.random.default_rng(0)

    def last(noise: float) -> Verdict | None:
        study = optuna.create_study(pruner=tuner.OverfitPruner(epochs=50, plateau=False))
        trial, verdict = study.ask(), None
        for step, loss in enumerate(OVERFIT, start=1):
            losses = loss + noise * rng.normal(size=30)
            verdict = verdict or tuner.report(trial, step, train=1 / step, val=loss, losses=losses)
        return verdict

    certain, noisy = last(0.01), last(20.0)
    assert certain is not None
    assert certain.kind == "overfit"
    assert certain.numbers["se"] > 2
    assert noisy is None


@pytest.mark.parametrize(
    ("given_", "said"), [({"epochs": 0}, "epochs is 0"), ({"null_loss": -1.0}, "null_loss is -1.0")]
)
def test_settings_of_no_use_are_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tuner.OverfitPruner(**given_)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.01, 3.0), min_size=8, max_size=8), min_size=6, max_size=9),
    st.lists(st.floats(0.01, 3.0), min_size=25, max_size=25),
)
def test_the_verdict_is_that_of_the_rules(make_curve: Any, others: list[list[float]], val: list[float]) -> None:
    val = [round(loss, 4) for loss in val]
    pruner = tuner.OverfitPruner(epochs=25, null_loss=2.0)
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler())
    for values in others:
        found = dict(enumerate(values, start=1))
        study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=found))
    trial = study.ask()
    for step in range(1, 26):
        verdict = tuner.report(trial, step, train=1 / step, val=val[step - 1])
        curve = make_curve(val[:step], [1 / n for n in range(1, step + 1)], budget=25, se_val=0.0, rise_se=0.0)
        wanted = judge(curve, [peer(make_curve(values), False) for values in others], Stopping())
        assert (verdict is None) == (wanted is None)
        if verdict is not None and wanted is not None:
            assert (verdict.kind, verdict.outcome, verdict.kept) == (wanted.kind, wanted.outcome, wanted.kept)
            break
