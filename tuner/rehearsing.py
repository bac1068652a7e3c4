"""rehearse(): code of the user's own, called once as a trial calls it, before anything is written.

Decides what of it is called: the model is built, the optimizer makes a step on a batch, augmented at full strength, and
the metric measures random predictions. A training loop is only looked for. Keeps nothing, and trains nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from tuner.config import RunConfig, own_code
from tuner.data.splits import Splits
from tuner.devices import Draws
from tuner.feeding import Batches
from tuner.looping import check_loop
from tuner.metrics import told
from tuner.models import build_model
from tuner.own_metric import own_metric
from tuner.updating import Step


def rehearse(config: RunConfig, splits: Splits, folder: Path) -> None:
    """Call the code of the user's own that a configuration names.

    Raises:
        UserCodeError: something of it fails.
    """
    if config.training.loop is not None:  # how long it takes only a trial can tell
        check_loop(config, folder)
        own_metric(config, folder)
        return
    torch.manual_seed(0)
    model = build_model(config, splits.shape, folder, splits.encoder.standard)
    if own_code(config) == [config.model.family]:
        return
    if config.augmentation.function is not None:
        config = config.replace({"augmentation.strength": 1.0})
    batches = Batches(config, splits, Draws.of(0), folder=folder)
    step = Step(config, splits, model, batches, folder)
    step(*next(batches.epoch()))
    if (metric := own_metric(config, folder)) is not None:
        scores = np.random.default_rng(0).normal(size=(len(splits.val), splits.shape.outputs))
        if splits.shape.task == "classification":
            scores -= np.log(np.exp(scores).sum(1, keepdims=True))
        value, _ = metric.with_error(*told(scores, splits.val.y, splits.shape.task, splits.encoder.target.restore))
        if not math.isfinite(value):
            raise metric.fault(f"is {value} of random predictions of the validation rows, not a finite number")
