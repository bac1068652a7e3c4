"""What the searches came to, as Markdown: how long each tool took to a test value, seed by seed and in the mean.

Decides which value is wanted and when a tool has it. Starts nothing.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.environments import OWN, Way
from benchmarks.time_to_quality.tasks import TASKS, Task

WAYS = {
    OWN: Way("tuner", "with_tuner", OWN),
    "median": Way("Optuna, median pruner", "with_optuna", "optuna", ("--pruner=median",)),
    "hyperband": Way("Optuna, Hyperband", "with_optuna", "optuna", ("--pruner=hyperband",)),
    "ray": Way("Ray Tune, ASHA", "with_ray", "ray"),
    "keras": Way("Keras Tuner, Hyperband", "with_keras_tuner", "keras-tuner"),
}


@dataclass(frozen=True, slots=True)
class Best:
    """A tool's best from `at` on, in seconds from its start: what it reaches on validation and on test rows."""

    at: float
    val: float
    test: float


Found = dict[tuple[str, str, int], list[Best]]  # (task, way, seed) -> each best that it had, in order


def until(found: Sequence[Best], wanted: float) -> float:
    """Return the seconds until a tool's best first reached a test value; infinite if none did."""
    return min((each.at for each in found if each.test >= wanted), default=math.inf)


def for_good(found: Sequence[Best], wanted: float) -> float:
    """Return the seconds from which on a tool's best had a test value and didn't fall below it again."""
    at = math.inf
    for each in reversed(found):
        if each.test < wanted:
            break
        at = each.at
    return at


HEAD = """\
## Time to quality

    {command}

{date}; {cores} cores, each tool alone on them for {seconds:.0f} seconds from the start of its command, {seeds}. Every
tool searches the same kinds of networks in the same ranges (those of the space file that comes with `tuner`) for the
same metric on the same training and validation rows. Test values are of each tool's best at that time, read by the
benchmark and seen by no tool. "Wanted" is what the best peer's best has when its time is over; then come the seconds
until the best of `tuner` first has it, the seconds until that peer's own best first had it (of several, the first one),
and how many times as fast `tuner` was; in brackets, from when on `tuner`'s best never fell below it again. The last
columns are what each tool's best has when its time is over.

"""
MEANS = """\
First the mean over the seeds that all tools have: "wanted" is what the best peer's bests have in the mean when their
time is over, and a tool has it when the mean of its bests at that time does. Then seed by seed, where chance has more
to say.

"""
MEAN = -1  # instead of a seed
TAIL = """
`tuner` is the product with its defaults: its space files, two workers, its score with the gap penalty, its stopping
rules, and of its {seconds:.0f} seconds up to a fifth go to the confirmation, whose choice is its last best. The peers
are as their tutorials have them, with what helps them: Optuna in two processes on one SQLite file with TPE, Ray with
two processes that serve trial after trial, Keras with two threads; the best epoch of a trial counts, not the last; rows
are standardized and texts tokenized for them beforehand; they have weight decay, dropout, label smoothing and
augmentation to choose from, but no L1. Networks are of the same kinds, but not the same: `tuner` makes embeddings of a
table's words, has more kinds of augmentation, and averages weights. Optuna's pruned trials can't be its best; of Ray
and Keras Tuner any epoch can.
"""


def in_the_mean(runs: Sequence[Sequence[Best]]) -> list[Best]:
    """Return the mean of a tool's bests over seeds, from when on each seed has one."""
    ats = sorted({each.at for run in runs for each in run})
    start = max(run[0].at for run in runs)
    found = []
    for at in (at for at in ats if at >= start):
        now = [[each for each in run if each.at <= at][-1] for run in runs]
        found.append(Best(at, statistics.mean(each.val for each in now), statistics.mean(each.test for each in now)))
    return found


def mean_over_seeds(found: Found) -> Found:
    """Return each tool's mean over the seeds that all tools have, as that of seed -1."""
    ways = sorted({way for _, way, _ in found})
    means: Found = {}
    for task in {task for task, _, _ in found}:
        seeds = [{seed for (name, other, seed), bests in found.items() if (name, other) == (task, way) and bests}
                 for way in ways]  # fmt: skip
        if len(shared := set.intersection(*seeds)) > 1:
            means |= {(task, way, MEAN): in_the_mean([found[task, way, seed] for seed in shared]) for way in ways}
    return means


def section(found: Found, command: str, seconds: float) -> str:
    """Return the Markdown that tells all of it."""
    means = mean_over_seeds(found)
    whole = [*table(means), ""] if means else []
    seeds = sorted({seed for _, _, seed in found})
    head = HEAD.format(
        command=command, date=time.strftime("%Y-%m-%d"), cores=os.cpu_count(), seconds=seconds,
        seeds=f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed",
    )  # fmt: skip
    return head + (MEANS if whole else "") + "\n".join([*whole, *table(found)]) + TAIL.format(seconds=seconds)


def table(found: Found) -> list[str]:
    """Return a row for each set of data and seed, and how many times as fast `tuner` was."""
    seeds = sorted({seed for _, _, seed in found})
    several = seeds != [MEAN] and len(seeds) > 1
    titles = ["data", "metric", *(["seed"] if several else []), "wanted"]
    peers = [name for name in WAYS if name != OWN and any(way == name for _, way, _ in found)]
    titles += ["seconds of `tuner`", "of the best peer", "times as fast", "`tuner`"]
    titles += [WAYS[name].title for name in peers]
    lines, ratios, kept = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"], list[float](), list[float]()
    for task in TASKS.values():
        for seed in seeds:
            own = found.get((task.name, OWN, seed))
            others = {name: bests for name in peers if (bests := found.get((task.name, name, seed)))}
            if not own or not others:
                continue
            wanted = max(bests[-1].test for bests in others.values())
            best = [name for name, bests in others.items() if bests[-1].test == wanted]
            winner = min(best, key=lambda name: until(others[name], wanted))
            first, peer, good = until(own, wanted), until(others[winner], wanted), for_good(own, wanted)
            ratios.append(peer / first)
            kept.append(peer / good)
            cells = [
                task.name,
                task.said,
                *([str(seed)] if several else []),
            ]
            cells += [_value(task, wanted), f"{_seconds(first)} ({_seconds(good)})"]
            cells += [
                f"{_seconds(peer)} ({WAYS[winner].title})",
                f"{peer / first:.1f} ({peer / good:.1f})",
                _value(task, own[-1].test),
            ]
            cells += [_value(task, others[name][-1].test) if name in others else "nothing" for name in peers]
            lines.append(f"| {' | '.join(cells)} |")
    told = ["", f"Geometric mean: {_mean(ratios)} to it, {_mean(kept)} for good."] if ratios else []
    return [*lines, *told, ""]


def _mean(ratios: Sequence[float]) -> str:
    """Return the geometric mean; there is none if a value was never reached."""
    return f"{statistics.geometric_mean(ratios):.1f} times as fast" if min(ratios) > 0 else "not always"


def _value(task: Task, value: float) -> str:
    return f"{100 * value:.1f} %" if task.classes else f"{-value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"
