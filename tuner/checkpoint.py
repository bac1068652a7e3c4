"""A run's state as a file, from which a run that was cut off goes on as if nothing had been.

Decides how it is kept: tensors as safetensors behind a checksum of all that follows, on the disk before it is in place,
the one before it beside it. What doesn't hold its checksum, or is of another run, counts as not there: then the run
begins at its start and comes out the same, later. Knows nothing of what the tensors are, nor of who goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from tuner.config import RunConfig, min_epochs, own_code
from tuner.curve import Curve, Epoch
from tuner.data.splits import Splits
from tuner.faults import point
from tuner.identity import this_code, this_version
from tuner.own_code import code_of
from tuner.whole import whole

if TYPE_CHECKING:  # torch takes a second to load, which whoever only judges hasn't
    from torch import Tensor

FOLDER = "checkpoints"
MAGIC = b"tuner checkpoint 1\n"
CHECKSUM = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class State:
    """A run after its newest epoch, of the `budget` that it has: all epochs so far, and what the next one depends on;
    `facts` are plain JSON.
    """

    budget: int
    epochs: tuple[Epoch, ...]
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def key_of(config: RunConfig, seed: int, splits: Splits, folder: Path) -> str:
    """Return what tells a run from every other one, also from that of other versions, or of code of the user's own
    that was changed since; `folder` is that of the user's code.
    """
    import torch

    from tuner.devices import device_of, name_of

    told = {name: value for name, value in config.flat().items() if not name.startswith("budget.")}
    code = code_of(own_code(config), folder)
    where = name_of(device_of(config, splits))  # on another device it would come out otherwise
    text = json.dumps(
        [told, where, seed, torch.__version__, this_version(), this_code(), code], sort_keys=True, default=str
    )
    rows = (splits.train.rows, splits.val.rows)
    return hashlib.sha256(text.encode() + b"".join(part.tobytes() for part in rows)).hexdigest()


def write_state(state: State, key: str, path: Path) -> None:
    """Put a state in place of the one that is there, which is kept as the one before.

    Raises:
        OSError: it can't be written; then one that was there still is.
    """
    from safetensors.torch import save

    point("before_checkpoint")
    curve = Curve(state.budget, min_epochs(state.budget), 0.0, 0, 0, state.epochs)
    about = {"key": key, "curve": curve.to_json(), "facts": dict(state.facts)}
    content = save(dict(state.tensors), {"state": json.dumps(about)})
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole(path) as file:
        file.write(MAGIC + hashlib.sha256(content).digest())
        file.write(content)
        point("in_checkpoint")
        with suppress(FileNotFoundError):
            os.replace(path, before(path))
    point("after_checkpoint")


def read_state(key: str, path: Path) -> State | None:
    """Return the newest state that is whole and of this run, or None."""
    for place in (path, before(path)):
        with suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
            return _parsed(place.read_bytes(), key)
    return None


def state_path(folder: Path, *of: object) -> Path:
    """Return where the state of a run of a study lies while it is under way; `of` names the run within the study."""
    return folder / FOLDER / "-".join(str(each).replace(":", "-") for each in of)


def before(path: Path) -> Path:
    """Return where the state before the newest one lies."""
    return path.with_name(path.name + ".before")


def forget_state(path: Path) -> None:
    """Remove a run's states: it has ended."""
    for place in (path, before(path)):
        place.unlink(missing_ok=True)


def forget_states(folder: Path) -> None:
    """Remove the states of all runs of a study: none is under way."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _parsed(content: bytes, key: str) -> State:
    """Read what `write_state` wrote.

    Raises:
        ValueError: it isn't whole, or of another run.
    """
    from safetensors.torch import load

    start = len(MAGIC) + CHECKSUM
    checksum, held = content[len(MAGIC) : start], memoryview(content)[start:]
    if not content.startswith(MAGIC) or hashlib.sha256(held).digest() != checksum:
        raise ValueError("its checksum doesn't hold")
    length = int.from_bytes(held[:8], "little")  # of safetensors' header, which is JSON
    about = json.loads(json.loads(bytes(held[8 : 8 + length]))["__metadata__"]["state"])
    if about["key"] != key:
        raise ValueError("it is of another run")
    curve = Curve.from_json(about["curve"])
    return State(curve.budget, curve.epochs, load(bytes(held)), about["facts"])
