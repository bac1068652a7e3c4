"""check_space(): what a study would do, and how long it would take, without doing it. Writes nothing, and trains a few
batches to see how fast they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.config import AUTO
from tuner.confirmation import ROUNDS, SHARE, TOP
from tuner.forecast import Forecast, forecast, run_share
from tuner.grammar import Override, plain_domain, read_space
from tuner.planning import Plan, plan_of, total_trials
from tuner.reporting import formula
from tuner.space import Range, Space, families, own_data, own_names
from tuner.telling import clean, counted
from tuner.terminal import roughly, table, told_of


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, as lines for people and as a document."""

    lines: list[str]
    document: dict[str, Any]


def check_space(path: Path, overrides: Sequence[Override], no_import: bool) -> Check:
    """Read and check a space file and its data; with `no_import`, code that the space names isn't imported, and
    neither are data that only such code can make.

    Raises:
        SpaceError, UsageError, DataError, UserCodeError: as a run would.
    """
    space = read_space(path, overrides)
    own = _own_code(space)
    plan = None if no_import and own else plan_of(space)
    space = plan.space if plan else space
    trials, cap, folds = total_trials(space), _cap(space), space.config.data.split.folds or 1
    time = _forecast(plan) if plan and trials else None
    document = {
        "study": space.config.study, "valid": True, "searched": {n: d.to_json() for n, d in space.domains.items()},
        "trials": trials, "epochs_per_trial": cap, "epochs": trials * cap * folds,
        "workers": space.config.budget.workers,
        "data": dict(plan.study.data) if plan else None, "metric": plan.study.metric if plan else None,
        "forecast": asdict(time) if time else None, "own_code": own, "imported": bool(plan and own),
        "notes": list(space.notes),
    }  # fmt: skip
    return Check(_lines(space, plan, document), document)


def _forecast(plan: Plan) -> Forecast:
    """Return how long the study would take on this machine, from a few batches of some of its configurations."""
    from tuner.piloting import cores, pilot

    config, (pilots, before, once) = plan.space.config, pilot(plan)
    refit = len(plan.splits.train) / len(plan.folds[0].train) if plan.refit else 0.0
    return forecast(
        pilots, plan.trials, config.budget.workers, cores(), share=run_share(config.rules),
        confirm=config.budget.confirm, start=plan.seconds + before, loading=plan.seconds, once=once,
        folds=len(plan.folds), refit=refit, timeout=config.budget.timeout,
    )  # fmt: skip


def _confirmation(limit: float | None, told: dict[str, Any] | None, best: int) -> str:
    """Return what the confirmation will be, or that a time limit is likely to be too short for it."""
    if limit is not None and told is not None and told["confirmation"] > SHARE * limit:
        needed, there = roughly(told["confirmation"]), roughly(SHARE * limit)
        return f"then likely no confirmation: the least takes about {needed}, and its share of the time is {there}"
    within = "" if limit is None else f", in {roughly(SHARE * limit)} of the time or less"
    return f"then at most {best * ROUNDS} runs up to the epochs that were kept, to confirm the best {best}{within}"


def _own_code(space: Space) -> list[str]:
    """Return the names of code of the user's own that the space names."""
    return [*own_data(space), *(name for names in own_names(space).values() for name in names)]


def _cap(space: Space) -> int:
    domain = space.domains.get("training.epochs")
    if domain is None:
        return space.config.training.epochs
    return int(domain.high if isinstance(domain, Range) else max(domain.to_json()["choices"]))


def _trained_on(space: Space, gpu: str) -> str:
    small = space.config.training.device == AUTO and "mlp" in families(space)
    return f"trained on: {gpu}{', small perceptrons on the processor' * small}"


def _lines(space: Space, plan: Plan | None, document: dict[str, Any]) -> list[str]:
    lines = [f"{space.config.study}: the space is valid"]
    if plan is not None:
        data = plan.study.data
        outputs = f" ({data['outputs']} outputs)"
        lines += [f"data: {told_of(data, outputs)}"]
        lines += [_trained_on(space, plan.study.versions["GPU"])] if "GPU" in plan.study.versions else []
        lines += [formula(plan.study.metric, plan.study.identity)]
        lines += [f"note: {clean(note)}" for note in data["notes"]]
    else:
        lines += [f"not imported, so neither data nor model are checked: {', '.join(document['own_code'])}"]
    lines += [f"note: {note}" for note in space.notes]
    lines += ["", f"{len(space.domains)} values are searched:"] if space.domains else ["", "nothing is searched"]
    lines += [f"  {line}" for line in table([(n, plain_domain(d)) for n, d in space.domains.items()])]
    cost = f"{counted(document['trials'], 'trial')} x at most {counted(document['epochs_per_trial'], 'epoch')}"
    cost += f" x {folds} folds" if (folds := space.config.data.split.folds) else ""
    workers = counted(document["workers"], "worker")
    lines += ["", f"{cost} = {document['epochs']}, with {workers}; most trials end early"]
    if told := document["forecast"]:
        likely, most = (roughly(told[name]) for name in ("likely", "most"))
        by = f"by pilot batches of {counted(told['pilots'], 'configuration')}"
        if likely != most:
            said = f"about {likely}, or {most} with every trial at its cap ({by})"
        elif told["most"] == space.config.budget.timeout:
            said = f"{most}, its time limit ({by})"
        else:
            said = f"about {most} ({by})"
        lines += [f"on this machine: {said}"]
    if space.config.budget.confirm and (best := min(TOP, document["trials"])) > 1:
        lines += [_confirmation(space.config.budget.timeout, document["forecast"], best)]
    return lines
