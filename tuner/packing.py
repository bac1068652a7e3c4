"""Objects of torch's as one tensor of bytes, so that they can lie in a run's state beside its tensors.

Decides that only tensors and plain values are read back: what a file may hold that isn't trusted. Knows nothing of what
they are for.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor


def packed(value: Any) -> Tensor:
    """Return a value (tensors in dicts and lists, plain values) as bytes (n,).

    Raises:
        Exception: something in it can't be written, whatever that says.
    """
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def unpacked(content: Tensor, device: torch.device | str = "cpu") -> Any:
    """Return the value that `packed` was given.

    Raises:
        Exception: it holds more than tensors and plain values.
    """
    return torch.load(io.BytesIO(content.numpy().tobytes()), device, weights_only=True)
