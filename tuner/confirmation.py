"""Repeats of the search's best configurations -> which one is chosen, and how far its score was luck. Pure.

The best of many trials owes some of its score to the validation rows that it was chosen on. So the best few are trained
again on other divisions of the training and validation rows, with other seeds, and the mean over those chooses. By how
much the search's own choice falls is told as its optimism.

The error of a mean over J divisions is sd * sqrt(1/J + n_val/n_train), as the divisions share rows (Nadeau & Bengio
2003). An interval of 95 % is so many of these as Student's t has with J - 1 degrees of freedom: of three values, 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Self

from tuner.curve import Curve, Measure
from tuner.ranking import TIED_SE, best_records
from tuner.record import TrialRecord
from tuner.scoring import LOWER_IS_BETTER, PER_NULL_LOSS, Score, is_known

TOP, ROUNDS, FEWEST_ROUNDS = 5, 3, 2
SHARE = 1 / 5  # of a time limit that the confirmation may take
SLACK = 1.2  # times the seconds of the search that the same epochs may take in it
MOST = 1.0  # that a skill, or a metric of which more is better, can be
T95 = {2: 12.706, 3: 4.303}  # Student's t at 97.5 %, by the number of rounds
REPEAT, ABLATION = "repeat:", "ablation:"  # with which the keys of repeats in a store begin


@dataclass(frozen=True, slots=True)
class Repeat:
    """A trial's configuration trained again: on the split and with the seed of a round, up to the epoch `kept`.

    `curve` and `score` are None if it failed (`error` says why) or came to no finite score. The validation rows are
    other ones than those of the search if `fresh`; they aren't where the data name or order them. `without` names a
    regularizer that was switched off, for an ablation. `n_train` are the rows it was trained on (0: not known).
    """

    trial: int
    round: int
    seed: int
    split: int
    kept: int
    curve: Curve | None
    score: Score | None
    error: str = ""
    fresh: bool = True
    without: str = ""
    n_train: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {
            name: part.to_json() if (part := plain[name]) is not None else None for name in ("curve", "score")
        }

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        curve, score = doc["curve"], doc["score"]
        read = {"curve": Curve.from_json(curve) if curve else None, "score": Score.from_json(score) if score else None}
        return cls(**{**doc, **read})


@dataclass(frozen=True, slots=True)
class Repeating:
    """A trial's configuration that is being trained again: up to the epoch `kept`, with its curve so far, in a round of
    the confirmation or, without one, on all the rows that its network is to be made of or on a fold of the search. It
    is `over` when it has ended. `of` are the runs that the confirmation has in all.
    """

    trial: int
    round: int | None
    kept: int
    curve: Curve
    without: str = ""
    fold: int | None = None
    over: bool = False
    of: int = 0


@dataclass(frozen=True, slots=True)
class Contender:
    """What a configuration came to over the rounds: mean, standard deviation and standard error of its score, and the
    bounds of the interval of 95 %. Where the rows are the search's own, the error is that of the seeds alone, and there
    is no interval (nan).
    """

    trial: int
    searched: float
    mean: float
    sd: float
    se: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The outcome: the trial chosen, the one that the search would have chosen, and every one's standing, best first.

    `optimism` is by how much the search's choice scored higher in the search than over the rounds. Where the rows are
    the search's own in every round (see `Repeat.fresh`), how far its score was luck can't be told: it is nan.
    """

    trial: int
    searched: int
    optimism: float
    rounds: tuple[int, ...]
    standings: tuple[Contender, ...]
    repeats: tuple[Repeat, ...]

    @property
    def fresh(self) -> bool:
        """Whether the validation rows were others in each round than in the search."""
        return all(repeat.fresh for repeat in self.repeats)

    @property
    def of_chosen(self) -> list[Repeat]:
        """The repeats of the trial chosen, a round each."""
        return [repeat for repeat in self.repeats if repeat.trial == self.trial]


def contenders(records: Iterable[TrialRecord], form: str) -> list[TrialRecord]:
    """Return the trials whose configurations are confirmed, the search's choice first; none if there is nothing to
    choose among.
    """
    top = best_records(records, TOP, form)
    return top if len(top) > 1 else []


def affordable(seconds: Sequence[float], slots: int, limit: float) -> int:
    """Return how many contenders, given the seconds that each takes once, can be trained in two rounds within a limit;
    0 if not even two can. More contenders are worth more than a third round.
    """
    counts = range(len(seconds), 1, -1)
    return next((k for k in counts if _rounds(seconds[:k], slots, FEWEST_ROUNDS) <= limit), 0)


def reserved(seconds: Sequence[float], slots: int, limit: float) -> float:
    """Return the seconds that a search leaves to the confirmation: what all of it takes, but no more than the limit;
    nothing if that is too short for any.
    """
    return min(_rounds(seconds, slots, ROUNDS), limit) if affordable(seconds, slots, limit) else 0.0


def fewest_seconds(seconds: Sequence[float], slots: int) -> float:
    """Return what the least that can be told from takes: two rounds of the first two."""
    return _rounds(seconds[:2], slots, FEWEST_ROUNDS)


def _rounds(seconds: Sequence[float], slots: int, rounds: int) -> float:
    return SLACK * max(rounds * sum(seconds) / slots, *seconds)


def confirmed(
    records: Mapping[int, TrialRecord], repeats: Sequence[Repeat], n_train: int, n_val: int, form: str
) -> Confirmed | None:
    """Return the outcome over the rounds in which all contenders were trained, or as many of the first of them as have
    at least two such rounds; None if these are fewer than two, or if none of them came to a score in all rounds.
    `n_train` and `n_val` are the study's own rows, for repeats that don't tell theirs.
    """
    there = {(repeat.trial, repeat.round): repeat for repeat in repeats if not repeat.without}
    top, rounds = contenders(records.values(), form), list[int]()
    while len(top) > 1 and len(rounds) < FEWEST_ROUNDS:
        rounds = [n for n in range(ROUNDS) if all((record.number, n) in there for record in top)]
        top = top if len(rounds) >= FEWEST_ROUNDS else top[:-1]
    if len(rounds) < FEWEST_ROUNDS:
        return None
    used = [there[record.number, n] for record in top for n in rounds]
    fresh = all(repeat.fresh for repeat in used)
    share = _share(used, n_train, n_val) if fresh else 0.0
    found = [_standing(record, [there[record.number, n] for n in rounds], share, fresh) for record in top]
    order = sorted(found, key=lambda each: (-each.mean, each.trial))
    if form == "tiebreak":
        order = _ties_broken(order, {each.trial: [there[each.trial, n] for n in rounds] for each in found}, share)
    leader = next(each for each in found if each.trial == top[0].number)
    if not math.isfinite(order[0].mean):
        return None
    optimism = leader.searched - leader.mean if fresh else math.nan
    return Confirmed(order[0].trial, leader.trial, optimism, tuple(rounds), tuple(order), tuple(used))


def _share(repeats: Iterable[Repeat], n_train: int, n_val: int) -> float:
    """Return validation rows by training rows, of the repeats' own divisions; by default those given."""
    known = [repeat.curve.n_val / repeat.n_train for repeat in repeats if repeat.curve is not None and repeat.n_train]
    return fmean(known) if known else n_val / n_train if n_train else 0.0


def _ties_broken(order: list[Contender], repeats: Mapping[int, Sequence[Repeat]], share: float) -> list[Contender]:
    """Return contenders with those first, by their gaps, that can't be told from the leader over the rounds."""

    def scores(trial: int) -> list[Score]:
        return [repeat.score for repeat in repeats[trial] if repeat.score is not None]

    def ties(each: Contender) -> bool:
        if not math.isfinite(each.mean):
            return False
        apart = [a.value - b.value for a, b in zip(scores(order[0].trial), scores(each.trial), strict=True)]
        return fmean(apart) <= TIED_SE * stdev(apart) * math.sqrt(1 / len(apart) + share)

    tied = [each for each in order if ties(each)]
    by_gap = sorted(
        tied, key=lambda each: (max(0.0, fmean(score.gap for score in scores(each.trial))), -each.mean, each.trial)
    )
    return by_gap + [each for each in order if each not in tied]


def _standing(record: TrialRecord, repeats: Sequence[Repeat], share: float, fresh: bool) -> Contender:
    assert record.score is not None
    values = [repeat.score.value if repeat.score is not None else -math.inf for repeat in repeats]
    if not all(map(math.isfinite, values)):
        return Contender(record.number, record.score.value, -math.inf, *[math.nan] * 4)
    mean, sd = fmean(values), stdev(values)
    se = sd * math.sqrt(1 / len(values) + share)
    if not fresh:  # the seeds' spread alone is no error of what it will reach on other rows
        return Contender(record.number, record.score.value, mean, sd, se, math.nan, math.nan)
    half, metric = T95[len(values)] * se, record.score.metric
    unbounded = metric in LOWER_IS_BETTER - set(PER_NULL_LOSS) or not is_known(metric)
    high = mean + half if unbounded else min(mean + half, MOST)
    return Contender(record.number, record.score.value, mean, sd, se, mean - half, high)


@dataclass(frozen=True, slots=True)
class Bought:
    """What a regularizer brought, over the rounds: the mean of the paired differences, with it less without it.

    `score` is in the score's unit (more is better), `gap` is by how much the gap is smaller; `_se` are standard errors.
    """

    name: str
    value: float
    score: float
    score_se: float
    gap: float
    gap_se: float
    rounds: int


def bought(
    repeats: Sequence[Repeat], trial: int, values: Mapping[str, float], n_train: int, n_val: int
) -> list[Bought]:
    """Return what each regularizer of a trial brought, the one with the largest effect first."""
    there = {(repeat.without, repeat.round): repeat.score for repeat in repeats if repeat.trial == trial}
    share, found = _share((repeat for repeat in repeats if repeat.trial == trial), n_train, n_val), []
    for name, value in values.items():
        both = [(there.get(("", n)), there.get((name, n))) for n in range(ROUNDS)]
        pairs = [(full, less) for full, less in both if full is not None and less is not None]
        if len(pairs) >= FEWEST_ROUNDS:
            scores, gaps = (
                [full.value - less.value for full, less in pairs],
                [less.gap - full.gap for full, less in pairs],
            )
            wider = math.sqrt(1 / len(pairs) + share)
            found.append(
                Bought(name, value, fmean(scores), stdev(scores) * wider, fmean(gaps), stdev(gaps) * wider, len(pairs))
            )
    return sorted(found, key=lambda each: -abs(each.score))


def chosen(records: Mapping[int, TrialRecord], outcome: Confirmed | None, form: str) -> TrialRecord | None:
    """Return the trial that a study chooses: by its confirmation, or by the search where there is none."""
    return next(iter(best_records(records.values(), 1, form)), None) if outcome is None else records[outcome.trial]


def measures(repeats: Sequence[Repeat]) -> list[tuple[Measure, Measure]]:
    """Return train and validation of each repeat at its kept epoch."""
    return [(repeat.curve[repeat.kept].train, repeat.curve[repeat.kept].val) for repeat in repeats if repeat.curve]
