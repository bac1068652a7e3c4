"""PyTorch Lightning: a callback; a second validation loader has training rows, so that both are measured alike."""

import lightning
import torch
from made_rows import rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner.integrations.lightning import OverfitStopping


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, number):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, number, dataloader_idx=0):
        self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


train, val = (TensorDataset(*map(torch.tensor, rows(100, seed))) for seed in (0, 1))
stopping = OverfitStopping(val="loss/dataloader_idx_0", train="loss/dataloader_idx_1")
trainer = lightning.Trainer(
    max_epochs=100, callbacks=[stopping], logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, accelerator="cpu",
)  # fmt: skip
trainer.fit(Module(), DataLoader(train, 16, shuffle=True), [DataLoader(val, 100), DataLoader(train, 100)])
print(stopping.watch.reason)
