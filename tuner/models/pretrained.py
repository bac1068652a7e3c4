"""Transfer: a network that others trained, with a new head: for texts and for images of any size.

Decides what of it is frozen and what is trained: the last `unfrozen` blocks and the head. Only these are a network's
weights; the frozen front comes from the backbone's own file. Knows nothing of how it is trained, and of no cache.
"""

from __future__ import annotations

import copy
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuner.backbones import Backbone, find_backbone
from tuner.config import RunConfig
from tuner.errors import UsageError
from tuner.models import bert, efficientnet
from tuner.models.frozen import Front, Unfrozen
from tuner.models.layers import drop, normalize_units

if TYPE_CHECKING:
    from tuner.data.splits import Shape, Standard

AT_ONCE = 2_000_000  # numbers of features that an evaluation holds at a time


class Tail(nn.Module):
    """What is trained: features -> the last blocks, where some are unfrozen -> the head."""

    def __init__(self, blocks: Unfrozen | None, head: nn.Sequential) -> None:
        super().__init__()
        self.blocks, self.head = blocks, head

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        outputs: Tensor = self.head(x if self.blocks is None else self.blocks(x))
        return outputs


class Transfer(nn.Module):
    """The whole network: examples -> the frozen front -> the tail.

    Its state is the tail's alone; `backbone` says which file the front came from.
    """

    def __init__(self, backbone: Backbone, front: Front, tail: Tail) -> None:
        super().__init__()
        self.backbone, self.front, self.tail = backbone, front, tail

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.compiler.is_exporting():  # an exported batch may be of any size, and of one alone
            return self.tail(self.front(x))  # type: ignore[no-any-return]
        at_once = max(1, AT_ONCE // prod(self.front.shape))
        return torch.cat([self.tail(self.front(some)) for some in torch.split(x, at_once)])

    def state_dict(self, *args: Any, **options: Any) -> Any:
        return self.tail.state_dict(*args, **options)

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        return self.tail.load_state_dict(state_dict, *args, **options)


def pretrained(
    config: RunConfig, shape: Shape, folder: Path | None = None, standard: Standard | None = None
) -> Transfer:
    """Return a network (n, *shape.input) -> (n, shape.outputs) that starts from `model.backbone`.

    The head has `depth` layers, the last of them linear and those before it as an mlp's: linear to `width`,
    normalization, ReLU; dropout is before each. `standard` says how images were standardized; without it they are
    pixels from 0 to 1. The last `unfrozen` blocks are trained, too: layers of a text's encoder; inverted
    bottlenecks of an image's, and with the last of them the convolution that follows it.

    Raises:
        UsageError: there is no such backbone here, or it doesn't go with the data.
        DataError: its files are damaged.
    """
    backbone = find_backbone(config.model.backbone, shape.kind, folder)
    unfrozen = config.model.unfrozen
    backbone.check_unfrozen(unfrozen)
    if shape.kind == "text":
        front, blocks, units = _text(backbone, shape, unfrozen)
    else:
        front, blocks, units = _image(config, backbone, unfrozen, standard)
    return Transfer(backbone, front, Tail(blocks, _head(config, units, shape.outputs)))


def _text(backbone: Backbone, shape: Shape, unfrozen: int) -> tuple[Front, Unfrozen | None, int]:
    settings, (tokens,) = backbone.settings, shape.input
    if shape.vocabulary > settings["vocab_size"]:
        raise UsageError(
            f"data.tokens: {backbone.name} knows {settings['vocab_size']} tokens of its own and the texts have "
            f"{shape.vocabulary} others; set data.tokens: {backbone.name}"
        )
    if tokens > settings["max_position_embeddings"]:
        most = settings["max_position_embeddings"]
        raise UsageError(f"data.length: {backbone.name} takes up to {most} tokens, not {tokens}")
    tensors, frozen = bert.read_tensors(backbone.weights), backbone.blocks - unfrozen
    try:
        front = bert.TextFront(tensors, settings, frozen, tokens)
        blocks = [bert.load_layer(tensors, settings, number) for number in range(frozen, backbone.blocks)]
    except (KeyError, RuntimeError) as error:
        raise bert.unfit(backbone.weights, error) from None
    return front, _trainable(bert.Layers(blocks)) if blocks else None, settings["hidden_size"]


def _image(
    config: RunConfig, backbone: Backbone, unfrozen: int, standard: Standard | None
) -> tuple[Front, Unfrozen | None, int]:
    tensors, frozen = efficientnet.read_tensors(backbone.weights), backbone.blocks - unfrozen
    center, scale = (standard.center, standard.scale) if standard else ((0.0,), (1.0,))
    front = efficientnet.ImageFront(tensors, frozen, config.model.resolution, center, scale)
    if not unfrozen:
        return front, None, efficientnet.UNITS
    blocks = efficientnet.Blocks(efficientnet.load_blocks(tensors)[frozen:], efficientnet.load_end(tensors))
    return front, _trainable(blocks), efficientnet.UNITS


def _trainable(blocks: Unfrozen) -> Unfrozen:
    """Return blocks with weights of their own: those of the file are shared by all that is made of it."""
    return copy.deepcopy(blocks).requires_grad_(True)


def _head(config: RunConfig, units: int, outputs: int) -> nn.Sequential:
    width, kind, share = config.model.width, config.model.normalization, config.regularization.dropout
    layers: list[nn.Module] = []
    for _ in range(config.model.depth - 1):
        layers += [
            *drop(share),
            nn.Linear(units, width, bias=kind != "batch"),
            *normalize_units(kind, width),
            nn.ReLU(),
        ]
        units = width
    return nn.Sequential(*layers, *drop(share), nn.Linear(units, outputs))
