"""The record of a trial and of a study: JSON and back, and which trial is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tuner.config import Score as Rule
from tuner.curve import Curve
from tuner.ranking import best_record
from tuner.record import StudyRecord, TrialRecord
from tuner.scoring import Score, score
from tuner.stopping import finished


@pytest.fixture
def record(make_curve: Callable[..., Curve]) -> TrialRecord:
    curve = make_curve([1.0, 0.8, 0.7, 0.6, 0.5, 0.6], metrics={"accuracy": (0.9, 0.8)})
    return TrialRecord(
        3, "complete", {"regularization.dropout": 0.1, "model.family": "mlp"}, 2**32 - 1, "light",
        {"regularization.l1": 0.0}, curve, score(curve, Rule(), "log_loss"), finished(curve), "",
        {"parameters": 100, "sparsity": 0.25}, 1.5,
    )  # fmt: skip


def there_and_back(record: TrialRecord) -> TrialRecord:
    text = json.dumps(record.to_json(), allow_nan=False)
    return TrialRecord.from_json(record.number, record.state, json.loads(text))


def test_a_record_comes_back_from_json_as_it_was(record: TrialRecord) -> None:
    assert there_and_back(record) == record


def test_a_record_that_only_began_comes_back(record: TrialRecord) -> None:
    begun = TrialRecord(0, "running", {"training.epochs": 10}, 7)
    assert there_and_back(begun) == begun
    empty = replace(begun, curve=replace(record.curve, epochs=()))  # type: ignore[type-var]
    assert there_and_back(empty) == begun


def test_a_record_of_a_diverged_trial_comes_back(make_curve: Callable[..., Curve]) -> None:
    curve = make_curve([1.0, math.nan])
    failed = TrialRecord(1, "failed", {}, 1, curve=curve, score=score(curve, Rule(), "log_loss"), error="boom")
    assert repr(there_and_back(failed)) == repr(failed)


def test_the_kept_epoch_and_the_reason_are_those_of_score_and_verdict(record: TrialRecord) -> None:
    assert record.kept is not None
    assert record.verdict is not None
    assert record.kept.number == record.verdict.kept == 5
    assert record.reason == record.verdict.reason
    assert TrialRecord(0, "failed", {}, 0, error="ValueError: no").reason == "ValueError: no"
    assert TrialRecord(0, "running", {}, 0).kept is None


def test_a_value_outside_the_space_lies_over_a_searched_one(record: TrialRecord) -> None:
    assert replace(record, overrides={"regularization.dropout": 0.0}).all_values["regularization.dropout"] == 0.0


def scored(number: int, value: float, state: str = "complete") -> TrialRecord:
    return TrialRecord(number, state, {}, 0, score=Score(value, 1, "log_loss", value, 0.0, 0.0, 0.0))  # type: ignore[arg-type]


def test_the_best_trial_is_the_complete_one_with_the_highest_score() -> None:
    rows = [scored(0, 0.1), scored(1, 0.9, "pruned"), scored(2, 0.3), scored(3, 0.8, "failed"), scored(4, 0.2)]
    assert best_record(rows) == rows[2]
    assert best_record({row.number: row for row in rows}) == rows[2]


def test_of_equal_scores_the_earlier_trial_is_the_best() -> None:
    assert best_record([scored(5, 0.3), scored(2, 0.3), scored(9, 0.3)]) == scored(2, 0.3)


@pytest.mark.parametrize("broken", [math.nan, -math.inf, math.inf])
def test_a_score_that_is_not_finite_is_never_the_best(broken: float) -> None:
    for rows in ([scored(0, broken), scored(1, -5.0)], [scored(0, -5.0), scored(1, broken)]):
        best = best_record(rows)
        assert best is not None
        assert best.score is not None
        assert best.score.value == -5.0
    assert best_record([scored(0, broken)]) is None


def test_without_a_complete_trial_there_is_no_best() -> None:
    assert best_record([]) is None
    assert best_record([scored(0, 0.5, "pruned"), TrialRecord(1, "complete", {}, 0)]) is None


def test_a_study_comes_back_from_json_as_it_was() -> None:
    study = StudyRecord(
        "digits", "study: digits\n", "/data", {"seed": 0}, "log_loss", 0, {"kind": "table"}, "f", "t",
        {"torch": "2"}, "2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    assert StudyRecord.from_json(json.loads(json.dumps(study.to_json()))) == study


@pytest.mark.parametrize("field", ["identity", "data", "versions"])
@pytest.mark.parametrize("value", [[], "x", None])
def test_a_study_whose_fields_are_something_else_is_refused(field: str, value: object) -> None:
    study = StudyRecord("digits", "", "/data", {}, "log_loss", 0, {}, "f", "t", {}, "2026-01-01T00:00:00+00:00")
    with pytest.raises(TypeError, match="no mapping"):
        StudyRecord.from_json(study.to_json() | {field: value})
