"""A family of the user's own: `module:attr` names a factory (config, shape) -> nn.Module.

Decides how it is imported and what its model is held to before any training starts. Whatever goes wrong
in it becomes one line that names the factory, the exception and the user's own file and line. Knows
nothing of the families that come with tuner.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuner.config import RunConfig
from tuner.errors import UserCodeError, nearest

if TYPE_CHECKING:
    from tuner.data.splits import Shape

FOREIGN = ("<frozen", *(f"{Path(file).parent}{os.sep}" for file in (__file__, torch.__file__, importlib.__file__)))


def build_custom(name: str, config: RunConfig, shape: Shape, folder: Path | None = None) -> nn.Module:
    """Return the model that the factory `name` (module:attr) makes, checked on two examples of zeros.

    `folder` becomes the first place where modules are looked for, and stays on `sys.path` so that the
    user's code may import its neighbours later, too. The check leaves torch's generator as it was.

    Raises:
        UserCodeError: the factory can't be imported or called with (config, shape), it or its model raises, or
            what it returns isn't an nn.Module with trainable parameters that maps (2, *shape.input) to
            floats (2, shape.outputs).
    """
    factory = _find(name, folder)
    _check_signature(name, factory, config, shape)
    with _blaming(name, factory):
        model = factory(config, shape)
    if not isinstance(model, nn.Module):
        raise _fault(name, f"returned a {type(model).__name__}, not a torch.nn.Module", _definition(factory))
    _check_model(name, factory, model, shape)
    return model


def _find(name: str, folder: Path | None) -> Callable[..., Any]:
    module_name, _, attr = name.partition(":")
    if folder is not None and str(folder.resolve()) != sys.path[0]:
        sys.path.insert(0, str(folder.resolve()))
        importlib.invalidate_caches()
    with _blaming(name, None):
        module = importlib.import_module(module_name)
    found = getattr(module, attr, None)
    where = getattr(module, "__file__", None) or ""
    if found is None:
        hint = nearest(attr, [word for word in vars(module) if not word.startswith("_")])
        raise _fault(name, f"AttributeError: the module {module_name} has no {attr}{hint}", where)
    if not callable(found):
        raise _fault(name, f"TypeError: {attr} is a {type(found).__name__}, not a function (config, shape)", where)
    return found  # type: ignore[no-any-return]


def _check_signature(name: str, factory: Callable[..., Any], config: RunConfig, shape: Shape) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # written in C: the call will tell
        return
    try:
        signature.bind(config, shape)
    except TypeError as error:
        reason = f"TypeError: it is called with (config, shape) but takes {signature}: {error}"
        raise _fault(name, reason, _definition(factory)) from error


def _check_model(name: str, factory: Callable[..., Any], model: nn.Module, shape: Shape) -> None:
    training = model.training
    with _blaming(name, factory), torch.random.fork_rng(devices=[]), torch.no_grad():
        output = model.eval()(torch.zeros(2, *shape.input))
    model.train(training)
    expected = (2, shape.outputs)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = f"{output.dtype} numbers" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise _fault(name, f"its model returns {got}, not a tensor of floats", _definition(factory))
    if output.shape != expected:
        reason = f"its model maps {(2, *shape.input)} to {tuple(output.shape)}, not to {expected}"
        raise _fault(name, reason, _definition(factory))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise _fault(name, "its model has no trainable parameter", _definition(factory))


@contextmanager
def _blaming(name: str, factory: Callable[..., Any] | None) -> Iterator[None]:
    """Turn whatever the user's code raises into one line; `sys.exit` at import is a mistake like any other."""
    try:
        yield
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split())
        where = _place(error) or (_definition(factory) if factory else "")
        raise _fault(name, f"{type(error).__name__}: {words}".removesuffix(": "), where) from error


def _fault(name: str, reason: str, where: str) -> UserCodeError:
    return UserCodeError(f"model.family {name}: {reason}" + (f" ({where})" if where else ""))


def _place(error: BaseException) -> str:
    """Return file:line of the innermost frame that is the user's, or nothing if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(FOREIGN)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""


def _definition(factory: Callable[..., Any]) -> str:
    """Return file:line of where the factory is defined, or nothing where Python doesn't know."""
    try:
        return f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
    except (OSError, TypeError):
        return ""
