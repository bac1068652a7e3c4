"""Curve -> Score: validation performance less a one-sided, noise-tolerant price of the gap. Pure.

    penalty        value(val) - lambda * max(0, gap - z * SE(gap) - tolerance)
    conservative   value(val) - SE(val)
    none           value(val)
    tiebreak       value(val); of the trials that tie, the one with the smallest gap is chosen (see ranking)

For a loss, value is the skill 1 - L_val / L_0 and gap = (L_val - L_train) / L_0, both without unit; for
another metric, value is the metric itself (negated if lower is better) and gap is by how much train is
better than validation. A metric of the user's own is better the higher it is. A higher score is always better. Knows
nothing of other trials: what a trial is worth depends on its own curve alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tuner.config import MODULE_ATTR
from tuner.config import Score as Rule
from tuner.curve import Curve, Epoch, Measure

CLASSIFICATION = ("log_loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc")
REGRESSION = ("mse", "mae", "r2")
LOSS = {"classification": "log_loss", "regression": "mse"}
NUMBERS = ("value", "skill", "gap", "noise", "penalty")
PER_NULL_LOSS = ("log_loss", "mse", "r2")  # whose errors are told in units of L_0
LOWER_IS_BETTER = frozenset({"log_loss", "mse", "mae"})


@dataclass(frozen=True, slots=True)
class Score:
    """What one epoch of a curve is worth.

    `value` is the score, `skill` its part without the penalty, `gap` the gap and `noise` its standard error in the
    score's unit, `penalty` what was taken off, for whatever reason the score's form has.
    """

    value: float
    epoch: int
    metric: str
    skill: float
    gap: float
    noise: float
    penalty: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {name: str(fields[name]) for name in NUMBERS if not math.isfinite(fields[name])}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**{**doc, **{name: float(doc[name]) for name in NUMBERS}})


def is_known(metric: str) -> bool:
    """Tell whether a metric is one of tuner's, not one of the user's own."""
    return metric in CLASSIFICATION or metric in REGRESSION


def metric_of(rule: Rule, task: str) -> str:
    """Return the metric that a study of this task is scored by; one of the user's own by its function's name.

    Raises:
        ValueError: the metric belongs to the other task; the message says which ones apply.
    """
    metric = rule.metric or LOSS[task]
    if MODULE_ATTR.match(metric):
        return metric.partition(":")[2]
    known = CLASSIFICATION if task == "classification" else REGRESSION
    if metric not in known:
        raise ValueError(f"score.metric: {metric} doesn't apply to {task}; one of {', '.join(known)}")
    return metric


def score(curve: Curve, rule: Rule, metric: str) -> Score:
    """Return the score of the epoch that the curve keeps."""
    return score_at(curve, curve.best, rule, metric)


def score_at(curve: Curve, number: int, rule: Rule, metric: str) -> Score:
    """Return the score of one epoch; minus infinity where a number isn't finite."""
    skill, gap, noise = _terms(curve, curve[number], metric)
    if not all(math.isfinite(part) for part in (skill, gap, noise)):
        return Score(-math.inf, number, metric, skill, gap, noise, 0.0)
    penalty = _taken_off(curve, number, rule, metric, gap, noise)
    return Score(skill - penalty, number, metric, skill, gap, noise, penalty)


def _taken_off(curve: Curve, number: int, rule: Rule, metric: str, gap: float, noise: float) -> float:
    if rule.form == "penalty":
        return rule.gap_penalty * max(0.0, gap - rule.noise * noise - rule.tolerance)
    return _error(curve, curve[number], metric) if rule.form == "conservative" else 0.0


def _error(curve: Curve, epoch: Epoch, metric: str) -> float:
    """Return the standard error of value(val) over the validation examples."""
    if metric in PER_NULL_LOSS:
        return epoch.se_val / curve.null_loss
    return _spread(epoch.val, metric, curve.n_val)


def _terms(curve: Curve, epoch: Epoch, metric: str) -> tuple[float, float, float]:
    """Return value(val), the gap and the gap's standard error in the score's unit."""
    null = curve.null_loss
    if metric in ("log_loss", "mse"):
        return 1 - epoch.val.loss / null, (epoch.val.loss - epoch.train.loss) / null, epoch.se_gap / null
    train, val = epoch.train.metrics[metric], epoch.val.metrics[metric]
    if metric == "r2":  # where the target's logarithm is learned, the noise is that of the logarithm's
        return val, train - val, epoch.se_gap / null
    noise = math.hypot(_spread(epoch.val, metric, curve.n_val), _spread(epoch.train, metric, curve.n_probe))
    return (-val, val - train, noise) if metric in LOWER_IS_BETTER else (val, train - val, noise)


def _spread(measure: Measure, metric: str, n: int) -> float:
    """Return the standard error of a metric: as it was told with it, or by the variance of one of n examples; 0 if
    neither is known.
    """
    if measure.metric_se or not is_known(metric) or not n:
        return measure.metric_se
    return math.sqrt(_variance(measure, metric) / n)


def _variance(measure: Measure, metric: str) -> float:
    """Return the per-example variance of a metric: exact for the absolute error, binomial for rates.

    Precision, recall, F1, balanced accuracy and the area under the ROC curve are taken as rates over all
    examples, which is the right size where classes are balanced and too small where they aren't.
    """
    value = measure.metrics[metric]
    square = measure.metrics.get("mse", 0.0)
    return max(square - value**2 if metric == "mae" else value * (1 - value), 0.0)
