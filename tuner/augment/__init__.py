"""Augmentation: random changes of the training examples, one function per kind of data.

Decides which function serves which kind of data and what of the configuration it is told. One knob,
the strength, scales how often and how far each function changes an example; at 0 the batch comes back
itself, bit for bit, and nothing is drawn, so that a strength of 0 is the same run as no augmentation.
Knows nothing of training: who calls it owns the generator, and must not call it for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tuner.augment.image import image
from tuner.augment.mixup import check_mixable, mixup
from tuner.augment.sequence import sequence
from tuner.augment.table import table
from tuner.augment.text import text
from tuner.config import OWN_TOKENS, PRETRAINED, Augmentation, RunConfig
from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.data.splits import Shape

AUGMENT: dict[str, Callable[..., Tensor]] = {"image": image, "table": table, "text": text, "sequence": sequence}

__all__ = ["AUGMENT", "augmentation", "mixing"]


def augmentation(config: RunConfig, shape: Shape) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """Return the function that changes a training batch (n, *shape.input), or None at strength 0.

    It is called as change(batch, generator) on examples before they are standardized: images from 0 to 1,
    tables and sequences as they are stored, texts as int64 token numbers.

    Raises:
        UsageError: a flip is declared for data that aren't images, or a shift for data that aren't sequences.
    """
    strength = config.augmentation.strength
    _check(config.augmentation, shape.kind)
    if strength == 0:
        return None
    change, options = AUGMENT[shape.kind], _options(config, shape)
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


def _check(chosen: Augmentation, kind: str) -> None:
    """Refuse what the kind of data knows nothing of, rather than leave it without effect."""
    if kind != "image" and chosen.flip != "none":
        raise UsageError(f"augmentation.flip: {chosen.flip} is for images, the data are a {kind}; leave it out")
    for name in ("shift", "wrap"):
        if kind != "sequence" and getattr(chosen, name) != Augmentation.model_fields[name].default:
            raise UsageError(f"augmentation.{name}: is for sequences, the data are a {kind}; leave it out")


def _options(config: RunConfig, shape: Shape) -> dict[str, Any]:
    chosen = config.augmentation
    match shape.kind:
        case "image":
            return {"flip": chosen.flip}
        case "table":
            return {"categories": len(shape.cardinalities)}
        case "text":
            # A backbone's tokenizer begins and ends a text with marks that the backbone looks for.
            marked = config.model.family == PRETRAINED or config.data.tokens not in (None, *OWN_TOKENS)
            return {"keep_ends": marked}
        case "sequence":
            return {"masked": shape.masked, "shift": chosen.shift, "wrap": chosen.wrap}
