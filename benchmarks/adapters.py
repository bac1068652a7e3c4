"""`python -m benchmarks.adapters`: what a callback of tuner's adds to an epoch of each framework. A few minutes.

The same network is trained on the same rows with and without the callback, in turn, and the median epoch of each run
counts; the rules are off, so that both run to their end. Whole epochs differ by more than a callback takes, so the time
within it is measured, too, as a share of the training. The probe of training rows that skorch and Keras may be given is
left out: it is a measurement of the user's choice, and costs what a pass over those rows costs.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROWS, COLUMNS, WIDTH, BATCH, EPOCHS = 8000, 64, 256, 64, 12
RULES: dict[str, Any] = {"overfit": False, "plateau": False}


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(n, COLUMNS)).astype(np.float32)
    return x, (x[:, :4].sum(1) > 0).astype(np.int64)


TRAIN, VAL = rows(ROWS, 0), rows(ROWS // 4, 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(COLUMNS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))


class Clock:
    """The moments at which epochs began, and the seconds that were spent within a callback of tuner's."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.within = 0.0

    def timed(self, callback: Any) -> Any:
        """Return the callback, whose every hook is timed."""
        for name in [name for name in dir(type(callback)) if name.startswith("on_")]:
            setattr(callback, name, partial(self._call, getattr(callback, name)))
        return callback

    def _call(self, hook: Any, *given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return hook(*given, **named)
        finally:
            self.within += time.perf_counter() - began

    def told(self) -> tuple[float, float]:
        """Return the seconds of an epoch, and the share of the training that was spent within the callback."""
        return self.epoch(), self.within / (self.at[-1] - self.at[0])

    def tick(self) -> None:
        self.at.append(time.perf_counter())

    def epoch(self) -> float:
        """Return the median seconds of an epoch, its callbacks included; the first one warms up."""
        return statistics.median(b - a for a, b in zip(self.at[1:-1], self.at[2:], strict=True))


def with_lightning(watched: bool) -> tuple[float, float]:
    import lightning

    from tuner.integrations.lightning import OverfitStopping

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, number: int) -> Any:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), on_epoch=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-3)

    class Ticks(lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            clock.tick()

    clock = Clock()
    callbacks = [Ticks(), *([clock.timed(OverfitStopping(**RULES))] if watched else [])]
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    train, val = (TensorDataset(*map(torch.tensor, part)) for part in (TRAIN, VAL))
    trainer.fit(Module(), DataLoader(train, BATCH, shuffle=True), DataLoader(val, 500))
    return clock.told()


def with_transformers(watched: bool) -> tuple[float, float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from tuner.integrations.transformers import OverfitStopping

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Ticks(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            clock.tick()

    def examples(part: Any) -> list[dict[str, Any]]:
        return [{"x": torch.tensor(x), "labels": int(y)} for x, y in zip(*part, strict=True)]

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        given = TrainingArguments(
            folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, per_device_eval_batch_size=500,
            learning_rate=1e-3, eval_strategy="epoch", save_strategy="no", logging_strategy="epoch", report_to=[],
            use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        Trainer(
            model=Model(), args=given, train_dataset=examples(TRAIN), eval_dataset=examples(VAL),
            callbacks=[Ticks(), *([clock.timed(OverfitStopping(**RULES))] if watched else [])],
        ).train()  # fmt: skip
    return clock.told()


def with_skorch(watched: bool) -> tuple[float, float]:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    from tuner.integrations.skorch import OverfitStopping

    class Ticks(Callback):
        def on_epoch_begin(self, net: Any, **_: Any) -> None:
            clock.tick()

    clock = Clock()
    NeuralNetClassifier(
        network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-3, batch_size=BATCH,
        max_epochs=EPOCHS, train_split=predefined_split(Dataset(*VAL)), verbose=0,
        callbacks=[("ticks", Ticks()), *([("stopping", clock.timed(OverfitStopping(**RULES)))] if watched else [])],
    ).fit(*TRAIN)  # fmt: skip
    return clock.told()


def with_keras(watched: bool) -> tuple[float, float]:
    import keras

    from tuner.integrations.keras import OverfitStopping

    class Ticks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            clock.tick()

    clock, dense = Clock(), keras.layers.Dense
    model = keras.Sequential([dense(WIDTH, activation="relu"), dense(WIDTH, activation="relu"), dense(2)])
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [Ticks(), *([clock.timed(OverfitStopping(**RULES))] if watched else [])]
    model.fit(*TRAIN, batch_size=BATCH, epochs=EPOCHS, validation_data=VAL, callbacks=callbacks, verbose=0)
    return clock.told()


FRAMEWORKS: dict[str, Callable[[bool], tuple[float, float]]] = {
    "lightning": with_lightning, "transformers": with_transformers, "skorch": with_skorch, "keras": with_keras,
}  # fmt: skip


def main() -> None:
    ask = argparse.ArgumentParser(prog="python -m benchmarks.adapters")
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--only", action="append", choices=FRAMEWORKS)
    given = ask.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    heads = ("framework", "ms an epoch without", "with", "ratio: median (least, most)", "within the callback")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in given.only or FRAMEWORKS:
        train = FRAMEWORKS[name]
        with redirect_stdout(sys.stderr):  # some frameworks print what they log
            train(True)  # warms up
            pairs = [_pair(train, first=bool(i % 2)) for i in range(given.rounds)]
        plain, watched = (1000 * statistics.median(run[0] for run in runs) for runs in zip(*pairs, strict=True))
        ratios = [with_it[0] / without[0] for without, with_it in pairs]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})"
        share = statistics.median(with_it[1] for _, with_it in pairs)
        print(f"| {name} | {plain:.1f} | {watched:.1f} | {spread} | {share:.2%} |", flush=True)


def _pair(train: Callable[[bool], tuple[float, float]], first: bool) -> tuple[Any, Any]:
    """Return what came of a run without the callback and of one with it, of which either is the first."""
    found = {watched: train(watched) for watched in (first, not first)}
    return found[False], found[True]


if __name__ == "__main__":
    main()
