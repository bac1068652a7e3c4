"""How long a study takes: before it runs, from pilot batches; while it runs, from the trials that have ended. Pure.

A trial's cap is seldom reached, for the rules end most trials early. By how much was measured by replaying recorded
curves (benchmarks/RESULTS.md), so a forecast is a range: at that share of the epochs, and with every trial at its cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tuner.config import Stopping
from tuner.confirmation import ROUNDS, TOP, Repeat, contenders, fewest_seconds
from tuner.ranking import best_record
from tuner.record import TrialRecord, seconds_kept, seconds_of

RUN_SHARE = 0.4  # of the epochs of its cap a trial runs, in the mean, with the rules on
ALONE_SHARE = 0.9  # with the rules that ask no other trial alone
KEPT_SHARE = 0.6  # of the epochs of its cap the epoch lies at that is kept
PER_TRIAL = 0.03  # seconds that proposing and writing a trial take
RECENT = 20  # trials whose mean is taken for those to come


@dataclass(frozen=True, slots=True)
class Pilot:
    """A configuration that a few batches of were trained: seconds of an epoch, its cap of epochs, seconds before its
    first one.
    """

    epoch: float
    cap: int
    before: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of a whole study: what to expect, and with every trial at its cap; `pilots` it is made of; and seconds of
    the least that a confirmation takes.
    """

    likely: float
    most: float
    pilots: int
    confirmation: float = 0.0


def forecast(
    pilots: Sequence[Pilot], trials: int, workers: int, cores: int, *, share: float, confirm: bool, start: float,
    loading: float = 0.0, once: float = 0.0, folds: int = 1, refit: float = 0.0, timeout: float | None = None,
) -> Forecast:  # fmt: skip
    """Return how long `trials` trials of so many folds take with so many workers on so many cores.

    A trial runs, in the mean, a `share` of its cap (see `run_share`). `start` are the seconds before the first trial,
    `loading` those of dividing the rows once more, `once` those that are spent once for all trials, on features of a
    frozen network. In the end two configurations are trained again on `refit` times as many rows, unless that is 0, and
    of a cross-validation the chosen one on its folds. A study with a timeout takes no longer than that.
    """
    at_once = max(1, min(workers, cores, trials))
    again = min(TOP, trials) * ROUNDS if confirm and trials > 1 else 0

    def run(share: float) -> float:
        return fmean(pilot.before + pilot.epoch * pilot.cap * share for pilot in pilots)

    def whole(share: float) -> float:
        kept = run(min(share, KEPT_SHARE))
        search, repeats = trials * folds * run(share), again * kept
        last = (2 * refit + (folds if folds > 1 else 0)) * kept
        divided = ROUNDS * loading if again else 0.0
        return start + divided + (once + search + repeats + last) / at_once + trials * PER_TRIAL

    most, likely = whole(1.0), whole(share)
    limit = math.inf if timeout is None else timeout
    least = fewest_seconds([run(min(share, KEPT_SHARE))] * 2, at_once) if again else 0.0
    return Forecast(min(likely, limit), min(most, limit), len(pilots), least)


def run_share(rules: Stopping) -> float:
    """Return the share of its cap that a trial runs in the mean under rules."""
    return RUN_SHARE if rules.behind else ALONE_SHARE if rules.overfit or rules.plateau else 1.0


@dataclass(slots=True)
class Pace:
    """What is left of a study that runs: told of each trial and repeat that ended, it says how many seconds."""

    trials: int
    workers: int
    confirm: bool
    form: str
    deadline: float | None = None
    refit: float = 0.0
    folds: int = 1
    ended: dict[int, TrialRecord] = field(default_factory=dict)
    repeats: list[Repeat] = field(default_factory=list)
    told: tuple[float, float] | None = None  # what was left when it was last told, and when that was

    def earlier(self, records: Iterable[TrialRecord], repeats: Iterable[Repeat]) -> None:
        """Take in what ended in an earlier run."""
        self.ended |= {record.number: record for record in records}
        self.repeats += repeats

    def after(self, news: TrialRecord | Repeat, now: float) -> float:
        """Return the seconds that are left after a trial, or a repeat, has ended."""
        if isinstance(news, TrialRecord):
            self.ended[news.number] = news
        else:
            self.repeats.append(news)
        left = self._of_search() + self._of_confirmation() + self._of_last()
        left = left if self.deadline is None else max(0.0, min(left, self.deadline - now))
        self.told = left, now
        return left

    def left(self, now: float) -> float | None:
        """Return the seconds that are left by what was last told; None before the first trial has ended."""
        return None if self.told is None else max(0.0, self.told[0] + self.told[1] - now)

    def _of_search(self) -> float:
        recent = [record.seconds for record in list(self.ended.values())[-RECENT:]]
        to_come = self.trials - len(self.ended) - (self.workers - 1 if self.ended else 0) / 2  # others are half done
        return max(0.0, to_come) * fmean(recent) / self.workers if recent else 0.0

    def _of_confirmation(self) -> float:
        top = contenders(self.ended.values(), self.form) if self.confirm else []
        done = {(repeat.trial, repeat.round) for repeat in self.repeats}
        missing = [record for record in top for n in range(ROUNDS) if (record.number, n) not in done]
        return sum(map(seconds_kept, missing)) / self.workers

    def _of_last(self) -> float:
        """Return the seconds of what is trained in the end: two networks of more rows, and one on its folds."""
        best = best_record(self.ended)
        if best is None or not self.refit:
            return 0.0
        kept = seconds_kept(best)
        return seconds_of([self.refit * kept] * 2 + [kept] * (self.folds if self.folds > 1 else 0), self.workers)
