"""Course: a run's epochs as they come, each made of what was measured after it.

Decides what an epoch is told of those before it: where the run stands, and by how much each validation example's loss
has risen over that at the best epoch. Knows numpy only: whoever trains measures, and whoever judges reads the epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.config import min_epochs
from tuner.curve import Epoch, Measure, Standing, rounded
from tuner.errors import UsageError

Floats = NDArray[np.float64]
NONE: Floats = np.zeros(0)


class Course:
    """The epochs of a run with a cap of `budget` of them, so far; `best` are the validation losses (n,) at the best."""

    def __init__(self, budget: int, epochs: Sequence[Epoch] = (), best: Floats = NONE) -> None:
        self.budget, self.epochs, self.best = budget, list(epochs), best

    def then(self, train: Measure, val: Measure, losses: tuple[Floats, Floats], seconds: float) -> Epoch:
        """Return the next epoch: its measures, and the losses of each training and validation example (of none, where
        they aren't known: then there are no errors, and any rise is one).
        """
        number, (of_train, of_val) = len(self.epochs) + 1, losses
        before = self.epochs[-1].standing if self.epochs else None
        standing = Standing.after(before, number, val.loss, min_epochs(self.budget))
        if standing.best == number:
            self.best = of_val.copy()  # whoever tells them may use the array again
        rise, rise_se = val.loss - self.epochs[standing.best - 1].val.loss if standing.best < number else 0.0, 0.0
        if len(of_val) and len(of_val) == len(self.best):
            rise, rise_se = mean_and_error(of_val - self.best)
        se_val, se_train = mean_and_error(of_val)[1], mean_and_error(of_train)[1]
        errors = rounded(se_val), rounded(math.hypot(se_val, se_train)), rounded(rise), rounded(rise_se)
        self.epochs.append(Epoch(number, train, val, *errors, rounded(seconds), standing))
        return self.epochs[-1]


def check_course(who: str, epochs: int, null_loss: float | None) -> None:
    """Refuse what no run has.

    Raises:
        UsageError: the epochs aren't a whole number from 1, or the loss of knowing nothing isn't positive.
    """
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise UsageError(f"{who}: epochs is {epochs!r}; a whole number from 1 is needed")
    if null_loss is not None and not (math.isfinite(null_loss) and null_loss > 0):
        raise UsageError(f"{who}: null_loss is {null_loss}; a positive number is needed")


def null_or_first(null_loss: float | None, first: float) -> float:
    """Return the loss of knowing nothing; where it isn't known, a run's first one stands for it."""
    return null_loss or (first if math.isfinite(first) and first > 0 else 1.0)


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Return the mean of some values (n,) and its standard error; 0 where there are none, or no two."""
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return float(values.mean()) if n else 0.0, error
