"""scikit-learn: any estimator with `partial_fit`, trained epoch by epoch.

model = OverfitStopping(SGDClassifier(loss="log_loss"), epochs=100).fit(X, y)
model.predict(X_new), model.watch_.reason
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from tuner.errors import UsageError
from tuner.metrics import CLIP
from tuner.watching import Watch


def _has(name: str) -> Any:
    def check(self: OverfitStopping) -> bool:
        return hasattr(getattr(self, "estimator_", self.estimator), name)

    return available_if(check)


class OverfitStopping(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Trains an estimator by `partial_fit` until it overfits, and keeps it as it was at its best epoch.

    Train and validation are measured alike: by the log loss, each clipped at -log(1e-6) (the hinge of the decision
    function where there are no probabilities), or by the squared error; train on as many training rows as there are
    for validation.

    Args:
        estimator: with `partial_fit`; it is cloned.
        epochs: how many there are at most.
        batch_size: rows of one call of `partial_fit`.
        validation_fraction: the share of the rows given to `fit` that is kept aside.
        random_state: of the division and of the order of rows.
        overfit, plateau: which rules are on (see `tuner.Watch`).

    Attributes:
        estimator_: as it was at the best epoch.
        watch_: the `tuner.Watch`: its verdict, its reason, its history.
        classes_: the classes, of a classifier.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        epochs: int = 100,
        batch_size: int = 32,
        validation_fraction: float = 0.2,
        random_state: Any = None,
        overfit: bool = True,
        plateau: bool = True,
    ) -> None:
        self.estimator, self.epochs, self.batch_size = estimator, epochs, batch_size
        self.validation_fraction, self.random_state = validation_fraction, random_state
        self.overfit, self.plateau = overfit, plateau

    def fit(self, X: Any, y: Any) -> Self:
        """Train on some of the rows (n, columns) and their targets (n,), and validate on the others.

        Raises:
            UsageError: the estimator has no `partial_fit`.
        """
        if not hasattr(self.estimator, "partial_fit"):
            raise UsageError(
                f"OverfitStopping: {type(self.estimator).__name__} has no partial_fit; it can't be stopped"
            )
        if not (is_classifier(self.estimator) or is_regressor(self.estimator)):
            name = type(self.estimator).__name__
            raise UsageError(
                f"OverfitStopping: {name} is neither a classifier nor a regressor; it has no loss to watch"
            )
        random, classifies = check_random_state(self.random_state), is_classifier(self.estimator)
        X, y = X if hasattr(X, "shape") else np.asarray(X), np.asarray(y)
        stratify = y if classifies and np.unique(y, return_counts=True)[1].min() > 1 else None
        x_train, x_val, y_train, y_val = train_test_split(
            X, y, test_size=self.validation_fraction, random_state=random, stratify=stratify
        )
        probe = np.linspace(0, len(y_train) - 1, min(len(y_train), len(y_val))).round().astype(int)
        more: dict[str, Any] = {}
        if classifies:
            self.classes_ = np.unique(y)
            more["classes"] = self.classes_
        model = clone(self.estimator)
        self.watch_ = Watch(self.epochs, overfit=self.overfit, plateau=self.plateau)
        for _ in range(self.epochs):
            for rows in np.array_split(random.permutation(len(y_train)), max(1, len(y_train) // self.batch_size)):
                model.partial_fit(_rows(x_train, rows), y_train[rows], **more)
            losses = _losses(model, x_val, y_val)
            of_train = _losses(model, _rows(x_train, probe), y_train[probe])
            over = self.watch_.report(of_train.mean(), losses.mean(), losses)
            if self.watch_.newest_is_best:
                self.estimator_ = copy.deepcopy(model)
            if over:
                break
        return self

    @_has("predict")  # type: ignore[untyped-decorator]
    def predict(self, X: Any) -> NDArray[Any]:
        """Return what the estimator of the best epoch predicts."""
        check_is_fitted(self, "estimator_")
        return np.asarray(self.estimator_.predict(X))

    @_has("predict_proba")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities (n, classes)."""
        check_is_fitted(self, "estimator_")
        return np.asarray(self.estimator_.predict_proba(X))

    @_has("decision_function")  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the decision function."""
        check_is_fitted(self, "estimator_")
        return np.asarray(self.estimator_.decision_function(X))

    @_has("score")  # type: ignore[untyped-decorator]
    def score(self, X: Any, y: Any) -> float:
        """Return the estimator's own score."""
        check_is_fitted(self, "estimator_")
        return float(self.estimator_.score(X, y))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = self.estimator.__sklearn_tags__().estimator_type
        return tags


def _rows(x: Any, rows: NDArray[Any]) -> Any:
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def _losses(model: Any, x: Any, y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the loss of each example (n,)."""
    if not is_classifier(model):
        return np.asarray(((model.predict(x) - y) ** 2).reshape(len(y), -1).mean(1))
    places = np.searchsorted(model.classes_, y)
    if hasattr(model, "predict_proba"):
        chosen = model.predict_proba(x)[np.arange(len(y)), places]
        return np.asarray(np.minimum(-np.log(np.maximum(chosen, 1e-300)), CLIP))
    scores = model.decision_function(x)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], 1)
    true = scores[np.arange(len(y)), places]
    others = np.where(np.arange(scores.shape[1]) == places[:, None], -np.inf, scores).max(1)
    return np.asarray(np.maximum(0.0, 1.0 - (true - others) / 2))
