"""skorch: a callback.

    net = NeuralNetClassifier(Module, max_epochs=100, callbacks=[OverfitStopping(probe=True)])

With a `probe`, train is measured as validation is: in evaluation mode, on as many rows; without one it is skorch's own
`train_loss`, measured while training, with dropout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from skorch.callbacks import Callback
from torch.utils.data import Subset

from tuner.integrations.keeper import Keeper, copied, figure
from tuner.watching import Watch


class OverfitStopping(Callback):  # type: ignore[misc]
    """Stops a net when it overfits, and puts the weights of the best epoch back when it has trained.

    Args:
        watch: one that judges; by default a `tuner.Watch` of the net's epochs, with the `rules` given (see there).
        probe: whether train is measured on training rows in evaluation mode, which costs their forward pass.
        train, val: the names of the losses in the net's history.
        restore: whether the weights of the best epoch are kept and put back.
    """

    def __init__(
        self, watch: Watch | None = None, *, probe: bool = False, train: str = "train_loss", val: str = "valid_loss",
        restore: bool = True, **rules: Any,
    ) -> None:  # fmt: skip
        self.keeper, self.probe, self.train, self.val = Keeper(watch, restore, rules), probe, train, val

    @property
    def watch(self) -> Watch | None:
        """What judges the run that is under way, or the last one."""
        return self.keeper.watch

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.keeper.begin(net.max_epochs)

    def on_epoch_end(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **_: Any) -> None:
        told, where = net.history[-1], "the net's history"
        val = figure(told, self.val, where)
        train = _measured(net, dataset_train, dataset_valid) if self.probe else figure(told, self.train, where)
        if self.keeper.see(train, val, lambda: copied(net.module_)):
            net.history[-1]["overfit_stopping"] = self.watch.reason if self.watch else ""
            raise KeyboardInterrupt  # by which skorch is told to stop, as its own EarlyStopping does

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.keeper.end(net.module_.load_state_dict)


def _measured(net: Any, dataset_train: Any, dataset_valid: Any) -> float:
    """Return the loss on as many training rows as there are for validation, evenly spaced, in evaluation mode."""
    count = min(len(dataset_train), len(dataset_valid))
    rows = np.linspace(0, len(dataset_train) - 1, count).round().astype(int)
    total, n = 0.0, 0
    for batch in net.get_iterator(Subset(dataset_train, rows.tolist()), training=False):
        size = len(batch[0])
        total, n = total + size * float(net.validation_step(batch)["loss"]), n + size
    return total / n
