"""Confirmation and ablation: configurations of a search, trained again on fresh splits with fresh seeds.

Decides on which rows and with which seeds, and keeps each run as soon as it ends, so that what was stopped goes on.
What the runs say is judged by `confirmation`. Knows nothing of how the configurations were found.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.again import Again, Done, Going, again
from tuner.checkpoint import forget_state, state_path
from tuner.config import min_epochs
from tuner.confirmation import (
    ABLATION,
    REPEAT,
    ROUNDS,
    Repeat,
    Repeating,
    affordable,
    contenders,
    fewest_seconds,
)
from tuner.data import load_fresh
from tuner.data.splits import Splits
from tuner.engine import Engine, Task
from tuner.errors import DataError
from tuner.files import writing
from tuner.fitting import data_of
from tuner.planning import Plan, blank_curve
from tuner.record import TrialRecord, seconds_kept
from tuner.scoring import score_at
from tuner.store import Store
from tuner.terminal import roughly

FRESH = 1 << 20  # beyond the numbers of trials, so that no trial had such a seed
TRIES = 20  # seeds of a split, where rows of groups can't be divided by each one


def repeats_of(store: Store) -> list[Repeat]:
    """Return the runs of a study's confirmation that have ended."""
    return [Repeat.from_json(document) for document in store.found(REPEAT)]


def ablations_of(store: Store) -> list[Repeat]:
    """Return the runs that have ended and that an ablation is told from: those of the confirmation, and its own, by
    which nothing is chosen.
    """
    return [*repeats_of(store), *(Repeat.from_json(document) for document in store.found(ABLATION))]


@dataclass(frozen=True, slots=True)
class Run:
    """A run to be made: a trial's configuration on the rows and with the seed of a round; `without` a regularizer."""

    record: TrialRecord
    round: int
    without: str = ""


def pending(
    plan: Plan, records: Sequence[TrialRecord], repeats: Sequence[Repeat], slots: int = 1, left: float | None = None
) -> list[Run]:
    """Return the runs of a confirmation that are still to be made, round by round; of as many contenders as there are
    seconds `left` for on so many slots.
    """
    if not plan.space.config.budget.confirm:
        return []
    top = contenders(records, plan.space.config.score.form)
    if left is not None:
        seconds = [seconds_kept(record) for record in top]
        # the search is over: what is left is of no other use, so two are tried however short it seems
        top = top[: max(2, affordable(seconds, slots, left - ROUNDS * plan.seconds))]
    return _missing([Run(record, n) for n in range(ROUNDS) for record in top], repeats)


def why_not(plan: Plan, records: Sequence[TrialRecord], slots: int, left: float | None) -> str:
    """Return why a confirmation comes to nothing, if it does: what it needs at least, and the seconds `left`."""
    if not plan.space.config.budget.confirm:
        return "it was left out"
    top = contenders(records, plan.space.config.score.form)
    if not top:
        return "there are no two configurations to choose between"
    if left is None:
        return "runs of it failed"
    needed = fewest_seconds([seconds_kept(record) for record in top], slots)
    return f"two rounds of the best two take about {roughly(needed)}, and {roughly(max(0.0, left))} were left for them"


def ablations(record: TrialRecord, names: Iterable[str], repeats: Sequence[Repeat]) -> list[Run]:
    """Return the runs of a trial, whole and without each of some regularizers, that are still to be made."""
    return _missing([Run(record, n, name) for n in range(ROUNDS) for name in ("", *names)], repeats)


def _missing(runs: Iterable[Run], repeats: Sequence[Repeat]) -> list[Run]:
    there = {(repeat.trial, repeat.round, repeat.without) for repeat in repeats}
    return [run for run in runs if (run.record.number, run.round, run.without) not in there]


def repeat_each(
    plan: Plan, store: Store, engine: Engine, runs: Sequence[Run], deadline: float | None = None, kind: str = REPEAT
) -> Iterator[Repeat | Repeating]:
    """Make runs; yield each as it goes and once it is stored, as one of the confirmation or of an ablation, until the
    deadline passes.

    Raises:
        DataError, UserCodeError: the data are no longer what they were.
        StorageError: there is no room for them, or for what comes of a run.
    """
    if not runs or (deadline is not None and time.monotonic() >= deadline):
        return
    divided, of = load_fresh(data_of(plan.space), plan.space.folder), len(runs) + len(store.found(kind))
    divisions: dict[int, tuple[int, Splits, int]] = {}
    undone = Counter(run.round for run in runs)

    def jobs() -> Iterator[Again]:
        for number, run in enumerate(runs):
            if run.round not in divisions:
                divisions[run.round] = _take(plan, engine, *_division(plan, divided, run.round, kind))
            assert run.record.score is not None
            config = plan.space.at(run.record.all_values)
            config = config.replace({run.without: 0.0}) if run.without else config
            state = state_path(plan.folder, f"{kind}{run.record.number:05d}", run.round, run.without)
            task = Task(number, config, _seed(plan, run.round), plan.space.folder, divisions[run.round][0], state)
            yield Again(task, run.record.score.epoch)

    for done in again(engine, jobs(), deadline):
        run = runs[done.job.task.number]
        if isinstance(done, Going):
            curve = replace(blank_curve(done.job.task.config, divisions[run.round][1]), epochs=done.epochs)
            yield Repeating(run.record.number, run.round, done.job.kept, curve, run.without, of=of)
            continue
        repeat = _repeat(plan, done, run, *divisions[run.round][1:])
        store.put(f"{kind}{run.record.number}:{run.round}:{run.without}", repeat.to_json())
        if done.job.task.state is not None:
            forget_state(done.job.task.state)
        undone[run.round] -= 1
        if not undone[run.round]:
            engine.drop(divisions[run.round][0])
        yield repeat


def _take(plan: Plan, engine: Engine, splits: Splits, seed: int) -> tuple[int, Splits, int]:
    """Give splits to the engine; return their number there, themselves without examples, which are large and no longer
    needed here, and the seed that they are by.
    """
    _refuse_other_data(plan, splits)
    with writing(plan.folder):
        number = engine.take(splits)
    train, val = (replace(part, x=part.x[:0].copy()) for part in (splits.train, splits.val))
    return number, replace(splits, train=train, val=val, test=None), seed


def _split(plan: Plan, n: int, attempt: int = 0) -> int:
    return (plan.space.config.data.split.seed + 1 + n + attempt * ROUNDS) % 2**32


def _division(plan: Plan, divided: Callable[[int], Splits], n: int, kind: str = REPEAT) -> tuple[Splits, int]:
    """Return the splits of a round and the seed that they are by: the round's first seed that the rows can be divided
    by. With groups some can't: a class may be in one group alone.

    Raises:
        DataError: none of 20 seeds can.
    """
    for attempt in range(TRIES):
        seed = _split(plan, n, attempt)
        try:
            return divided(seed), seed
        except DataError as error:
            fault = error
    why = "what is to be compared can't be trained again on fresh splits"
    raise DataError(f"{fault} ({why}{'; --no-confirm leaves that out' if kind == REPEAT else ''})")


def _seed(plan: Plan, n: int) -> int:
    """Return the seed of a round, the same for all that run in it: they are compared on equal terms."""
    return int(np.random.SeedSequence([plan.space.config.seed, FRESH + n]).generate_state(1)[0])


def _refuse_other_data(plan: Plan, splits: Splits) -> None:
    if splits.test_hash != plan.study.test_hash:
        raise DataError(f"{plan.space.config.data.source}: is not what it was when the study began; put that back")


def _repeat(plan: Plan, done: Done, run: Run, splits: Splits, split: int) -> Repeat:
    config, kept, worth, curve = done.job.task.config, done.job.kept, None, None
    if not done.error:
        budget = config.training.epochs
        curve = replace(blank_curve(config, splits), budget=budget, first=min_epochs(budget), epochs=done.epochs)
        worth = score_at(curve, kept, plan.space.config.score, plan.study.metric)
        worth = worth if math.isfinite(worth.value) else None
    ordered = plan.space.config.data.split.time is not None
    fresh = not ordered and not np.array_equal(splits.val.rows, plan.folds[0].val.rows)
    trial, n, seed, rows = run.record.number, run.round, done.job.task.seed, len(splits.train)
    return Repeat(trial, n, seed, split, kept, curve, worth, done.error, fresh, run.without, rows)
