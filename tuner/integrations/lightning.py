"""PyTorch Lightning: a callback.

    trainer = lightning.Trainer(max_epochs=100, callbacks=[OverfitStopping(train="train_loss", val="val_loss")])

`train` and `val` are names of logged losses. To have both measured alike, log `train` in `validation_step` as well:
give a second validation dataloader, with as many training rows, and name `val_loss/dataloader_idx_1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tuner.integrations.keeper import Keeper, copied, figure
from tuner.watching import LOSS, Watch

ENDLESS = 1000  # epochs of a Trainer without a limit, by which patience goes


class OverfitStopping(Callback):
    """Stops a Trainer when its module overfits, and puts the weights of the best epoch back when it has trained.

    Args:
        watch: one that judges; by default a `tuner.Watch` of the Trainer's epochs, with the `rules` given (see there).
        train, val: the names of the losses, as they are logged for each epoch.
        metrics: what a study of tuner's is scored by, if that isn't the loss: its name, and those of its logged values
            for train and validation.
        restore: whether the weights of the best epoch are kept and put back.
    """

    def __init__(
        self, watch: Watch | None = None, *, train: str = "train_loss", val: str = "val_loss",
        metrics: Mapping[str, tuple[str, str]] = MappingProxyType({}), restore: bool = True, **rules: Any,
    ) -> None:  # fmt: skip
        self.keeper, self.train, self.val, self.validated = Keeper(watch, restore, rules), train, val, False
        self.metrics = dict(metrics)

    @property
    def watch(self) -> Watch | None:
        """What judges the run that is under way, or the last one."""
        return self.keeper.watch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        most = trainer.max_epochs or -1
        self.keeper.begin(most if most > 0 else ENDLESS)
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.enable_validation and not self.validated:
            return  # an epoch without validation
        self.validated, told, where = False, trainer.callback_metrics, "what the module logs"
        names = {LOSS: (self.train, self.val), **self.metrics}
        train, val = ({name: figure(told, pair[part], where) for name, pair in names.items()} for part in (0, 1))
        if self.keeper.see(train, val, lambda: copied(pl_module)):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keeper.end(pl_module.load_state_dict)
