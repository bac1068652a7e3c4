"""Records -> the figures of a study: the one document that `show --json` prints and everything else is told from.

Decides which numbers describe a study and how they are named. Knows no storage and trains nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tuner.curve import Measure
from tuner.record import StudyRecord, TrialRecord, best_record
from tuner.scoring import LOSS, LOWER_IS_BETTER
from tuner.selection import beats_baseline, without_gap_penalty
from tuner.stopping import KINDS

FORMULA_LOSS = "score = 1 - L_val/L_0 - {penalty} * max(0, (L_val - L_train)/L_0 - {noise} SE{tolerance})"
FORMULA = "score = {metric}(val) - {penalty} * max(0, gap - {noise} SE{tolerance})"


def formula(metric: str, identity: Mapping[str, Any]) -> str:
    """Return the score's formula with its constants."""
    text = FORMULA_LOSS if metric in ("log_loss", "mse") else FORMULA
    tolerance = identity["score.tolerance"]
    shown = f" - {tolerance:g}" if tolerance else ""
    sign = "-" if metric in LOWER_IS_BETTER else ""
    return text.format(
        metric=sign + metric,
        penalty=f"{identity['score.gap_penalty']:g}",
        noise=f"{identity['score.noise']:g}",
        tolerance=shown,
    )


def summary(study: StudyRecord, records: Mapping[int, TrialRecord], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a study.

    `facts` holds what isn't in the records: storage (password masked), seconds, test (the last look, or None)
    and the paths config, report and model.
    """
    task, chosen = study.data["task"], best_record(dict(records))
    baseline = next((record for record in records.values() if record.label == "baseline"), None)
    free = without_gap_penalty(records)
    return {
        "study": study.name, "space": study.space, "storage": facts.get("storage"),
        "metric": study.metric, "direction": "maximize", "seed": study.seed,
        "formula": formula(study.metric, study.identity),
        "data": dict(study.data) | {"fingerprint": study.fingerprint, "test_hash": study.test_hash},
        "trials": _counts(records.values()),
        "verdicts": {kind: _verdicts(records.values()).count(kind) for kind in KINDS},
        "epochs": _epochs(records.values(), study.data.get("folds", 1)),
        "seconds": facts.get("seconds"),
        "best": figures(chosen, task), "baseline": figures(baseline, task), "without_gap_penalty": figures(free, task),
        "confirmed": None,
        "test": _test(facts.get("test"), chosen, study.metric),
        "per_class": _per_class(facts, chosen),
        "versions": dict(study.versions),
        "config": facts.get("config"), "report": facts.get("report"), "model": facts.get("model"),
        "features": facts.get("features"),
    }  # fmt: skip


def _counts(records: Iterable[TrialRecord]) -> dict[str, int]:
    states = [record.state for record in records]
    return {"total": len(states)} | {
        state: states.count(state) for state in ("complete", "pruned", "failed", "running", "waiting")
    }


def _verdicts(records: Iterable[TrialRecord]) -> list[str]:
    return [record.verdict.kind for record in records if record.verdict is not None]


def _epochs(records: Iterable[TrialRecord], folds: int) -> dict[str, int]:
    """Return the epochs that were run, those of every fold, and those that the caps would have allowed."""
    there = [(record, record.curve) for record in records if record.curve is not None and record.ended]
    run = sum(sum(map(len, record.folds)) if record.folds else len(curve) for record, curve in there)
    return {"run": run, "budgeted": sum(curve.budget * folds for _, curve in there)}


def _test(seen: Mapping[str, Any] | None, chosen: TrialRecord | None, metric: str) -> dict[str, Any] | None:
    if not seen:
        return None
    stale = chosen is None or chosen.number != seen["trial"]
    return {
        **seen["metrics"], "looks": seen["looks"], "trial": seen["trial"], "rows": seen["rows"], "stale": stale,
        "verdict": beats_baseline(seen, metric), "baseline": seen["baseline_metrics"], "difference": seen["difference"],
    }  # fmt: skip


def _per_class(facts: Mapping[str, Any], chosen: TrialRecord | None) -> dict[str, Any] | None:
    """Return how well the chosen trial predicts each class, in the validation and in the test rows."""

    def rows(fact: str, key: str) -> Any:
        told = facts.get(fact)
        return told.get(key) if told and chosen is not None and told["trial"] == chosen.number else None

    found = {"val": rows("val_classes", "rows"), "test": rows("test", "per_class")}
    return found if any(found.values()) else None


def figures(record: TrialRecord | None, task: str) -> dict[str, Any] | None:
    """Return the figures of one trial at its kept epoch; None if it has none."""
    if record is None or record.kept is None or record.score is None:
        return None
    train, val = (_series(measure, task) for measure in (record.kept.train, record.kept.val))
    return {
        "trial": record.number, "state": record.state, "label": record.label,
        "score": _finite(record.score.value), "epoch": record.score.epoch, "params": record.all_values,
        "train": train, "val": val,
        "gap": {name: _finite(gap(name, train[name], val[name])) for name in val},
        "relative_gap": _finite(record.score.gap), "parameters": record.model.get("parameters"),
        "sparsity": record.model.get("sparsity"), "reason": record.reason,
    }  # fmt: skip


def gap(metric: str, train: float | None, val: float | None) -> float:
    """Return by how much train is better than validation, in the metric's own unit."""
    if train is None or val is None:
        return math.nan
    return val - train if metric in LOWER_IS_BETTER else train - val


def _series(measure: Measure, task: str) -> dict[str, Any]:
    found = {LOSS[task]: measure.loss, **measure.metrics} if task == "classification" else dict(measure.metrics)
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def trials_csv(records: Mapping[int, TrialRecord], task: str) -> str:
    """Return one row a trial: its values and figures."""
    names = sorted({name for record in records.values() for name in record.all_values})
    rows = []
    for record in records.values():
        found = figures(record, task)
        row: dict[str, Any] = {
            "trial": record.number, "state": record.state, "label": record.label,
            "verdict": record.verdict.kind if record.verdict else "", "score": found["score"] if found else "",
            "best_epoch": found["epoch"] if found else "", "epochs": len(record.curve) if record.curve else 0,
            "parameters": record.model.get("parameters", ""), "sparsity": record.model.get("sparsity", ""),
            "seconds": round(record.seconds, 3), "seed": record.seed,
        }  # fmt: skip
        row |= {name: record.all_values.get(name, "") for name in names}
        for part in ("train", "val", "gap"):
            row |= {f"{part}_{name}": value for name, value in (found[part] if found else {}).items()}
        rows.append(row | {"reason": record.reason})
    return csv_text(rows)


def curve_csv(record: TrialRecord) -> str:
    """Return one row an epoch of a trial."""
    rows = []
    for epoch in record.curve.epochs if record.curve else ():
        row: dict[str, Any] = {"epoch": epoch.number, "train_loss": epoch.train.loss, "val_loss": epoch.val.loss}
        for name in epoch.val.metrics:
            row |= {f"train_{name}": epoch.train.metrics[name], f"val_{name}": epoch.val.metrics[name]}
        rows.append(row | {"se_val": epoch.se_val, "se_gap": epoch.se_gap, "seconds": epoch.seconds})
    return csv_text(rows)


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Return rows as CSV, the columns in the order in which they first occur; no cell runs as a formula."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(names), restval="", lineterminator="\n")
    writer.writerow({name: _cell(name) for name in names})
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # csv quotes a line feed and, before 3.13, no other end
    return f"'{text}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else text
