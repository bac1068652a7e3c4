"""Keras Tuner's Hyperband, with Keras on torch and two threads (it trains one network at a time).

    python -m benchmarks.time_to_quality.with_keras_tuner fashion

The best is the best epoch of any trial, as the library has it. Augmentation is by Keras's layers where there are any.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from typing import Any

import keras
import keras_tuner
import torch
from keras import layers

from benchmarks.time_to_quality.seen import Seen, arguments
from benchmarks.time_to_quality.tasks import (
    EMBEDDING,
    KERNELS,
    NORMALIZATIONS,
    SMOOTHING,
    TASKS,
    Part,
    Rows,
    Task,
    rows,
)

THREADS = 2


class Over(keras_tuner.errors.FatalError):
    """The time is over; of other errors Keras Tuner says that a trial failed, and goes on."""


def hidden(kind: str, stack: Any, layer: layers.Layer) -> Any:
    stack = layer(stack)
    if kind == "batch":
        stack = layers.BatchNormalization()(stack)
    return layers.Activation("relu")(stack)


def compiled(task: Task, data: Rows, choice: keras_tuner.HyperParameters) -> keras.Model:
    width = choice.Int("width", *task.width, sampling="log")
    depth = choice.Int("depth", *task.depth)
    dropout = choice.Float("dropout", 0.0, task.dropout)
    strength = choice.Float("strength", 0.0, 1.0)
    kind = choice.Choice("normalization", NORMALIZATIONS) if task.kind != "text" else "none"
    inputs = layers.Input(data.train.x.shape[1:])
    stack = inputs
    if task.kind == "table":
        stack = layers.GaussianNoise(0.1 * strength)(stack)
        for _ in range(depth):
            stack = hidden(kind, stack, layers.Dense(width))
            stack = layers.Dropout(dropout)(stack)
    elif task.kind == "image":
        stack = layers.RandomFlip("horizontal")(stack)
        stack = layers.RandomTranslation(strength / 8, strength / 8, fill_mode="constant")(stack)
        for stage in range(depth):
            stack = layers.Conv2D(width * 2**stage, 3, padding="same")(stack)
            stack = hidden(kind, stack, layers.MaxPooling2D())
            stack = layers.Dropout(dropout)(stack)
        stack = layers.Flatten()(stack)
    elif task.kind == "sequence":
        kernel = choice.Choice("kernel", list(KERNELS))
        steps = data.train.x.shape[1]
        apart = [2**i for i in range(8) if i == 0 or 2**i * (kernel - 1) < steps]
        stack = layers.GaussianNoise(0.1 * strength)(stack)
        stack = hidden(kind, stack, layers.Conv1D(width, kernel, padding="same"))
        for i in range(depth):
            far = apart[i % len(apart)]
            branch = hidden(kind, stack, layers.Conv1D(width, kernel, padding="same", dilation_rate=far))
            branch = layers.Dropout(dropout)(branch)
            branch = layers.Conv1D(width, kernel, padding="same", dilation_rate=far)(branch)
            branch = layers.BatchNormalization()(branch) if kind == "batch" else branch
            stack = layers.Activation("relu")(layers.Add()([stack, branch]))
        pooled = [layers.GlobalAveragePooling1D()(stack), layers.GlobalMaxPooling1D()(stack)]
        stack = layers.Dropout(dropout)(layers.Concatenate()(pooled))
    else:
        vectors = layers.Embedding(data.tokens, choice.Int("embedding", *EMBEDDING, sampling="log"))(stack)
        found = [
            layers.GlobalMaxPooling1D()(layers.Conv1D(width, size, padding="same", activation="relu")(vectors))
            for size in (3, 4, 5)
        ]
        stack = layers.Dropout(dropout)(layers.Concatenate()(found))
        for _ in range(depth - 1):
            stack = layers.Dropout(dropout)(layers.Dense(width, activation="relu")(stack))
    model = keras.Model(inputs, layers.Dense(task.classes or 1)(stack))
    rate = choice.Float("rate", *task.rate, sampling="log")
    decay = choice.Float("decay", *task.decay, sampling="log")
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=decay),
        loss_of(task, choice),
        metrics=["accuracy" if task.classes else keras.metrics.RootMeanSquaredError("rmse")],
    )
    return model


def loss_of(task: Task, choice: keras_tuner.HyperParameters) -> keras.losses.Loss:
    if not task.classes:
        return keras.losses.MeanSquaredError()
    smoothing = choice.Float("smoothing", 0.0, SMOOTHING)
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


class Look(keras.callbacks.Callback):
    """Sees every epoch, and ends the search when its time is over."""

    def __init__(self, task: Task, seen: Seen, test: Part, unit: float, until: float) -> None:
        super().__init__()
        self.task, self.seen, self.test, self.unit, self.until = task, seen, test, unit, until

    def __deepcopy__(self, memo: Any) -> Look:  # Keras Tuner copies callbacks; what was seen is one
        return Look(self.task, self.seen, self.test, self.unit, self.until)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        value = logs["val_accuracy"] if self.task.classes else -self.unit * logs["val_rmse"]
        self.seen.look(value, self.reached)
        if time.time() >= self.until:
            raise Over

    def reached(self) -> float:
        outputs = self.model.predict(self.test.x, batch_size=256, verbose=0)
        if self.task.classes:
            return float((outputs.argmax(1) == self.test.y.argmax(1)).mean())
        return -self.unit * float(((outputs - self.test.y) ** 2).mean() ** 0.5)


def as_keras(task: Task, part: Part) -> Part:
    x = part.x.transpose(0, 2, 3, 1) if task.kind == "image" else part.x
    return Part(x, keras.utils.to_categorical(part.y, task.classes) if task.classes else part.y)


def main() -> None:
    given = arguments(__doc__).parse_args()
    task, data = TASKS[given.task], rows(TASKS[given.task])
    torch.set_num_threads(THREADS)
    keras.utils.set_random_seed(given.seed)
    train, val, test = (as_keras(task, part) for part in (data.train, data.val, data.test))
    data = Rows(train, val, test, data.unit, data.tokens)
    look = Look(task, Seen(given.seen), test, data.unit, given.began + given.seconds)
    objective = keras_tuner.Objective(*(("val_accuracy", "max") if task.classes else ("val_rmse", "min")))
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            lambda choice: compiled(task, data, choice), objective=objective, max_epochs=task.epochs,
            hyperband_iterations=1000, seed=given.seed, directory=folder, project_name="study",
        )  # fmt: skip
        with suppress(Over):
            tuner.search(train.x, train.y, validation_data=val, batch_size=data.batch, verbose=0, callbacks=[look])


if __name__ == "__main__":
    main()
