"""A loop that brings its data: tuner sees the configuration and the losses alone, and keeps no test set aside."""

import torch
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split
from torch import nn


def fit(run):
    x, y = make_moons(400, noise=0.35, random_state=0)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    # divided by the run's seed, so that the confirmation is on other rows than the search
    train, val = train_test_split(torch.arange(len(y)), test_size=0.4, random_state=run.seed % 2**32)
    width, dropout = run.config.model.width, run.config.regularization.dropout
    model = nn.Sequential(
        nn.Linear(2, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), run.config.training.learning_rate, weight_decay=run.config.regularization.l2
    )
    run.checkpoint(model, optimizer=optimizer)
    for _ in range(run.resume(), run.config.training.epochs):
        model.train()
        for rows in train[torch.randperm(len(train))].split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            outputs = model(x)
        loss = nn.functional.cross_entropy(outputs, y, reduction="none")
        right = (outputs.argmax(1) == y).float()
        told = [{"loss": loss[rows], "accuracy": right[rows]} for rows in (train[: len(val)], val)]
        if run.report(train=told[0], val=told[1]):
            break
