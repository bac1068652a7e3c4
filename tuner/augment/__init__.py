"""Augmentation: random changes of the training examples, one function per kind of data.

Decides which function serves which kind of data and what of the configuration it is told. One knob,
the strength, scales how often and how far each function changes an example; at 0 the batch comes back
itself, bit for bit, and nothing is drawn, so that a strength of 0 is the same run as no augmentation.
Knows nothing of training: who calls it owns the generator, and must not call it for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuner.augment.image import image
from tuner.augment.table import table
from tuner.config import RunConfig
from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.data.splits import Shape

AUGMENT: dict[str, Callable[..., Tensor]] = {"image": image, "table": table}

__all__ = ["AUGMENT", "augmentation"]


def augmentation(config: RunConfig, shape: Shape) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """Return the function that changes a training batch (n, *shape.input), or None at strength 0.

    It is called as change(batch, generator) on examples before they are standardized: images from 0 to 1,
    tables as they are stored.

    Raises:
        UsageError: a flip is declared for data that aren't images.
    """
    strength, flip = config.augmentation.strength, config.augmentation.flip
    if shape.kind != "image" and flip != "none":
        raise UsageError(f"augmentation.flip: {flip} is for images, the data are a {shape.kind}; leave it out")
    if strength == 0:
        return None
    options = {"flip": flip} if shape.kind == "image" else {"categories": len(shape.cardinalities)}
    change = partial(AUGMENT[shape.kind], **options)
    return lambda batch, generator: change(batch, strength, generator)
