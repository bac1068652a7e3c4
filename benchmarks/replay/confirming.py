"""Whether choosing by fresh splits and seeds is worth its runs, and whether the errors that are told are honest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from benchmarks.replay.curves import Curves, Floats
from benchmarks.replay.policies import Outcome, Rules
from benchmarks.replay.report import SCORE, Mean, orders
from tuner.config import Score
from tuner.confirmation import ROUNDS, TOP
from tuner.scoring import score_at

METRIC = {False: "log_loss", True: "mse"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One order's two choices, the search's and the confirmed one: normalized test loss and rank among all runs of the
    order, of the trial's own weights; by how much the configuration that two rounds choose is better than the search's
    in the third, a mean over which one is left out; and test loss of the configuration trained again on training and
    validation rows together (nan where that wasn't recorded).
    """

    searched: float
    confirmed: float
    searched_rank: float
    confirmed_rank: float
    left_out: float
    searched_again: float
    confirmed_again: float
    changed: bool
    optimism: float
    gap_searched: float
    gap_confirmed: float


@dataclass(frozen=True, slots=True)
class Repeats:
    """A bank's repeats: run -> the scores, normalized test losses and skills of its rounds at an epoch."""

    curves: Curves
    rule: Score

    def at(self, run: int, kept: int) -> tuple[Floats, Floats, Floats] | None:
        """Return score, test loss and skill of each round, or None if the run wasn't repeated."""
        rows = [(curve, test) for number, _, curve, test in self.curves.repeats if number == run]
        if len(rows) < ROUNDS or any(len(curve) < kept for curve, _ in rows):
            return None
        metric = METRIC[self.curves.right is None]
        worth = [score_at(curve, kept, self.rule, metric) for curve, _ in rows]
        if not all(math.isfinite(each.value) for each in worth):
            return None
        tests = [test[kept - 1] for _, test in rows]
        return np.array([each.value for each in worth]), np.array(tests), np.array([each.skill for each in worth])


def choices(curves: Curves, rule: Score = SCORE, count: int = 100) -> list[Choice]:
    """Return both choices for each random order."""
    repeats, scores, found = Repeats(curves, rule), curves.scores(rule), list[Choice]()
    for order in orders(curves, count):
        done = Rules()(curves, order)
        place = done.pick(scores)
        top = [each for each in _top(done, scores) if repeats.at(order[each], done.kept[each]) is not None]
        if place not in top or len(top) < 2:
            continue
        there = {each: repeats.at(order[each], done.kept[each]) for each in top}
        means = {each: float(rounds[0].mean()) for each, rounds in there.items() if rounds is not None}
        best = max(top, key=lambda each: means[each])
        test, gap = curves.test[order, done.kept - 1], (curves.val - curves.train)[order, done.kept - 1]
        ranks = rankdata(np.where(np.isfinite(test), test, np.inf))

        def again(each: int, done: Outcome = done) -> float:
            series = curves.refits.get(int(done.order[each]))
            return math.nan if series is None else float(series[done.kept[each] - 1])

        found.append(
            Choice(
                test[place], test[best], ranks[place], ranks[best], _left_out(there, place),
                again(place), again(best), place != best,
                scores[order[place], done.kept[place] - 1] - means[place], gap[place], gap[best],
            )
        )  # fmt: skip
    return found


def _left_out(there: dict[int, tuple[Floats, Floats, Floats] | None], searched: int) -> float:
    """Return the test loss of the configuration that all rounds but one choose, less that of the search's, in the round
    that had no part in it.
    """
    rounds = {each: found for each, found in there.items() if found is not None}
    apart = []
    for n in range(ROUNDS):
        others = [each for each in range(ROUNDS) if each != n]
        chosen = max(rounds, key=lambda each: float(rounds[each][0][others].mean()))
        apart.append(rounds[chosen][1][n] - rounds[searched][1][n])
    return float(np.mean(apart))


def _top(done: Outcome, scores: Floats) -> list[int]:
    worth = scores[done.order, done.kept - 1]
    worth = np.where(done.complete & np.isfinite(worth), worth, -np.inf)
    return [int(each) for each in np.argsort(-worth, kind="stable")[:TOP] if np.isfinite(worth[each])]


def confirmation_table(banks: Sequence[Curves], count: int = 100) -> list[str]:
    """Return what the confirmed choice is worth beside the search's own."""
    by: dict[str, list[list[Choice]]] = {}
    share = 0.0
    for curves in banks:
        found = choices(curves, count=count)
        share += len(found) / count / len(banks)
        if len(found) >= count / 3:  # of a bank with fewer, those that are left are no fair sample
            by.setdefault(curves.bank.source.name.split(",")[0], []).append(found)

    def mean(of: Callable[[Choice], float]) -> Mean:
        values = {name: [float(np.mean([of(c) for c in bank])) for bank in each] for name, each in by.items()}
        return Mean.over(values)

    rows = [
        ("test loss of the weights, confirmed less searched (x100)", mean(lambda c: c.confirmed - c.searched).shown()),
        ("test loss of the configuration, chosen by two rounds and judged by the third (x100)",
         mean(lambda c: c.left_out).shown()),
        ("test loss of the searched configuration again on all rows, less its weights (x100)",
         mean(lambda c: c.searched_again - c.searched).shown()),
        ("test loss of the confirmed configuration again on all rows, less the searched weights (x100)",
         mean(lambda c: c.confirmed_again - c.searched).shown()),
        ("the same, less the searched configuration again on all rows (x100)",
         mean(lambda c: c.confirmed_again - c.searched_again).shown()),
        ("mean test rank, searched", mean(lambda c: c.searched_rank).shown(1.0)),
        ("mean test rank, confirmed", mean(lambda c: c.confirmed_rank).shown(1.0)),
        ("gap, searched", mean(lambda c: c.gap_searched).shown()),
        ("gap, confirmed", mean(lambda c: c.gap_confirmed).shown()),
        ("orders that could be replayed (the others' leader was not repeated)", f"{100 * share:.0f} %"),
        ("another trial was chosen", f"{100 * mean(lambda c: float(c.changed)).value:.0f} %"),
        ("optimism of the search's score (x100)", mean(lambda c: c.optimism).shown()),
    ]  # fmt: skip
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def coverage_table(banks: Sequence[Curves], draws: int = 100) -> list[str]:
    """Return how often the intervals that are told hold the truth."""
    shares: dict[str, list[float]] = {}
    for curves in banks:
        for name, share in (_bootstrap(curves, draws) | _of_rounds(curves) | _of_winner(curves)).items():
            shares.setdefault(name, []).append(share)
    lines = ["| interval | holds the truth | worst bank |", "|---|---|---|"]
    return lines + [f"| {name} | {np.mean(each):.1%} | {min(each):.0%} |" for name, each in shares.items()]


def _bootstrap(curves: Curves, draws: int, rows: int = 200, resamples: int = 400) -> dict[str, float]:
    """Cover the mean over a bank's test rows by percentile intervals of small test sets drawn from them."""
    chance = np.random.default_rng(3)
    runs = np.argsort(np.where(np.isfinite(curves.val[:, -1]), curves.val.min(1), np.inf))[:8]
    figures = {"test log loss or mse": curves.test_rows[runs]}
    figures |= {"test accuracy": curves.right[runs]} if curves.right is not None else {}
    figures |= {"paired difference of two test losses": curves.test_rows[runs[1:]] - curves.test_rows[runs[:-1]]}
    found = {}
    for name, table in figures.items():
        hits = []
        for number in range(draws):
            population = table[number % len(table)]
            some = chance.choice(population, rows)
            means = some[chance.integers(0, rows, (resamples, rows))].mean(1)
            low, high = np.percentile(means, [2.5, 97.5])
            hits.append(low <= population.mean() <= high)
        found[f"{name}, percentile bootstrap of {rows} rows"] = float(np.mean(hits))
    return found


def _of_rounds(curves: Curves) -> dict[str, float]:
    """Cover what a configuration reaches on the test rows by the mean over its rounds and the error that is told."""
    repeats, share = Repeats(curves, SCORE), math.sqrt(1 / ROUNDS + curves.n_val / curves.n_train)
    kept = {number: len(curve) for number, _, curve, _ in curves.repeats}
    found = [rounds for run, epoch in kept.items() if (rounds := repeats.at(run, epoch)) is not None]
    if not found:
        return {}
    skills = np.array([rounds[2] for rounds in found])
    truth = np.array([1 - rounds[1].mean() for rounds in found])
    own = skills.std(1, ddof=1) * share
    apart = np.abs(skills.mean(1) - truth)
    pooled = math.sqrt((skills.std(1, ddof=1)[: len(skills)] ** 2).mean()) * share
    return {
        "any confirmed configuration, mean +- 2 SE": float((apart <= 2 * own).mean()),
        "any confirmed configuration, mean +- t(2) SE": float((apart <= student.ppf(0.975, 2) * own).mean()),
        "any confirmed configuration, mean +- t SE pooled over contenders": float(
            (apart <= student.ppf(0.975, 2 * len(skills)) * pooled).mean()
        ),
    }


def _of_winner(curves: Curves, count: int = 30) -> dict[str, float]:
    """Cover what the chosen configuration reaches, whose mean is the best of five, by the interval told of it."""
    repeats, scores = Repeats(curves, SCORE), curves.scores(SCORE)
    share, hits = student.ppf(0.975, ROUNDS - 1) * math.sqrt(1 / ROUNDS + curves.n_val / curves.n_train), list[bool]()
    for order in orders(curves, count):
        done = Rules()(curves, order)
        there = {each: repeats.at(order[each], done.kept[each]) for each in _top(done, scores)}
        known = {each: found for each, found in there.items() if found is not None}
        if len(known) < 2 or done.pick(scores) not in known:
            continue
        values, tests, skills = known[max(known, key=lambda each: float(known[each][0].mean()))]
        # on the test rows its score would be its skill there less the penalty that it has on the validation rows
        truth = 1 - tests.mean() - (skills - values).mean()
        hits.append(bool(abs(values.mean() - truth) <= share * values.std(ddof=1)))
    name = "score of the confirmed winner of five, as `show` tells it: mean +- t(2) SE"
    return {name: float(np.mean(hits))} if len(hits) >= count / 3 else {}
