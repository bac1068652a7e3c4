"""How long a study takes: before it runs, from pilot batches; while it runs, from the trials that have ended. Pure.

A trial's cap is seldom reached, for the rules end most trials early. By how much was measured by replaying recorded
curves (benchmarks/RESULTS.md), so a forecast is a range: at that share of the epochs, and with every trial at its cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tuner.confirmation import ROUNDS, TOP, Repeat, contenders
from tuner.record import TrialRecord, seconds_kept

RUN_SHARE = 0.4  # of the epochs of its cap a trial runs, in the mean, with the rules on
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
    """Seconds of a whole study: what to expect, and with every trial at its cap; `pilots` it is made of."""

    likely: float
    most: float
    pilots: int


def forecast(
    pilots: Sequence[Pilot], trials: int, workers: int, cores: int, *, rules: bool, confirm: bool, start: float,
    once: float = 0.0, timeout: float | None = None,
) -> Forecast:  # fmt: skip
    """Return how long `trials` trials take with so many workers on so many cores.

    `start` are the seconds before the first trial, `once` those that are spent once for all trials, on features of a
    frozen network. A study with a timeout takes no longer than that.
    """
    at_once = max(1, min(workers, cores, trials))

    def whole(share: float) -> float:
        search = trials * fmean(pilot.before + pilot.epoch * pilot.cap * share for pilot in pilots)
        again = min(TOP, trials) * ROUNDS * (confirm and trials > 1)
        repeats = again * fmean(pilot.before + pilot.epoch * pilot.cap * min(share, KEPT_SHARE) for pilot in pilots)
        return start + (once + search + repeats) / at_once + trials * PER_TRIAL

    most, likely = whole(1.0), whole(RUN_SHARE if rules else 1.0)
    limit = math.inf if timeout is None else timeout
    return Forecast(min(likely, limit), min(most, limit), len(pilots))


@dataclass(slots=True)
class Pace:
    """What is left of a study that runs: told of each trial and repeat that ended, it says how many seconds."""

    trials: int
    workers: int
    confirm: bool
    form: str
    deadline: float | None = None
    ended: dict[int, TrialRecord] = field(default_factory=dict)
    repeats: list[Repeat] = field(default_factory=list)

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
        left = self._of_search() + self._of_confirmation()
        return left if self.deadline is None else max(0.0, min(left, self.deadline - now))

    def _of_search(self) -> float:
        recent = [record.seconds for record in list(self.ended.values())[-RECENT:]]
        to_come = self.trials - len(self.ended) - (self.workers - 1 if self.ended else 0) / 2  # others are half done
        return max(0.0, to_come) * fmean(recent) / self.workers if recent else 0.0

    def _of_confirmation(self) -> float:
        top = contenders(self.ended.values(), self.form) if self.confirm else []
        done = {(repeat.trial, repeat.round) for repeat in self.repeats}
        missing = [record for record in top for n in range(ROUNDS) if (record.number, n) not in done]
        return sum(map(seconds_kept, missing)) / self.workers
