"""What a run learns from, batch by batch: its training rows in random order, as the model takes them.

Decides how large a batch is and how many rows are fetched, augmented and standardized at once: many batches of small
examples, since on few numbers an operation costs as much as on many. Knows nothing of what is learned from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from tuner.augment import augmentation
from tuner.config import RunConfig
from tuner.data.splits import Splits
from tuner.defaults import batch_size
from tuner.devices import CPU, Draws, memory_of
from tuner.measuring import input_of

AT_ONCE, MANY_AT_ONCE = 1 << 18, 1 << 22  # numbers: few enough to stay near the processor; what fills a GPU
HELD = 0.1  # of a GPU's memory: trials that share it hold the examples each


class Batches:
    """The batches of a run, each epoch in another order, on the device of its draws.

    `fetch` turns row numbers into examples there; by itself, those of `splits` are taken and augmented.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        draws: Draws,
        fetch: Callable[[Tensor], Tensor] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.rows, self.draws = len(splits.train), draws
        self.size = batch_size(config, self.rows)
        self.per_epoch = steps_per_epoch(self.rows, self.size)
        self.fetch = fetch or _examples(config, splits, draws, folder)
        numbers = self.size * max(1, math.prod(splits.train.x.shape[1:]))
        self.at_once = self.size * max(1, (AT_ONCE if draws.device == CPU else MANY_AT_ONCE) // numbers)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch's examples (n, *input) and the numbers of its rows (n,); a last batch of one row is left out
        (it has no spread).
        """
        order = torch.randperm(self.rows, generator=self.draws.order)
        placed = torch.split(order.to(self.draws.device), self.at_once)
        for rows, there in zip(torch.split(order, self.at_once), placed, strict=True):
            for x, those in zip(torch.split(self.fetch(rows), self.size), torch.split(there, self.size), strict=True):
                if those.shape[0] > 1 or self.size == 1:
                    yield x, those


def _examples(config: RunConfig, splits: Splits, draws: Draws, folder: Path | None) -> Callable[[Tensor], Tensor]:
    """Return rows -> training examples as the model takes them, changed at random if they are augmented.

    A GPU holds all of them, unless they would take much of its memory.
    """
    x, change, device = torch.from_numpy(splits.train.x), augmentation(config, splits.shape, folder), draws.device
    chance = draws.changes if config.augmentation.function is None else draws.order
    prepare = input_of(splits.encoder.standard, (lambda batch: change(batch, chance)) if change else None, device)
    if device != CPU and splits.train.x.nbytes <= memory_of(device) * HELD:
        x = x.to(device)
    return lambda rows: prepare(x.index_select(0, rows.to(x.device)).to(device))


def steps_per_epoch(n: int, size: int) -> int:
    """Return how many batches an epoch of n examples has, without a last one of one row."""
    return n // size + (1 if n % size > 1 else 0)
