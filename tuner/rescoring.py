"""A finished study under another score, without training: from its stored curves alone. Pure.

The epoch that each trial kept stays: it was chosen by validation alone, not by the score. What the other score would
have made the sampler propose can't be known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuner.config import Score as Rule
from tuner.confirmation import Confirmed, Repeat, confirmed
from tuner.errors import UsageError
from tuner.ranking import BY_EXAMPLE, ranked
from tuner.record import TrialRecord
from tuner.scoring import Score, score_at


@dataclass(frozen=True, slots=True)
class Rescored:
    """A complete trial: its place in the study as it was (from 1), its score then and now.

    `on_front` says that no other trial is better in both, what is scored on validation and the gap.
    """

    trial: int
    place: int
    before: float
    score: Score
    on_front: bool


def rescore(records: Mapping[int, TrialRecord], rule: Rule, metric: str, form: str) -> list[Rescored]:
    """Return the complete trials under another rule, best first; `form` is that of the score that they were made with.

    Raises:
        UsageError: the metric wasn't recorded, or no trial is complete.
    """
    complete = [
        (record, record.score, record.curve)
        for record in records.values()
        if record.state == "complete" and record.score is not None and record.curve is not None
    ]
    if rule.form == "tiebreak" and any(not record.examples for record, _, _ in complete):
        raise UsageError(
            "--form tiebreak: needs the losses of single examples, which this study didn't keep: an older version made "
            "it, or its training loop tells means alone"
        )
    if rule.form == "tiebreak" and metric not in BY_EXAMPLE:
        raise UsageError(f"--form tiebreak: pairs examples, and {metric} is no mean over examples")
    if rule.form == "tiebreak" and any(score.metric != metric for _, score, _ in complete):
        raise UsageError(f"--form tiebreak: goes with the study's own metric alone, not with --metric {metric}")
    if not complete:
        raise UsageError("no trial is complete, so there is nothing to score")
    try:
        scores = {record.number: score_at(curve, old.epoch, rule, metric) for record, old, curve in complete}
    except KeyError as error:
        raise UsageError(f"--metric {metric}: {error.args[0]} wasn't recorded in this study") from None
    before = {record.number: old.value for record, old, _ in complete}
    places = {number: place for place, number in enumerate(_order([row for row, _, _ in complete], form), start=1)}
    now = _order([replace(row, score=scores[row.number]) for row, _, _ in complete], rule.form)
    ahead = front(scores)
    return [Rescored(number, places[number], before[number], scores[number], number in ahead) for number in now]


def reconfirmed(
    records: Mapping[int, TrialRecord], outcome: Confirmed, rule: Rule, metric: str, rows: tuple[int, int]
) -> Confirmed | None:
    """Return what a study's confirmation comes to under another rule; `rows` are the study's own for training and
    validation. It is of the configurations that were confirmed, which under that rule others might have been. None if
    none of them comes to a score in all rounds.

    Raises:
        KeyError: the metric wasn't recorded.
    """
    tried = {}
    for standing in outcome.standings:
        record = records[standing.trial]
        assert record.curve is not None
        assert record.score is not None
        tried[record.number] = replace(record, score=score_at(record.curve, record.score.epoch, rule, metric))
    return confirmed(tried, [_again(repeat, rule, metric) for repeat in outcome.repeats], *rows, rule.form)


def _again(repeat: Repeat, rule: Rule, metric: str) -> Repeat:
    worth = score_at(repeat.curve, repeat.kept, rule, metric) if repeat.curve is not None else None
    return replace(repeat, score=worth if worth is not None and math.isfinite(worth.value) else None)


def _order(rows: list[TrialRecord], form: str) -> list[int]:
    """Return trials' numbers, best first; those with no finite score last."""
    first = [row.number for row in ranked(rows, form)]
    there = set(first)
    return first + [row.number for row in rows if row.number not in there]


def front(scores: Mapping[int, Score]) -> set[int]:
    """Return the trials of which none is better in validation and no worse in the gap, or the other way round."""
    found, least = set(), math.inf
    finite = [
        (number, each) for number, each in scores.items() if math.isfinite(each.skill) and math.isfinite(each.gap)
    ]
    for number, each in sorted(finite, key=lambda pair: (-pair[1].skill, pair[1].gap, pair[0])):
        if each.gap < least:
            found.add(number)
            least = each.gap
    return found
