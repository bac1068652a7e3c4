"""Model families: from a configuration and the data's shape to a network that isn't trained yet.

Finds the factory of a family, a function of its name in a file of its name here, and decides which weights a penalty
may shrink. Weights start as torch's own layers start them, drawn from torch's global generator on the CPU: the same
`torch.manual_seed` gives the same weights, byte for byte. Knows nothing of losses, of optimizers or of how a model is
trained.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import Parameter

from tuner.config import FAMILIES, PRETRAINED, RunConfig, misfit
from tuner.errors import UsageError, nearest
from tuner.models.custom import build_custom
from tuner.models.frozen import Unfrozen
from tuner.models.pretrained import pretrained

if TYPE_CHECKING:
    from tuner.data.splits import Shape, Standard

SPARED = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)

__all__ = ["build_model", "count_parameters", "decays", "unfrozen"]


def build_model(
    config: RunConfig, shape: Shape, folder: Path | None = None, standard: Standard | None = None
) -> nn.Module:
    """Return an untrained model (n, *shape.input) -> (n, shape.outputs) of the family that `config` names.

    The outputs are logits for classification and one standardized target for regression. `folder` is where
    a family of the user's own, `module:attr`, and a backbone in a folder are looked for first. `standard` says how
    the examples are standardized, for a network that has to see them as they were.

    Raises:
        UsageError: there is no such family, or it can't take such data.
        UserCodeError: the user's own factory fails, or its model isn't what it has to be.
    """
    family = config.model.family
    if family in FAMILIES and (problem := misfit(family, shape.kind)):
        raise UsageError(problem)
    if family == PRETRAINED:
        return pretrained(config, shape, folder, standard)
    if family in FAMILIES:
        return _factory(family)(config, shape)
    if ":" in family:
        return build_custom(family, config, shape, folder)
    hint = nearest(family, tuple(FAMILIES))
    raise UsageError(f"model.family: unknown family {family!r}{hint}; one of {', '.join(FAMILIES)}, or module:attr")


def _factory(family: str) -> Callable[[RunConfig, Shape], nn.Module]:
    """Return the function of a family, from its file, which is read when the family is used."""
    found: Callable[[RunConfig, Shape], nn.Module] = getattr(import_module(f"{__name__}.{family}"), family)
    return found


def decays(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Return the trainable parameters that weight decay and L1 shrink, and all others.

    Shrunk are weights of two or more dimensions that belong to no embedding and no normalization; biases and
    gains are left alone ("no bias decay", He et al. 2019), and so are unfrozen blocks, whose weights are good
    as they came. Both lists keep the model's order, and a parameter shared by several layers comes once.
    """
    spared = {id(parameter) for parameter in unfrozen(model)} | {
        id(parameter)
        for module in model.modules()
        if isinstance(module, SPARED)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shrunk = [parameter for parameter in trainable if parameter.ndim >= 2 and id(parameter) not in spared]
    chosen = {id(parameter) for parameter in shrunk}
    return shrunk, [parameter for parameter in trainable if id(parameter) not in chosen]


def unfrozen(model: nn.Module) -> list[Parameter]:
    """Return the parameters of blocks that were trained before, and go on being trained at a lower learning rate."""
    blocks = [module for module in model.modules() if isinstance(module, Unfrozen)]
    return [parameter for block in blocks for parameter in block.parameters() if parameter.requires_grad]


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
