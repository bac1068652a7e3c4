"""A network of one's own: blocks with a way around each, as many and as wide as the space says."""

from torch import nn


class Block(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.way = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x):
        return x + self.way(x)


def net(config, shape):
    """`shape.input` is one example's shape without the batch, `shape.outputs` the number of classes (or 1)."""
    width = config.model.width
    return nn.Sequential(
        nn.Linear(shape.input[0], width),
        *(Block(width, config.regularization.dropout) for _ in range(config.model.options["blocks"])),
        nn.Linear(width, shape.outputs),
    )
