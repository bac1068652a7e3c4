"""A perceptron's gradients by hand: the same curves as with autograd's, on whatever it learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_training import EVERYTHING, Fitted, classes, config, drain, numbers, part
from torch import nn

from tuner.data.splits import Shape, Splits
from tuner.models import build_model
from tuner.models.layers import Dropout
from tuner.perceptron import Perceptron

LONG = {"training__epochs": 8, "training__batch_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"model__depth": 4, "model__width": 33},
    "flat": {"model__depth": 1, "model__width": 1},
    "dropout": {"model__depth": 3, "model__width": 13, "regularization__dropout": 0.4},
    "batch": {"model__normalization": "batch", "model__depth": 2, "regularization__dropout": 0.2},
    "layer": {"model__normalization": "layer", "model__depth": 2, "regularization__dropout": 0.2},
    "l1 and l2": {"regularization__l1": 0.1, "regularization__l2": 0.5},
    "mixup": {"augmentation__mixup": 0.4, "augmentation__strength": 0.5},
    "smoothing": {"regularization__label_smoothing": 0.2},
    "class weights": {"training__class_weights": True, "regularization__label_smoothing": 0.1},
    "all weights": {"training__class_weights": True, "augmentation__mixup": 0.4},
    "cosine": {"training__schedule": "cosine", "training__warmup": 0.2},
    "newest": {"training__ema": False},
    "everything": EVERYTHING | {"model__depth": 2},
    "one batch": {"training__batch_size": 60},
    "batches of two": {"training__batch_size": 2, "regularization__dropout": 0.3},
}


def words(n_train: int = 61, n_val: int = 30) -> Splits:
    """Two numbers and three columns of codes, whose sum tells the class."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> Any:
        codes = rng.integers(0, [3, 5, 5], (n, 3))
        x = np.concatenate((rng.normal(size=(n, 2)), codes), 1).astype(np.float32)
        return part(x, (codes.sum(1) % 3 + (x[:, 0] > 0)).astype(np.int64) % 3)

    shape = Shape("table", "classification", (5,), 3, cardinalities=(3, 5, 5))
    return Splits(draw(n_train), draw(n_val), None, Fitted(shape), "", "")


def pictures() -> Splits:
    found = classes()
    shape = Shape("image", "classification", (1, 2, 2), 3)
    x, y = (replace(p, x=p.x.reshape(-1, 1, 2, 2)) for p in (found.train, found.val))
    return Splits(x, y, None, Fitted(shape), "", "")


DATA = {"classes": classes, "numbers": numbers, "words": words, "pictures": pictures}
CASES = [("classes", name) for name in SETTINGS] + [
    (data, name)
    for data in ("numbers", "words", "pictures")
    for name in ("plain", "dropout", "batch", "layer", "mixup", "l1 and l2")
]


def both(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], splits: Splits) -> list[Any]:
    """Return the run by hand and the one by autograd."""
    hand = drain(config(**LONG | settings), splits, 3)
    monkeypatch.setattr(Perceptron, "of", lambda *_: None)
    return [hand, drain(config(**LONG | settings), splits, 3)]


@pytest.mark.parametrize(("data", "name"), CASES)
def test_the_curve_is_that_of_autograd(monkeypatch: pytest.MonkeyPatch, data: str, name: str) -> None:
    hand, auto = both(monkeypatch, SETTINGS[name], DATA[data]())
    for one, two in zip(hand[0], auto[0], strict=True):
        assert one.val.loss == pytest.approx(two.val.loss, rel=1e-3)
        assert one.train.loss == pytest.approx(two.train.loss, rel=1e-3)
    for (key, mine), (other, theirs) in zip(hand[1].state_dict().items(), auto[1].state_dict().items(), strict=True):
        assert key == other
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4), key


def test_it_is_chosen_for_every_perceptron_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    of = Perceptron.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Perceptron, "of", lambda *given: asked.append(of(Perceptron, *given)) or asked[-1])
    for data, name in CASES:
        drain(config(**SETTINGS[name] | {"training__epochs": 1}), DATA[data]())
    assert len(asked) == len(CASES)
    assert all(isinstance(each, Perceptron) for each in asked)


class Odd(nn.Sequential):
    """What a user may do on the way."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


def frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    return model


OTHERS: dict[str, Any] = {
    "another activation": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)),
    "torch's dropout": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)),
    "dropout before the first layer": lambda: nn.Sequential(Dropout(0.1), nn.Linear(4, 3)),
    "a class of its own": lambda: Odd(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
    "no head": lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()),
    "no layer": nn.Sequential,
    "a frozen layer": frozen,
    "a head without bias": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)),
    "normalization that forgets": lambda: nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 3)
    ),
    "a convolution": lambda: nn.Sequential(nn.Conv1d(4, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_that_is_none_is_left_to_autograd(name: str) -> None:
    assert Perceptron.of(OTHERS[name](), True, 16, 3) is None


def test_a_shared_or_hooked_layer_is_left_to_autograd() -> None:
    layer = nn.Linear(4, 4)
    shared = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(4, 3))
    assert Perceptron.of(shared, True, 16, 3) is None
    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    hooked[0].register_forward_hook(lambda *_: None)
    assert Perceptron.of(hooked, True, 16, 3) is None
    weighted = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 3))
    assert Perceptron.of(weighted, True, 16, 3) is None


def test_what_is_learned_lies_in_one_block_and_is_the_networks_own() -> None:
    model = build_model(config(model__depth=2, model__normalization="layer"), classes().shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = Perceptron.of(model, True, 16, 3)
    assert found is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    found.weights.zero_()
    assert all((each == 0).all() for each in model.parameters() if each.ndim == 2)
    assert any((each != 0).any() for each in model.parameters() if each.ndim == 1)
    assert found.block.numel() == sum(each.numel() for each in model.parameters())


def test_layers_that_share_their_weights_are_left_to_autograd() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    assert Perceptron.of(model, True, 16, 3) is None
    model[2].weight = nn.Parameter(model[0].weight.detach())
    assert Perceptron.of(model, True, 16, 3) is None, "the same memory"
    model[2].weight = nn.Parameter(model[0].weight.detach().clone())
    assert Perceptron.of(model, True, 16, 3) is not None
