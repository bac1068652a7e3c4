"""What the replays come to, as Markdown tables: regret, epochs, gaps, false alarms; each over random orders, with the
spread over data sources.

Regret is in hundredths of the normalized test loss (or of R2's counterpart, the mean squared error over the variance):
by how much what a policy chose is worse than what full training of the same runs chose by the same score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna

from benchmarks.replay.curves import Curves, Floats
from benchmarks.replay.policies import (
    VALIDATION,
    Discard,
    Order,
    Outcome,
    Patience,
    Policy,
    Pruner,
    Rules,
    Share,
    check,
    full,
    hyperband,
    lowest,
)
from tuner.config import Score, Stopping

ORDERS, RUNS = 100, 30
OFF = Stopping.off()
SCORE = Score()


def some(**rules: bool) -> Stopping:
    """Return the stopping rules named, and no others."""
    return OFF.model_copy(update=rules)


POLICIES: dict[str, tuple[Policy, Score]] = {
    "tuner: overfit, plateau, behind": (Rules(), SCORE),
    "overfit alone": (Rules(some(overfit=True)), SCORE),
    "plateau alone": (Rules(some(plateau=True)), SCORE),
    "behind alone": (Rules(some(behind=True)), SCORE),
    "overfit and behind": (Rules(some(overfit=True, behind=True)), SCORE),
    "in full, keeping the epoch of the lowest loss": (lowest, SCORE),
    "patience 10": (Patience(), SCORE),
    "a quarter of the trials": (Share(), SCORE),
    "1 epoch, then the best 3": (Discard(1), SCORE),
    "3 epochs, then the best 3": (Discard(3), SCORE),
    "5 epochs, then the best 3": (Discard(5), SCORE),
    "Optuna: median pruner": (Pruner(lambda _: optuna.pruners.MedianPruner()), VALIDATION),
    "Optuna: successive halving": (
        Pruner(lambda _: optuna.pruners.SuccessiveHalvingPruner(min_resource=1)),
        VALIDATION,
    ),
    "Optuna: Hyperband": (Pruner(hyperband), VALIDATION),
    "Optuna: median pruner, epoch and trial chosen as by tuner": (
        Pruner(lambda _: optuna.pruners.MedianPruner(), smoothed=True), SCORE,
    ),
    "Optuna: Hyperband, epoch and trial chosen as by tuner": (Pruner(hyperband, smoothed=True), SCORE),
}  # fmt: skip
RULES = (
    VALIDATION,
    *(Score(gap_penalty=price, noise=noise) for price in (0.1, 0.25, 0.5, 1.0) for noise in (0.0, 1.0, 2.0)),
    Score(form="conservative"),
)


def named(rule: Score) -> str:
    """Return what a score is called in a table."""
    words = f"lambda {rule.gap_penalty:g}, z {rule.noise:g}" if rule.form == "penalty" else rule.form
    return f"{words} (the default)" if rule == SCORE else words


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one policy on one bank, means over the orders; nan is what does not apply to it."""

    regret: float
    from_oracle: float
    epochs: float
    gap: float
    lost: float
    overtuning: float


def orders(curves: Curves, count: int = ORDERS) -> list[Order]:
    """Return random orders of a random part of a bank's runs, the same ones for every policy."""
    chance = np.random.default_rng(5)
    return [chance.permutation(curves.regularized)[:RUNS] for _ in range(count)]


def measure(curves: Curves, policy: Policy, rule: Score, count: int = ORDERS) -> Figures:
    """Return what a policy comes to on a bank."""
    scores, rows = curves.scores(rule), []
    for order in orders(curves, count):
        done, whole = policy(curves, order), full(curves, order)
        place, best = done.pick(scores), whole.pick(scores)
        run, epoch = order[place], done.kept[place] - 1
        test = curves.test[run, epoch]
        best_val = curves.val[order[best], whole.kept[best] - 1]
        beyond = curves.val[run, epoch] - best_val > curves.se_val[order[best], whole.kept[best] - 1]
        rows.append(
            (
                test - curves.test[order[best], whole.kept[best] - 1],
                test - _finite(curves.test[order, whole.kept - 1]).min(),
                done.epochs.sum() / whole.epochs.sum(),
                curves.val[run, epoch] - curves.train[run, epoch],
                float(not done.complete[best] and beyond),
                _overtuning(curves, done, scores),
            )
        )
    return Figures(*np.mean(rows, axis=0).tolist())


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.inf)


def _overtuning(curves: Curves, done: Outcome, scores: Floats) -> float:
    """Return by how much the last pick is worse on the test rows than the best of the picks on the way."""
    worth = np.where(done.complete, _finite(-scores[done.order, done.kept - 1]), np.inf)
    test, least, path = curves.test[done.order, done.kept - 1], np.inf, []
    for value, seen in zip(worth, test, strict=True):
        if value < least:
            least = value
            path.append(seen)
    return float(path[-1] - min(path)) if path else 0.0


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over data sources and its standard error."""

    value: float
    se: float

    @classmethod
    def over(cls, values: Mapping[str, Sequence[float]]) -> Mean:
        """Average within each source first: its banks are no independent ones."""
        means = [float(np.mean(each)) for each in values.values()]
        error = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else math.nan
        return cls(float(np.mean(means)), error)

    def shown(self, unit: float = 100.0) -> str:
        """Return it as a cell."""
        if math.isnan(self.value):
            return "-"
        return f"{unit * self.value:+.2f}" + ("" if math.isnan(self.se) else f" ({unit * self.se:.2f})")

    def share(self) -> str:
        """Return it as a cell, in percent."""
        return "-" if math.isnan(self.value) else f"{100 * self.value:.0f} %"


def table(banks: Sequence[Curves], rows: Mapping[str, Callable[[Curves], Figures]]) -> list[str]:
    """Return a table with a row for each policy or score."""
    lines = [
        "| | regret (se) | from the best possible | epochs | gap of the chosen | winner lost | overtuning |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in rows.items():
        found = [(curves.bank.source.name.split(",")[0], of(curves)) for curves in banks]

        def mean(key: str, found: list[tuple[str, Figures]] = found) -> Mean:
            by: dict[str, list[float]] = {}
            for source, figures in found:
                by.setdefault(source, []).append(getattr(figures, key))
            return Mean.over(by)

        epochs, lost = (mean(key).share() for key in ("epochs", "lost"))
        cells = [name, mean("regret").shown(), mean("from_oracle").shown(), epochs, f"{mean('gap').value:.3f}", lost]
        lines.append(f"| {' | '.join([*cells, mean('overtuning').shown()])} |")
    return lines


def stopping_table(banks: Sequence[Curves], count: int = ORDERS) -> list[str]:
    """Return what each way to stop comes to."""
    return table(banks, {name: partial(measure, policy=policy, rule=rule, count=count)
                         for name, (policy, rule) in POLICIES.items()})  # fmt: skip


def score_table(banks: Sequence[Curves], count: int = ORDERS) -> list[str]:
    """Return what each score chooses, of runs trained in full; `tiebreak` and "no regularization" with them."""

    def scored(curves: Curves, rule: Score) -> Figures:
        found = measure(curves, full, rule, count)
        return found if rule == VALIDATION else _against_validation(curves, found, count)

    rows: dict[str, Callable[[Curves], Figures]] = {
        named(rule): partial(scored, rule=rule) for rule in RULES
    }  # fmt: skip
    rows["tiebreak"] = lambda curves: _of_ties(curves, count)
    rows["no regularization"] = lambda curves: _bare(curves)
    return table(banks, rows)


def _against_validation(curves: Curves, found: Figures, count: int) -> Figures:
    """Return figures whose regret is against what the validation loss alone would choose."""
    plain = measure(curves, full, VALIDATION, count)
    return Figures(found.from_oracle - plain.from_oracle, *(getattr(found, name) for name in found.__slots__[1:]))


def _of_ties(curves: Curves, count: int) -> Figures:
    rows = []
    scores = curves.scores(VALIDATION)
    for order in orders(curves, count):
        whole = full(curves, order)
        kept = whole.kept - 1
        lead = whole.pick(scores)
        apart = curves.val_rows[order] - curves.val_rows[order[lead]]
        tied = apart.mean(1) <= 0.5 * apart.std(1, ddof=1) / np.sqrt(apart.shape[1])
        gaps, test = curves.val[order, kept] - curves.train[order, kept], curves.test[order, kept]
        # the smallest gap, of those that have none the best on validation
        sorting = np.lexsort((curves.val[order, kept], np.where(tied & whole.complete, np.maximum(gaps, 0), np.inf)))
        place = int(sorting[0])
        nothing = math.nan, math.nan
        rows.append((test[place] - test[lead], test[place] - _finite(test).min(), 1.0, gaps[place], *nothing))
    return Figures(*np.mean(rows, axis=0).tolist())


def _bare(curves: Curves) -> Figures:
    """Return what a search without any regularizer comes to, against one with them; both by validation alone."""
    whole = full(curves, np.flatnonzero(curves.bare))
    place = whole.pick(curves.scores(VALIDATION))
    run, epoch = whole.order[place], whole.kept[place] - 1
    scores, tests, least = curves.scores(VALIDATION), [], []
    for order in orders(curves):
        all_of_them = full(curves, order)
        least.append(_finite(curves.test[order, all_of_them.kept - 1]).min())
        seen = full(curves, order[: len(whole.order)])  # as many trials as there are without
        best = seen.pick(scores)
        tests.append(curves.test[seen.order[best], seen.kept[best] - 1])
    gap = curves.val[run, epoch] - curves.train[run, epoch]
    test = float(curves.test[run, epoch])
    return Figures(test - float(np.mean(tests)), test - float(np.mean(least)), 1.0, gap, math.nan, math.nan)


def alarms(banks: Sequence[Curves]) -> list[str]:
    """Return how often the overfit rule ends a run where nothing overfits, and where what followed was better."""
    lines = [
        "| runs | overfit rule fired where nothing overfits | fired, and a later epoch was better |",
        "|---|---|---|",
    ]
    quiet, fired_quiet, fired, better, runs = 0, 0, 0, 0, 0
    for curves in banks:
        done = Rules(some(overfit=True))(curves, curves.regularized)
        for place, run in enumerate(done.order):
            val, kept = curves.val[run], curves.best[run, -1]
            runs += 1
            rises = val[-3:].mean() - val[kept - 1]
            still = rises <= 0.02 or rises <= 0.1 * val[kept - 1]
            quiet += still
            fired_quiet += still and done.overfit[place]
            fired += done.overfit[place]
            better += done.overfit[place] and kept > done.epochs[place]
    lines.append(
        f"| {runs} | {fired_quiet} of {quiet} ({fired_quiet / max(quiet, 1):.1%}) | "
        f"{better} of {fired} ({better / max(fired, 1):.1%}) |"
    )
    return lines


def verify(banks: Sequence[Curves]) -> None:
    """Assert, on three orders of each bank, that what is replayed are the program's own rules."""
    for curves in banks:
        for order in orders(curves, 3):
            check(curves, order)


def regimes(banks: Sequence[Curves]) -> list[str]:
    """Return what each bank is: its rows, and how its runs end when nobody stops them."""
    lines = [
        "| bank | training rows | validation rows | best at the end | overfit at the end | skill of the best run |",
        "|---|---|---|---|---|---|",
    ]
    for curves in banks:
        val, best = curves.val[curves.regularized], curves.best[curves.regularized, -1]
        least = val[np.arange(len(val)), best - 1]
        late = (best > 0.9 * val.shape[1]).mean()
        over = np.nanmean((val[:, -3:].mean(1) > 1.1 * least) & (val[:, -3:].mean(1) - least > 0.02))
        cells = [curves.bank.name, str(curves.n_train), str(curves.n_val), f"{late:.0%}", f"{over:.0%}"]
        lines.append(f"| {' | '.join(cells)} | {1 - np.nanmin(least):.3f} |")
    return lines
