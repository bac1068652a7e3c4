"""Where a network is trained, on the processor or on a GPU, and what a run draws its random numbers with there.

Decides what `training.device` stands for in the process that trains, and that what a GPU computes comes out the same
each time. What a machine has, asked by who trains nothing, is `machine`'s. Knows no network.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch

from tuner.config import RunConfig, Training
from tuner.data.splits import Splits
from tuner.defaults import is_small
from tuner.errors import UsageError

CPU = torch.device("cpu")
# without it the order of cuBLAS's sums may change from run to run, and torch refuses to call that steady
CUBLAS, STEADY = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
ATTENTION = ("flash", "mem_efficient", "cudnn")
UNSTEADY = ".*(does not have a deterministic implementation|defaults to a non-deterministic algorithm).*"


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
        # not the seed itself, which dropout's masks are drawn by on a GPU
        return cls(order, order if device == CPU else torch.Generator(device).manual_seed(2**32 + seed))

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.changes.device


def gpu() -> Gpu | None:
    """Return the GPU that this process trains on, if there is one. Who has asked can't fork a process that uses it."""
    if not torch.cuda.is_available():
        return None
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except torch.OutOfMemoryError:  # others use it
        pass
    except RuntimeError:  # torch has nothing for one that is so old, or so new
        return None
    return Gpu(torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False))


def lacking(training: Training, found: Gpu | None) -> str:
    """Return why nothing can be trained so where this GPU is, or none; nothing if it can."""
    if training.device == "cuda" and found is None:
        return "training.device: cuda needs a GPU that torch can use, and here is none; leave it out, or say auto"
    if found is not None and not found.bfloat16 and training.device != "cpu" and training.precision == "bfloat16":
        return f"training.precision: bfloat16 is more than {found.name} can; use float32, or training.device: cpu"
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
    if os.environ.get(CUBLAS) not in STEADY:
        os.environ[CUBLAS] = STEADY[0]
    return torch.device("cuda", torch.cuda.current_device())


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
def steady(device: torch.device, strict: bool) -> Iterator[None]:
    """Have a GPU compute the same numbers each time meanwhile; on a processor it does so.

    Where torch has no way to, that is an error if it is `strict`; else it is computed as it comes: code of the user's
    own may ask for such.
    """
    if device.type == "cpu":
        yield
        return
    filling: Any = torch.utils.deterministic  # which torch makes of another module, that mypy knows
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, filled = torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory
    cuda: Any = torch.backends.cuda
    # of attention's ways torch's own two are steady if it is strict, and only if; the third is left out
    ways = [(getattr(cuda, f"enable_{way}_sdp"), getattr(cuda, f"{way}_sdp_enabled")()) for way in ATTENTION]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNSTEADY, UserWarning)
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory = False, False
        for (enable, was), way in zip(ways, ATTENTION, strict=True):
            enable(was and strict and way != "cudnn")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory = benchmark, filled
            for enable, was in ways:
                enable(was)


def give_back() -> None:
    """Return what this process holds of a GPU's memory and doesn't use, to others that share it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # it is beyond use, as whoever uses it next is told
            torch.cuda.empty_cache()
