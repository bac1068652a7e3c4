"""What a trial's curve says of its fit, and what the best trials say of the ranges, in words with their numbers. Pure.

    overfit      train is better than validation beyond 2 SE of the gap; `slightly` while R < .1
    underfit     it isn't, and the trial was still improving at its cap of epochs
    well fitted  it isn't, and more epochs brought nothing

R = clip((L_val - L_train) / (L_0 - L_train), 0, 1) is the relative overfitting rate of Efron & Tibshirani (1997): 0
where validation is as good as train, 1 where it is no better than knowing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from tuner.ranking import best_records
from tuner.record import TrialRecord
from tuner.space import Range, Space

Fit = Literal["overfit", "slightly overfit", "underfit", "well fitted"]
NOISE, SLIGHT = 2.0, 0.1
BEST_SHARE, FEWEST_BEST, AT_BOUND = 0.2, 4, 0.1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How a trial's network fits at its kept epoch: in a word, with its numbers and a sentence.

    `gap` and `noise` (its standard error) are in units of L_0; `rate` is R.
    """

    trial: int
    fit: Fit
    gap: float
    noise: float
    rate: float
    reason: str


@dataclass(frozen=True, slots=True)
class AtBound:
    """A range whose best trials lie at one of its bounds: its key, the bound, how many they are and their median."""

    name: str
    bound: float
    side: Literal["low", "high"]
    trials: int
    middle: float
    reason: str


def diagnose(record: TrialRecord) -> Diagnosis | None:
    """Return how a trial fits; None if it kept no epoch."""
    if record.kept is None or record.curve is None or record.score is None:
        return None
    curve, epoch, kept = record.curve, record.kept, record.score.epoch
    null, val, train = curve.null_loss, epoch.val.loss, epoch.train.loss
    if not all(map(math.isfinite, (null, val, train))) or null <= 0:
        return None
    gap, noise = (val - train) / null, epoch.se_gap / null
    rate = min(max((val - train) / (null - train), 0.0), 1.0) if null > train else 1.0
    if gap > NOISE * noise:
        fit: Fit = "slightly overfit" if rate < SLIGHT else "overfit"
        by = f"{gap / noise:.1f} SE" if noise > 0 else "without noise"
        reason = f"validation loss exceeds training loss by {gap:.2g} of knowing nothing ({by}); R = {rate:.2g}"
    elif kept >= curve.budget:
        fit, reason = "underfit", f"still improving at its cap of {curve.budget} epochs, with no gap beyond noise"
    else:
        fit, reason = "well fitted", f"no gap beyond noise, and nothing gained after epoch {kept}"
    return Diagnosis(record.number, fit, gap, noise, rate, reason)


def at_bounds(space: Space, records: Mapping[int, TrialRecord]) -> list[AtBound]:
    """Return the ranges of which the best fifth of the trials (at least 4) has its median in an outer tenth."""
    complete = sum(record.state == "complete" for record in records.values())
    best = best_records(records.values(), max(FEWEST_BEST, round(BEST_SHARE * complete)))
    if len(best) < FEWEST_BEST or complete <= len(best):
        return []
    found = []
    for name, domain in space.domains.items():
        if isinstance(domain, Range) and (bound := _at_bound(name, domain, best)) and _can_widen(space, bound, domain):
            found.append(bound)
    return found


def _can_widen(space: Space, bound: AtBound, domain: Range) -> bool:
    """Tell whether the key may have a value beyond the bound: a dropout below 0 may not."""
    if domain.integer:
        beyond: float = int(bound.bound) + (1 if bound.side == "high" else -1)
    elif domain.log:
        beyond = bound.bound * (1.1 if bound.side == "high" else 1 / 1.1)
    else:
        beyond = bound.bound + 0.01 * (domain.top - domain.low) * (1 if bound.side == "high" else -1)
    try:
        space.config.replace({bound.name: beyond})
    except ValueError:  # pydantic's is one
        return False
    return True


def _at_bound(name: str, domain: Range, best: Sequence[TrialRecord]) -> AtBound | None:
    values = [_number(record.values.get(name)) for record in best]
    inside = [value for value in values if value is not None and domain.low <= value <= domain.top]
    if len(inside) < FEWEST_BEST or domain.low == domain.top:
        return None
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.top)
    middle = median(inside)
    place = (scale(middle) - low) / (high - low)
    if AT_BOUND < place < 1 - AT_BOUND:
        return None
    side: Literal["low", "high"] = "low" if place <= AT_BOUND else "high"
    bound = domain.low if side == "low" else domain.top
    reason = f"{name}: the best {len(inside)} trials lie at its {side} bound {bound:g} (median {middle:.3g}); widen it"
    return AtBound(name, bound, side, len(inside), middle, reason)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
