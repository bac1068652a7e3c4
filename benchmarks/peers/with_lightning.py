"""PyTorch Lightning in an Optuna study, with Optuna's own callback for it, in SQLite.

    python -m benchmarks.peers.with_lightning W1

Progress bar, logger, checkpoints and the model's summary are off: all that Lightning lets be left out.
"""

from __future__ import annotations

import logging
import tempfile
import warnings

import lightning.pytorch as pl
import optuna
import torch
from optuna_integration import PyTorchLightningPruningCallback
from torch import Tensor, nn

from benchmarks.peers.loop import loaders, optimizer, penalty
from benchmarks.peers.way import Job, arguments, measure
from benchmarks.peers.with_optuna import study_of, suggested
from benchmarks.peers.work import Configuration, Work, network


class Module(pl.LightningModule):
    """A network and how it is trained."""

    def __init__(self, work: Work, chosen: Configuration) -> None:
        super().__init__()
        self.model, self.chosen = network(work, chosen), chosen

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y) + penalty(self.model, self.chosen["l1"])

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        right = (self.model(x).argmax(1) == y).float().mean()
        self.log("accuracy", right, on_epoch=True, batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self, self.chosen)


def search(job: Job) -> list[float]:
    torch.manual_seed(job.seed)

    def objective(trial: optuna.Trial) -> float:
        chosen = suggested(trial, job.work)
        trainer = pl.Trainer(
            max_epochs=job.work.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[PyTorchLightningPruningCallback(trial, monitor="accuracy")],
        )  # fmt: skip
        trainer.fit(Module(job.work, chosen), *loaders(job.work, chosen, job.data))
        return trainer.callback_metrics["accuracy"].item()

    with tempfile.TemporaryDirectory() as folder:
        study = study_of(job, folder)
        study.optimize(objective, n_trials=len(job.configurations))
        return [trial.value for trial in study.trials if trial.value is not None]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # of more workers for the batches, and of the callback's own imports
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    measure(arguments(__doc__).parse_args(), search, ["optuna", "lightning", "optuna-integration"])
