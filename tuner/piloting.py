"""pilot(): a few batches of configurations of a space, trained to see how long a study would take. Keeps nothing.

Decides which configurations stand for a space, and on how few rows an epoch can be timed: train, probe and validation
rows are thinned alike, so that an epoch's seconds are a share of the whole one's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from tuner.config import PRETRAINED, RunConfig
from tuner.data.splits import Part, Splits
from tuner.errors import TunerError, UserCodeError
from tuner.forecast import Pilot
from tuner.own_code import one_line
from tuner.planning import Plan, families
from tuner.proposing import BASELINE, Proposer, trial_seed
from tuner.space import Space
from tuner.training import batch_size, train

MOST_PILOTS, FEWEST_PILOTS = 8, 2
SECONDS = 8.0  # after which no more configurations are tried
BATCHES, FEATURE_ROWS = 8, 48
EPOCHS, EPOCH_SECONDS = 4, 1.0  # at most so many of one configuration, and none more after so long


def pilot(plan: Plan) -> tuple[list[Pilot], float]:
    """Return what some configurations of the space came to, and the seconds that features of all rows take once.

    Raises:
        UserCodeError: none of them can be trained.
    """
    threads, began, found, faults = torch.get_num_threads(), time.monotonic(), list[Pilot](), list[UserCodeError]()
    torch.set_num_threads(1)  # as a worker does
    try:
        for number, config in enumerate(_points(plan.space)):
            if len(found) >= FEWEST_PILOTS and time.monotonic() - began > SECONDS:
                break
            try:
                if not number:  # what torch does once for all is none of the trial's
                    _timed(plan, config, 0, few=True)
                found.append(_timed(plan, config, trial_seed(plan.space.config.seed, number)))
            except UserCodeError as error:  # in a study that trial alone would fail
                faults.append(error)
    finally:
        torch.set_num_threads(threads)
    if not found:
        raise faults[0]
    if PRETRAINED not in families(plan.space):
        return found, 0.0
    # features are computed by the first trial that needs them; those of another one are there
    rows = len(plan.folds[0].train) + len(plan.folds[0].val)
    return [replace(each, before=0.0) for each in found], max(each.before for each in found) * rows


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


def _timed(plan: Plan, config: RunConfig, seed: int, few: bool = False) -> Pilot:
    """Train a configuration on some of the rows; return what it would take on all of them: `before` the first epoch
    where it has no features, and else a row. On `few` rows it is to warm up alone.
    """
    whole, cap = plan.folds[0], config.training.epochs
    size = batch_size(config, len(whole.train))
    featured = config.model.family == PRETRAINED
    rows = (
        2 * size if few and not featured else FEATURE_ROWS // 8 if few else FEATURE_ROWS if featured else BATCHES * size
    )
    splits = _thinned(whole, min(1.0, rows / len(whole.train)))
    share = len(splits.train) / len(whole.train)
    config = config.replace({"training.batch_size": min(size, len(splits.train)), "training.epochs": EPOCHS})
    began, seconds, before = time.perf_counter(), list[float](), 0.0
    try:
        for epoch, _, _ in train(config, splits, seed, plan.space.folder):
            before = before or time.perf_counter() - began - epoch.seconds
            seconds.append(epoch.seconds)
            if time.perf_counter() - began > EPOCH_SECONDS:
                break
    except (TunerError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise UserCodeError(f"model.family {config.model.family} can't be trained: {one_line(error)}") from error
    least = min(seconds)  # the first one also pays for what is done once; folds take turns
    before = before / (len(splits.train) + len(splits.val)) if featured else before * len(plan.folds)
    return Pilot(least / share * len(plan.folds), cap, before)


def _thinned(splits: Splits, share: float) -> Splits:
    """Return splits with a share of the training and of the validation rows, evenly spaced."""

    def thin(part: Part) -> Part:
        count = max(2, math.ceil(share * len(part)))
        if count >= len(part):
            return part
        rows = np.linspace(0, len(part) - 1, count).round().astype(np.int64)
        return Part(part.x[rows], part.y[rows], part.rows[rows])

    return replace(splits, train=thin(splits.train), val=thin(splits.val), test=None)
