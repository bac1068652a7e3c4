"""A family of the user's own: `module:attr` names a factory (config, shape) -> nn.Module.

Decides what its model is held to before any training starts. Whatever goes wrong in it becomes one line
that names the factory, the exception and the user's own file and line. Knows
nothing of the families that come with tuner.

So weights of any origin can be started from: what the factory freezes (`requires_grad_(False)`) is left as it is. With
`model: {family: my:net, options: {weights: body.safetensors}}` beside `my.py`:

    def net(config, shape):
        body = Body(shape.input)
        body.load_state_dict(load_file(Path(__file__).with_name(config.model.options["weights"])))
        return nn.Sequential(body.requires_grad_(False), nn.Linear(body.units, shape.outputs))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.own_code import blaming, check_signature, definition, fault, find_own

if TYPE_CHECKING:
    from tuner.data.splits import Shape


def build_custom(name: str, config: RunConfig, shape: Shape, folder: Path | None = None) -> nn.Module:
    """Return the model that the factory `name` (module:attr) makes, checked on two examples of zeros.

    `folder` becomes the first place where modules are looked for, and stays on `sys.path` so that the
    user's code may import its neighbours later, too. The check leaves torch's generator as it was.

    Raises:
        UserCodeError: the factory can't be imported or called with (config, shape), it or its model raises, or
            what it returns isn't an nn.Module with trainable parameters that maps (2, *shape.input) to
            floats (2, shape.outputs).
    """
    label = f"model.family {name}"
    factory = find_own(name, folder, label, "a function (config, shape)")
    check_signature(label, factory, ("config", "shape"))
    with blaming(label, definition(factory)):
        model = factory(config, shape)
    if not isinstance(model, nn.Module):
        raise fault(label, f"returned a {type(model).__name__}, not a torch.nn.Module", definition(factory))
    _check_model(label, factory, model, shape)
    return model


def _check_model(label: str, factory: Callable[..., Any], model: nn.Module, shape: Shape) -> None:
    training = model.training
    with blaming(label, definition(factory)), torch.random.fork_rng(devices=[]), torch.no_grad():
        output = model.eval()(_examples(shape))
    model.train(training)
    expected = (2, shape.outputs)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = f"{output.dtype} numbers" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise fault(label, f"its model returns {got}, not a tensor of floats", definition(factory))
    if output.shape != expected:
        reason = f"its model maps {(2, *shape.input)} to {tuple(output.shape)}, not to {expected}"
        raise fault(label, reason, definition(factory))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise fault(label, "its model has no trainable parameter", definition(factory))


def _examples(shape: Shape) -> Tensor:
    """Return two examples of zeros; of texts and masked sequences the first token or step is there."""
    x = torch.zeros(2, *shape.input, dtype=torch.int64 if shape.kind == "text" else torch.float32)
    if shape.kind == "text":
        x[:, 0] = 1
    elif shape.masked:
        x[:, 0, -1] = 1
    return x
