"""What a shell may complete: the names of studies, and the keys of a space file. Imports nothing that costs time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer


def studies(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the studies of the folder that the line names so far."""
    folder = Path(ctx.params.get("studies_dir") or "studies")
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    yield from (name for name in names if name.startswith(incomplete))


def forms(incomplete: str) -> Iterator[str]:
    """Yield the forms of a score."""
    yield from (name for name in ("penalty", "tiebreak", "conservative", "none") if name.startswith(incomplete))


def kinds(incomplete: str) -> Iterator[str]:
    """Yield the kinds of data."""
    yield from (name for name in ("table", "image", "text", "sequence") if name.startswith(incomplete))


def keys(incomplete: str) -> Iterator[str]:
    """Yield the keys of a space file, up to the sign after which a value is due."""
    from tuner.config import RunConfig

    if "=" in incomplete:
        return
    for name in RunConfig.model_validate({"data": {"source": "any"}}).flat():
        if name.startswith(incomplete):
            yield f"{name}="
