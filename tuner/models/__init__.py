"""Model families: from a configuration and the data's shape to a network that isn't trained yet.

Decides which factory serves which family, and which weights a penalty may shrink. Weights start as torch's
own layers start them, drawn from torch's global generator on the CPU: the same `torch.manual_seed` gives the
same weights, byte for byte. Knows nothing of losses, of optimizers or of how a model is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import Parameter

from tuner.config import RunConfig
from tuner.errors import UsageError, nearest
from tuner.models.cnn import cnn
from tuner.models.custom import build_custom
from tuner.models.mlp import mlp

if TYPE_CHECKING:
    from tuner.data.splits import Shape

MODELS: dict[str, Callable[[RunConfig, Shape], nn.Module]] = {"mlp": mlp, "cnn": cnn}

SPARED = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)

__all__ = ["MODELS", "build_model", "count_parameters", "decays"]


def build_model(config: RunConfig, shape: Shape, folder: Path | None = None) -> nn.Module:
    """Return an untrained model (n, *shape.input) -> (n, shape.outputs) of the family that `config` names.

    The outputs are logits for classification and one standardized target for regression. `folder` is where
    a family of the user's own, `module:attr`, is looked for first.

    Raises:
        UsageError: there is no such family, or it can't take such data.
        UserCodeError: the user's own factory fails, or its model isn't what it has to be.
    """
    family = config.model.family
    if family in MODELS:
        return MODELS[family](config, shape)
    if ":" in family:
        return build_custom(family, config, shape, folder)
    hint = nearest(family, tuple(MODELS))
    raise UsageError(f"model.family: unknown family {family!r}{hint}; one of {', '.join(MODELS)}, or module:attr")


def decays(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Return the trainable parameters that weight decay and L1 shrink, and all others.

    Shrunk are weights of two or more dimensions that belong to no embedding and no normalization; biases and
    gains are left alone ("no bias decay", He et al. 2019). Both lists keep the model's order,
    and a parameter shared by several layers comes once.
    """
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, SPARED)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shrunk = [parameter for parameter in trainable if parameter.ndim >= 2 and id(parameter) not in spared]
    chosen = {id(parameter) for parameter in shrunk}
    return shrunk, [parameter for parameter in trainable if id(parameter) not in chosen]


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
