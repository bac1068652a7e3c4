"""The files that a study leaves in its folder: written whole or not at all, and readable by their owner alone.

Decides their names and when a folder belongs to another study. Knows no storage and no search.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner import reporting
from tuner.backbones import find_backbone
from tuner.best import MODEL, best_space, space_text
from tuner.config import PRETRAINED
from tuner.errors import PassingError, StorageError, UsageError, no_room
from tuner.keeping import is_begun
from tuner.ledger import LEDGER
from tuner.planning import Plan
from tuner.record import TrialRecord
from tuner.whole import PARTS, whole

SHOWN = ("trial", "score", "epoch", "params", "train", "val", "gap", "parameters", "sparsity")
LEFT = ("best.yaml", "best.json", MODEL, "trials.csv")


def refuse_foreign(folder: Path) -> None:
    """Refuse to start a study in a folder that holds what another one left.

    Raises:
        UsageError: files of a study are there.
    """
    files = [name for name in LEFT if (folder / name).is_file()]
    found = files + [name for name in ("curves", "weights") if any((folder / name).glob("*.*"))]
    kept = is_begun(folder)
    if found or kept:
        there = f"{folder} holds {', '.join(found or [LEDGER])} of a study that isn't in this storage"
        mend = f"`tuner repair {folder.name}` brings it back" if kept else "move that folder away"
        raise UsageError(f"{there}; choose another --study-name, or {mend}")


def write_study(plan: Plan, records: Mapping[int, TrialRecord]) -> None:
    """Write space.yaml, trials.csv and the curves that aren't there yet."""
    write(plan.folder / "space.yaml", space_text(plan.space, plan.folder))
    write(plan.folder / "trials.csv", reporting.trials_csv(records, plan.splits.shape.task))
    for record in records.values():
        path = plan.folder / "curves" / f"{record.number:05d}.csv"
        if record.ended and record.curve is not None and not path.exists():
            write(path, reporting.curve_csv(record), durable=False)


def write_best(
    plan: Plan,
    folder: Path,
    chosen: TrialRecord,
    weights: Path | None,
    seen: Mapping[str, Any] | None,
    final: bool = True,
) -> None:
    """Write best.yaml, best.json and model.safetensors of a trial into a folder; best.yaml last.

    The weights are those of the network in its final form, trained again if the plan says so; or, if they aren't
    `final`, the trial's own. Without any there is no model.
    """
    found = reporting.figures(chosen, plan.splits.shape.task)
    assert found is not None
    about = {
        **{name: found[name] for name in SHOWN},
        "study": plan.study.name, "metric": plan.study.metric,
        "test": {**seen["metrics"], "looks": seen["looks"]} if seen else None,
        "encoder": (plan.splits if final else plan.folds[0]).encoder.to_json(), "backbone": _backbone(plan, chosen),
        "predicts": chosen.predicts,
        "trained_again_on": len(plan.splits.train) if plan.refit and final and weights is not None else None,
        "versions": dict(plan.study.versions), "created": plan.study.created,
    }  # fmt: skip
    metric, target = plan.study.metric, folder / "best.yaml"
    lines = [
        f"# Best configuration of study {plan.study.name}: trial {chosen.number}, epoch {found['epoch']}.",
        f"# {metric}: train {_figure(found['train'][metric])}, validation {_figure(found['val'][metric])}"
        + _trained(plan, chosen, weights, final),
        best_space(plan.space, chosen.all_values, chosen.seed, plan.study.name, target),
    ]
    if weights is not None:
        write(folder / MODEL, weights.read_bytes())
    write(folder / "best.json", json.dumps(about, indent=1))
    write(target, "\n".join(lines))


def _trained(plan: Plan, chosen: TrialRecord, weights: Path | None, final: bool) -> str:
    if not chosen.has_weights:
        return "; its training loop named no model, so there is none"
    if weights is None:
        return "; the study was stopped before its model was trained, so there is none yet"
    if not final:
        return "; the study was stopped before the model was trained again on all rows: it is the trial's own"
    return f"; the model was then trained again on {len(plan.splits.train)} rows" if plan.refit else ""


def _backbone(plan: Plan, chosen: TrialRecord) -> dict[str, str] | None:
    """Return which file a network's frozen part came from: without the same one its weights are of no use."""
    model = plan.space.at(chosen.all_values).model
    if model.family != PRETRAINED:
        return None
    return find_backbone(model.backbone, plan.splits.shape.kind, plan.space.folder).identity()


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def write(path: Path, content: str | bytes, durable: bool = True, mode: int = 0o600) -> None:
    """Write a file whole or not at all; what can be written again needs no waiting for the disk. A study's files are
    for their owner alone, unless the `mode` (less the process's mask) says otherwise. A link that lies at the path is
    replaced, never followed; nobody can know the name of the part beforehand, nor put a link there.
    """
    with writing(path), whole(path, durable, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def forget_parts(folder: Path) -> None:
    """Remove what whoever was killed while writing a file of a study left of it; for who holds the study alone."""
    for part in folder.rglob(PARTS):
        part.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what stands in the way of a study's files into one line."""
    try:
        yield
    except OSError as error:
        kind = PassingError if no_room(error) else StorageError
        raise kind(f"{error.filename or folder}: can't be written ({error.strerror or error})") from error
