"""Features: what the frozen part of a network makes of the examples, computed once and kept in files.

Decides when features are kept and how several workers share the work of computing them: rows are cut into chunks, and
whoever locks a chunk first computes it. A lock dies with its process, and nobody reads a chunk before it is whole.
Knows the networks that have a frozen part by what they offer alone, and nothing of how the rest is trained.

Features of augmented examples can't be drawn anew for each batch. Instead there are a few views of every training
example, augmented at full strength; a batch takes one of them with a probability of `augmentation.strength`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.augment import augmentation
from tuner.augment.image import CHANGES
from tuner.config import RunConfig, own_code
from tuner.data.splits import Encoder, Part, Shape, Splits, Standard, Target
from tuner.devices import CPU, Draws, device_of, name_of
from tuner.errors import PassingError, StorageError, no_room
from tuner.identity import this_code, this_version
from tuner.models.pretrained import Transfer
from tuner.own_code import code_of

VIEWS = 2
CHUNK = 128
MOST_BYTES, SMALL_BYTES = 4 << 30, 256 << 20
DONE = b"\1"
Features = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Feed:
    """What is trained, and on which examples.

    `views` are the training examples' features, each augmented once; None says that `splits` are no
    features, to be augmented as they are drawn.
    """

    model: nn.Module
    splits: Splits
    views: tuple[Features, ...] | None = None

    def fetch(self, strength: float, draws: Draws) -> Callable[[Tensor], Tensor] | None:
        """Return rows -> features of training examples on the device of the draws, or None if these are no features.

        With a probability of `strength` an example's features are those of one of its views.
        """
        if self.views is None:
            return None
        clean, views = torch.from_numpy(self.splits.train.x), [torch.from_numpy(view) for view in self.views]

        def rows_of(rows: Tensor) -> Tensor:
            x = clean[rows]
            if views and strength > 0:
                drawn = (torch.rand(len(rows), generator=draws.order) * (len(views) / strength)).long()
                for number, view in enumerate(views):
                    x[drawn == number] = view[rows[drawn == number]]
            return x.to(draws.device).float()

        return rows_of


@dataclass(frozen=True, slots=True)
class FeatureEncoder:
    """The encoder of splits that hold features: what it tells of them is the original's, but for their shape."""

    original: Encoder
    shape: Shape
    standard: Standard = field(default_factory=Standard)

    @property
    def target(self) -> Target:
        """How the target was standardized."""
        return self.original.target

    def encode(self, raw: Any) -> NDArray[Any]:
        return self.original.encode(raw)

    def to_json(self) -> dict[str, Any]:
        return self.original.to_json()


def with_features(
    model: nn.Module, splits: Splits, config: RunConfig, cache: Path | None = None, own: Path | None = None
) -> Feed:
    """Return the trainable part of a network with a frozen one, and the splits' features in place of the examples.

    The features are kept in `cache`, which processes may share; without it, for this result alone. Any other network,
    and one whose features would be too large to keep, comes back as it is, with its examples. `own` is the folder of
    the user's own code.

    Raises:
        StorageError: the disk has no room for the features.
        UsageError: there is no such device here as they are to be computed on.
    """
    if not isinstance(model, Transfer):
        return Feed(model, splits)
    device = device_of(config, splits)
    rows = _Rows.of(splits, shared=_are_shared(model, splits, config))
    with _place(cache) as folder:
        name = folder / _name(model, splits, rows, config, own, device)
        paths = [name.with_suffix(f".{view}") for view in range(1 + (VIEWS if config.augmentation.strength > 0 else 0))]
        wanted = _bytes_wanted(model, splits, rows, paths)
        if wanted > (MOST_BYTES // 4 if rows.shared else MOST_BYTES):
            return Feed(model, splits)
        _refuse_full(paths, wanted)
        clean, *views = (
            _of_view(model, splits, rows, config, view, path, own, device) for view, path in enumerate(paths)
        )
    n = len(splits.train)
    train = replace(splits.train, x=rows.pick(clean, slice(n)))
    val = replace(splits.val, x=rows.pick(clean, slice(n, None)))
    shape = Shape("table", splits.shape.task, model.front.shape, splits.shape.outputs, (), splits.shape.classes)
    seen = replace(splits, train=train, val=val, test=None, encoder=FeatureEncoder(splits.encoder, shape))
    return Feed(model.tail, seen, tuple(rows.pick(view, slice(n)) for view in views))


def _are_shared(model: Transfer, splits: Splits, config: RunConfig) -> bool:
    """Tell whether other divisions of the rows need the features too, so that they are best kept in the source's order.

    A part of them is then copied into memory, so for the confirmation alone only small ones are.
    """
    if config.data.split.folds is not None or config.training.refit:
        return True
    size = 2 * prod(model.front.shape) * (len(splits.train) + len(splits.val))
    return config.budget.confirm and size <= SMALL_BYTES


@contextmanager
def _place(cache: Path | None) -> Iterator[Path]:
    """Hold the folder for the files; what is mapped of a folder that goes stays readable."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The training and validation rows, and where in a file the features of each lie.

    `order` is the row at each place and `places` the place of each row, rows counted through the training part and
    then the validation part. Where folds, or what is trained on in the end, share the features, these lie in the order
    of the source, each once; so a fold's own order must not matter.
    """

    parts: tuple[Part, Part]
    order: NDArray[np.int64]
    places: NDArray[np.int64]
    shared: bool

    @classmethod
    def of(cls, splits: Splits, shared: bool) -> _Rows:
        parts = (splits.train, splits.val)
        if shared:
            numbers = np.concatenate([part.rows for part in parts])
            _, order, places = np.unique(numbers, return_index=True, return_inverse=True)
        else:
            order = places = np.arange(sum(map(len, parts)))
        return cls(parts, order, places, shared)

    def examples(self, chunk: int) -> NDArray[Any]:
        """Return the examples of a chunk."""
        train, val = self.parts
        rows = self.order[chunk * CHUNK : (chunk + 1) * CHUNK]
        found = np.empty((len(rows), *train.x.shape[1:]), train.x.dtype)
        first = rows < len(train)
        found[first], found[~first] = train.x[rows[first]], val.x[rows[~first] - len(train)]
        return found

    def chunks(self, training: bool) -> list[int]:
        """Return the chunks there are, or those that hold training rows."""
        places = self.places[: len(self.parts[0])] if training else self.places
        return sorted(set((places // CHUNK).tolist()))

    def pick(self, features: Features, part: slice) -> Features:
        """Return the features of a part in its own order; where the file has that order, nothing is copied."""
        return features[self.places[part]] if self.shared else features[part]


def _name(
    model: Transfer, splits: Splits, rows: _Rows, config: RunConfig, own: Path | None, device: torch.device
) -> str:
    """Return a name for features: the same whenever they are."""
    change = [config.augmentation.flip, config.augmentation.function, list(CHANGES)]
    settings = [config.model.unfrozen, config.model.resolution, *change]
    versions = [torch.__version__, this_version(), this_code(), code_of(own_code(config), own or Path())]
    versions += [] if device == CPU else [name_of(device)]
    stored = [splits.encoder.standard.unit, CHUNK, splits.train.x.shape[1:], str(splits.train.x.dtype)]
    about = [model.backbone.sha256, *settings, *versions, *stored]
    found = hashlib.sha256(json.dumps(about).encode())
    for chunk in rows.chunks(training=False):
        found.update(np.ascontiguousarray(rows.examples(chunk)).data)
    return found.hexdigest()[:32]


def _bytes_wanted(model: Transfer, splits: Splits, rows: _Rows, paths: Sequence[Path]) -> int:
    """Return how many bytes the files will take in all."""
    per_row = 2 * prod(model.front.shape)
    if splits.shape.kind == "text" and len(model.front.shape) > 1:  # what is padding takes no place
        there = sum(int(np.count_nonzero(part.x)) for part in rows.parts) / len(rows.places)
        per_row = round(2 * model.front.shape[-1] * there)
    return per_row * len(rows.order) * len(paths)


def _refuse_full(paths: Sequence[Path], wanted: int) -> None:
    """Refuse what would fill the disk, before hours are spent on a part of it."""
    folder = paths[0].parent
    free = shutil.disk_usage(folder).free
    there = sum(512 * path.stat().st_blocks for path in paths if path.exists())
    if wanted > free + there:
        raise StorageError(
            f"{folder}: the features of the network's frozen part need {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB "
            "are free; make room, or choose another --studies-dir"
        )


def _of_view(
    model: Transfer, splits: Splits, rows: _Rows, config: RunConfig, view: int, path: Path, own: Path | None,
    device: torch.device,
) -> Features:  # fmt: skip
    """Return the features of clean examples (view 0) or of augmented ones; every run draws the same changes."""
    change = augmentation(config.replace({"augmentation.strength": 1.0}), splits.shape, own) if view else None
    front = model.front.to(device)

    @torch.no_grad()
    def compute(chunk: int) -> Features:
        x = torch.from_numpy(rows.examples(chunk))
        x = x.long() if splits.shape.kind == "text" else x.float() * splits.encoder.standard.unit
        if change is not None:
            x = change(x, torch.Generator().manual_seed((view << 24) + chunk))  # of a seed 32 bits count
        found: Features = front.features(x.to(device)).cpu().numpy()
        return found

    return _filled(path, (len(rows.order), *model.front.shape), rows.chunks(training=view > 0), compute)


def _filled(path: Path, shape: tuple[int, ...], chunks: Sequence[int], compute: Callable[[int], Features]) -> Features:
    """Return the features in a file, once all wanted chunks are whole; those that nobody computes are computed.

    Beside the file lies another with a byte a chunk, which says that it is whole and which carries its lock.

    Raises:
        StorageError: they can't be written.
    """
    try:
        return _made(path, shape, chunks, compute)
    except OSError as error:
        kind = PassingError if no_room(error) else StorageError
        raise kind(f"{path}: features can't be kept ({error.strerror or error})") from error


def _made(path: Path, shape: tuple[int, ...], chunks: Sequence[int], compute: Callable[[int], Features]) -> Features:
    count, size = -(-shape[0] // CHUNK), 2 * prod(shape)
    beside = path.with_name(f"{path.name}.done")
    if not path.exists():  # somebody made room
        beside.unlink(missing_ok=True)
    with _open(path, size) as file, _open(beside, count) as done:
        for waits in (False, True):  # first what is free, then what others were at, who may have died
            for chunk in chunks:
                if os.pread(done, 1, chunk) != DONE and _lock(done, chunk, waits):
                    if os.pread(done, 1, chunk) != DONE:
                        _write(file, chunk, compute(chunk))
                        os.fsync(file)  # a run after a power cut must not take a hole for features
                        os.pwrite(done, DONE, chunk)
                    fcntl.lockf(done, fcntl.LOCK_UN, 1, chunk)
    return np.memmap(path, np.float16, "c", shape=shape)


@contextmanager
def _open(path: Path, size: int) -> Iterator[int]:
    """Hold a file of a size open, made if it isn't there: all of it a hole at first."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(handle, size)
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, chunk: int, waits: bool) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB), 1, chunk)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _write(handle: int, chunk: int, features: Features) -> None:
    """Write a chunk's features; of states of tokens those at the end that are zero stay a hole."""
    start = chunk * CHUNK * features[0].nbytes
    if features.ndim != 3:
        _write_all(handle, np.ascontiguousarray(features), start)
        return
    for row, states in enumerate(features):
        used = np.flatnonzero(states.any(1))
        length = int(used[-1]) + 1 if len(used) else 0
        if length:
            _write_all(handle, np.ascontiguousarray(states[:length]), start + row * states.nbytes)


def _write_all(handle: int, array: Features, start: int) -> None:
    content = array.reshape(-1).view(np.uint8).data
    while len(content):  # the last write that a full disk takes is a part of what was asked, without an error
        written = os.pwrite(handle, content, start)
        content, start = content[written:], start + written
