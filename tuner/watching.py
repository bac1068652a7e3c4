"""Watch: one training run, whoever trains it, judged after each epoch by the rules of a study.

    watch = tuner.Watch(epochs=100)
    for epoch in range(100):
        ...
        if watch.report(train=train_loss, val=val_loss):
            break
    print(watch.reason)

Decides how reported losses become a curve that `stopping` judges, with or without other runs beside it. Knows no torch
and no framework; those of `integrations` hand their figures over to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tuner.config import Stopping, min_epochs
from tuner.course import NONE, Course, check_course, null_or_first
from tuner.curve import Curve, Measure
from tuner.errors import UsageError
from tuner.stopping import Verdict, judge

if TYPE_CHECKING:
    import optuna

LOSS = "loss"


class Watch:
    """Says after each epoch whether a run is over, why, and which epoch is the one to keep.

    Args:
        epochs: how many there are at most; patience and the first epoch that is judged follow from it.
        null_loss: the validation loss of a prediction that knows nothing; that of the first epoch if not given.
        overfit, plateau: which rules are on (see `tuner.stopping`).
        trial: of an Optuna study: the run is then judged among its other trials, as `tuner.report` does.
        run: of a study of tuner's (see `tuner.Run`): that study judges.

    `verdict` is None until the run is over by a rule, and stays None where the study of a `run` judges.
    """

    def __init__(
        self,
        epochs: int = 100,
        *,
        null_loss: float | None = None,
        overfit: bool = True,
        plateau: bool = True,
        trial: optuna.Trial | None = None,
        run: Any = None,
    ) -> None:
        check_course("Watch", epochs, null_loss)
        if trial is not None and run is not None:
            raise UsageError("Watch: a trial of Optuna's or a run of tuner's judges, not both")
        if (trial is not None or run is not None) and (null_loss is not None or not (overfit and plateau)):
            raise UsageError("Watch: where a study judges, its own rules and null_loss hold; leave them out here")
        self.epochs, self.null_loss = epochs, null_loss
        self.rules = Stopping(overfit=overfit, plateau=plateau, behind=False)
        self.trial, self.run = trial, run
        self.verdict: Verdict | None = None
        self.over = False
        self._course = Course(epochs)

    def report(
        self, train: float | Mapping[str, float], val: float | Mapping[str, float], losses: ArrayLike | None = None
    ) -> bool:
        """Tell the losses of an epoch; return whether the run is over.

        Args:
            train, val: the mean loss on training and validation rows, measured alike: in evaluation mode, on clean
                examples. Smaller is better. A mapping of `loss` and of metrics tells a `run` of these, too; judged by
                is the loss.
            losses: those of the validation examples (n,), in the same order each time. With them a rise counts if it
                exceeds two standard errors of the paired differences; without them any rise does.
        """
        if self.over:
            raise UsageError(f"Watch: the run is over; {self.reason}")
        found = NONE if losses is None else np.array(losses, dtype=np.float64).ravel()
        of_train, of_val = _told(train), _told(val)
        measures = Measure(of_train[LOSS], {}), Measure(of_val[LOSS], {})
        epoch = self._course.then(*measures, (NONE, found), 0.0)
        if self.run is not None:
            told = of_val | ({LOSS: found} if len(found) else {})
            self.over = bool(self.run.report(train=_plain(of_train), val=_plain(told)))
        elif self.trial is not None:
            from tuner.pruner import report

            more = {} if losses is None else {"losses": found}
            self.verdict = report(self.trial, epoch.number, train=of_train[LOSS], val=of_val[LOSS], **more)
            self.over = self.verdict is not None
        else:
            self.verdict = judge(self.curve, [], self.rules)
            self.over = self.verdict is not None
        return self.over

    @property
    def curve(self) -> Curve:
        """The epochs so far."""
        epochs = tuple(self._course.epochs)
        null = null_or_first(self.null_loss, epochs[0].val.loss if epochs else 1.0)
        return Curve(max(self.epochs, len(epochs)), min_epochs(self.epochs), null, 1, 1, epochs)

    @property
    def best(self) -> int:
        """The epoch to keep, counted from 1: that of the smallest smoothed validation loss; 0 before the first."""
        return self._course.epochs[-1].standing.best if self._course.epochs else 0

    @property
    def newest_is_best(self) -> bool:
        """Whether the newest epoch is the one to keep, so far: whoever keeps its weights then has the best ones."""
        return self.best == len(self._course.epochs) > 0

    @property
    def reason(self) -> str:
        """Why the run is over, in a sentence; that it isn't, before."""
        if self.verdict is not None:
            return self.verdict.reason
        n = len(self._course.epochs)
        return f"ended by its study after epoch {n}" if self.over else f"not over after epoch {n} of {self.epochs}"

    @property
    def history(self) -> list[dict[str, float]]:
        """Train and validation loss of each epoch, for a DataFrame."""
        return [
            {"epoch": epoch.number, "train_loss": epoch.train.loss, "val_loss": epoch.val.loss}
            for epoch in self._course.epochs
        ]


def _told(given: float | Mapping[str, float]) -> dict[str, Any]:
    """Return what was told of a part by its names, with the loss.

    Raises:
        UsageError: the loss isn't there.
    """
    told = dict(given) if isinstance(given, Mapping) else {LOSS: given}
    if LOSS not in told:
        raise UsageError(
            f"Watch: {', '.join(map(str, told)) or 'nothing'} was told without a {LOSS}, by which is judged"
        )
    return {name: float(value) for name, value in told.items()}


def _plain(told: dict[str, Any]) -> Any:
    """Return a loss alone as it is."""
    return told[LOSS] if len(told) == 1 else told
