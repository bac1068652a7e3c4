"""What the pretrained backbones have in common: blocks that go on being trained, and products in bfloat16.

Decides when bfloat16 is used: where the processor or GPU multiplies such numbers itself, which takes a processor a
fifth of the time of float32; on others it takes longer. Knows no backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class Front(nn.Module):
    """The frozen part of a network: model input -> features (n, *shape) in float16.

    Float16 takes half of the place of float32, in a cache and on the way to the processor, and its 11 bits are finer
    than the 8 of the bfloat16 that the features are computed with.
    """

    shape: tuple[int, ...]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.restore(x))

    def restore(self, x: Tensor) -> Tensor:
        """Return model input as it was before it was standardized."""
        return x

    def features(self, x: Tensor) -> Tensor:
        """Return the features of examples that aren't standardized."""
        raise NotImplementedError


class Unfrozen(nn.Module):
    """Blocks that were trained by others and go on being trained: features (n, *shape) -> vectors (n, units).

    Shrinking their weights towards zero would unlearn what they know, so no penalty acts on them.
    """


_exact = ContextVar("exact", default=False)


@contextmanager
def exactly() -> Iterator[None]:
    """Compute in float32 meanwhile, as everything else that reads a network does."""
    before = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(before)


@cache
def has_fast_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def fast_products(x: Tensor) -> torch.autocast:
    """Return a context in which linear layers and convolutions of x compute in bfloat16, if that is faster here; not in
    a network that is exported, to run elsewhere.
    """
    exact = _exact.get() or torch.compiler.is_exporting()
    has = has_fast_bfloat16() if x.device.type == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)
    faster = has and not exact
    return torch.autocast(x.device.type, torch.bfloat16, enabled=faster)
