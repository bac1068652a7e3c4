"""A GPU that isn't there: where tensors would be is kept account of, and what a GPU refuses is refused; the numbers are
the processor's.

So a machine without one finds what would fail on one: tensors or generators of two devices in one operation, an array
of what is in a GPU's memory. Gradients' own operations, and other threads than the one that holds it, aren't seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
COPIES = {"copy_", "to", "cpu", "type_as", "_has_compatible_shallow_copy_type"}  # what may be told of two devices
INDEXES = {"__getitem__", "__setitem__", "index_put_"}  # whose indices may be the processor's
NUMPY = {"numpy", "__array__", "data_ptr"}
AUTOCAST = torch.autocast


class Generator(torch.Generator):
    """A generator whose numbers are the processor's, and that says where it was made for."""

    made_for: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        found = super().__new__(cls)
        found.made_for = GPU if torch.device(device).type == "cuda" else torch.device("cpu")
        return found

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.made_for


class Account(TorchFunctionMode):
    """Which storages would be in a GPU's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[int, StorageWeakRef] = {}  # a weak reference keeps a storage's number from being used again

    def is_there(self, x: Tensor) -> bool:
        return x.untyped_storage()._cdata in self.there

    def put(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        self.there[storage._cdata] = StorageWeakRef(storage)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        owner = getattr(func, "__self__", None)
        if func is torch.device or name == "_parse_to":
            return func(*args, **kwargs)
        if name == "__get__" and owner is Tensor.device:
            return GPU if self.is_there(args[0]) else func(*args)
        if name == "__get__" and owner is Tensor.is_cuda:
            return self.is_there(args[0])
        tensors = list(_tensors((args, kwargs)))
        inside = [x for x in tensors if self.is_there(x)]
        wanted = _device((args, kwargs))
        self._check(name, args, kwargs, tensors, inside, wanted)
        args, kwargs = _without(args), {key: _without(value) for key, value in kwargs.items()}
        if name in ("to", "cpu") and tensors and (wanted is not None or name == "cpu"):
            goes = wanted is not None and wanted.type == "cuda"
            found = func(*args, **kwargs)
            if goes != bool(inside):
                found = found.detach().clone().requires_grad_(found.requires_grad) if found.is_leaf else found.clone()
            return self._placed(found, goes)
        found = func(*args, **kwargs)
        if name == "__set__":
            return found
        return self._placed(found, wanted.type == "cuda" if wanted is not None else bool(inside))

    def _check(self, name: str, args: Any, kwargs: Any, tensors: Any, inside: Any, wanted: Any) -> None:
        if inside and name in NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        for generator in _generators((args, kwargs)):
            at = wanted or (GPU if inside else torch.device("cpu"))
            if generator.device.type != at.type:
                raise RuntimeError(f"{name}: expected a {at.type!r} generator and got one of {generator.device.type!r}")
        outside = [x for x in tensors if x.dim() and not any(x is other for other in inside)]
        if name in INDEXES and tensors and self.is_there(tensors[0]):
            outside = []
        if inside and outside and name not in COPIES and name != "__set__":
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu")

    def _placed(self, found: Any, goes: bool) -> Any:
        if goes:
            for x in _tensors(found):
                self.put(x)
        return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _generators(value: Any) -> Iterator[torch.Generator]:
    args, kwargs = value
    yield from (each for each in (*args, *kwargs.values()) if isinstance(each, torch._C.Generator))


def _device(value: Any) -> torch.device | None:
    args, kwargs = value
    for each in (*args, *kwargs.values()):
        if isinstance(each, torch.device):
            return each
        if isinstance(each, str) and each.split(":")[0] in ("cpu", "cuda"):
            return torch.device(each)
    return None


def _without(value: Any) -> Any:
    """Return arguments with the processor in place of the GPU."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(_without, value))
    is_gpu = (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.split(":")[0] == "cuda"
    )
    return torch.device("cpu") if is_gpu else value


def _autocast(_device: str, *args: Any, **kwargs: Any) -> Any:
    return AUTOCAST("cpu", *args, **kwargs)


@contextmanager
def pretended_gpu(patch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Hold a GPU that isn't there."""
    chance = {"state": torch.Generator().get_state()}
    stand_ins = {
        "is_available": lambda: True, "current_device": lambda: 0, "get_device_name": lambda *_: "Pretended",
        "is_bf16_supported": lambda **_: True, "is_initialized": lambda: True, "empty_cache": lambda: None,
        "get_device_properties": lambda *_: SimpleNamespace(total_memory=1 << 34),
        "get_rng_state": lambda *_: chance["state"].clone(),
        "set_rng_state": lambda state, *_: chance.update(state=state.clone()),
    }  # fmt: skip
    for name, stand_in in stand_ins.items():
        patch.setattr(torch.cuda, name, stand_in)
    patch.setattr(torch.backends.cudnn, "is_acceptable", lambda _: False)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch, "autocast", _autocast)
    with Account() as account:
        yield account
