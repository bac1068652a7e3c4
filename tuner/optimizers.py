"""Gradients -> other weights: AdamW, or an optimizer of the user's own.

Decides what an optimizer is told and what of it is remembered from one epoch to the next. An optimizer of the user's
own (`training.optimizer: my:sgd`) is made by a function

    def sgd(groups, config):
        return torch.optim.SGD(groups, momentum=0.9)

`groups` are torch's parameter groups with `params`, `lr` and `weight_decay` each: the weights that l2 shrinks, all
others and, of a pretrained network, the unfrozen blocks. A subclass of torch.optim.Optimizer may be named as it is
(`torch.optim:RAdam`); it is called with the groups alone. Before each step the rates that the groups then have are
multiplied by what warm-up and schedule say. Whether `weight_decay` is decoupled is the optimizer's business. Never
heard of losses or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tuner.config import MODULE_ATTR, RunConfig
from tuner.own_code import blaming, check_signature, definition, fault, find_own
from tuner.packing import packed, unpacked

BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's, as torch has them


class Optimizer(Protocol):
    """Changes parameters by their gradients."""

    @property
    def remembered(self) -> list[Tensor]:
        """The tensors that a step changes besides, which are put back in place."""
        ...

    def saved(self) -> Tensor | None:
        """Return all else that a step changes, as bytes (n,), if there is anything."""
        ...

    def put_back(self, saved: Tensor) -> None:
        """Take what `saved` returned."""
        ...

    def step(self, rate: float) -> None:
        """Change the parameters that have a gradient."""
        ...


class AdamW:
    """AdamW on some parameters: what torch.optim.AdamW calls in the end, without what it does before.

    That takes longer than a small network's step, and loads torch's compiler, which takes a second.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float = 0.0, share: float = 1.0) -> None:
        self.decay, self.share = decay, share
        self.states = [
            (each, each.detach(), torch.zeros_like(each), torch.zeros_like(each), each.new_zeros(()))
            for each in parameters
        ]

    @property
    def remembered(self) -> list[Tensor]:
        return [each for state in self.states for each in state[2:]]  # means, squares and counts

    def saved(self) -> None:
        return None

    def put_back(self, saved: Tensor) -> None:
        pass

    def step(self, rate: float) -> None:
        there = [state for state in self.states if state[0].grad is not None]
        if not there:
            return
        parameters, values, means, squares, counts = zip(*there, strict=True)
        gradients: Any = [each.grad for each in parameters]
        torch._foreach_add_(counts, 1)
        torch._fused_adamw_(
            values, gradients, means, squares, [], counts, lr=rate * self.share, beta1=BETAS[0], beta2=BETAS[1],
            weight_decay=self.decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip


class OwnOptimizer:
    """An optimizer of the user's own, on all parameters of a network."""

    def __init__(self, name: str, groups: list[dict[str, Any]], config: RunConfig, folder: Path | None) -> None:
        self.optimizer = _made(name, groups, config, folder)
        self.peak = config.training.learning_rate
        self.rates = [group.get("lr") for group in self.optimizer.param_groups]

    @property
    def remembered(self) -> list[Tensor]:
        return []

    def saved(self) -> Tensor:
        return packed(self.optimizer.state_dict())

    def put_back(self, saved: Tensor) -> None:
        self.optimizer.load_state_dict(unpacked(saved))

    def step(self, rate: float) -> None:
        for group, own in zip(self.optimizer.param_groups, self.rates, strict=True):
            if isinstance(own, (int, float)):  # else it is the optimizer's own, such as a tensor
                group["lr"] = own * rate / self.peak
        self.optimizer.step()


def optimizers(
    config: RunConfig,
    weights: Sequence[nn.Parameter],
    others: Sequence[nn.Parameter],
    slow: Sequence[nn.Parameter],
    folder: Path | None,
) -> list[Optimizer]:
    """Return what changes a network's parameters: the weights that l2 shrinks, others, and those of unfrozen blocks.

    Raises:
        UserCodeError: the user's own optimizer can't be made.
    """
    rate, decay, slower = config.training.learning_rate, config.regularization.l2, config.training.backbone_rate
    if not MODULE_ATTR.match(config.training.optimizer):
        return [AdamW(weights, decay), AdamW(others), AdamW(slow, share=slower)]
    groups = [
        {"params": list(params), "lr": lr, "weight_decay": shrunk}
        for params, lr, shrunk in ((weights, rate, decay), (others, rate, 0.0), (slow, rate * slower, 0.0))
        if params
    ]
    return [OwnOptimizer(config.training.optimizer, groups, config, folder)]


def _made(name: str, groups: list[dict[str, Any]], config: RunConfig, folder: Path | None) -> torch.optim.Optimizer:
    label = f"training.optimizer {name}"
    maker = find_own(name, folder, label, "a function (groups, config)")
    plain = isinstance(maker, type) and issubclass(maker, torch.optim.Optimizer)
    check_signature(label, maker, ("groups",) if plain else ("groups", "config"))
    with blaming(label, definition(maker)):
        found = maker(groups) if plain else maker(groups, config)
    if not isinstance(found, torch.optim.Optimizer):
        raise fault(label, f"returned a {type(found).__name__}, not a torch.optim.Optimizer", definition(maker))
    return found
