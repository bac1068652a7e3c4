"""A watch over a single run says what a study's rules say, and which epoch is the one to keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuner
from tuner.config import Stopping
from tuner.curve import Curve
from tuner.errors import UsageError
from tuner.pruner import OverfitPruner
from tuner.stopping import judge
from tuner.watching import Watch

LOSSES = st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.01, 3.0)), min_size=1, max_size=60)


def overfit(epochs: int = 60) -> list[tuple[float, float]]:
    """Train falls on and on, validation falls and rises."""
    return [(1 / n, 1 / n + 0.002 * n**1.5) for n in range(1, epochs + 1)]


def watched(watch: Watch, told: list[tuple[float, float]]) -> int:
    for number, (train, val) in enumerate(told, start=1):
        if watch.report(train, val):
            return number
    return len(told)


def test_a_run_that_overfits_is_over_and_says_why_and_what_to_keep() -> None:
    watch = Watch(epochs=60)
    ended = watched(watch, overfit())
    assert ended < 30
    assert watch.verdict is not None
    assert watch.verdict.kind == "overfit"
    assert watch.reason.startswith(f"stopped at epoch {ended}, kept epoch {watch.best}: validation loss rose")
    assert watch.best == watch.verdict.kept
    assert [row["epoch"] for row in watch.history] == list(range(1, ended + 1))


@given(LOSSES)
def test_it_says_what_the_rules_say_of_the_same_curve_at_the_same_epoch(told: list[tuple[float, float]]) -> None:
    watch = Watch(epochs=60)
    ended = watched(watch, told)
    rules, curve = Stopping(behind=False), watch.curve
    for number in range(1, ended):
        shorter = Curve(curve.budget, curve.first, curve.null_loss, 1, 1, curve.epochs[:number])
        assert judge(shorter, [], rules) is None
    assert judge(curve, [], rules) == watch.verdict
    newest = [watch.best == n for n in range(1, ended + 1)]
    assert newest[watch.best - 1]
    assert watch.newest_is_best == (watch.best == ended)


def test_losses_of_examples_tell_noise_from_a_rise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, 20)
    with_losses, without = Watch(epochs=60, plateau=False), Watch(epochs=60, plateau=False)
    for n in range(1, 61):
        losses = 1.0 + 0.01 * max(0, n - 8) + (noise if n > 8 else 0) * rng.normal(size=20)
        train, val = 1 / n, float(losses.mean())
        if not with_losses.over:
            with_losses.report(train, val, losses)
        if not without.over:
            without.report(train, val)
    assert without.over
    assert not with_losses.over or len(with_losses.history) > len(without.history)


def test_in_a_study_of_optunas_the_other_trials_count() -> None:
    study = optuna.create_study(pruner=OverfitPruner(epochs=60, null_loss=2.0))
    plain, kinds = [overfit()] * 4, []
    for told in [*plain, [(1.5, 1.9)] * 60]:
        trial = study.ask()
        watch = Watch(epochs=60, trial=trial)
        watched(watch, told)
        kinds.append(watch.verdict.kind if watch.verdict else None)
        if kinds[-1] == "behind":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, 1.0)
    assert kinds[0] == "overfit"
    assert kinds[-1] == "behind"


def test_in_a_run_of_a_study_of_tuners_that_study_judges() -> None:
    reported: list[Any] = []

    class Run:
        def report(self, **told: Any) -> bool:
            reported.append(told)
            return len(reported) == 3

    watch = tuner.Watch(epochs=60, run=Run())
    assert watched(watch, overfit()) == 3
    assert (watch.verdict, watch.reason) == (None, "ended by its study after epoch 3")
    assert reported[0] == {"train": 1.0, "val": 1.002}


def test_a_run_is_told_of_metrics_beside_the_loss_which_alone_is_judged_by() -> None:
    reported: list[Any] = []

    class Run:
        def report(self, **told: Any) -> bool:
            reported.append(told)
            return False

    watch = Watch(epochs=60, run=Run())
    watch.report({"loss": 0.5, "accuracy": 0.9}, {"loss": 0.7, "accuracy": 0.8}, [0.6, 0.8])
    assert reported[0]["train"] == {"loss": 0.5, "accuracy": 0.9}
    assert (reported[0]["val"]["accuracy"], list(reported[0]["val"]["loss"])) == (0.8, [0.6, 0.8])
    assert watch.history == [{"epoch": 1, "train_loss": 0.5, "val_loss": 0.7}]
    with pytest.raises(UsageError, match="Watch: accuracy was told without a loss, by which is judged"):
        watch.report({"accuracy": 0.9}, 0.7)


def test_a_run_that_diverges_is_over() -> None:
    watch = Watch()
    assert watched(watch, [(1.0, 1.0), (math.nan, math.nan), (math.nan, math.nan)]) == 2
    assert watch.verdict is not None
    assert watch.verdict.kind == "diverged"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs is 0; a whole number from 1"), ({"epochs": True}, "epochs is True"),
        ({"null_loss": -1.0}, "null_loss is -1.0; a positive number"),
        ({"trial": 1, "run": 1}, "a trial of Optuna's or a run of tuner's judges, not both"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Watch(**given)


def test_a_run_that_is_over_takes_no_more_epochs() -> None:
    watch = Watch(epochs=60)
    watched(watch, overfit())
    with pytest.raises(UsageError, match="Watch: the run is over; stopped at epoch"):
        watch.report(1.0, 1.0)
