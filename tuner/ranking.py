"""Which trial is before which: by score, and where the score ties within noise, by the gap. Pure.

With `score.form: tiebreak` the score is validation performance alone. Of all trials that can't be told from the best
one, which is to say that lie within half a standard error of the paired difference over the validation examples, the
one with the smallest gap comes first (a gap below 0 is none).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.metrics import unpacked
from tuner.record import TrialRecord
from tuner.scoring import PER_NULL_LOSS

TIED_SE = 0.5
BY_EXAMPLE = (*PER_NULL_LOSS, "mae", "accuracy")  # metrics that are means over examples, or made of one


def best_record(records: Mapping[int, TrialRecord] | list[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the highest score, the earlier one of equals; None if none has a finite one."""
    rows = records.values() if isinstance(records, Mapping) else records
    complete = [row for row in rows if row.state == "complete" and math.isfinite(_worth(row))]
    return max(complete, key=lambda row: (_worth(row), -row.number), default=None)


def ranked(records: Iterable[TrialRecord], form: str = "penalty") -> list[TrialRecord]:
    """Return the complete trials that have a finite score, best first, by the form of the score."""
    complete = [row for row in records if row.state == "complete" and math.isfinite(_worth(row))]
    found = sorted(complete, key=lambda row: (-_worth(row), row.number))
    if form != "tiebreak" or not found:
        return found
    tied = [row for row in found if row is found[0] or _ties(found[0], row)]
    numbers = {row.number for row in tied}
    return sorted(tied, key=lambda row: (_gap(row), -_worth(row), row.number)) + [
        row for row in found if row.number not in numbers
    ]


def best_records(records: Iterable[TrialRecord], count: int, form: str = "penalty") -> list[TrialRecord]:
    """Return the first `count` of `ranked`, of equal configurations the first one."""
    found: list[TrialRecord] = []
    for row in ranked(records, form):
        if len(found) == count:
            break
        if all(row.all_values != other.all_values for other in found):
            found.append(row)
    return found


def _worth(record: TrialRecord) -> float:
    return record.score.value if record.score is not None else -math.inf


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one trial's validation performance is better than another's, in the score's unit, and the standard
    error of that, paired over the validation examples.
    """

    value: float
    se: float


def difference(one: TrialRecord, other: TrialRecord) -> Difference | None:
    """Return by how much `one` is better than `other`; None where their validation examples weren't kept, or where the
    metric is no mean over examples, so that no pairing says how certain it is.
    """
    if one.score is None or other.score is None or one.curve is None or one.score.metric not in BY_EXAMPLE:
        return None
    if not one.examples or len(one.examples) != len(other.examples):
        return None
    apart = unpacked(one.examples) - unpacked(other.examples)
    spread = float(apart.std(ddof=1)) / math.sqrt(one.curve.n_val or len(apart)) if len(apart) > 1 else 0.0
    unit = one.curve.null_loss if one.score.metric in PER_NULL_LOSS else 1.0
    return Difference(one.score.skill - other.score.skill, spread / unit)


def _ties(leader: TrialRecord, row: TrialRecord) -> bool:
    apart = difference(leader, row)
    return apart is not None and apart.value <= TIED_SE * apart.se


def _gap(record: TrialRecord) -> float:
    return max(0.0, record.score.gap) if record.score is not None else math.inf
