"""Ways to spend a budget on configurations, replayed over recorded curves: which epochs each would have trained, and
what it would have chosen.

The rules of `tuner` are replayed on arrays, hundreds of times faster than on curves; that they are the same rules is
asserted against `tuner.stopping.judge` itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.replay.curves import Curves, Floats
from tuner import stopping
from tuner.config import Score, Stopping
from tuner.stopping import Peer, judge

Order = NDArray[np.int64]
ENDED = ("complete", "pruned")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did over one order of runs: for each in turn the epochs it trained, the epoch it kept, whether it
    may be chosen, and whether the overfit rule ended it.
    """

    order: Order
    epochs: NDArray[np.int64]
    kept: NDArray[np.int64]
    complete: NDArray[np.bool_]
    overfit: NDArray[np.bool_]

    def pick(self, scores: Floats) -> int:
        """Return the place in the order of the run with the highest score, the first of equals."""
        worth = scores[self.order, self.kept - 1]
        return int(np.argmax(np.where(self.complete & np.isfinite(worth), worth, -np.inf)))


Policy = Callable[[Curves, Order], Outcome]


@dataclass(frozen=True, slots=True)
class Constants:
    """The constants of the stopping rules, those of `tuner.stopping` unless others are tried."""

    rise: float = stopping.RISE
    floor: float = stopping.FLOOR
    paired: float = stopping.PAIRED_SE
    patience: int = stopping.PATIENCE
    patience_share: float = stopping.PATIENCE_SHARE
    early: int = 0
    early_share: float = 0.0
    peers: int = stopping.MIN_PEERS
    quantile: float = stopping.AHEAD
    leader_se: float = 1.0
    behind_prunes_overfit: bool = True


def full(curves: Curves, order: Order) -> Outcome:
    """Train everything to its end."""
    n, cap = len(order), curves.val.shape[1]
    finite = np.isfinite(curves.val[order]).all(1)
    return Outcome(order, np.full(n, cap), curves.best[order, -1], finite, np.zeros(n, bool))


def lowest(curves: Curves, order: Order) -> Outcome:
    """Train everything to its end, and keep the epoch of the lowest validation loss, not of the lowest smoothed one."""
    found = np.where(np.isfinite(curves.val[order]), curves.val[order], np.inf)
    return replace(full(curves, order), kept=found.argmin(1) + 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of `tuner`, some of them or with other constants."""

    rules: Stopping = field(default_factory=Stopping)
    constants: Constants = field(default_factory=Constants)

    def __call__(self, curves: Curves, order: Order) -> Outcome:
        """Replay the rules over an order of runs."""
        alone = [self._alone(curves, run) for run in order]
        cap, constants = curves.val.shape[1], self.constants
        peers = np.full((len(order), cap), np.nan)
        epochs, kept = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
        complete, overfit = np.zeros(len(order), bool), np.zeros(len(order), bool)
        for place, run in enumerate(order):
            end, kind = alone[place]
            lowest, se = curves.lowest[run], curves.se_val[run]
            test = self._behind(peers[:place], lowest, se)
            earliest = max(curves.first, 1 + self._early(cap))
            until = end if kind == "finished" else end - 1  # at the end of its own the other rules come first
            late = np.flatnonzero(test[earliest - 1 : until]) if self.rules.behind else []
            epochs[place] = end if not len(late) else earliest + int(late[0])
            kept[place] = curves.best[run, epochs[place] - 1]
            state = "pruned" if len(late) else "failed" if kind == "diverged" else "complete"
            if not len(late) and kind == "overfit":
                overfit[place] = True
                at = kept[place]
                if constants.behind_prunes_overfit and at > self._early(cap) and test[at - 1]:
                    state = "pruned"
            complete[place] = state == "complete"
            if state in ENDED:
                peers[place, : epochs[place]] = lowest[: epochs[place]]
                if state == "complete":
                    peers[place, epochs[place] :] = lowest[epochs[place] - 1]
        return Outcome(order, epochs, kept, complete, overfit)

    def _early(self, cap: int) -> int:
        return max(self.constants.early, math.ceil(self.constants.early_share * cap))

    def _behind(self, peers: Floats, lowest: Floats, se: Floats) -> NDArray[np.bool_]:
        """Return at which epochs a run is behind the others."""
        if len(peers) < self.constants.peers:
            return np.zeros(len(lowest), bool)
        count, ordered = (~np.isnan(peers)).sum(0), np.sort(peers, axis=0)  # not numbers are sorted to the end
        columns = np.arange(len(lowest))
        place = self.constants.quantile * (np.maximum(count, 1) - 1)
        low, high = np.floor(place).astype(int), np.ceil(place).astype(int)
        middle = (1 - place + low) * ordered[low, columns] + (place - low) * ordered[high, columns]
        worse = (lowest > middle) & (lowest > ordered[0] + self.constants.leader_se * se)
        return worse & (count >= self.constants.peers)

    def _alone(self, curves: Curves, run: int) -> tuple[int, str]:
        """Return the epoch at which a run would end without others, and by which rule."""
        val, train, best, c = curves.val[run], curves.train[run], curves.best[run], self.constants
        cap = len(val)
        patience = max(c.patience, math.ceil(c.patience_share * cap))
        for t in range(2, cap + 1):
            if not (np.isfinite(val[t - 2 : t]).all() and np.isfinite(train[t - 2 : t]).all()):
                return t, "diverged"
            if t < curves.first:
                continue
            if t >= max(curves.first, 3) and val[t - 3 : t].min() > stopping.DIVERGED:
                return t, "diverged"
            kept = int(best[t - 1])
            if self.rules.overfit and t - kept >= 3:
                level, least = val[t - 3 : t].mean(), val[kept - 1]
                rise, error = curves.rise[run, t - 1], curves.rise_se[run, t - 1]
                errors = rise / error if error > 0 else math.inf if rise > 0 else 0.0
                steep = level / least - 1 > c.rise if least > 0 else True
                if steep and level - least > c.floor and train[t - 1] < train[kept - 1] and errors > c.paired:
                    return t, "overfit"
            if self.rules.plateau and t - kept >= patience:
                return t, "plateau"
        return cap, "finished"


def check(curves: Curves, order: Order) -> None:
    """Assert that the replay on arrays ends every run where `judge` does."""
    fast, peers = Rules()(curves, order), list[Peer]()
    for place, run in enumerate(order):
        whole, verdict = curves.curves[run], None
        for t in range(1, len(whole) + 1):
            verdict = judge(replace(whole, epochs=whole.epochs[:t]), peers, Stopping())
            if verdict is not None:
                break
        ended = verdict.epoch if verdict else len(whole)
        assert ended == fast.epochs[place], (curves.bank.name, run, verdict, fast.epochs[place])
        state = verdict.outcome if verdict else "complete"
        assert (state == "complete") == fast.complete[place], (curves.bank.name, run, verdict)
        if state != "failed":
            peers.append(stopping.peer(replace(whole, epochs=whole.epochs[:ended]), state == "pruned"))


@dataclass(frozen=True, slots=True)
class Patience:
    """Early stopping as most people have it: no better validation loss for so many epochs."""

    epochs: int = 10

    def __call__(self, curves: Curves, order: Order) -> Outcome:
        """Replay it over an order of runs."""
        cap = curves.val.shape[1]
        ends, kept = [], []
        for run in order:
            val = np.where(np.isfinite(curves.val[run]), curves.val[run], np.inf)
            best = np.array([int(val[: t + 1].argmin()) + 1 for t in range(cap)])
            waited = np.flatnonzero(np.arange(1, cap + 1) - best >= self.epochs)
            end = int(waited[0]) + 1 if len(waited) else cap
            ends.append(end)
            kept.append(best[end - 1])
        finite = np.isfinite(curves.val[order, 0])
        return Outcome(order, np.array(ends), np.array(kept), finite, np.zeros(len(order), bool))


@dataclass(frozen=True, slots=True)
class Share:
    """The first part of the runs, in full; the others not at all."""

    share: float = 0.25

    def __call__(self, curves: Curves, order: Order) -> Outcome:
        """Replay it over an order of runs."""
        whole, n = full(curves, order), max(1, round(self.share * len(order)))
        there = np.arange(len(order)) < n
        return replace(whole, epochs=np.where(there, whole.epochs, 0), complete=whole.complete & there)


@dataclass(frozen=True, slots=True)
class Discard:
    """All runs for a few epochs, then the best three of them in full."""

    epochs: int
    top: int = 3

    def __call__(self, curves: Curves, order: Order) -> Outcome:
        """Replay it over an order of runs."""
        whole = full(curves, order)
        first = curves.lowest[order, min(self.epochs, curves.val.shape[1]) - 1]
        chosen = np.isin(np.arange(len(order)), np.argsort(first, kind="stable")[: self.top])
        return replace(
            whole, epochs=np.where(chosen, whole.epochs, self.epochs), complete=whole.complete & chosen,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pruner:
    """One of Optuna's pruners, itself, told of the validation loss; the best epoch so far counts, as most have it, or
    (`smoothed`) that of the lowest smoothed loss, as the program has it.
    """

    make: Callable[[int], optuna.pruners.BasePruner]
    smoothed: bool = False

    def __call__(self, curves: Curves, order: Order) -> Outcome:
        """Replay it over an order of runs."""
        cap = curves.val.shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(pruner=self.make(cap), study_name=f"{curves.bank.name} {order[:5].tolist()}")
            ends, kept, complete = [], [], []
            for run in order:
                trial, end, pruned = study.ask(), cap, False
                val = np.where(np.isfinite(curves.val[run]), curves.val[run], 1e6)
                for t in range(1, cap + 1):
                    trial.report(float(val[t - 1]), t)
                    if trial.should_prune():
                        end, pruned = t, True
                        break
                best = int(val[:end].argmin()) + 1
                study.tell(trial, None if pruned else float(val[best - 1]),
                           optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE)  # fmt: skip
                ends.append(end)
                kept.append(int(curves.best[run, end - 1]) if self.smoothed else best)
                complete.append(not pruned)
        none = np.zeros(len(order), bool)
        found = Outcome(order, np.array(ends), np.array(kept), np.array(complete), none)
        # where all are pruned, a user takes the best there is
        return found if found.complete.any() else replace(found, complete=~none)


def hyperband(cap: int) -> optuna.pruners.BasePruner:
    """Return Hyperband over the epochs there are."""
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=cap)


VALIDATION = Score(form="none")
