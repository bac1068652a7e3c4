"""What a shell may complete: the names of studies, and the keys of a space file. Imports nothing that costs time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import typer


def studies(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the studies of the folder that the line names so far."""
    from tuner.config import STUDY_NAME

    folder = Path(ctx.params.get("studies_dir") or "studies")
    try:
        there = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return
    # a shell puts what is proposed on the line as it is, whatever it would make of it
    names = sorted(name for name in there if re.fullmatch(STUDY_NAME, name))
    yield from (name for name in names if name.startswith(incomplete))


def forms(incomplete: str) -> Iterator[str]:
    """Yield the forms of a score."""
    from tuner.config import Score

    yield from (name for name in get_args(Score.model_fields["form"].annotation) if name.startswith(incomplete))


def kinds(incomplete: str) -> Iterator[str]:
    """Yield the kinds of data."""
    from tuner.config import FAMILIES

    yield from (
        name
        for name in sorted({kind for each in FAMILIES.values() for kind in each.kinds})
        if name.startswith(incomplete)
    )


def keys(incomplete: str) -> Iterator[str]:
    """Yield the keys of a space file, up to the sign after which a value is due."""
    from tuner.config import RunConfig

    if "=" in incomplete:
        return
    for name in RunConfig.model_validate({"data": {"source": "any"}}).flat():
        if name.startswith(incomplete):
            yield f"{name}="
