"""Where a network is trained, on the processor or on a GPU, and what a run draws its random numbers with there.

Decides what `training.device` stands for in the process that trains, and that what a GPU computes comes out the same
each time. What a machine has, asked by who trains nothing, is `machine`'s. Knows no network.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch

from tuner.config import RunConfig, Training
from tuner.data.splits import Splits
from tuner.defaults import is_small
from tuner.errors import UsageError

CPU = torch.device("cpu")
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it the order of its sums may change from run to run (cuBLAS)
UNSTEADY = ".*does not have a deterministic implementation.*"


class Gpu(NamedTuple):
    """A GPU: its name, and whether it multiplies bfloat16 numbers itself."""

    name: str
    bfloat16: bool


@dataclass(frozen=True, slots=True)
class Draws:
    """What a run's random numbers are drawn with, besides those of its network: the order of its rows and all that is
    done on the processor, and changes of batches on the device that they are on.
    """

    order: torch.Generator
    changes: torch.Generator

    @classmethod
    def of(cls, seed: int, device: torch.device = CPU) -> Self:
        """Return the generators of a seed; on the processor one does for both."""
        order = torch.Generator().manual_seed(seed)
        return cls(order, order if device == CPU else torch.Generator(device).manual_seed(seed))

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.changes.device


def gpu() -> Gpu | None:
    """Return the GPU that this process trains on, if there is one. Who has asked can't fork a process that uses it."""
    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False))


def lacking(training: Training, found: Gpu | None) -> str:
    """Return why nothing can be trained so where this GPU is, or none; nothing if it can."""
    if training.device == "cuda" and found is None:
        return "training.device: cuda needs a GPU that torch can use, and here is none; leave it out, or say auto"
    if found is not None and not found.bfloat16 and training.device != "cpu" and training.precision == "bfloat16":
        return f"training.precision: bfloat16 is more than {found.name} can; use float32"
    return ""


def device_of(config: RunConfig, splits: Splits) -> torch.device:
    """Return where a configuration is trained on some rows in this process.

    Raises:
        UsageError: it can't be, for want of a GPU or of what that can do.
    """
    if config.training.device == "cpu":
        return CPU
    if problem := lacking(config.training, found := gpu()):
        raise UsageError(problem)
    small = config.training.device == "auto" and is_small(config, splits.shape, len(splits.train))
    if found is None or small:
        return CPU
    os.environ.setdefault(*CUBLAS)
    return torch.device("cuda", torch.cuda.current_device())


def nearest(config: RunConfig, splits: Splits) -> torch.device:
    """Return where a configuration is trained, or the processor, where this machine can't: another one did."""
    return CPU if lacking(config.training, gpu()) else device_of(config, splits)


def name_of(device: torch.device) -> str:
    """Return what tells a device from others whose numbers are rounded otherwise."""
    return device.type if device.type == "cpu" else torch.cuda.get_device_name(device)


def memory_of(device: torch.device) -> int:
    """Return how many bytes of memory a GPU has."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def take_turn(slot: int) -> None:
    """Have this process use one of several GPUs, as its number has it: before anything uses one."""
    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(number) for number in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[slot % count]


@contextmanager
def steady(device: torch.device) -> Iterator[None]:
    """Have a GPU compute the same numbers each time meanwhile, where there is a way to; on a processor it does so.

    What has none is computed as it comes: a network of the user's own may hold such.
    """
    if device.type == "cpu":
        yield
        return
    filling: Any = torch.utils.deterministic  # which torch makes of another module, that mypy knows
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, filled = torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory
    split = torch.backends.cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]  # its backward sums in any order, if only warned
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNSTEADY, UserWarning)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory = False, False
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
            torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory = benchmark, filled
            torch.backends.cuda.enable_mem_efficient_sdp(split)
