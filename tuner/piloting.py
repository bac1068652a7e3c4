"""pilot(): a few batches of configurations of a space, trained to see how long a study would take. Keeps nothing.

Decides which configurations stand for a space, and on how few rows an epoch can be timed: train, probe and validation
rows are thinned alike, so that an epoch's seconds are a share of the whole one's. As many train at once as will in the
study, for they slow each other down.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tuner.again import Again, Done, again
from tuner.config import PRETRAINED, RunConfig
from tuner.data.splits import Part, Splits
from tuner.defaults import batch_size
from tuner.engine import Engine, Task
from tuner.errors import UserCodeError
from tuner.forecast import Pilot
from tuner.planning import Plan
from tuner.proposing import Proposer, trial_seed
from tuner.record import BASELINE
from tuner.space import Space, families, own_names
from tuner.tasks import InProcess
from tuner.workers import Processes

MOST_PILOTS = 8
SECONDS = 8.0  # after the first epoch, after which no more of them are trained
BATCHES, FEATURE_ROWS = 4, 48
EPOCHS = 3  # of one configuration; the quickest counts


def cores() -> int:
    """Return the cores that this process may use, where the system tells; those that there are, where it doesn't."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pilot(plan: Plan) -> tuple[list[Pilot], float, float]:
    """Return what some configurations of the space came to, the seconds until the first of them trained, and those that
    features of all rows take once.

    Raises:
        UserCodeError: none of them can be trained.
    """
    configs = list(_points(plan.space))
    workers = min(plan.space.config.budget.workers, cores(), len(configs))
    rows = len(plan.folds[0].train) + len(plan.folds[0].val)
    once = rows * _seconds_of_features(plan, configs[0]) if PRETRAINED in families(plan.space) else 0.0
    with tempfile.TemporaryDirectory() as folder:
        began, place = time.monotonic(), Path(folder)
        alone = workers == 1 and not own_names(plan.space)
        engine: Engine = InProcess(place) if alone else Processes(workers, place / "data", place / "features")
        try:
            found, first, faults = _timed(plan, engine, configs)
        finally:
            engine.close()
    if not found:
        raise UserCodeError(f"model.family {configs[0].model.family} can't be trained: {faults[0]}")
    return found, first - began, once


def _timed(plan: Plan, engine: Engine, configs: list[RunConfig]) -> tuple[list[Pilot], float, list[str]]:
    """Train configurations on some of the rows; return what each would take on all of them, when the first had ended,
    and what went wrong with others.
    """
    jobs, shares, found, faults = list[Again](), list[float](), list[Pilot](), list[str]()
    for number, config in enumerate(configs):
        config, splits = _short(plan.folds[0], config)
        shares.append(len(splits.train) / max(1, len(plan.folds[0].train)) or 1.0)
        seed = trial_seed(plan.space.config.seed, number)
        jobs.append(Again(Task(number, config, seed, plan.space.folder, engine.take(splits)), EPOCHS))
    first = math.inf
    for done in again(engine, jobs):
        if not isinstance(done, Done):
            continue
        first = min(first, time.monotonic())
        if done.error:  # in a study that trial alone would fail
            faults.append(done.error)
        else:
            number = done.job.task.number
            seconds = min(epoch.seconds for epoch in done.epochs) / shares[number]
            found.append(Pilot(seconds, configs[number].training.epochs, 0.0))
        if found and time.monotonic() > first + SECONDS:
            break
    return found, first, faults


def _points(space: Space) -> Iterator[RunConfig]:
    """Yield random configurations of a space; its one configuration, if nothing is searched."""
    if not space.domains:
        yield space.config
        return
    anywhere = {"search.sampler": "random", "search.first_trials": False, "search.enqueue": []}
    proposer = Proposer(replace(space, config=space.config.replace(anywhere)), space.config.seed)
    for number in range(MOST_PILOTS + 1):
        proposal, _ = proposer.propose(number)
        if proposal.label != BASELINE:
            yield space.at(proposal.values)


def _short(whole: Splits, config: RunConfig) -> tuple[RunConfig, Splits]:
    """Return a configuration and splits whose epochs are a share of the whole ones, batch for batch."""
    if not len(whole.train):  # the training loop's own: all of them
        return config.replace({"training.epochs": EPOCHS}), whole
    size = batch_size(config, len(whole.train))
    rows = FEATURE_ROWS if config.model.family == PRETRAINED else BATCHES * size
    splits = _thinned(whole, min(1.0, rows / len(whole.train)))
    few = {"training.batch_size": min(size, len(splits.train)), "training.epochs": EPOCHS}
    return config.replace(few), splits


def _thinned(splits: Splits, share: float) -> Splits:
    """Return splits with a share of the training and of the validation rows, evenly spaced."""

    def thin(part: Part) -> Part:
        count = max(2, math.ceil(share * len(part)))
        if count >= len(part):
            return part
        rows = np.linspace(0, len(part) - 1, count).round().astype(np.int64)
        return Part(part.x[rows], part.y[rows], part.rows[rows])

    return replace(splits, train=thin(splits.train), val=thin(splits.val), test=None)


def _seconds_of_features(plan: Plan, config: RunConfig) -> float:
    """Return the seconds that the features of one row take, by the difference that more rows make."""
    from tuner.features import with_features
    from tuner.models import build_model

    taken, rows = list[float](), list[int]()
    for share in (0.25, 1.0):
        _, splits = _short(plan.folds[0], config)
        splits = _thinned(splits, share)
        model = build_model(config, splits.shape, plan.space.folder, splits.encoder.standard)
        began = time.perf_counter()
        with_features(model, splits, config)
        taken.append(time.perf_counter() - began)
        rows.append(len(splits.train) + len(splits.val))
    return max(0.0, taken[1] - taken[0]) / max(1, rows[1] - rows[0])
