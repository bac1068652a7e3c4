"""An augmentation of one's own: a patch of each picture is erased, a larger one at a larger strength."""

import torch


def erase(batch, strength, generator):
    """`batch` is (n, channels, height, width), from 0 to 1; all chance comes from `generator`."""
    n, _, height, width = batch.shape
    size = max(1, round(0.5 * strength * min(height, width)))
    top, left = (torch.randint(0, side - size + 1, (n,), generator=generator) for side in (height, width))
    rows, columns = torch.arange(height), torch.arange(width)
    inside = ((rows >= top[:, None]) & (rows < top[:, None] + size))[:, :, None]
    inside = inside & ((columns >= left[:, None]) & (columns < left[:, None] + size))[:, None, :]
    return batch.masked_fill(inside[:, None], 0.0)
