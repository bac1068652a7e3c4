"""A loop of one's own that asks a watch: no framework, no study."""

import torch
from made_rows import rows
from torch import nn

import tuner

(x, y), (x_val, y_val) = (tuple(map(torch.tensor, rows(100, seed))) for seed in (0, 1))
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters(), 0.01)
watch = tuner.Watch(epochs=100)
for _ in range(100):
    for some in torch.randperm(len(y)).split(16):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
    with torch.no_grad():
        train = nn.functional.cross_entropy(model(x), y)
        losses = nn.functional.cross_entropy(model(x_val), y_val, reduction="none")
    over = watch.report(train, losses.mean(), losses)
    if watch.newest_is_best:
        best = {name: value.clone() for name, value in model.state_dict().items()}
    if over:
        break
model.load_state_dict(best)
print(watch.reason)
