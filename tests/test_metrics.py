"""Losses and metrics, against scikit-learn."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from tuner.data.splits import Target
from tuner.metrics import CLIP, area_under_roc, confusion, metrics, null_loss, per_example_loss


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    shifted = logits - logits.max(1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(1, keepdims=True))).astype(np.float32)


@st.composite
def classified(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Random log-probabilities and targets; some classes may be missing from either."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes, n = draw(st.integers(2, 6)), draw(st.integers(2, 60))
    logits = rng.normal(size=(n, classes)) * draw(st.sampled_from([0.1, 2.0, 40.0]))
    logits[:, rng.random(classes) < 0.3] -= 5
    present = np.flatnonzero(rng.random(classes) < 0.7)
    y = rng.choice(present if len(present) else classes, n)
    return log_softmax(np.round(logits, draw(st.sampled_from([0, 6])))), y.astype(np.int64)


@given(classified())
def test_classification_metrics_are_scikit_learns(case: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    outputs, y = case
    predicted, found = outputs.argmax(1), metrics(*case, "classification")
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn speaks of classes that are missing
        expected = {
            "accuracy": sk.accuracy_score(y, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
            "precision": sk.precision_score(y, predicted, **macro),
            "recall": sk.recall_score(y, predicted, **macro),
            "f1": sk.f1_score(y, predicted, **macro),
        }
    assert found == pytest.approx(expected)


@given(classified())
def test_the_confusion_matrix_has_true_classes_in_rows(case: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    outputs, y = case
    labels = range(outputs.shape[1])
    assert (confusion(outputs, y) == sk.confusion_matrix(y, outputs.argmax(1), labels=labels)).all()


@given(classified())
def test_the_area_under_the_roc_curve_is_scikit_learns_mean_over_the_classes_that_occur(
    case: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    outputs, y = case
    classes = [1] if outputs.shape[1] == 2 else range(outputs.shape[1])
    areas = [sk.roc_auc_score(y == k, np.exp(outputs[:, k].astype(float))) for k in classes if 0 < sum(y == k) < len(y)]
    assert area_under_roc(outputs, y) == pytest.approx(np.mean(areas) if areas else math.nan, nan_ok=True)


def test_the_area_under_the_roc_curve_is_scikit_learns_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 10)
    outputs = log_softmax(rng.normal(size=(40, 4)) + np.eye(4)[y])
    shares = np.exp(outputs.astype(np.float64))
    expected = sk.roc_auc_score(y, shares / shares.sum(1, keepdims=True), multi_class="ovr", average="macro")
    found = metrics(outputs, y, "classification", roc_auc=True)
    assert found["roc_auc"] == pytest.approx(expected)
    assert "roc_auc" not in metrics(outputs, y, "classification")


def test_with_one_class_the_area_under_the_roc_curve_is_not_a_number() -> None:
    assert math.isnan(area_under_roc(log_softmax(np.eye(3)), np.zeros(3, np.int64)))


@given(classified())
def test_log_loss_is_scikit_learns_with_probabilities_not_below_a_millionth(
    case: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    outputs, y = case
    chosen = np.exp(outputs.astype(np.float64))[np.arange(len(y)), y]
    losses = per_example_loss(outputs, y, "classification")
    assert losses.shape == (len(y),)
    assert losses.max() <= CLIP == -math.log(1e-6)
    assert losses.mean() == pytest.approx(-np.log(np.maximum(chosen, 1e-6)).mean())


def test_log_loss_without_extremes_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    outputs, y = log_softmax(rng.normal(size=(50, 3))), rng.integers(0, 3, 50)
    shares = np.exp(outputs.astype(np.float64))
    expected = sk.log_loss(y, shares / shares.sum(1, keepdims=True), labels=[0, 1, 2])
    assert per_example_loss(outputs, y, "classification").mean() == pytest.approx(expected)


def test_a_prediction_that_is_not_a_number_costs_not_a_number_and_not_the_clip() -> None:
    outputs = np.array([[np.nan, np.nan], [-1.0, -1.0]], np.float32)
    assert np.isnan(per_example_loss(outputs, np.array([0, 1]), "classification")).tolist() == [True, False]


@given(st.integers(0, 10_000), st.integers(2, 50), st.floats(-5, 5), st.floats(0.1, 9))
def test_regression_metrics_are_scikit_learns_in_the_users_unit(seed: int, n: int, center: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    y, outputs = rng.normal(size=n).astype(np.float32), rng.normal(size=(n, 1)).astype(np.float32)
    restore = Target(center, scale).restore
    true, predicted = restore(y), restore(outputs[:, 0])
    expected = {
        "mse": sk.mean_squared_error(true, predicted),
        "mae": sk.mean_absolute_error(true, predicted),
        "r2": sk.r2_score(true, predicted),
    }
    assert metrics(outputs, y, "regression", restore) == pytest.approx(expected)
    assert per_example_loss(outputs, y, "regression").mean() == pytest.approx(sk.mean_squared_error(y, outputs[:, 0]))


def test_regression_on_one_repeated_target_explains_nothing() -> None:
    y = np.ones(4, np.float32)
    assert metrics(np.zeros((4, 1), np.float32), y, "regression")["r2"] == 0.0


def test_knowing_nothing_costs_the_cross_entropy_of_the_training_frequencies() -> None:
    train, val = np.array([0, 0, 0, 1]), np.array([0, 1, 1])
    expected = -(math.log(0.75) + 2 * math.log(0.25)) / 3
    assert null_loss(train, val, "classification", 2) == pytest.approx(expected)
    assert null_loss(train, train, "classification", 2) == pytest.approx(
        sk.log_loss(train, [[0.75, 0.25]] * 4, labels=[0, 1])
    )


def test_a_class_that_training_never_saw_costs_the_clip() -> None:
    assert null_loss(np.array([0, 1]), np.array([2, 2]), "classification", 3) == pytest.approx(CLIP)


def test_knowing_nothing_of_a_number_costs_its_distance_to_the_training_mean() -> None:
    train, val = np.array([1.0, 3.0], np.float32), np.array([2.0, 4.0], np.float32)
    assert null_loss(train, val, "regression", 1) == pytest.approx(2.0)
    assert null_loss(train, train, "regression", 1) == pytest.approx(np.var(train))


@pytest.mark.parametrize(("task", "y"), [("classification", np.array([0, 0])), ("regression", np.ones(2, np.float32))])
def test_the_loss_of_knowing_nothing_can_always_be_divided_by(task: str, y: NDArray[Any]) -> None:
    assert null_loss(y, y, task, 1) > 0
