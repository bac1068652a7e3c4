"""The gradients of a multilayer perceptron by hand: what autograd finds, in a fraction of its time.

A small network on few rows spends most of a step in bookkeeping: a node for each operation, memory for each result, an
optimizer that visits each weight. Here weights and gradients lie side by side in blocks, results have places of their
own, and dropout is drawn for many batches at once. Decides which networks are of that kind; what a step is, how often
it is taken and what it learns from is the caller's. Draws the very numbers of chance that the layers would draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tuner.models import decays
from tuner.models.layers import BYTES, Dropout
from tuner.models.mlp import Columns

AHEAD = 1 << 18  # units of dropout that are drawn at once, so that they stay near the processor
CUT_OFF = torch.ops.aten.threshold_backward.grad_input  # ReLU's gradient, written where one wants it
Norm = nn.BatchNorm1d | nn.LayerNorm


@dataclass(frozen=True, slots=True)
class _Hidden:
    """A hidden layer: linear, maybe normalized, ReLU, maybe dropout, which zeroes `dropped` of BYTES units."""

    linear: nn.Linear
    norm: Norm | None
    dropped: int

    @property
    def scale(self) -> float:
        """What the units that stay are multiplied by."""
        return BYTES / (BYTES - self.dropped)


@dataclass(frozen=True, slots=True)
class _Layers:
    """A perceptron's parts in order."""

    front: nn.Module | None
    hidden: tuple[_Hidden, ...]
    head: nn.Linear


def _layers(model: nn.Module) -> _Layers | None:
    """Return the parts of a perceptron on the processor whose layers are known and all learn; None of any other."""
    if type(model) is not nn.Sequential or any(map(_is_hooked, model.modules())):
        return None
    own = [each for module in model for each in module.parameters()]
    if not all(each.requires_grad and each.dtype == torch.float32 and each.device.type == "cpu" for each in own):
        return None
    if len({each.data_ptr() for each in own}) < len(own):  # what two layers share learns from both
        return None
    modules, hidden = list[nn.Module](model), list[_Hidden]()
    front = modules.pop(0) if modules and isinstance(modules[0], Columns | nn.Flatten) else None
    while len(modules) > 2 and type(modules[0]) is nn.Linear:
        linear: Any = modules.pop(0)
        norm: Any = modules.pop(0) if _is_norm(modules[0]) else None
        if type(modules.pop(0)) is not nn.ReLU:
            return None
        dropped = 0
        if isinstance(drop := modules[0], Dropout):
            dropped = drop.dropped
            modules.pop(0)
        hidden.append(_Hidden(linear, norm, dropped))
    if len(modules) != 1 or type(modules[0]) is not nn.Linear or modules[0].bias is None:
        return None
    return _Layers(front, tuple(hidden), modules[0])


def _is_hooked(module: nn.Module) -> bool:
    """Tell whether someone wants to be called when the module is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks)


def _is_norm(module: nn.Module) -> bool:
    if type(module) is nn.BatchNorm1d:
        return module.affine and module.track_running_stats and module.momentum is not None
    return type(module) is nn.LayerNorm and module.elementwise_affine and module.bias is not None


def lay_out(model: nn.Module) -> Tensor:
    """Lay the trainable parameters side by side in one block, first those that a penalty shrinks; return the block.

    The parameters are views of it from now on.
    """
    parameters = [each for part in decays(model) for each in part]
    block = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, part in zip(parameters, _parts(block, parameters), strict=True):
        parameter.data = part
    return block


def _parts(block: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    sizes = [parameter.numel() for parameter in parameters]
    return [part.view_as(like) for part, like in zip(torch.split(block, sizes), parameters, strict=True)]


class Perceptron:
    """A perceptron whose gradients are found by hand; the network itself is what learns.

    `block` are its parameters, `gradient` their gradients, `weights` those of the parameters that a penalty shrinks.
    """

    @classmethod
    def of(cls, model: nn.Module, classes: bool, batch: int, batches: int) -> Perceptron | None:
        """Return it for a network that is one, or None.

        With `classes` the loss is the cross-entropy to targets (n, classes), whose sum weighs a row; else the squared
        error of targets (n, 1). `batches` of an epoch have `batch` rows; one more may have fewer.
        """
        layers = _layers(model)
        return cls(model, layers, classes, batch, batches) if layers else None

    def __init__(self, model: nn.Module, layers: _Layers, classes: bool, batch: int, batches: int) -> None:
        self.network, self.front, self.hidden, self.classes = model, layers.front, layers.hidden, classes
        shrunk, others = decays(model)
        self.block = lay_out(model)
        self.weights = self.block[: sum(weight.numel() for weight in shrunk)]
        self.gradient = torch.zeros_like(self.block)
        for parameter, part in zip(shrunk + others, _parts(self.gradient, shrunk + others), strict=True):
            parameter.grad = part
        self.embedded = isinstance(layers.front, Columns)
        self.linear = [_Linear(layer.linear) for layer in layers.hidden]
        self.head = _Linear(layers.head)
        self.chance = _Chance([layer for layer in layers.hidden if layer.dropped], batch, batches)
        self.places: dict[int, _Places] = {}

    def learn(self, x: Tensor, targets: Tensor, total: float, weights: Tensor | None = None) -> None:
        """Put the gradients of the loss of a batch (n, *input) into `gradient`.

        The loss is the sum over the rows divided by `total`; `weights` (n, 1) are what targets of classes sum to, if
        that isn't 1.
        """
        n = x.shape[0]  # len() of a tensor takes as long as a small operation
        places = self.places.get(n) or self.places.setdefault(n, _Places(n, self.linear, self.head))
        seen: Tensor = self.front(x) if self.embedded and self.front else x.flatten(1)
        inputs, scale, saved = [seen.detach() if self.embedded else seen], 1.0, list[tuple[Tensor, ...]]()
        masks = iter(self.chance.masks(n))
        for layer, linear, units in zip(self.hidden, self.linear, places.units, strict=True):
            linear.forward(inputs[-1], scale, units)
            if layer.norm is not None:
                units, *kept = _normalize(layer.norm, units)
                saved.append((places.units[len(saved)], *kept))
            units.relu_()
            if layer.dropped:
                units.mul_(next(masks))
            inputs.append(units)
            scale = layer.scale
        # classes along the rows of a matrix: a softmax down its columns takes a tenth of the time of one along its rows
        outputs = self.head.outputs(inputs[-1], scale, places.outputs)
        if self.classes:
            torch.softmax(outputs, 0, out=outputs)
            if weights is not None:
                outputs.mul_(weights.t())
        turned = outputs.sub_(targets.t()).mul_((1 if self.classes else 2) / total)
        wrong, linear = places.wrong, self.head
        for i in range(len(self.hidden) - 1, -1, -1):
            layer, units, (back, back_turned) = self.hidden[i], inputs[i + 1], places.back[i]
            linear.gradients(units, wrong, turned, layer.scale)
            wrong = torch.addmm(back, wrong, linear.weight, beta=0, alpha=layer.scale, out=back)
            # a unit that was dropped is 0, as one is that ReLU cut off: neither learns
            CUT_OFF(wrong, units, 0, grad_input=wrong)
            turned = back_turned
            if layer.norm is not None:
                wrong = _normalize_back(layer.norm, wrong, *saved[i])
                turned = wrong.t()
            linear = self.linear[i]
        linear.gradients(inputs[0], wrong, turned, 1.0)
        if self.embedded:
            self._embedded_back(seen, wrong @ linear.weight)

    def _embedded_back(self, seen: Tensor, wrong: Tensor) -> None:
        assert self.front is not None
        for parameter in self.front.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
        seen.backward(wrong)  # type: ignore[no-untyped-call]


class _Linear:
    """A linear layer's weights and gradients, as autograd doesn't see them; its input is `scale` times x."""

    def __init__(self, layer: nn.Linear) -> None:
        assert layer.weight.grad is not None
        self.weight, self.slope, self.units = layer.weight.data, layer.weight.grad, layer.out_features
        self.turned = self.weight.t()
        self.bias = layer.bias.data if layer.bias is not None else None
        self.column = self.bias[:, None] if self.bias is not None else None
        self.bias_slope = layer.bias.grad if layer.bias is not None else None

    def forward(self, x: Tensor, scale: float, place: Tensor) -> None:
        """Write the outputs (n, units)."""
        if self.bias is None:
            torch.addmm(place, x, self.turned, beta=0, alpha=scale, out=place)
        else:
            torch.addmm(self.bias, x, self.turned, alpha=scale, out=place)

    def outputs(self, x: Tensor, scale: float, place: Tensor) -> Tensor:
        """Return the outputs as (units, n)."""
        assert self.column is not None
        return torch.addmm(self.column, self.weight, x.t(), alpha=scale, out=place)

    def gradients(self, x: Tensor, wrong: Tensor, turned: Tensor, scale: float) -> None:
        """Put the gradients where they belong, `wrong` being those of the outputs and `turned` its transpose."""
        torch.addmm(self.slope, turned, x, beta=0, alpha=scale, out=self.slope)
        if self.bias_slope is not None:
            torch.sum(wrong, 0, out=self.bias_slope)


def _normalize(layer: Norm, x: Tensor) -> tuple[Tensor, ...]:
    """Return x normalized, and what its gradient needs; a batch's mean and variance are remembered."""
    with torch.no_grad():
        if isinstance(layer, nn.LayerNorm):
            return torch.native_layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.add_(1)
        return torch.native_batch_norm(
            x, layer.weight, layer.bias, layer.running_mean, layer.running_var, True, layer.momentum or 0.0, layer.eps
        )


def _normalize_back(layer: Norm, wrong: Tensor, x: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Put a normalization's gradients where they belong; return that of its input."""
    every = [True, True, True]
    with torch.no_grad():
        if isinstance(layer, nn.LayerNorm):
            found = torch.ops.aten.native_layer_norm_backward(
                wrong, x, layer.normalized_shape, mean, spread, layer.weight, layer.bias, every
            )
        else:
            found = torch.ops.aten.native_batch_norm_backward(
                wrong, x, layer.weight, layer.running_mean, layer.running_var, mean, spread, True, layer.eps, every
            )
        for parameter, gradient in zip((layer.weight, layer.bias), found[1:], strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
    back: Tensor = found[0]
    return back


class _Places:
    """Where the results of a batch of n rows are written, each time anew."""

    def __init__(self, n: int, hidden: Sequence[_Linear], head: _Linear) -> None:
        self.units = [torch.empty(n, layer.units) for layer in hidden]
        self.back = [(back, back.t()) for back in map(torch.empty_like, self.units)]
        self.outputs = torch.empty(head.units, n)
        self.wrong = self.outputs.t()


@dataclass(slots=True)
class _Chance:
    """Dropout masks, drawn for many batches at once, in the order in which layers would draw them one by one."""

    layers: Sequence[_Hidden]
    batch: int
    batches: int
    left: int = field(init=False)
    ahead: list[list[Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = self.batches

    def masks(self, n: int) -> Sequence[Tensor]:
        """Return for each layer of the next batch which of its units stay, (n, units): 1 or 0."""
        if not self.layers:
            return ()
        if n != self.batch:
            return self._draw(n, 1)[0]
        if not self.ahead:
            units = sum(n * layer.linear.out_features for layer in self.layers)
            count = max(1, min(self.left, AHEAD // units))
            self.ahead = self._draw(n, count)[::-1]
            self.left = self.left - count or self.batches
        return self.ahead.pop()

    def _draw(self, n: int, count: int) -> list[list[Tensor]]:
        sizes = [n * layer.linear.out_features for layer in self.layers]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + 8 * -(-size // 8))  # a layer draws eight bytes at a time
        draws = torch.empty((count, starts[-1] // 8), dtype=torch.int64).random_(-(2**63), None)
        drawn = draws.view(torch.int8)
        masks = []
        for layer, start, size in zip(self.layers, starts, sizes, strict=False):
            mask = torch.empty(count, size)
            torch.ge(drawn[:, start : start + size], layer.dropped - BYTES // 2, out=mask)
            masks.append(mask.view(count, n, -1).unbind(0))
        return [list(each) for each in zip(*masks, strict=True)]
