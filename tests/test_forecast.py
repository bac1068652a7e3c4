"""How long a study takes: a forecast's arithmetic, pilots that leave nothing behind, the time left while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from command import SMALL, call, write
from hypothesis import given
from hypothesis import strategies as st

from tuner.config import Score as Rule
from tuner.config import Stopping
from tuner.confirmation import ROUNDS, Repeat
from tuner.curve import Curve
from tuner.forecast import KEPT_SHARE, PER_TRIAL, RUN_SHARE, Pace, Pilot, forecast, run_share
from tuner.piloting import pilot
from tuner.planning import prepare
from tuner.record import BASELINE, TrialRecord, seconds_kept
from tuner.scoring import Score, score
from tuner.search import final_seconds

PILOTS = st.lists(st.builds(Pilot, st.floats(1e-4, 10), st.integers(1, 200), st.floats(0, 1)), min_size=1, max_size=5)


def told(pilots: list[Pilot], **options: Any) -> Any:
    usual = {"trials": 10, "workers": 2, "cores": 4, "share": RUN_SHARE, "confirm": True, "start": 1.0}
    return forecast(pilots, **{**usual, **options})


def test_a_study_that_runs_every_trial_to_its_cap_takes_trials_times_epochs_times_seconds() -> None:
    found = told([Pilot(0.5, 20, 0.0), Pilot(1.5, 20, 0.0)], share=1.0, confirm=False)
    assert found.likely == found.most == pytest.approx(1.0 + 10 * 20 / 2 + 10 * PER_TRIAL)
    ruled = told([Pilot(1.0, 20, 0.0)], confirm=False)
    assert ruled.likely == pytest.approx(1.0 + RUN_SHARE * 10 * 20 / 2 + 10 * PER_TRIAL)
    assert ruled.most == pytest.approx(found.most)


def test_folds_multiply_the_search_and_the_last_training_is_counted() -> None:
    pilots = [Pilot(1.0, 20, 0.0)]
    one, five = told(pilots, share=1.0), told(pilots, share=1.0, folds=5)
    again = 5 * 20 * KEPT_SHARE  # of the chosen one in each fold, to tell its mistakes
    assert five.most - one.most == pytest.approx((4 * 10 * 20 + again) / 2)
    assert told(pilots, refit=1.5).most - one.most == pytest.approx(2 * 1.5 * 20 * KEPT_SHARE / 2)
    assert told(pilots, loading=3.0).most - one.most == pytest.approx(3 * 3.0), "a division for each round"


def test_what_is_set_aside_for_the_end_is_what_is_trained_there(make_curve: Any) -> None:
    curve = make_curve([1.0, 0.8, 0.9, 0.95])
    trials = [
        TrialRecord(n, "complete", {}, 0, label=label, curve=curve, score=Score(v, 2, "log_loss", v, 0, 0, 0))
        for n, label, v in ((0, BASELINE, 0.1), (1, "", 0.5))
    ]
    once = seconds_kept(trials[1])
    assert once > 0

    def aside(records: list[TrialRecord], folds: int, slots: int) -> float:
        found = SimpleNamespace(records={r.number: r for r in records}, refit=1.25, blanks=[curve] * folds)
        return final_seconds(found, slots) / once  # type: ignore[arg-type]

    assert aside(trials, 1, 1) == pytest.approx(2.5)
    assert aside(trials, 5, 1) == pytest.approx(2.5 + 5)
    assert aside(trials, 5, 2) == pytest.approx((2.5 + 5) / 2)
    assert aside(trials[:1], 5, 1) == pytest.approx(1.25 + 5), "the baseline was chosen, and is trained once"
    assert aside(trials, 1, 8) == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("rules", "share"), [({}, RUN_SHARE), ({"behind": False}, 0.9), ({"behind": False, "overfit": False}, 0.9)]
)
def test_what_a_trial_runs_of_its_cap_is_told_by_the_rules_in_force(rules: dict[str, bool], share: float) -> None:
    assert run_share(Stopping(**rules)) == share
    assert run_share(Stopping.off()) == 1.0


@given(PILOTS, st.integers(1, 300), st.integers(1, 16), st.integers(1, 16))
def test_what_makes_a_study_longer_makes_its_forecast_no_shorter(
    pilots: Any, trials: int, workers: int, cores: int
) -> None:
    found = told(pilots, trials=trials, workers=workers, cores=cores)
    assert 0 < found.likely <= found.most
    if trials >= min(workers, cores):
        assert told(pilots, trials=trials + 1, workers=workers, cores=cores).likely >= found.likely
    assert told(pilots, trials=trials, workers=workers, cores=cores, confirm=False).likely <= found.likely
    assert told(pilots, trials=trials, workers=workers + 1, cores=cores).likely <= found.likely
    assert told(pilots, trials=trials, workers=cores + 5, cores=cores).likely == pytest.approx(
        told(pilots, trials=trials, workers=cores, cores=cores).likely
    ), "workers beyond the cores bring nothing"
    assert told(pilots, trials=trials, workers=workers, cores=cores, timeout=0.5).most == 0.5


def test_pilots_are_of_the_spaces_own_configurations_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare(write(tmp_path / "small.yaml", SMALL))
    before = sorted(tmp_path.rglob("*"))
    found, start, once = pilot(plan)
    assert start > 0
    assert once == 0.0
    assert 2 <= len(found) <= 8
    assert all(each.epoch > 0 and each.cap >= 1 for each in found)
    assert sorted(tmp_path.rglob("*")) == before


def test_check_says_how_long_and_a_timeout_bounds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml", SMALL)
    document = call(capsys, "check", "small.yaml", "--json").document
    assert 0 < document["forecast"]["likely"] <= document["forecast"]["most"]
    assert "on this machine: about " in call(capsys, "check", "small.yaml").out
    short = call(capsys, "check", "small.yaml", "--timeout", "1s", "--json").document
    assert short["forecast"]["most"] <= 1.0
    more = call(capsys, "check", "small.yaml", "--trials", "40", "--workers", "2", "--json").document
    assert (more["trials"], more["workers"]) == (40, 2)
    tight = call(capsys, "check", "small.yaml", "--timeout", "1s", "-S", "budget.confirm=true", "--trials", "9").out
    assert "then likely no confirmation: the least takes about " in tight or ", in <1 s of the time or less" in tight
    none = call(capsys, "check", "small.yaml", "-S", "budget.trials=0", "--json").document
    assert none["forecast"] is None


def test_a_network_that_cant_be_trained_is_told_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = """
        import torch

        class Net(torch.nn.Linear):
            def forward(self, x):
                if self.training:
                    raise ValueError("no way")
                return super().forward(x)

        def net(config, shape):
            return Net(shape.input[0], shape.outputs)
        """
    (tmp_path / "wrong_net.py").write_text(dedent(code))
    write(tmp_path / "small.yaml", SMALL)
    said = call(capsys, "check", "small.yaml", "-S", "model.family=wrong_net:net")
    assert (said.code, said.out) == (5, "")
    assert said.err.startswith("tuner: model.family wrong_net:net can't be trained: ValueError: no way")
    assert len(said.err.splitlines()) == 1


def record(make: Callable[..., Curve], number: int, seconds: float) -> TrialRecord:
    curve = make([1.0 - 0.01 * number, 0.9])
    curve = replace(curve, epochs=tuple(replace(epoch, seconds=seconds / 2) for epoch in curve.epochs))
    worth = score(curve, Rule(), "log_loss")
    return TrialRecord(number, "complete", {"w": number}, 0, curve=curve, score=worth, seconds=seconds)


def test_what_is_left_are_the_trials_to_come_and_the_confirmation(make_curve: Any) -> None:
    pace = Pace(10, 2, True, "penalty")
    assert pace.after(record(make_curve, 0, 4.0), 0.0) == pytest.approx((9 - 0.5) * 4 / 2)
    left = pace.after(record(make_curve, 1, 4.0), 0.0)
    assert left == pytest.approx((8 - 0.5) * 4 / 2 + ROUNDS * 2 * 4.0 / 2)
    assert Pace(10, 2, True, "penalty", deadline=5.0).after(record(make_curve, 0, 4.0), 2.0) == 3.0
    pace = Pace(10, 2, True, "penalty")
    assert pace.left(1.0) is None
    left = pace.after(record(make_curve, 0, 4.0), 2.0)
    assert (pace.left(5.0), pace.left(1e9)) == (left - 3.0, 0.0), "the clock goes on between two trials"
    assert Pace(1, 1, False, "penalty").after(record(make_curve, 0, 4.0), 0.0) == 0.0


def test_what_ended_in_an_earlier_run_counts(make_curve: Any) -> None:
    pace, records = Pace(3, 1, True, "penalty"), [record(make_curve, number, 1.0) for number in range(3)]
    pace.earlier(records[:2], [Repeat(1, 0, 0, 0, 2, None, None)])
    assert pace.after(records[2], 0.0) == pytest.approx(3 * ROUNDS - 1), "of the repeats one is there"


def test_nothing_is_left_after_the_last_repeat(make_curve: Any) -> None:
    pace, records = Pace(2, 1, True, "penalty"), [record(make_curve, number, 1.0) for number in (0, 1)]
    for each in records:
        pace.after(each, 0.0)
    left = [
        pace.after(Repeat(each.number, n, 0, 0, 2, each.curve, each.score), 0.0) or 0.0
        for n in range(ROUNDS)
        for each in records
    ]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0.0
    assert left[0] == pytest.approx(5.0)
    assert not any(map(math.isnan, left))
