"""OverfitPruner and report(): the rules of `stopping` for any Optuna study, whatever trains.

    study = optuna.create_study(pruner=tuner.OverfitPruner())

    def objective(trial):
        for epoch in range(1, 101):
            ...
            if tuner.report(trial, epoch, train=train_loss, val=val_loss):
                break
        if trial.should_prune():
            raise optuna.TrialPruned
        return best_val_loss

Decides how reported losses become a curve and other trials its peers. A trial that leads and then overfits isn't
pruned: `report` says that it is over, `should_prune` says no, and so its best value counts.
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.config import Stopping, min_epochs
from tuner.course import check_course, mean_and_error, null_or_first
from tuner.curve import Curve, Epoch, Measure, Standing, rounded
from tuner.stopping import Peer, Verdict, judge

SERIES = "tuner:series"
COLUMNS = ("train", "se_val", "rise", "rise_se")
# of trials under way here: where each stands, and the losses of its best epoch
_seen: WeakKeyDictionary[Any, tuple[Standing | None, NDArray[np.float64]]] = WeakKeyDictionary()


class OverfitPruner(BasePruner):
    """Prunes trials that overfit, or stay behind, without losing one that leads.

    Args:
        epochs: how many a trial has at most; patience and the first epoch that is judged follow from it.
        null_loss: the validation loss of a prediction that knows nothing; that of each trial's first step if not given.
        overfit, plateau, behind: which rules are on (see `tuner.stopping`).
    """

    def __init__(
        self,
        epochs: int = 100,
        *,
        null_loss: float | None = None,
        overfit: bool = True,
        plateau: bool = True,
        behind: bool = True,
    ) -> None:
        check_course("OverfitPruner", epochs, null_loss)
        self.epochs, self.null_loss = epochs, null_loss
        self.rules = Stopping(overfit=overfit, plateau=plateau, behind=behind)

    def verdict(self, study: optuna.Study, trial: FrozenTrial) -> Verdict | None:
        """Return the verdict that ends a trial after its newest step, or None to go on."""
        sign = _sign(study)
        curve = self._curve(trial, sign)
        if curve is None:
            return None
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        others = [other for other in study.get_trials(deepcopy=False, states=states) if other.number != trial.number]
        return judge(curve, [_peer(other, sign) for other in others if other.intermediate_values], self.rules)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is of no use any more: behind the others, or diverged."""
        found = self.verdict(study, trial)
        return found is not None and found.outcome != "complete"

    def _curve(self, trial: FrozenTrial, sign: float) -> Curve | None:
        values = [sign * trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        if not values:
            return None
        told = {step: dict(zip(COLUMNS, row, strict=True)) for step, row in trial.user_attrs.get(SERIES, ())}
        null = null_or_first(self.null_loss, values[0])
        curve = Curve(max(self.epochs, len(values)), min_epochs(self.epochs), null, 1, 1)
        standing = None
        for number, step in enumerate(sorted(trial.intermediate_values), start=1):
            val = values[number - 1]
            standing = Standing.after(standing, number, val, curve.first)
            # Without a training loss nothing can be said of overfitting: it is taken to move as validation does.
            row = told.get(step, {"train": val, "se_val": 0.0, "rise": 0.0, "rise_se": 0.0})
            train, se_val, rise, rise_se = (float(row[name]) for name in COLUMNS)
            rise = rise or val - values[standing.best - 1]
            measures = Measure(train, {}), Measure(val, {})
            curve = curve.then(Epoch(number, *measures, se_val, 0.0, rise, rise_se, 0.0, standing))
        return curve


def report(
    trial: optuna.Trial, step: int, *, train: float, val: float, losses: ArrayLike | None = None
) -> Verdict | None:
    """Report the train and validation loss of a step (an epoch) to a trial; return a verdict if it is over.

    The verdict's `kept` is the step with the best smoothed validation loss, counted from the first one reported as 1,
    its `reason` one sentence and its `numbers` what was compared; they are kept with the trial as attributes. A step
    that was reported before changes nothing. A `FixedTrial`, which belongs to no study, is never over.

    Args:
        trial: of any study; its pruner's rules hold if that is an OverfitPruner, else those of `OverfitPruner()`.
        step: a whole number from 0.
        train: the training loss, measured as the validation loss is: in evaluation mode, on clean examples.
        val: the validation loss; smaller is better, whatever the study's objective. Where that is maximized, the
            trial's intermediate values are the losses times -1, for Optuna's samplers rank pruned trials by them.
        losses: the loss of each validation example, in the same order each time. With them a rise counts if it exceeds
            two standard errors of the paired differences; without them any rise does.
    """
    if not isinstance(trial, optuna.Trial):
        return None
    study = trial.study
    rules = study.pruner if isinstance(study.pruner, OverfitPruner) else OverfitPruner()
    told = trial.user_attrs.get(SERIES, ())
    if all(step != earlier for earlier, _ in told):
        row = [float(train), *_spread(trial, float(val), losses, min_epochs(rules.epochs))]
        trial.set_user_attr(SERIES, [*told, [step, row]])
    trial.report(_sign(study) * val, step)
    verdict = rules.verdict(study, study.get_trials(deepcopy=False)[trial.number])
    if verdict is not None:
        told = verdict.to_json()
        found = {"verdict": told["kind"], **{name: told[name] for name in ("reason", "kept", "numbers")}}
        for name, value in found.items():
            trial.set_user_attr(name, value)
    return verdict


def _spread(trial: optuna.Trial, val: float, losses: ArrayLike | None, first: int) -> tuple[float, float, float]:
    """Return the standard error of a validation loss, its rise over the best epoch's and that rise's error."""
    found = np.array([] if losses is None else losses, dtype=np.float64).ravel()
    standing, best = _seen.get(trial, (None, found))
    number = len(trial.user_attrs.get(SERIES, ())) + 1
    standing = Standing.after(standing, number, val, first)
    best = found if standing.best == number else best
    _seen[trial] = standing, best
    if not len(found) or len(found) != len(best):
        return 0.0, 0.0, 0.0
    rise, rise_se = mean_and_error(found - best)
    return rounded(mean_and_error(found)[1]), rounded(rise), rounded(rise_se)


def _sign(study: optuna.Study) -> float:
    """Return what a loss is multiplied by to be an intermediate value: as a sampler takes them, more may be better."""
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def _peer(trial: FrozenTrial, sign: float) -> Peer:
    lowest: list[float] = []
    for step in sorted(trial.intermediate_values):
        value = sign * trial.intermediate_values[step]
        value = value if math.isfinite(value) else math.inf
        lowest.append(min(value, lowest[-1]) if lowest else value)
    return Peer(tuple(lowest), trial.state == TrialState.PRUNED)
