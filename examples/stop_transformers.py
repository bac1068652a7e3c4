"""Hugging Face transformers: a TrainerCallback; two evaluation sets, so that both are measured alike."""

import tempfile

import torch
from made_rows import rows
from torch import nn
from transformers import Trainer, TrainingArguments

from tuner.integrations.transformers import OverfitStopping


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def examples(seed):
    return [{"x": torch.tensor(x), "labels": int(y)} for x, y in zip(*rows(100, seed), strict=True)]


train, val = examples(0), examples(1)
stopping = OverfitStopping()
with tempfile.TemporaryDirectory() as folder:
    given = TrainingArguments(
        folder, num_train_epochs=100, per_device_train_batch_size=16, learning_rate=0.01, eval_strategy="epoch",
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(
        model=Model(), args=given, train_dataset=train, eval_dataset={"train": train, "val": val}, callbacks=[stopping]
    )
    trainer.train()
print(stopping.watch.reason)
