"""Keras Tuner, with Keras on torch: a grid over the numbers of the configurations.

    python -m benchmarks.peers.with_keras_tuner W1

Keras draws the first weights of dense layers and convolutions otherwise than torch (Glorot's scheme), L1 is on the
weights alone, and Keras Tuner writes the weights of the best epoch so far, which can't be switched off.
"""

from __future__ import annotations

import tempfile

import keras
import keras_tuner
from keras import layers

from benchmarks.peers.way import Job, arguments, measure
from benchmarks.peers.work import ANGLE, SHIFT, UNITS, Configuration, Work


def compiled(work: Work, chosen: Configuration) -> keras.Model:
    """Return the network of a configuration, ready to be trained."""
    l1 = keras.regularizers.L1(chosen["l1"])
    if work.pictures:
        stack = [layers.Input((*work.inputs[1:], work.inputs[0])), *_convolutions(work, chosen, l1)]
    else:
        stack = [layers.Input(work.inputs)]
        for _ in range(chosen["depth"]):
            stack.append(layers.Dense(chosen["width"], activation="relu", kernel_regularizer=l1))
            stack.append(layers.Dropout(chosen["dropout"]))
    model = keras.Sequential([*stack, layers.Dense(work.classes, kernel_regularizer=l1)])
    model.compile(
        # epsilon as torch has it
        keras.optimizers.AdamW(chosen["lr"], weight_decay=chosen["l2"], epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _convolutions(work: Work, chosen: Configuration, l1: keras.regularizers.L1) -> list[layers.Layer]:
    turn = chosen["strength"] * ANGLE / 360  # shares of a full turn, and of a side
    shift = chosen["strength"] * SHIFT / work.inputs[1]

    def convolution(channels: int) -> layers.Layer:
        return layers.Conv2D(channels, 3, padding="same", activation="relu", kernel_regularizer=l1)

    return [
        layers.RandomTranslation(shift, shift, fill_mode="constant"),
        layers.RandomRotation(turn, fill_mode="constant"),
        convolution(chosen["c1"]),
        layers.MaxPooling2D(),
        convolution(chosen["c2"]),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(UNITS, activation="relu", kernel_regularizer=l1),
        layers.Dropout(chosen["dropout"]),
    ]


def search(job: Job) -> list[float]:
    keras.utils.set_random_seed(job.seed)
    x, y, x_val, y_val = job.data
    if job.work.pictures:  # Keras has channels last
        x, x_val = x.transpose(0, 2, 3, 1), x_val.transpose(0, 2, 3, 1)
    numbers = list(range(len(job.configurations)))
    seen: list[float] = []  # of every epoch: a trial's own score is that of its best one

    def build(choice: keras_tuner.HyperParameters) -> keras.Model:
        return compiled(job.work, job.configurations[choice.Choice("number", numbers)])

    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(logs["val_accuracy"]))
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.GridSearch(
            build, objective=keras_tuner.Objective("val_accuracy", "max"), directory=folder, project_name="study"
        )
        tuner.search(
            x, y, validation_data=(x_val, y_val), epochs=job.work.epochs, batch_size=job.work.batch, verbose=0,
            callbacks=[keep],
        )  # fmt: skip
    return seen[job.work.epochs - 1 :: job.work.epochs]


if __name__ == "__main__":
    measure(arguments(__doc__).parse_args(), search, ["keras", "keras-tuner"])
