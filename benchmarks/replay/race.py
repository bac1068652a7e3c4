"""The same budget of epochs, spent in different ways: on trials in full, on trials under the rules, and on confirming.

A budget is told in trials that run to their cap. Runs are taken in a random order until it is spent; the confirmation
takes its share of it, for as many of the best as that many rounds fit for, and chooses by their means. What is chosen
is judged by the test loss of the trial's own weights, as they are what a study exports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.replay.confirming import Repeats
from benchmarks.replay.curves import Curves, Floats
from benchmarks.replay.policies import VALIDATION, Outcome, Rules, lowest
from benchmarks.replay.report import SCORE, Mean

BUDGETS = (8, 12, 20, 26)
ORDERS = 60


@dataclass(frozen=True, slots=True)
class Confirming:
    """A share of the budget for trying the best so many again, in so many rounds."""

    share: float
    top: int
    rounds: int

    @property
    def name(self) -> str:
        """What its row in a table is called."""
        return f"tuner, {self.share:.0%} of it to confirm the best {self.top} in {self.rounds} rounds"


CONFIRMING = tuple(
    Confirming(*each) for each in ((1 / 3, 5, 3), (1 / 3, 5, 2), (0.2, 5, 3), (0.2, 5, 2), (0.2, 3, 3), (0.1, 3, 2))
)
RANDOM, BY_RULES, BY_SCORE = "random search, in full", "the rules, by validation alone", "tuner, not confirmed"


def race(curves: Curves, budget: int, count: int = ORDERS) -> Iterator[dict[str, float]]:
    """Yield, for each random order, the test loss of what each way has chosen; of orders whose leader was repeated."""
    chance, cap = np.random.default_rng(0), curves.val.shape[1]
    scores, skills, repeats = curves.scores(SCORE), curves.scores(VALIDATION), Repeats(curves, SCORE)
    known: dict[tuple[int, int], Floats | None] = {}
    for _ in range(count):
        order = chance.permutation(curves.regularized)
        plain, ruled, spent = lowest(curves, order), Rules()(curves, order), budget * cap
        found = {
            RANDOM: _test(curves, plain, within(plain, skills, spent)),
            BY_RULES: _test(curves, ruled, within(ruled, skills, spent)),
            BY_SCORE: _test(curves, ruled, within(ruled, scores, spent)),
        }
        for way in CONFIRMING:
            place = _confirmed(ruled, within(ruled, scores, spent * (1 - way.share)), way, spent, repeats, known)
            if place is None:
                break
            found[way.name] = _test(curves, ruled, place)
        else:
            yield found


def within(done: Outcome, scores: Floats, spent: float) -> Floats:
    """Return what each run of an order is worth, where it ended within the epochs that may be spent."""
    worth = scores[done.order, done.kept - 1]
    there = done.complete & np.isfinite(worth) & (np.cumsum(done.epochs) <= spent)
    return np.where(there, worth, -np.inf)


def _test(curves: Curves, done: Outcome, chosen: Floats | int) -> float:
    """Return the test loss of a run; of none, that of knowing nothing."""
    place = chosen if isinstance(chosen, int) else int(np.argmax(chosen))
    if not isinstance(chosen, int) and not np.isfinite(chosen[place]):
        return 1.0
    return float(curves.test[done.order[place], done.kept[place] - 1])


def _confirmed(
    done: Outcome, worth: Floats, way: Confirming, spent: float, repeats: Repeats,
    known: dict[tuple[int, int], Floats | None],
) -> int | None:  # fmt: skip
    """Return the place of the run that is chosen, or None if that can't be replayed: the leader wasn't repeated."""
    top = [int(place) for place in np.argsort(-worth, kind="stable")[: way.top] if np.isfinite(worth[place])]
    while len(top) > 1 and way.rounds * sum(int(done.kept[place]) for place in top) > way.share * spent:
        top = top[:-1]
    if len(top) < 2:
        return top[0] if top else None
    means = {}
    for place in top:
        key = int(done.order[place]), int(done.kept[place])
        if key not in known:
            rounds = repeats.at(*key)
            known[key] = None if rounds is None else rounds[0]
        if (values := known[key]) is not None:
            means[place] = float(values[: way.rounds].mean())
    return max(means, key=lambda place: means[place]) if top[0] in means else None


def race_table(banks: Sequence[Curves], count: int = ORDERS) -> list[str]:
    """Return, for each way and budget, its test loss less that of random search at the same budget."""
    ways = [BY_RULES, BY_SCORE, *(way.name for way in CONFIRMING)]
    cells: dict[str, list[str]] = {way: [] for way in ways}
    for budget in BUDGETS:
        found = {curves.bank.name: list(race(curves, budget, count)) for curves in banks}
        for way in ways:
            by: dict[str, list[float]] = {}
            for curves in banks:
                apart = [each[way] - each[RANDOM] for each in found[curves.bank.name]]
                if len(apart) >= count / 3:
                    by.setdefault(curves.bank.source.name, []).append(float(np.mean(apart)))
            cells[way].append(Mean.over(by).shown())
    head = ["test loss less random search's at the same epochs (x100)", *(f"{budget} trials" for budget in BUDGETS)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {way} | {' | '.join(cells[way])} |" for way in ways]
