"""A Lightning Trainer as the loop of a study: its callback reports to the run instead of judging by itself."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

import tuner
from tuner.integrations.lightning import OverfitStopping


class Module(lightning.LightningModule):
    def __init__(self, net, rate, decay):
        super().__init__()
        self.net, self.rate, self.decay = net, rate, decay

    def training_step(self, batch, number):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, number, dataloader_idx=0):
        outputs = self.net(batch[0])
        self.log("loss", nn.functional.cross_entropy(outputs, batch[1]), on_epoch=True)
        self.log("accuracy", (outputs.argmax(1) == batch[1]).float().mean(), on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.rate, weight_decay=self.decay)


def fit(run):
    config = run.config
    module = Module(run.build_model(), config.training.learning_rate, config.regularization.l2)
    run.checkpoint(module.net)
    stopping = OverfitStopping(
        tuner.Watch(config.training.epochs, run=run),
        train="loss/dataloader_idx_1",
        val="loss/dataloader_idx_0",
        metrics={"accuracy": ("accuracy/dataloader_idx_1", "accuracy/dataloader_idx_0")},
    )
    trainer = lightning.Trainer(
        max_epochs=config.training.epochs, callbacks=[stopping], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(
        module,
        DataLoader(run.train, batch_size=32, shuffle=True),
        [DataLoader(run.val, batch_size=256), DataLoader(run.probe, batch_size=256)],
    )
