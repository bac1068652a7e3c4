"""Which searched values moved the score and which moved the gap: shares of variance after functional ANOVA.

A share is what a value explains alone; what several explain together, and noise, is nobody's, so they add up to less
than 1.

Decides how values become coordinates; the analysis is Optuna's (Hutter, Hoos & Leyton-Brown 2014). A value outside its
range (`or: 0`) and a value that wasn't active have places of their own beside the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import create_trial

from tuner.proposing import quiet
from tuner.record import TrialRecord
from tuner.space import Domain, Range, Space, same

FEWEST, MOST = 10, 300
OUTSIDE, ABSENT = -0.1, -0.2
Importances = dict[str, dict[str, float]]


def importances(space: Space, records: Mapping[int, TrialRecord]) -> Importances | None:
    """Return, for `score` and for `gap`, the share of the variance that each searched value explains, largest first.

    Of the complete trials with finite figures the newest 300 count. None if there are fewer than 10, or one value only.
    """
    complete = [
        record
        for record in records.values()
        if record.state == "complete"
        and record.score is not None
        and not record.overrides
        and math.isfinite(record.score.value)
        and math.isfinite(record.score.gap)
    ][-MOST:]
    if len(complete) < FEWEST or len(space.domains) < 2:
        return None
    targets: dict[str, Callable[[TrialRecord], float]] = {
        "score": lambda record: record.score.value if record.score else math.nan,
        "gap": lambda record: record.score.gap if record.score else math.nan,
    }
    found = {name: _shares(space, complete, target) for name, target in targets.items()}
    return found if all(found.values()) else None


def _shares(space: Space, records: list[TrialRecord], target: Callable[[TrialRecord], float]) -> dict[str, float]:
    values = [target(record) for record in records]
    if max(values) == min(values):
        return {}
    with quiet():
        study = optuna.create_study(direction="maximize")
        for record, value in zip(records, values, strict=True):
            places = {name: _place(domain, record.values.get(name)) for name, domain in space.domains.items()}
            axes = {name: _axis(domain) for name, domain in space.domains.items()}
            study.add_trial(create_trial(value=value, params=places, distributions=axes))
        # not by `get_param_importances`, which would make them add up to 1
        shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    return {name: float(f"{share:.3g}") for name, share in shares.items()}


def _axis(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Range):
        return FloatDistribution(ABSENT, 1.0)
    return CategoricalDistribution([*range(len(domain.choices)), "absent"])


def _place(domain: Domain, value: Any) -> float | int | str:
    """Return where a value lies: from 0 to 1 in a range on its own scale, or the number of a choice."""
    if not isinstance(domain, Range):
        return next((number for number, choice in enumerate(domain.choices) if same(choice, value)), "absent")
    if value is None:
        return ABSENT
    if domain.has_alternative and same(value, domain.alternative):
        return OUTSIDE
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.top)
    return min(max((scale(value) - low) / (high - low), 0.0), 1.0) if high > low else 0.0
