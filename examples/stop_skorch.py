"""skorch: a callback."""

import torch
from made_rows import rows
from skorch import NeuralNetClassifier
from torch import nn

from tuner.integrations.skorch import OverfitStopping

stopping = OverfitStopping(probe=True)  # train is measured as validation is
net = NeuralNetClassifier(
    nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2)), criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam, lr=0.01, batch_size=16, max_epochs=100, callbacks=[stopping], verbose=0,
)  # fmt: skip
net.fit(*rows(200, 0))
print(stopping.watch.reason)
