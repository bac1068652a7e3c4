"""Which trial is before which: by score, and of what ties by the gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL, call, write
from hypothesis import given
from hypothesis import strategies as st

from tuner import open_study, tune
from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.metrics import packed, unpacked
from tuner.ranking import TIED_SE, best_record, best_records, difference, ranked
from tuner.record import TrialRecord
from tuner.scoring import score

NULL = 2.0
EXAMPLES = st.lists(st.floats(0.0, 4.0, width=32), min_size=6, max_size=6).map(tuple)
TRIALS = st.lists(st.tuples(EXAMPLES, st.floats(0.0, 2.0)), min_size=1, max_size=8)


def trials(make: Callable[..., Curve], found: list[tuple[tuple[float, ...], float]]) -> list[TrialRecord]:
    """Trials whose validation loss is the mean of their examples' losses."""
    rows = []
    for number, (examples, train) in enumerate(found):
        curve = replace(make([float(np.mean(examples))], [train], null=NULL), n_val=len(examples))
        worth = score(curve, Rule(form="tiebreak"), "log_loss")
        rows.append(
            TrialRecord(
                number, "complete", {"w": number}, 0, curve=curve, score=worth, examples=packed(np.array(examples))
            )
        )
    return rows


@given(TRIALS)
def test_of_what_cant_be_told_from_the_best_the_smallest_gap_comes_first(make_curve: Any, found: Any) -> None:
    rows = trials(make_curve, found)
    leader = best_record(rows)
    first = ranked(rows, "tiebreak")[0]
    assert leader is not None
    tied = []
    for row in rows:
        apart = unpacked(row.examples) - unpacked(leader.examples)
        mean, se = float(apart.mean()), float(apart.std(ddof=1)) / math.sqrt(len(apart))
        if mean <= TIED_SE * se + 1e-12:
            tied.append(row)
    assert first in tied
    assert first.score is not None
    gaps = [max(0.0, row.score.gap) for row in tied if row.score is not None]
    assert max(0.0, first.score.gap) <= min(gaps) + 1e-6
    assert sorted(row.number for row in ranked(rows, "tiebreak")) == [row.number for row in rows]


@given(TRIALS)
def test_every_other_form_ranks_by_the_score_alone(make_curve: Any, found: Any) -> None:
    rows = trials(make_curve, found)
    values = [row.score.value for row in ranked(rows) if row.score is not None]
    assert values == sorted(values, reverse=True)
    assert ranked(rows)[0] is best_record(rows)


WORTHS = st.lists(st.floats(-2, 1) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=8)


@given(WORTHS, st.sampled_from(["penalty", "tiebreak", "conservative", "none"]))
def test_a_score_that_is_no_number_is_never_best_and_hides_no_other(make_curve: Any, worths: Any, form: str) -> None:
    rows = trials(make_curve, [((0.5,) * 6, 0.4)] * len(worths))
    rows = [replace(row, score=replace(row.score, value=worth)) for row, worth in zip(rows, worths, strict=True)]
    finite = [worth for worth in worths if math.isfinite(worth)]
    best = best_record(rows)
    assert (best.score.value if best and best.score else None) == max(finite, default=None)
    assert sorted(row.score.value for row in ranked(rows, form) if row.score) == sorted(finite)


def test_a_difference_is_paired_over_the_examples_and_in_the_scores_unit(make_curve: Any) -> None:
    one, other = trials(make_curve, [((0.1, 0.2, 0.3, 0.4), 0.1), ((0.2, 0.2, 0.5, 0.5), 0.1)])
    found = difference(one, other)
    assert found is not None
    apart = np.array([0.1, 0.0, 0.2, 0.1])
    assert found.value == pytest.approx(apart.mean() / NULL)
    assert found.se == pytest.approx(apart.std(ddof=1) / 2 / NULL)


def test_without_examples_there_is_no_paired_difference_and_nothing_ties(make_curve: Any) -> None:
    rows = [replace(row, examples=b"") for row in trials(make_curve, [((0.5, 0.7), 0.1), ((0.5, 0.72), 0.6)])]
    assert difference(*rows) is None
    assert [row.number for row in ranked(rows, "tiebreak")] == [0, 1]


@pytest.mark.parametrize("metric", ["roc_auc", "balanced_accuracy", "f1", "precision", "recall"])
def test_a_metric_that_is_no_mean_over_examples_has_no_paired_difference_and_no_ties(
    make_curve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    one, other = trials(make_curve, [((0.1, 0.2), 0.1), ((0.2, 0.2), 0.1)])
    assert one.score is not None
    assert difference(replace(one, score=replace(one.score, metric=metric)), other) is None
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml", SMALL)
    refused = call(capsys, "check", "small.yaml", "-S", "score.form=tiebreak", "-S", f"score.metric={metric}")
    assert (refused.code, refused.out) == (2, "")
    assert f"tuner: -S score.form: tiebreak pairs examples, and {metric} is no mean over examples" in refused.err


@given(st.integers(1, 3000), st.integers(1, 1000))
def test_what_is_kept_of_many_examples_is_evenly_spaced_and_no_more_than_wanted(count: int, most: int) -> None:
    kept = unpacked(packed(np.arange(count), most))
    assert len(kept) == min(count, most)
    assert (np.diff(kept) >= 1).all()
    assert most == 1 or count == 1 or (kept[0], kept[-1]) == (0, count - 1)


def test_a_configuration_tried_twice_is_ranked_once(make_curve: Any) -> None:
    one, two, three = trials(make_curve, [((0.5, 0.5), 0.1), ((0.6, 0.6), 0.1), ((0.7, 0.7), 0.1)])
    rows = [one, replace(two, values=one.values), three]
    assert [row.number for row in best_records(rows, 3)] == [0, 2]


@pytest.mark.parametrize("form", ["penalty", "tiebreak", "conservative", "none"])
def test_a_study_is_run_and_chosen_by_each_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    study = tune(write(tmp_path / "small.yaml", SMALL), overrides={"score.form": form}, trials=6)
    document = call(capsys, "show", "small", "--json").document
    assert document["score"]["form"] == form
    assert ("gap_penalty" in document["score"]) == (form == "penalty")
    complete = [record for record in study.trials.values() if record.state == "complete"]
    assert document["best"]["trial"] == ranked(complete, form)[0].number
    for record in complete:
        assert record.score is not None
        assert record.kept is not None
        error = record.kept.se_val / record.curve.null_loss if record.curve else math.nan
        if form != "penalty":
            assert record.score.penalty == pytest.approx(error if form == "conservative" else 0.0)
        assert np.mean(unpacked(record.examples)) == pytest.approx(record.kept.val.loss, rel=1e-4)
    again = open_study("small", studies_dir=tmp_path / "studies")
    assert again.trials == study.trials, "what is kept of the examples comes back as it was"
