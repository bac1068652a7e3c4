"""Augmentation by a function of the user's own: `augmentation.function: my:jitter` names

    def jitter(batch, strength, generator):
        return batch + 0.1 * strength * torch.randn(batch.shape, generator=generator)

`batch` is (n, *shape.input) before it is standardized: images from 0 to 1, tables and sequences as they are stored,
texts as int64 token numbers; it is on the processor, wherever the network is. It is called with a `strength` above 0 up
to 1, draws from `generator` alone (else a trial that goes on after a kill draws other numbers), and returns a batch of
the same shape and type, which may be the one that it was given. Decides what a wrong result is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tuner.own_code import blaming, check_signature, definition, fault, find_own


def custom(name: str, strength: float, folder: Path | None) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return the function that changes a training batch.

    Raises:
        UserCodeError: it can't be imported, isn't there, or can't be called; and what is returned, where it raises or
            makes something else of a batch.
    """
    label = f"augmentation.function {name}"
    function = find_own(name, folder, label, "a function (batch, strength, generator)")
    check_signature(label, function, ("batch", "strength", "generator"))
    where = definition(function)

    def change(batch: Tensor, generator: torch.Generator) -> Tensor:
        with blaming(label, where):
            found = function(batch.cpu(), strength, generator)
        if not isinstance(found, Tensor):
            raise fault(label, f"returned a {type(found).__name__}, not a tensor", where)
        if found.shape != batch.shape or found.dtype != batch.dtype:
            was, now = (f"{each.dtype} {tuple(each.shape)}" for each in (batch, found))
            raise fault(label, f"made {now} of a batch of {was}; it may change neither shape nor type", where)
        return found.detach().to(batch.device)

    return change
