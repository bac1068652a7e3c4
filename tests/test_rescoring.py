"""A study under another score: from stored curves, with the epoch that was kept, and without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import SMALL, call, write
from hypothesis import given
from hypothesis import strategies as st

from tuner import tune
from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.errors import UsageError
from tuner.grammar import Override
from tuner.record import TrialRecord
from tuner.rescoring import rescore
from tuner.scoring import score
from tuner.study import space_of


def records(make: Callable[..., Curve], pairs: list[tuple[float, float]], rule: Rule) -> dict[int, TrialRecord]:
    found = {}
    for number, (val, train) in enumerate(pairs):
        curve = make([val, val], [train, train], null=2.0, se_gap=0.01)
        found[number] = TrialRecord(number, "complete", {}, 0, curve=curve, score=score(curve, rule, "log_loss"))
    return found


def test_a_larger_penalty_puts_the_trial_with_the_smaller_gap_first(make_curve: Any) -> None:
    found = records(make_curve, [(0.80, 0.20), (0.86, 0.84)], Rule(gap_penalty=0.0))
    first, second = rescore(found, Rule(gap_penalty=0.5), "log_loss", "penalty")
    assert (first.trial, first.place, second.trial, second.place) == (1, 2, 0, 1)
    assert second.before == pytest.approx(0.6)
    assert second.score.value == pytest.approx(0.6 - 0.5 * (0.3 - 0.005))
    assert first.on_front
    assert second.on_front
    assert [row.trial for row in rescore(found, Rule(gap_penalty=0.0), "log_loss", "penalty")] == [0, 1]


def test_a_trial_that_another_one_beats_in_both_isnt_on_the_front(make_curve: Any) -> None:
    found = records(make_curve, [(0.8, 0.5), (0.9, 0.4), (0.85, 0.56)], Rule())
    assert {row.trial for row in rescore(found, Rule(), "log_loss", "penalty") if row.on_front} == {0, 2}


def test_a_price_of_the_gap_asks_for_the_form_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tune(write(tmp_path / "small.yaml", SMALL), overrides={"score.form": "none"}, trials=2)
    assert call(capsys, "rescore", "small", "--json").document["form"] == "none"
    assert call(capsys, "rescore", "small", "--gap-penalty", "1", "--json").document["form"] == "penalty"
    noted = call(capsys, "check", "small.yaml", "-S", "score.form=conservative", "-S", "score.gap_penalty=0.5").out
    assert "score.gap_penalty: nothing is done with it, as score.form is conservative" in noted
    assert "score = 1 - L_val/L_0 - SE(val)\n" in noted


def test_a_study_is_scored_again_by_its_own_constants_where_the_defaults_have_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tune(write(tmp_path / "small.yaml", SMALL), trials=2)
    older = replace(study.record, identity={**study.record.identity, "score.noise": 2.5})
    assert space_of(study).config.score.noise == 1.0
    assert space_of(replace(study, record=older)).config.score.noise == 2.5
    given = [Override("score.noise", "3.0", "--noise")]
    assert space_of(replace(study, record=older), given).config.score.noise == 3.0


def test_what_wasnt_recorded_cant_be_scored(make_curve: Any) -> None:
    with pytest.raises(UsageError, match="accuracy wasn't recorded"):
        rescore(records(make_curve, [(0.8, 0.5)], Rule()), Rule(), "accuracy", "penalty")
    with pytest.raises(UsageError, match="no trial is complete"):
        rescore({}, Rule(), "log_loss", "penalty")


@given(st.lists(st.tuples(st.floats(0.1, 2.0), st.floats(0.05, 2.0)), min_size=1, max_size=12))
def test_the_studys_own_rule_gives_the_studys_own_order_and_the_best_is_on_the_front(
    make_curve: Any, pairs: Any
) -> None:
    found = records(make_curve, pairs, Rule())
    rows = rescore(found, Rule(), "log_loss", "penalty")
    assert [row.place for row in rows] == list(range(1, len(pairs) + 1))
    assert all(row.score.value == row.before for row in rows)
    assert max(rows, key=lambda row: (row.score.skill, -row.score.gap, -row.trial)).on_front


def test_what_a_form_does_nothing_with_is_said_and_an_error_that_isnt_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tune(write(tmp_path / "small.yaml", SMALL))
    text = call(capsys, "rescore", "small", "--form", "none", "--gap-penalty", "1").out
    assert "score.gap_penalty: nothing is done with it, as score.form is none" in " ".join(text.split())
    logged = SMALL.replace("sklearn:wine", "sklearn:diabetes, target_transform: log").replace(
        "study: small", "study: l"
    )
    tune(write(tmp_path / "l.yaml", logged))
    refused = call(capsys, "rescore", "l", "--metric", "r2", "--form", "conservative")
    assert refused.code == 2
    assert "needs the error of r2, which isn't known with data.target_transform log" in refused.err
    assert call(capsys, "rescore", "l", "--metric", "r2").code == 0
    assert call(capsys, "check", "l.yaml", "-S", "score.metric=r2", "-S", "score.form=tiebreak").code == 2


def test_the_command_shows_another_order_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tune(write(tmp_path / "small.yaml", SMALL))
    before = call(capsys, "show", "small", "--json").out
    said = call(capsys, "rescore", "small", "--gap-penalty", "0.5", "--json")
    assert said.code == 0, said.err
    assert (said.document["gap_penalty"], said.document["metric"]) == (0.5, "log_loss")
    assert {row["trial"] for row in said.document["trials"]} == set(study.trials)
    tied = call(capsys, "rescore", "small", "--form", "tiebreak", "--json")
    assert (tied.code, tied.document["form"]) == (0, "tiebreak")
    assert call(capsys, "rescore", "small", "--form", "conservative").out.startswith(
        "Under log_loss, form conservative"
    )
    text = call(capsys, "rescore", "small", "--metric", "accuracy").out
    assert text.startswith("Under accuracy, gap_penalty 0.25, noise 1, tolerance 0 trial ")
    assert call(capsys, "show", "small", "--json").out == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gap-penalty", "-1"], "score.gap_penalty"),
        (["--metric", "r2"], "score.metric: r2 doesn't apply to classification"),
        (["--metric", "acuracy"], "score.metric"),
        (["--form", "tie"], "score.form"),
        (["--form", "tiebreak", "--metric", "accuracy"], "--form tiebreak: goes with the study's own metric alone"),
        (["--metric", "roc_auc"], "--metric roc_auc: roc_auc wasn't recorded in this study"),
    ],
)
def test_what_cant_be_scored_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tune(write(tmp_path / "small.yaml", SMALL), trials=1)
    refused = call(capsys, "rescore", "small", *words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert len(refused.err.splitlines()) == 1
