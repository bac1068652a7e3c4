"""Records -> the figures of a study: the one document that `show --json` prints and everything else is told from.

Decides which numbers describe a study and how they are named. Knows no storage and trains nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from tuner.confirmation import Confirmed, Repeat, chosen, confirmed, measures
from tuner.curve import Measure
from tuner.diagnosis import at_bounds, diagnose
from tuner.grammar import known_space
from tuner.ranking import difference
from tuner.record import BASELINE, StudyRecord, TrialRecord, epochs_of
from tuner.scoring import LOSS, LOWER_IS_BETTER
from tuner.selection import beats_baseline, without_gap_penalty
from tuner.stopping import KINDS
from tuner.telling import harmless

PENALTY = " - {penalty} * max(0, {gap} - {noise} SE{tolerance})"
TIEBREAK = "; of ties (within half an SE of the paired difference to the best), the smallest gap"
PENALTIES = {"penalty": PENALTY, "conservative": " - SE(val)", "none": "", "tiebreak": TIEBREAK}


def formula(metric: str, identity: Mapping[str, Any]) -> str:
    """Return the score's formula with its constants."""
    loss, tolerance = metric in ("log_loss", "mse"), identity["score.tolerance"]
    value = "1 - L_val/L_0" if loss else f"{'-' * (metric in LOWER_IS_BETTER)}{metric}(val)"
    penalty = PENALTIES[form_of(identity)].format(
        gap="(L_val - L_train)/L_0" if loss else "gap",
        penalty=f"{identity['score.gap_penalty']:g}",
        noise=f"{identity['score.noise']:g}",
        tolerance=f" - {tolerance:g}" if tolerance else "",
    )
    return f"score = {value}{penalty}"


def _rule(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form of the score, and its constants where that form has some."""
    names = ("gap_penalty", "noise", "tolerance") if (form := form_of(identity)) == "penalty" else ()
    return {"form": form, **{name: identity[f"score.{name}"] for name in names}}


def form_of(identity: Mapping[str, Any]) -> str:
    """Return the form of a study's score; older studies had but one."""
    return str(identity.get("score.form", "penalty"))


def summary(study: StudyRecord, records: Mapping[int, TrialRecord], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a study.

    `facts` holds what isn't in the records: storage (password masked), seconds, test (the last look, or None), repeats
    (of the confirmation), not_confirmed (why it isn't), progress (running, stopped or over, and of how many trials) and
    the paths folder, config, report and model.
    """
    task, outcome = study.data["task"], outcome_of(study, records, facts.get("repeats", ()))
    form = form_of(study.identity)
    best = chosen(records, outcome, form)
    baseline = next((record for record in records.values() if record.label == BASELINE), None)
    free, searched = without_gap_penalty(records), chosen(records, None, form)
    return {
        "study": study.name, "space": study.space, "storage": facts.get("storage"), "folder": facts.get("folder"),
        "progress": facts.get("progress"),
        "metric": study.metric, "direction": "maximize", "seed": study.seed,
        "formula": formula(study.metric, study.identity), "score": _rule(study.identity),
        "data": dict(study.data) | {"fingerprint": study.fingerprint, "test_hash": study.test_hash,
                                      "groups": study.identity.get("data.split.groups")},
        "trials": _counts(records.values()),
        "verdicts": {kind: _verdicts(records.values()).count(kind) for kind in KINDS},
        "epochs": epochs(records.values(), study.data.get("folds", 1)),
        "seconds": facts.get("seconds"),
        "best": figures(best, task), "baseline": figures(baseline, task), "search_best": figures(searched, task),
        "without_gap_penalty": _without(free, searched, task, study.identity.get("data.target_transform")),
        "confirmed": _confirmed(outcome, task) if outcome else None,
        "not_confirmed": None if outcome else facts.get("not_confirmed"),
        "diagnosis": _diagnosis(study, records, best, baseline),
        "importances": (facts.get("importances") or {}).get("shares"),
        "test": _test(facts.get("test"), best, study.metric, baseline, len(records)),
        "per_class": _per_class(facts, best),
        "versions": dict(study.versions),
        "config": facts.get("config"), "report": facts.get("report"), "model": facts.get("model"),
        "features": facts.get("features"), "trained_again_on": facts.get("trained_again_on"),
    }  # fmt: skip


def _without(
    free: TrialRecord | None, searched: TrialRecord | None, task: str, transform: str | None
) -> dict[str, Any] | None:
    """Return the trial that validation alone would have chosen, and by how much it is better on it than the search's
    choice (in the score's unit; `se` is that of the paired difference over the validation examples).
    """
    found = figures(free, task)
    if found is None or free is None or searched is None:
        return found
    # of R2 in the target's unit no error is known where another unit is learned
    known = searched.score is None or searched.score.metric != "r2" or transform in (None, "none")
    apart = difference(free, searched) if known else None
    return found | {"better_by": {"value": _finite(apart.value), "se": _finite(apart.se)} if apart else None}


def _diagnosis(
    study: StudyRecord, records: Mapping[int, TrialRecord], best: TrialRecord | None, baseline: TrialRecord | None
) -> dict[str, Any]:
    """Return how the chosen trial and the baseline fit, and the ranges whose best trials lie at a bound."""
    fits = {"best": best, "baseline": baseline}
    found = {name: diagnose(record) if record else None for name, record in fits.items()}
    space = known_space(study.space, study.folder)
    bounds = at_bounds(space, records) if space else []
    return {
        **{name: {key: _plain(value) for key, value in asdict(each).items()} if each else None
           for name, each in found.items()},
        "bounds": [asdict(each) for each in bounds],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return _finite(value) if isinstance(value, float) else value


def outcome_of(study: StudyRecord, records: Mapping[int, TrialRecord], repeats: Sequence[Repeat]) -> Confirmed | None:
    """Return what a study's confirmation came to; None if there was none, or too little of it."""
    return confirmed(records, repeats, study.data["train"], study.data["val"], form_of(study.identity))


def _confirmed(outcome: Confirmed, task: str) -> dict[str, Any]:
    """Return what the confirmation came to: of the chosen trial over the rounds, and of each contender's score."""
    repeats = outcome.of_chosen
    series = [(_series(train, task), _series(val, task)) for train, val in measures(repeats)]

    def over(values: Iterable[float | None]) -> dict[str, float | None]:
        known = [value for value in values if value is not None]
        sd = _finite(stdev(known)) if len(known) > 1 else None
        return {"mean": _finite(fmean(known)) if known else None, "sd": sd}

    names = list(series[0][1]) if series else []
    return {
        "seeds": [repeat.seed for repeat in repeats], "rounds": len(outcome.rounds),
        "splits": [repeat.split for repeat in repeats], "epoch": repeats[0].kept,
        "train": {name: over(train[name] for train, _ in series) for name in names},
        "val": {name: over(val[name] for _, val in series) for name in names},
        "gap": {name: over(_finite(gap(name, train[name], val[name])) for train, val in series) for name in names},
        "fresh_splits": outcome.fresh, **standings_of(outcome),
    }  # fmt: skip


def standings_of(outcome: Confirmed) -> dict[str, Any]:
    """Return how the configurations that were confirmed stand, best first, and how far the search was too good."""
    return {
        "trial": outcome.trial, "search_choice": outcome.searched, "optimism": _finite(outcome.optimism),
        "contenders": [
            {"trial": each.trial, "search_score": _finite(each.searched), "score": _finite(each.mean),
             "sd": _finite(each.sd), "se": _finite(each.se), "low": _finite(each.low), "high": _finite(each.high)}
            for each in outcome.standings
        ],
    }  # fmt: skip


def _counts(records: Iterable[TrialRecord]) -> dict[str, int]:
    states = [record.state for record in records]
    return {"total": len(states)} | {
        state: states.count(state) for state in ("complete", "pruned", "failed", "running", "waiting")
    }


def _verdicts(records: Iterable[TrialRecord]) -> list[str]:
    return [record.verdict.kind for record in records if record.verdict is not None]


def epochs(records: Iterable[TrialRecord], folds: int) -> dict[str, int]:
    """Return the epochs that were run, those of every fold, and those that the caps would have allowed."""
    there = [epochs_of(record, folds) for record in records if record.ended]
    return {"run": sum(run for run, _ in there), "budgeted": sum(cap for _, cap in there)}


def _test(
    seen: Mapping[str, Any] | None, best: TrialRecord | None, metric: str, baseline: TrialRecord | None, trials: int
) -> dict[str, Any] | None:
    if not seen:
        return None
    stale = best is None or best.number != seen["trial"]
    return {
        **seen["metrics"], "looks": seen["looks"], "trial": seen["trial"], "rows": seen["rows"], "stale": stale,
        "verdict": beats_baseline(seen, metric, baseline, trials), "baseline": seen["baseline_metrics"],
        "difference": seen["difference"],
    }  # fmt: skip


def _per_class(facts: Mapping[str, Any], best: TrialRecord | None) -> dict[str, Any] | None:
    """Return how well the chosen trial predicts each class, in the validation and in the test rows."""

    def rows(fact: str, key: str) -> Any:
        told = facts.get(fact)
        return told.get(key) if told and best is not None and told["trial"] == best.number else None

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
        "sparsity": record.model.get("sparsity"), "predicts": record.predicts, "reason": record.reason,
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
    return csv_text(trial_rows(records, task))


def trial_rows(records: Mapping[int, TrialRecord], task: str) -> list[dict[str, Any]]:
    """Return a row a trial, by the names of its columns: its values and figures."""
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
    return rows


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
    writer.writerow({name: harmless(name) for name in names})
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in rows)
    return out.getvalue()
