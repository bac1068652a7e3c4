"""Rows for the scripts here: few, with many columns of noise and some wrong labels: any network overfits them."""

import numpy as np


def rows(n, seed):
    """Return x (n, 20) and classes y (n,)."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(n, 20)).astype(np.float32)
    return x, ((x[:, 0] + x[:, 1] > 0) ^ (chance.random(n) < 0.15)).astype(np.int64)
