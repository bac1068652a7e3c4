"""What a peer's best reaches on the test rows while it searches, written down where the peer doesn't look."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return what every way is told: the task, when its clock began, until when it may go on, and where it writes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--began", type=float, default=time.time(), help="seconds since 1970")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seen", type=Path, default=Path("seen.jsonl"))
    return parser


@dataclass
class Seen:
    """Of a process: the best validation value so far, with the test value of the very same weights.

    Values are better the larger they are. Only what is better than all before is looked at, so looking costs nothing
    to speak of.
    """

    path: Path
    best: float = float("-inf")
    waiting: list[dict[str, float]] = field(default_factory=list)

    def look(self, val: float, test: Callable[[], float]) -> None:
        """See an epoch; what it reaches counts from now on."""
        self.glance(val, test)
        self.count()

    def glance(self, val: float, test: Callable[[], float]) -> None:
        """See an epoch; what it reaches counts from the next `count` on."""
        if val > max([self.best, *(each["val"] for each in self.waiting)]):
            self.waiting.append({"val": val, "test": test()})

    def count(self, does: bool = True) -> None:
        """Let what was glanced at count, or forget it."""
        if does and self.waiting:
            last = self.waiting[-1]
            self.best = last["val"]
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"at": time.time(), **last}) + "\n")
        self.waiting.clear()
