"""Keras 3, with any of its backends: a callback.

    model.fit(x, y, validation_data=(x_val, y_val), callbacks=[OverfitStopping(probe=(x[rows], y[rows]))])

With a `probe` of training rows, drawn at random, train is measured as validation is; without one it is Keras' own
`loss`, the mean over the epoch while training, with dropout.
"""

from __future__ import annotations

from typing import Any

import keras

from tuner.integrations.keeper import Keeper, figure
from tuner.watching import Watch


class OverfitStopping(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops `fit` when the model overfits, and puts the weights of the best epoch back when it has trained.

    Args:
        watch: one that judges; by default a `tuner.Watch` of the epochs of `fit`, with the `rules` given (see there).
        probe: training rows (x, y) to measure train on, as many as there are for validation.
        train, val: the names of the losses in the logs.
        restore: whether the weights of the best epoch are kept and put back.
    """

    def __init__(
        self, watch: Watch | None = None, *, probe: tuple[Any, Any] | None = None, train: str = "loss",
        val: str = "val_loss", restore: bool = True, **rules: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.keeper, self.probe, self.train, self.val = Keeper(watch, restore, rules), probe, train, val

    @property
    def watch(self) -> Watch | None:
        """What judges the run that is under way, or the last one."""
        return self.keeper.watch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.keeper.begin(self.params["epochs"])
        self.told: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        told = self.told = dict(logs or {})
        if self.val not in told:
            return  # an epoch without validation
        if self.probe is not None:
            told |= self.model.evaluate(*self.probe, verbose=0, return_dict=True)
        where = "what fit() logs"
        if self.keeper.see(figure(told, self.train, where), figure(told, self.val, where), self.model.get_weights):
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.told and self.watch is not None and not self.watch.history:
            figure(self.told, self.val, "what fit() logs")  # it was never there
        self.keeper.end(self.model.set_weights)
