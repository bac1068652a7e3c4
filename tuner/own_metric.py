"""A metric of the user's own: `score.metric: my:net_benefit` names a function

    def net_benefit(y, predicted):
        ...
        return value

`y` are class numbers (n,) and `predicted` probabilities (n, classes); for regression both are (n,), in the target's
unit. It returns one number, or one for each example, whose mean is the metric. More is better: of what is to be small,
return the negative. Decides what its standard error is: of numbers for each example that of their mean, else that of a
jackknife over ten groups of examples (Efron & Tibshirani 1993, An Introduction to the Bootstrap, 11), for which the
function is called ten times more on each part after each epoch. Knows numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.config import MODULE_ATTR, RunConfig
from tuner.errors import UserCodeError
from tuner.own_code import blaming, check_signature, definition, fault, find_own

GROUPS = 10


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A function of the user's own, and the name that its values go by."""

    name: str
    label: str
    function: Callable[..., Any]

    def of(self, y: NDArray[Any], predicted: NDArray[Any]) -> float:
        """Return the metric.

        Raises:
            UserCodeError: the function raises, or returns no number.
        """
        return float(self._values(y, predicted).mean())

    def of_some(self, y: NDArray[Any], predicted: NDArray[Any]) -> float:
        """Return the metric of some of the examples; nan where it isn't defined there, as where a class is missing."""
        try:
            return self.of(y, predicted)
        except UserCodeError:
            return math.nan

    def with_error(self, y: NDArray[Any], predicted: NDArray[Any]) -> tuple[float, float]:
        """Return the metric and its standard error over the examples; 0 where that can't be told.

        Raises:
            UserCodeError: the function raises, or returns no number.
        """
        values = self._values(y, predicted)
        if values.ndim:
            error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            return float(values.mean()), error
        group = np.random.default_rng(0).permutation(len(y)) % GROUPS
        left_out = [self.of_some(y[group != g], predicted[group != g]) for g in range(min(GROUPS, len(y)))]
        known = np.array([value for value in left_out if math.isfinite(value)])
        spread = float(known.var()) if len(known) > 1 else 0.0
        return float(values), math.sqrt((len(known) - 1) * spread) if len(known) > 1 else 0.0

    def _values(self, y: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
        """Return one number (), or one for each example (n,)."""
        with blaming(self.label, definition(self.function)):
            found = self.function(y.copy(), predicted.copy())
        try:
            values = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            raise self.fault(f"returned a {type(found).__name__}, not a number") from None
        if values.shape not in ((), (len(y),)):
            raise self.fault(f"returned an array {values.shape}, not one number or one for each of {len(y)} examples")
        return values

    def fault(self, reason: str) -> Exception:
        """Return the error for what is wrong with the function."""
        return fault(self.label, reason, definition(self.function))


def own_metric(config: RunConfig, folder: Path | None) -> OwnMetric | None:
    """Return the metric of the user's own that a configuration is scored by, or None if it is one of tuner's.

    Raises:
        UserCodeError: it can't be imported, isn't there, or can't be called.
    """
    name = config.score.metric or ""
    if not MODULE_ATTR.match(name):
        return None
    label = f"score.metric {name}"
    function = find_own(name, folder, label, "a function (y, predicted)")
    check_signature(label, function, ("y", "predicted"))
    return OwnMetric(name.partition(":")[2], label, function)
