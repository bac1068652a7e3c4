"""What a trial's curve says of its fit, and what the best trials say of the ranges, in words with their numbers. Pure.

    overfit      train is better than validation beyond 2 SE of the gap; `slightly` while R < .1
    underfit     it isn't, and validation is no better than knowing nothing (beyond 2 SE), or still improved at its end
    well fitted  it isn't, and more epochs brought nothing, or are to bring next to nothing

Whether a trial improves is told by its smoothed validation loss, which chooses the epoch to keep.

R = clip((L_val - L_train) / (L_0 - L_train), 0, 1) is the relative overfitting rate of Efron & Tibshirani (1997): 0
where validation is as good as train, 1 where it is no better than knowing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from tuner.curve import Curve
from tuner.ranking import best_records
from tuner.record import TrialRecord
from tuner.space import Range, Space

Fit = Literal["overfit", "slightly overfit", "underfit", "well fitted"]
OVERFIT: tuple[Fit, ...] = ("overfit", "slightly overfit")
NOISE, SLIGHT = 2.0, 0.1
OF_NULL = "of the loss of knowing nothing"
NO_GAP = f"no gap beyond noise ({NOISE:g} SE)"  # the score's penalty may begin at another multiple, and so says its own
LITTLE = 0.02  # of the loss of knowing nothing: below it an improvement is none to wait for
BEST_SHARE, FEWEST_BEST, AT_BOUND = 0.2, 4, 0.1
CHANCE, MANY = 0.05, 10_000  # the chance of an accident that is told for none; values beyond which each weighs little
EPOCHS = "training.epochs"


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
    """A range whose best trials lie at one of its bounds: its key, the bound, how many of them lie in the outer tenth
    there, and the median of those in the range.
    """

    name: str
    bound: float
    side: Literal["low", "high"]
    trials: int
    middle: float
    reason: str


def diagnose(record: TrialRecord) -> Diagnosis | None:
    """Return how a trial fits; None if it failed or kept no epoch."""
    if record.state == "failed" or record.kept is None or record.curve is None or record.score is None:
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
        reason = f"validation loss exceeds training loss by {gap:.2g} {OF_NULL} ({by}); R = {rate:.2g}"
    elif null - val <= NOISE * epoch.se_val:
        fit, reason = "underfit", f"at epoch {kept} validation is no better than knowing nothing, beyond noise"
    elif val <= LITTLE * null:
        fit, reason = "well fitted", f"{NO_GAP}, and at {val / null:.2g} {OF_NULL} little is left to gain"
    elif kept == len(curve) and _improves(curve):
        end = f"its cap of {len(curve)} epochs" if kept >= curve.budget else f"epoch {kept}, where it was ended"
        fit, reason = "underfit", f"still improving at {end}, with {NO_GAP}"
    elif kept == len(curve):
        fit, reason = "well fitted", f"{NO_GAP}, and no longer improving at epoch {kept}, its last"
    else:
        fit, reason = "well fitted", f"{NO_GAP}, and nothing gained after epoch {kept}"
    return Diagnosis(record.number, fit, gap, noise, rate, reason)


def overfitters(records: Iterable[TrialRecord]) -> list[Diagnosis]:
    """Return the diagnoses of the trials that are overfit, the largest gap first."""
    found = [fit for fit in map(diagnose, records) if fit is not None and fit.fit in OVERFIT]
    return sorted(found, key=lambda fit: (-fit.gap, fit.trial))


def _improves(curve: Curve) -> bool:
    """Tell whether the newest epoch is better than the one before; of a single epoch it can't be told, so it may be."""
    return len(curve) < 2 or curve.last.standing.smoothed < curve[len(curve) - 1].standing.smoothed


def at_bounds(space: Space, records: Mapping[int, TrialRecord]) -> list[AtBound]:
    """Return the ranges of which the best fifth of the trials (at least 4) has its median in an outer tenth, and more
    of them there than chance would put there: of the two values 1 and 2 a half of all trials has each.

    Of a cap of epochs that says something only if most of them kept the last epoch that it allows.
    """
    complete = sum(record.state == "complete" for record in records.values())
    best = best_records(records.values(), max(FEWEST_BEST, round(BEST_SHARE * complete)))
    if len(best) < FEWEST_BEST or complete <= len(best):
        return []
    found = []
    for name, domain in space.domains.items():
        if name == EPOCHS and 2 * sum(map(_at_cap, best)) <= len(best):
            continue
        if isinstance(domain, Range) and (bound := _at_bound(name, domain, best)) and _can_widen(space, bound, domain):
            found.append(bound)
    return found


def _at_cap(record: TrialRecord) -> bool:
    return record.curve is not None and record.score is not None and record.score.epoch >= record.curve.budget


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
    inside = [value for value in values if value is not None and domain.low <= value <= domain.top]  # not `or`
    if len(inside) < FEWEST_BEST or domain.low == domain.top:
        return None
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.top)
    middle, places = median(inside), [(scale(value) - low) / (high - low) for value in inside]
    place = (scale(middle) - low) / (high - low)
    if AT_BOUND < place < 1 - AT_BOUND:
        return None
    side: Literal["low", "high"] = "low" if place <= AT_BOUND else "high"
    bound = domain.low if side == "low" else domain.top
    near = sum(place <= AT_BOUND if side == "low" else place >= 1 - AT_BOUND for place in places)
    if _by_chance(near, len(places), _outer_share(domain, side)) > CHANCE:
        return None
    reason = (
        f"{name}: {near} of the best {len(best)} trials lie in the outer tenth of its range, at its {side} bound "
        f"{bound:g} (median {middle:.3g}); widen it"
    )
    return AtBound(name, bound, side, near, middle, reason)


def _outer_share(domain: Range, side: str) -> float:
    """Return how likely a value of a range lies in its outer tenth: of few values one may be a half of all."""
    step = domain.step or (1 if domain.integer else 0)
    count = int((domain.top - domain.low) / step + 1.5) if step else MANY + 1
    if count > MANY:
        return AT_BOUND
    scale = math.log if domain.log else float
    low, high = scale(domain.low), scale(domain.top)
    outer = whole = 0.0
    for value in (domain.low + step * i for i in range(count)):
        weight = scale(value + step / 2) - scale(value - step / 2)
        place = (scale(value) - low) / (high - low)
        whole += weight
        outer += weight if (place <= AT_BOUND if side == "low" else place >= 1 - AT_BOUND) else 0.0
    return outer / whole


def _by_chance(near: int, of: int, share: float) -> float:
    """Return how likely so many or more of the trials lie in such a share of a range, if nothing drew them there."""
    return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(near, of + 1))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
