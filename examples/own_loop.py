"""A training loop of one's own, on the rows that tuner divides: judged, pruned, confirmed and tested as tuner's is."""

import torch
from torch import nn
from torch.utils.data import DataLoader


def fit(run):
    config = run.config
    model = run.build_model().to(run.device)
    optimizer = torch.optim.RMSprop(
        model.parameters(), config.training.learning_rate, weight_decay=config.regularization.l2
    )
    rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    run.checkpoint(model, optimizer=optimizer, rates=rates)  # what a killed run goes on from; the best model is kept
    for _ in range(run.resume(), config.training.epochs):
        model.train()
        for x, y in DataLoader(run.train, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.to(run.device)), y.to(run.device)).backward()
            optimizer.step()
        rates.step()
        # train on as many rows as there are for validation, in evaluation mode as well: both are measured alike
        if run.report(train=losses(model, run.probe, run.device), val=losses(model, run.val, run.device)):
            break


@torch.no_grad()
def losses(model, part, device):
    """Return the loss of each example, in evaluation mode: by their spread it is known what is noise."""
    x, y = part[:]
    return nn.functional.cross_entropy(model.eval()(x.to(device)), y.to(device), reduction="none")
