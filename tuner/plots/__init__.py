"""The plots of a study, by name: the dashboard, the report and `Study.figures()` show the same ones.

`PLOTS[name](document, records)` returns a Plot, or None where there is nothing to draw. Decides what is drawn of a
study, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tuner.plots.base import Plot
from tuner.plots.choice import confirmed, confusion, promised
from tuner.plots.curves import leading, small, winner
from tuner.plots.gap import against_validation, capacity, regularizers
from tuner.plots.trials import ended, moved
from tuner.record import TrialRecord

__all__ = ["PLOTS", "Plot", "plots"]

PLOTS: dict[str, Callable[[Mapping[str, Any], Mapping[int, TrialRecord]], Plot | None]] = {
    "winner": winner,
    "curves": leading,
    "small": small,
    "validation-gap": against_validation,
    "regularizers": regularizers,
    "capacity": capacity,
    "ended": ended,
    "importances": moved,
    "confirmed": confirmed,
    "promised": promised,
    "confusion": confusion,
}


def plots(
    document: Mapping[str, Any], records: Mapping[int, TrialRecord], names: Iterable[str] = tuple(PLOTS)
) -> list[Plot]:
    """Return the plots of these names that there is something to draw for."""
    found = (PLOTS[name](document, records) for name in names)
    return [plot for plot in found if plot is not None]
