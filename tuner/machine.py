"""What this machine is, as far as the figures of a trial depend on it: versions, the processor, the GPU.

Decides how a process that trains nothing learns of a GPU: from another one. Knows no study.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.config import Training
from tuner.errors import UsageError
from tuner.identity import this_code, this_version
from tuner.own_code import code_of
from tuner.supervising import try_apart

if TYPE_CHECKING:  # torch takes a second to load, which who has no GPU needn't wait for
    from tuner.devices import Gpu

LOG = logging.getLogger("tuner")
LIBRARIES = ("torch", "optuna", "numpy", "scikit-learn", "pandas")
DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/dxg", "/dev/kfd")  # NVIDIA's, in Windows' Linux, AMD's
PATIENCE = 60.0  # seconds for a GPU to answer in


@cache
def gpu() -> Gpu | None:
    """Return this machine's GPU, if torch can use one. It is asked in a process of its own: one that has asked can't
    fork workers that use it.
    """
    if not any(map(os.path.exists, DRIVERS)):
        return None
    import torch

    from tuner import devices

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return devices.gpu()
    found = try_apart(lambda: json.dumps(devices.gpu()), PATIENCE)
    if not isinstance(found, str):  # who has once asked torch whether there is one can't be forked so either
        code = "import json; from tuner.devices import gpu; print(json.dumps(gpu()))"
        words = [sys.executable, "-P", "-c", code]
        with suppress(subprocess.TimeoutExpired):
            found = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout
    try:
        told = json.loads(str(found))
    except ValueError:
        LOG.warning("whether torch can use a GPU here can't be told: asking it failed; it is taken for none")
        return None
    return None if told is None else devices.Gpu(*told)


def check_gpu(training: Training) -> None:
    """Refuse what can't be trained on this machine.

    Raises:
        UsageError: it asks for a GPU, or for what this one can't do.
    """
    if problem := lacking(training):
        raise UsageError(problem)


def lacking(training: Training) -> str:
    """Return why nothing can be trained so on this machine; nothing if it can."""
    found = gpu() if training.device != "cpu" else None
    if found is None and training.device != "cuda":
        return ""
    from tuner import devices

    return devices.lacking(training, found)


def versions_of(names: Sequence[str], folder: Path, on_gpu: bool) -> dict[str, str]:
    """Return of which versions of what a study is made, and by what it is computed: a trial is the same byte for byte
    where they are. `names` are those of the user's own code; the GPU counts if some trials are trained `on_gpu`.
    """
    found = gpu() if on_gpu else None
    return {
        "python": platform.python_version(), "tuner": this_version(), "tuner's code": this_code(),
        **{name: version(name) for name in LIBRARIES}, "processor": _processor(),
        **({} if found is None else {"GPU": found.name}), **code_of(names, folder),
    }  # fmt: skip


def versions_here() -> dict[str, str]:
    """Return the versions of what has to be the same on all machines that train for one study."""
    return {"tuner": this_version(), "tuner's code": this_code(), "torch": version("torch"), "numpy": version("numpy")}


def _processor() -> str:
    """Return what numbers are computed by: libraries choose their instructions by it, and round otherwise."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()}, {line.partition(':')[2].strip()}"
    return ", ".join(filter(None, (platform.machine(), platform.processor())))
