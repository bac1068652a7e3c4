"""What several tests make by hand in place of what is fitted to data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tuner.data.splits import Shape, Standard, Target


@dataclass(frozen=True)
class Fitted:
    """An encoder of made data: nothing was fitted but the shape."""

    shape: Shape
    standard: Standard = field(default_factory=Standard)
    target: Target = field(default_factory=Target)

    def encode(self, raw: Any) -> Any:
        return raw

    def to_json(self) -> dict[str, Any]:
        return {}
