"""What was thought of to choose better, and isn't done: replayed, so that it can be seen why.

`weighing`: the confirmation chooses by the mean over its rounds and the trial's own validation score together.
`sparing`: some of the random trials have no regularizer at all, as a prior that expects them to be of no use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.replay.confirming import Repeats
from benchmarks.replay.curves import Curves
from benchmarks.replay.policies import Rules
from benchmarks.replay.race import ORDERS, within
from benchmarks.replay.report import SCORE, Mean
from tuner.confirmation import TOP

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
SHARES = (0.0, 0.15, 0.3, 0.5)
BUDGETS = (6, 12, 20)
RUNS = 30


def weighing(curves: Curves, count: int = ORDERS) -> Iterator[dict[float, float]]:
    """Yield, for each random order, the test loss of what each weight of the own validation score chooses."""
    chance, scores, repeats = np.random.default_rng(0), curves.scores(SCORE), Repeats(curves, SCORE)
    for _ in range(count):
        order = chance.permutation(curves.regularized)[:RUNS]
        done = Rules()(curves, order)
        worth = within(done, scores, np.inf)
        best = [int(place) for place in np.argsort(-worth, kind="stable")[:TOP] if np.isfinite(worth[place])]
        again = {place: repeats.at(int(order[place]), int(done.kept[place])) for place in best}
        means = {place: float(found[0].mean()) for place, found in again.items() if found is not None}
        if best and best[0] in means:
            yield {
                share: float(curves.test[order[place], done.kept[place] - 1])
                for share in WEIGHTS
                for place in [max(means, key=lambda each: share * worth[each] + (1 - share) * means[each])]
            }


def sparing(curves: Curves, budget: int, count: int = ORDERS) -> dict[float, float]:
    """Return the mean test loss of what is chosen, by the share of the trials that aren't regularized."""
    chance, scores, cap = np.random.default_rng(0), curves.scores(SCORE), curves.val.shape[1]
    found = {share: list[float]() for share in SHARES}
    for _ in range(count):
        for share in SHARES:
            order = _mixed(curves, share, chance)
            done = Rules()(curves, order)
            worth = within(done, scores, budget * cap)
            place = int(np.argmax(worth))
            there = np.isfinite(worth[place])
            found[share].append(float(curves.test[order[place], done.kept[place] - 1]) if there else 1.0)
    return {share: float(np.mean(each)) for share, each in found.items()}


def _mixed(curves: Curves, share: float, chance: np.random.Generator) -> np.ndarray:
    """Return runs in a random order, up to where one of the two kinds is used up."""
    plain, others = list(chance.permutation(np.flatnonzero(curves.bare))), list(chance.permutation(curves.regularized))
    order = []
    while taken := plain if chance.random() < share else others:
        order.append(taken.pop())
    return np.array(order)


def weighing_table(banks: Sequence[Curves], count: int = ORDERS) -> list[str]:
    """Return, by the weight of the own validation score, the test loss less that of the search's own choice."""
    by: dict[float, dict[str, list[float]]] = {share: {} for share in WEIGHTS}
    for curves in banks:
        found = list(weighing(curves, count))
        if len(found) >= count / 3:
            for share in WEIGHTS:
                apart = float(np.mean([each[share] - each[1.0] for each in found]))
                by[share].setdefault(curves.bank.source.name, []).append(apart)
    head = ["weight of the trial's own validation", *(f"{share:g}" for share in WEIGHTS)]
    row = ["test loss less that of the search's choice (x100)", *(Mean.over(by[share]).shown() for share in WEIGHTS)]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), f"| {' | '.join(row)} |"]


def sparing_table(banks: Sequence[Curves], count: int = ORDERS) -> list[str]:
    """Return, by budget and share, the test loss less that with regularized trials alone; and in how many sources it
    is lower.
    """
    head = ["trials without any regularizer", *(f"{budget} trials" for budget in BUDGETS)]
    rows = {share: [f"{share:.0%}"] for share in SHARES[1:]}
    for budget in BUDGETS:
        found = [(curves.bank.source.name, sparing(curves, budget, count)) for curves in banks]
        for share, cells in rows.items():
            by: dict[str, list[float]] = {}
            for name, each in found:
                by.setdefault(name, []).append(each[share] - each[0.0])
            better = sum(np.mean(each) < 0 for each in by.values())
            cells.append(f"{Mean.over(by).shown()}, better in {better} of {len(by)}")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(cells)} |" for cells in rows.values()]
