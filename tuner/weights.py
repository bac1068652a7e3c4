"""A network's weights as a file, and what is to be said of them.

Decides how they are kept: safetensors, written whole or not at all. Knows nothing of how they came about.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from tuner.errors import DataError
from tuner.models import decays
from tuner.whole import whole


def sparsity(network: nn.Module) -> float:
    """Return the share of the weights (of the layers that l1 acts on) that are exactly zero."""
    weights = decays(network)[0]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def write_weights(network: nn.Module, path: Path | None) -> str:
    """Write a network's weights as safetensors, whole or not at all; return their checksum. Without a path they are
    only summed.

    Raises:
        OSError: they can't be written.
    """
    content = save({name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()})
    if path is not None:
        with whole(path) as file:
            file.write(content)
    return hashlib.sha256(content).hexdigest()


def read_weights(network: nn.Module, path: Path) -> None:
    """Load weights that `write_weights` wrote into a network of the same configuration.

    Raises:
        DataError: the file is missing, damaged, or of another model.
    """
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise DataError(f"{path}: the weights are missing; `tuner run` of the study makes them again") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is no readable safetensors file ({error})") from None
    except RuntimeError as error:
        raise DataError(
            f"{path}: doesn't fit the model; was its code changed? ({str(error).splitlines()[0]})"
        ) from None
