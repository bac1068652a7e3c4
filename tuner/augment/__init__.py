"""Augmentation: random changes of the training examples, one function per kind of data.

Decides which function serves which kind of data and what of the configuration it is told. One knob,
the strength, scales how often and how far each function changes an example; at 0 the batch comes back
itself, bit for bit, and nothing is drawn, so that a strength of 0 is the same run as no augmentation.
Knows nothing of training: who calls it owns the generator, and must not call it for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tuner.augment.custom import custom
from tuner.augment.image import image
from tuner.augment.mixup import check_mixable, mixup
from tuner.augment.sequence import sequence
from tuner.augment.table import table
from tuner.augment.text import text
from tuner.config import OWN_TOKENS, PRETRAINED, RunConfig

if TYPE_CHECKING:
    from tuner.data.splits import Shape

Options = Callable[[RunConfig, "Shape"], dict[str, Any]]
AUGMENT: dict[str, tuple[Callable[..., Tensor], Options]] = {  # with what each is told besides the strength
    "image": (image, lambda config, _: {"flip": config.augmentation.flip}),
    "table": (table, lambda _, shape: {"categories": len(shape.cardinalities)}),
    "text": (text, lambda config, _: {"keep_ends": _is_marked(config)}),
    "sequence": (sequence, lambda config, shape: {
        "masked": shape.masked, "shift": config.augmentation.shift, "wrap": config.augmentation.wrap,
    }),
}  # fmt: skip

__all__ = ["AUGMENT", "augmentation", "mixing"]


def augmentation(
    config: RunConfig, shape: Shape, folder: Path | None = None
) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """Return the function that changes a training batch (n, *shape.input), or None at strength 0.

    It is called as change(batch, generator) on examples before they are standardized: images from 0 to 1,
    tables and sequences as they are stored, texts as int64 token numbers. `folder` is where a function of the
    user's own is looked for first.

    Raises:
        UserCodeError: there is no such function.
    """
    strength = config.augmentation.strength
    if strength == 0:
        return None
    if config.augmentation.function is not None:
        return custom(config.augmentation.function, strength, folder)
    change, told = AUGMENT[shape.kind]
    options = told(config, shape)
    return lambda batch, generator: change(batch, strength, generator, **options)


def mixing(
    config: RunConfig, shape: Shape
) -> Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]] | None:
    """Return the function that mixes a training batch with itself (see `mixup`), or None if mixup is off.

    It is called as mix(batch, generator) on standardized examples.

    Raises:
        UsageError: the data are texts.
    """
    alpha = config.augmentation.mixup
    if alpha == 0:
        return None
    check_mixable(shape)
    return lambda batch, generator: mixup(batch, shape, alpha, generator)


def _is_marked(config: RunConfig) -> bool:
    """Tell whether texts begin and end with marks that a backbone looks for, put there by its tokenizer."""
    return config.model.family == PRETRAINED or config.data.tokens not in (None, *OWN_TOKENS)
