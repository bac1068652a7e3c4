"""A study and a trial as people want to know them: documents and records -> lines of plain text.

Decides which figures and sentences are shown, and in which order; how they look is `terminal`'s.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import unquote

from tuner import telling
from tuner.best import DATABASE, STUDIES
from tuner.curve import Curve
from tuner.diagnosis import diagnose
from tuner.drawing import drawn
from tuner.record import TrialRecord
from tuner.reporting import figures
from tuner.telling import clean, counted, number
from tuner.terminal import duration, note, room, table, told_of, width

HEADLINE = {
    "classification": ("log_loss", "accuracy", "balanced_accuracy", "f1"),
    "regression": ("mse", "mae", "r2"),
}
MOST_CLASSES = 6


def study_text(document: Mapping[str, Any]) -> list[str]:
    """Return a study as people want to know it: counts, the best configuration, its figures, where things are."""
    lines = [*_counts(document), *_indented(telling.unfinished(document)), ""]
    best = document["best"]
    if best is None:
        return [*lines, telling.nothing(document)]
    lines += [f"Best configuration: trial {best['trial']}, epoch {best['epoch']}, score {number(best['score'])}"]
    lines += _indented([f"({document['formula']})"])
    lines += _confirmed(document)
    searched = table([(name, number(value)) for name, value in best["params"].items()])
    lines += [f"  {line}" for line in searched or ["nothing was searched: the configuration is the space file's"]]
    lines += [f"  {facts}"] if (facts := telling.size(best)) else []
    shown = table(figures_table(document), frozenset(range(1, 8)), room())
    return [*lines, "", *shown, *_classes(document), *_said(document), "", *_places(document)]


def _confirmed(document: Mapping[str, Any]) -> list[str]:
    """Return what the confirmation found, and every contender's score."""
    lines = _indented(telling.confirmation(document))
    if document["confirmed"] is None:
        return lines
    head = ["contender", "in the search", "confirmed", "SE"]
    rows = [
        [str(c["trial"]), *(number(c[key]) for key in ("search_score", "score", "se"))]
        for c in document["confirmed"]["contenders"]
    ]
    return [*lines, *(f"  {line}" for line in table([head, *rows], frozenset(range(4))))]


def _classes(document: Mapping[str, Any]) -> list[str]:
    """Return the classes that are predicted worst, on the test rows if they were looked at."""
    per_class = document.get("per_class") or {}
    part = "test" if per_class.get("test") else "val"
    rows = per_class.get(part) or []
    if len(rows) < 2:
        return []
    worst = sorted((row for row in rows if row["rows"]), key=lambda row: row["f1"] or 0.0)[:MOST_CLASSES]
    head = [f"{'worst ' if len(rows) > len(worst) else ''}classes ({part})", "rows", "precision", "recall", "f1"]
    cells = [[clean(r["class"]), str(r["rows"]), *(number(r[k]) for k in ("precision", "recall", "f1"))] for r in worst]
    return ["", *table([head, *cells], frozenset(range(1, 5))), ""]


def _counts(document: Mapping[str, Any]) -> list[str]:
    trials, epochs, data = document["trials"], document["epochs"], document["data"]
    states = ", ".join(
        f"{trials[state]} {state}" for state in ("complete", "pruned", "failed", "running", "waiting") if trials[state]
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in document["verdicts"].items() if count)
    saved = 1 - epochs["run"] / epochs["budgeted"] if epochs["budgeted"] else 0.0
    counts = f"{counted(trials['total'], 'trial')}{f' ({states})' if states else ''}"
    said = [f"data: {told_of(data)}"]
    if kinds:
        said += [f"ended: {kinds}; {epochs['run']} of {epochs['budgeted']} epochs run, {saved:.0%} saved"]
    lines = wrap(f"Study {document['study']}: {counts} in {duration(document['seconds'])}", width())
    return [*lines, *_indented(said), *(line for text in data["notes"] for line in note(text, "  note: "))]


def _indented(sentences: Sequence[str]) -> list[str]:
    """Return sentences as lines, a bit to the right of what they belong to."""
    indent: dict[str, Any] = {"initial_indent": "  ", "subsequent_indent": "    ", "break_on_hyphens": False}
    return [line for said in sentences for line in wrap(said, width(), **indent)]


def figures_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the figures of the chosen trial and of the baseline, a row a metric, under their heads."""
    best, base, test = document["best"], document["baseline"], document["test"]
    names = [name for name in HEADLINE[document["data"]["task"]] if name in best["val"]]
    names += [document["metric"]] if document["metric"] not in names else []
    fresh = document["confirmed"]["val"] if document["confirmed"] else {}
    head = ["", "train", "val", *(["confirmed (+- sd)"] * bool(fresh)), "gap", "test (95 % interval)"]
    rows = [[*head, "baseline val", "baseline test"]]
    for name in names:
        row = [name, *(number(best[part].get(name)) for part in ("train", "val"))]
        row += [_with_spread(fresh.get(name))] * bool(fresh)
        row += [number(best["gap"].get(name))]
        row += [telling.with_interval(test.get(name)) if test and not test["stale"] else "-"]
        row += [number(base["val"].get(name)) if base else "-"]
        rows.append([*row, number(test["baseline"].get(name, {}).get("value")) if test and test["baseline"] else "-"])
    return rows


def _with_spread(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["sd"] is None:  # it wasn't finite in enough of the rounds
        return number(figure["mean"]) if figure else "-"
    return f"{number(figure['mean'])} +- {figure['sd']:.2g}"


def _said(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences that keep the figures honest."""
    diagnosis = document["diagnosis"]
    sentences = [
        *telling.fits(diagnosis), *telling.bounds(diagnosis), *telling.movers(document["importances"]),
        *telling.price(document), *telling.last_training(document), *telling.tested(document),
    ]  # fmt: skip
    return [part for line in sentences for part in wrap(clean(line), width(), subsequent_indent="  ")]


def where(document: Mapping[str, Any]) -> str:
    """Return the options, if any, without which a command would look for a study elsewhere."""
    if document["folder"] is None:
        return ""
    home, storage = Path(document["folder"]).parent, document["storage"]
    words = ["--studies-dir", str(home)] if home != STUDIES else []
    default = storage is None or unquote(storage) == f"sqlite:///{home / DATABASE}"
    words += [] if default else ["--storage", storage]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _places(document: Mapping[str, Any]) -> list[str]:
    study, folder = document["study"], Path(document["folder"] or STUDIES / document["study"])
    rows = [("configuration", document["config"]), ("model", document["model"]), ("storage", document["storage"])]
    rows += [("features", f"{document['features']} (for the trials to come; may be deleted)")] * bool(
        document["features"]
    )
    rows += [("report", document["report"])]
    options, name = where(document), study if folder.parent == STUDIES else str(folder)
    rows += [("one trial", f"tuner show {study}{options} --trial {document['best']['trial']}")]
    rows += [("dashboard", f"tuner dashboard {study}{options}")]
    rows += [("in Python", f"tuner.load_best({json.dumps(name, ensure_ascii=False)})")] if document["config"] else []
    return table([(name, clean(place)) for name, place in rows if place])


def trial_text(record: TrialRecord, task: str) -> list[str]:
    """Return the life of one trial: its values, its figures, its epochs, and why it ended."""
    name = f"Trial {record.number}" + (f" ({record.label})" if record.label else "")
    lines = [f"{name}, {record.state}: {clean(record.reason) or 'under way'}"]
    fit = diagnose(record)
    lines += [f"It is {fit.fit}: {fit.reason}.", ""] if fit and record.ended else [""]
    lines += table([(key, number(value)) for key, value in record.all_values.items()]) if record.all_values else []
    found = figures(record, task)
    if found is not None:
        rows = [["", "train", "validation", "gap"]]
        rows += [[key, *(number(found[part].get(key)) for part in ("train", "val", "gap"))] for key in found["val"]]
        lines += ["", f"At epoch {found['epoch']}, score {number(found['score'])}:"]
        lines += table(rows, frozenset({1, 2, 3}))
        lines += _folds(record, found["epoch"])
    if record.verdict is not None:
        compared = ", ".join(f"{key} {number(value)}" for key, value in record.verdict.numbers.items())
        lines += ["", f"Verdict: {record.verdict.kind} at epoch {record.verdict.epoch}; compared: {compared}"]
        lines += [_alone(record)] if record.rules else []
    return lines + (_epochs(record) if record.curve is not None and len(record.curve) else [])


def _curve(curve: Curve) -> list[str]:
    """Return the drawing of a curve, with what its letters stand for."""
    found = drawn(curve)
    legend = f"t: train, v: validation, |: the epoch kept ({curve.best})"
    return ["", *found, legend] if found else []


def _alone(record: TrialRecord) -> str:
    """Return what each rule would have done to a trial by itself."""
    said = [f"{kind} at epoch {epoch}" if epoch else f"{kind} not by then" for kind, epoch in record.rules.items()]
    return f"By itself each rule would have ended it: {', '.join(said)}"


def _folds(record: TrialRecord, epoch: int) -> list[str]:
    """Return each fold of a cross-validation at the epoch that was kept."""
    if not record.folds:
        return []
    rows = [["fold", "rows", "train loss", "val loss"]]
    for count, fold in enumerate(record.folds, start=1):
        at = fold[min(epoch, len(fold))]
        rows.append([str(count), str(fold.n_val), number(at.train.loss), number(at.val.loss)])
    return ["", *table(rows, frozenset(range(4)))]


def _epochs(record: TrialRecord) -> list[str]:
    assert record.curve is not None
    curve = record.curve
    every = max(1, len(curve) // 20)
    rows = [["epoch", "train loss", "val loss", ""]]
    for epoch in curve.epochs:
        kept = epoch.number == curve.best
        if kept or epoch.number % every == 0 or epoch.number in (1, len(curve)):
            mark = "kept" if kept else ""
            rows.append([str(epoch.number), number(epoch.train.loss), number(epoch.val.loss), mark])
    return [*_curve(curve), "", *table(rows, frozenset({0, 1, 2}))]


def list_text(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line a study."""
    if not documents:
        return ["There are no studies yet; start one with `tuner run SPACE`."]
    rows = [["study", "trials", "unfinished", "failed", "metric", "best trial", "score", "validation", "test"]]
    for document in documents:
        best, test, metric = document["best"], document["test"], document["metric"]
        trials = document["trials"]
        row = [
            document["study"],
            str(trials["total"]),
            str(trials["running"] + trials["waiting"]),
            str(trials["failed"]),
            metric,
        ]
        row += [str(best["trial"]), number(best["score"]), number(best["val"].get(metric))] if best else ["-"] * 3
        known = test is not None and not test["stale"]
        rows.append([*row, number(test.get(metric, {}).get("value")) if known else "-"])
    return table(rows, frozenset({1, 2, 3, 5, 6, 7, 8}))
