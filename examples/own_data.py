"""Data of one's own, as torch has them: waves of two kinds in noise, a Dataset for each part."""

import torch
from torch.utils.data import Dataset


class Waves(Dataset):
    def __init__(self, n, seed):
        chance = torch.Generator().manual_seed(seed)
        self.y = torch.randint(2, (n,), generator=chance)
        times = torch.linspace(0, 1, 50)
        frequency = torch.where(self.y == 1, 6.0, 5.0)[:, None]
        phase = 6.3 * torch.rand(n, 1, generator=chance)
        noise = torch.randn(n, 50, generator=chance)
        self.x = torch.sin(6.283 * frequency * times + phase) + noise

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i, :, None], self.y[i]  # steps x channels, and the class


def parts():
    return {"train": Waves(300, seed=0), "val": Waves(150, seed=1), "test": Waves(300, seed=2)}
