"""The values that data become: Shape, Part, Splits; and what a fitted encoder must be able to do.

Knows no file format and no model: `table` and `image` make these values, `training` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Task = Literal["classification", "regression"]
Kind = Literal["table", "image", "text", "sequence"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model factory needs to know of the data.

    `input` is the shape of one example without the batch: (columns,) for a table, (channels, height,
    width) for an image, (tokens,) for a text, (steps, channels) for a sequence. Of a table's columns the last
    `len(cardinalities)` hold category codes (0 = unknown or missing, then 1 .. cardinality - 1) and the others
    standardized numbers. A text is token numbers below `vocabulary`, whole numbers: 0 pads its end and occurs
    nowhere else. A sequence is standardized numbers; if it is `masked`, its last channel is 1 at a step that is there
    and 0 at the padding at its end, where every channel is 0.
    `outputs` is the number of classes, or 1 for regression. `classes` names them, in order. Of kind none are data that
    a training loop of the user's own brings: nothing is known of them.
    """

    kind: Kind | Literal["none"]
    task: Task
    input: tuple[int, ...]
    outputs: int
    cardinalities: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    vocabulary: int = 0
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """How a regression target was standardized: stored = (y - center) / scale, y its logarithm if `log`.

    For classification it is the identity and unused.
    """

    center: float = 0.0
    scale: float = 1.0
    log: bool = False

    def restore(self, stored: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return targets in the user's unit; an exponent is capped so that it stays finite."""
        y = np.asarray(stored, dtype=np.float64) * self.scale + self.center
        return np.exp(np.minimum(y, 700.0)) if self.log else y


@dataclass(frozen=True, slots=True)
class Standard:
    """How stored examples become model input: (x * unit - center) / scale, per channel.

    `unit` maps stored values to 0 .. 1 (1/255 for uint8 images). A table is stored standardized: unit 1,
    center (0,), scale (1,).
    """

    unit: float = 1.0
    center: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)


class Encoder(Protocol):
    """Turns raw examples into model input, as fitted on the training rows; saved as JSON, never pickled."""

    @property
    def shape(self) -> Shape:
        """The shape that the encoded examples have."""
        ...

    @property
    def standard(self) -> Standard:
        """How encoded examples become model input."""
        ...

    @property
    def target(self) -> Target:
        """How the target was standardized."""
        ...

    def encode(self, raw: Any) -> NDArray[Any]:
        """Return raw examples as an array (n, *shape.input): float32, uint8 for such images, int32 for texts.

        Raises:
            DataError: a column is missing or the examples have another shape.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Return everything fitted as plain JSON; `data.encoder_from_json` reads it back."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows, encoded: `x` (n, *input), `y` (n,) int64 class numbers or float32 standardized targets."""

    x: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class Splits:
    """The data of a study. `test` is read by the one final evaluation and by nothing else.

    `fingerprint` is the SHA-256 of all rows and of how they are split, `test_hash` that of the test rows
    alone ("" without a test set). `notes` says what was found and done, a sentence each.
    """

    train: Part
    val: Part
    test: Part | None
    encoder: Encoder
    fingerprint: str
    test_hash: str
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape of the encoded examples."""
        return self.encoder.shape

    def summary(self) -> Mapping[str, Any]:
        """Return what a person wants to know first, as plain values."""
        return {
            "kind": self.shape.kind, "task": self.shape.task, "input": list(self.shape.input),
            "outputs": self.shape.outputs, "train": len(self.train), "val": len(self.val),
            "test": len(self.test) if self.test else 0,
        }  # fmt: skip
