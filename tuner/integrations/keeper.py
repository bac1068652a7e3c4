"""What every adapter does: report an epoch, keep what is best, stop, and put the best back.

Knows no framework: how weights are copied out of a model and put back into it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from tuner.errors import UsageError, nearest
from tuner.watching import Watch

LOG = logging.getLogger("tuner")
RULES = ("epochs", "null_loss", "overfit", "plateau", "trial", "run")  # what a Watch may be told

Told = float | Mapping[str, float]


class Keeper:
    """Keeps the best epoch of a run that is watched."""

    def __init__(self, watch: Watch | None, restore: bool, rules: Mapping[str, Any]) -> None:
        if unknown := sorted(set(rules) - set(RULES)):
            hint = f"{nearest(unknown[0], RULES)}; there are {', '.join(RULES)}"
            raise UsageError(f"OverfitStopping: unknown rule {unknown[0]!r}{hint}")
        if watch is not None and rules:
            raise UsageError(f"OverfitStopping: {', '.join(rules)} belongs to the watch that is given, too")
        self.given, self.rules, self.restore = watch, dict(rules), restore
        self.watch: Watch | None = watch
        self.kept: Any = None

    def begin(self, epochs: int) -> None:
        """Begin a run of at most so many epochs; each has a watch of its own, unless one was given."""
        self.watch = self.given or Watch(**{"epochs": max(1, epochs), **self.rules})
        self.kept = None

    def see(self, train: Told, val: Told, copy: Callable[[], Any]) -> bool:
        """Report an epoch, its losses or these beside metrics; return whether the run is over. `copy` makes one of the
        weights.
        """
        assert self.watch is not None, "begin() comes first"
        if self.watch.over:
            return True
        over = self.watch.report(train, val)
        if self.restore and self.watch.newest_is_best:
            self.kept = copy()
        if over:
            LOG.info("%s", self.watch.reason)
        return over

    def end(self, put_back: Callable[[Any], Any]) -> None:
        """Put the weights of the best epoch back, unless they are there."""
        if self.watch is not None and self.kept is not None and not self.watch.newest_is_best:
            put_back(self.kept)
        self.kept = None


def copied(module: Any) -> dict[str, Any]:
    """Return a copy of a torch module's weights."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def figure(told: Mapping[str, Any], name: str, where: str) -> float:
    """Return a loss by its name.

    Raises:
        UsageError: it isn't there; the message lists what is.
    """
    if name not in told:
        there = ", ".join(sorted(map(str, told))) or "none"
        raise UsageError(f"OverfitStopping: {where} has no {name!r}; there are: {there}")
    return float(told[name])
