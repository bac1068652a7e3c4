"""No data: those of a training loop of the user's own (`data.source: loop`), of which tuner sees no row.

Decides what stands in the place of rows that aren't there: parts without any, so that what goes over rows does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tuner.config import LOOP, Data
from tuner.data.splits import Part, Shape, Splits, Standard, Target, Task
from tuner.errors import DataError, UsageError

KIND: Final = "none"
OWN = "the data are the training loop's own, which alone knows how examples become a model's input"
NEEDS_ROWS = ("kind", "target", "text", "tokens", "length", "id", "time", "image_size")


@dataclass(frozen=True, slots=True)
class Nothing:
    """The encoder of no examples."""

    task: Task
    standard: Standard = field(default_factory=Standard)
    target: Target = field(default_factory=Target)

    @property
    def shape(self) -> Shape:
        """No shape that a network could have."""
        return Shape(KIND, self.task, (), 0)

    def encode(self, raw: Any) -> NDArray[Any]:
        raise DataError(OWN)

    def to_json(self) -> dict[str, Any]:
        return {"kind": KIND, "task": self.task}


def read_encoder(document: Mapping[str, Any]) -> Nothing:
    """Return the encoder that `Nothing.to_json` wrote.

    Raises:
        ValueError: it is none.
    """
    if document["task"] not in ("classification", "regression"):
        raise ValueError(f"task is {document['task']!r}")
    return Nothing(document["task"])


def absent(data: Data, refit: bool = False) -> Splits:
    """Return splits without rows.

    Raises:
        UsageError: a key asks for something of the rows.
    """
    given = [name for name in NEEDS_ROWS if getattr(data, name) is not None]
    given += [f"split.{name}" for name in ("folds", "groups", "time") if getattr(data.split, name) is not None]
    if given or refit:
        key = f"data.{given[0]}" if given else "training.refit"
        raise UsageError(
            f"{key}: needs rows that tuner reads, and data.source {LOOP} says that the loop brings its own"
        )
    parts = [Part(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)) for _ in range(2)]
    notes = (
        "the data are the training loop's own: what it reports is taken as it is, and no test set is kept aside",
        "confirmation trains with fresh seeds; rows are divided anew only if the loop does so by run.seed",
    )
    return Splits(parts[0], parts[1], None, Nothing(data.task or "classification"), LOOP, "", notes)
