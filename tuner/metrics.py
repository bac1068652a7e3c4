"""Model outputs and targets -> per-example losses and metrics, by their usual names.

Decides how a series is measured; train, validation and test go through the same functions. Knows numpy
only, no torch, no trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP = -math.log(1e-6)
TINY = 1e-12
EXAMPLES = 1000  # whose values are kept of a trial
MOST_TOLD = 100  # classes of which it is told which one is taken for which
Floats = NDArray[np.float64]


def per_example_loss(outputs: NDArray[Any], y: NDArray[Any], task: str) -> Floats:
    """Return the loss of each example (n,): log loss clipped at -log(1e-6), or the squared error.

    `outputs` is (n, classes) log-probabilities, or (n, 1) standardized predictions; `y` is (n,).
    """
    if task == "classification":
        chosen = outputs[np.arange(len(y)), y].astype(np.float64)
        return np.asarray(np.minimum(-chosen, CLIP))
    return np.asarray((outputs[:, 0].astype(np.float64) - y) ** 2)


def per_example_hit(outputs: NDArray[Any], y: NDArray[Any], task: str, restore: Any = None) -> Floats:
    """Return what each example (n,) counts in a metric that is no mean of losses: 1 if its class is right, or else its
    absolute error.

    Precision, recall, F1, balanced accuracy and the area under the ROC curve are no means over examples; what is right
    or wrong stands for them.
    """
    if task == "classification":
        return np.asarray(outputs.argmax(1) == y, dtype=np.float64)
    predicted, true = (np.asarray(restore(values) if restore else values) for values in (outputs[:, 0], y))
    return np.asarray(np.abs(predicted.astype(np.float64) - true))


def packed(values: NDArray[Any], most: int = EXAMPLES) -> bytes:
    """Return at most so many of the values of examples, evenly spaced, as float32: enough for the spread of a paired
    difference.
    """
    places = np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(np.int64)
    return values[places].astype("<f4").tobytes()


def unpacked(examples: bytes) -> Floats:
    """Return the values that `packed` kept."""
    return np.frombuffer(examples, "<f4").astype(np.float64)


def null_loss(train_y: NDArray[Any], y: NDArray[Any], task: str, outputs: int) -> float:
    """Return the mean loss on `y` of a prediction that knows the training targets' distribution alone.

    Cross-entropy of the training class frequencies, or the mean squared distance to the training mean;
    never 0, because losses are divided by it.
    """
    if task == "classification":
        share = np.bincount(train_y, minlength=outputs) / len(train_y)
        known = np.log(np.maximum(share, 1e-6))
        return max(float(np.mean(-known[y])), TINY)
    return max(float(np.mean((y.astype(np.float64) - train_y.mean(dtype=np.float64)) ** 2)), TINY)


def metrics(
    outputs: NDArray[Any], y: NDArray[Any], task: str, restore: Any = None, roc_auc: bool = False
) -> dict[str, float]:
    """Return every metric that applies, from one confusion matrix or one pass over the errors.

    Precision, recall and F1 are macro averages in which an undefined ratio counts 0. Regression metrics
    are in the unit that `restore` maps standardized targets to. The area under the ROC curve (one
    against the rest, macro) is dear and only measured when asked for.
    """
    if task == "classification":
        found = _from_confusion(confusion(outputs, y))
        return found | ({"roc_auc": area_under_roc(outputs, y)} if roc_auc else {})
    predicted, true = (np.asarray(restore(values) if restore else values) for values in (outputs[:, 0], y))
    error = predicted.astype(np.float64) - true
    mse = float(np.mean(error**2))
    spread = float(np.mean((true - np.mean(true, dtype=np.float64)) ** 2))
    r2 = 1 - mse / spread if spread > 0 else 0.0
    return {"mse": mse, "mae": float(np.mean(np.abs(error))), "r2": r2}


def told(
    outputs: NDArray[Any], y: NDArray[Any], task: str, restore: Any = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return targets and predictions as people know them: class numbers (n,) and probabilities (n, classes), or both
    (n,) in the target's unit.
    """
    if task == "classification":
        return y, np.exp(outputs.astype(np.float64))
    true, predicted = (np.asarray(restore(values) if restore else values) for values in (y, outputs[:, 0]))
    return true.astype(np.float64), predicted.astype(np.float64)


def confusion(outputs: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """Return the confusion matrix (classes, classes): rows are true classes, columns predicted ones."""
    classes = outputs.shape[1]
    cells = np.bincount(y * classes + outputs.argmax(1), minlength=classes * classes)
    return cells.reshape(classes, classes)


def _from_confusion(matrix: NDArray[np.int64]) -> dict[str, float]:
    hits = np.diag(matrix).astype(np.float64)
    true, predicted = matrix.sum(1), matrix.sum(0)
    seen = (true + predicted) > 0
    recall = hits / np.maximum(true, 1)
    precision = hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(true + predicted, 1)
    return {
        "accuracy": float(hits.sum() / matrix.sum()),
        "balanced_accuracy": float(recall[true > 0].mean()),
        "precision": float(precision[seen].mean()),
        "recall": float(recall[seen].mean()),
        "f1": float(f1[seen].mean()),
    }


def by_class(outputs: NDArray[Any], y: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return each class's rows, precision, recall and F1 (an undefined ratio is None), and how many of its rows were
    taken for each of the classes, unless these are more than anyone would look at.
    """
    matrix = confusion(outputs, y)
    true, predicted, hits = matrix.sum(1), matrix.sum(0), np.diag(matrix)

    def ratio(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        {
            "class": name, "rows": int(true[k]), "precision": ratio(int(hits[k]), int(predicted[k])),
            "recall": ratio(int(hits[k]), int(true[k])), "f1": ratio(2 * int(hits[k]), int(true[k] + predicted[k])),
            **({"taken_for": [int(count) for count in matrix[k]]} if len(names) <= MOST_TOLD else {}),
        }
        for k, name in enumerate(names)
    ]  # fmt: skip


def area_under_roc(outputs: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the area under the ROC curve, one class against the rest, averaged over the classes that occur.

    By ranks (Mann-Whitney U), ties counted half; nan if only one class occurs.
    """
    from scipy.stats import rankdata

    classes = outputs.shape[1]
    areas = []
    for k in range(1, 2) if classes == 2 else range(classes):
        positive = y == k
        n = int(positive.sum())
        if 0 < n < len(y):
            ranks = rankdata(np.exp(outputs[:, k].astype(np.float64)))
            areas.append((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))
    return float(np.mean(areas)) if areas else math.nan
