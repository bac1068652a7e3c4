"""Records and documents -> lines of plain text for a terminal. Decides wording and layout, and nothing else.

Text that came from a user's data is shown without control characters, so that no name can steer the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.record import TrialRecord
from tuner.report import figures
from tuner.scoring import LOSS

HEADLINE = {
    "classification": ("log_loss", "accuracy", "balanced_accuracy", "f1"),
    "regression": ("mse", "mae", "r2"),
}


def clean(text: object) -> str:
    """Return text without control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def number(value: Any) -> str:
    """Return a value with four significant digits, as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else clean(value)


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return rows as aligned columns, the first row being the head; columns in `right` are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return ["  ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]


def trial_line(record: TrialRecord, task: str, metric: str, best: int | None) -> str:
    """Return what is said of a trial that has ended."""
    found = figures(record, task)
    name = f"trial {record.number:>3}" + (f" ({record.label})" if record.label else "")
    if found is None or record.state == "failed":
        return f"{name}: failed, {clean(record.reason)}"
    star = ", the best so far" if record.number == best else ""
    shown = f"{metric} val {number(found['val'][metric])} train {number(found['train'][metric])}"
    return f"{name}: {record.state}, score {number(found['score'])}{star}; {shown}; {clean(record.reason)}"


def study_text(document: Mapping[str, Any]) -> list[str]:
    """Return a study as people want to know it: counts, the best configuration, its figures, where things are."""
    lines = [*_counts(document), ""]
    best = document["best"]
    if best is None:
        return [*lines, "No trial is complete, so there is no best configuration yet."]
    lines += [f"Best configuration: trial {best['trial']}, epoch {best['epoch']}, score {number(best['score'])}"]
    lines += [f"  ({document['formula']})"]
    lines += [f"  {line}" for line in table([(name, number(value)) for name, value in best["params"].items()])]
    facts = f"{best['parameters']:,.0f} parameters" if best["parameters"] else ""
    facts += f", {best['sparsity']:.0%} of the weights are exactly zero" if best["sparsity"] else ""
    lines += [f"  {facts}"] if facts else []
    return [*lines, "", *_figures(document), *_said(document), "", *_places(document)]


def _counts(document: Mapping[str, Any]) -> list[str]:
    trials, epochs, data = document["trials"], document["epochs"], document["data"]
    states = ", ".join(
        f"{trials[state]} {state}" for state in ("complete", "pruned", "failed", "running") if trials[state]
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in document["verdicts"].items() if count)
    saved = 1 - epochs["run"] / epochs["budgeted"] if epochs["budgeted"] else 0.0
    shape = " x ".join(str(side) for side in data["input"])
    lines = [
        f"Study {document['study']}: {trials['total']} trials ({states or 'none'}) in {number(document['seconds'])} s",
        f"  data: {data['kind']} {shape}, {data['task']}; rows: {data['train']} train, {data['val']} validation, "
        f"{data['test']} test",
    ]
    lines += (
        [f"  ended: {kinds}; {epochs['run']} of {epochs['budgeted']} epochs run, {saved:.0%} saved"] if kinds else []
    )
    return lines + [f"  note: {clean(note)}" for note in data["notes"]]


def _figures(document: Mapping[str, Any]) -> list[str]:
    best, base, test = document["best"], document["baseline"], document["test"]
    names = [name for name in HEADLINE[document["data"]["task"]] if name in best["val"]]
    names += [document["metric"]] if document["metric"] not in names else []
    rows = [["", "train", "validation", "gap", "test (95 % interval)", "baseline validation", "baseline test"]]
    for name in names:
        row = [name, *(number(best[part].get(name)) for part in ("train", "val", "gap"))]
        row += [_with_interval(test.get(name)) if test and not test["stale"] else "-"]
        row += [number(base["val"].get(name)) if base else "-"]
        rows.append([*row, number(test["baseline"].get(name, {}).get("value")) if test and test["baseline"] else "-"])
    return table(rows, frozenset(range(1, 7)))


def _with_interval(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{number(figure['value'])} ({number(figure['low'])} to {number(figure['high'])})"


def _said(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences that keep the figures honest."""
    best, free, test, lines = document["best"], document["without_gap_penalty"], document["test"], []
    if free and free["trial"] != best["trial"]:
        loss = LOSS[document["data"]["task"]]
        moved = f"val {loss} {number(free['val'][loss])} -> {number(best['val'][loss])}"
        gaps = f"gap {number(free['relative_gap'])} -> {number(best['relative_gap'])}"
        lines.append(f"The gap penalty chose trial {best['trial']} over {free['trial']}: {moved}, {gaps}.")
    if test and test["stale"]:
        lines.append(f"The test set was looked at for trial {test['trial']}; `tuner run` looks at the new best one.")
    elif test:
        looks = "once" if test["looks"] == 1 else f"{test['looks']} times, so its figures are no longer untouched"
        lines += [test["verdict"], f"The test set has been looked at {looks}."]
    elif document["data"]["test"] == 0:
        lines.append("There is no test set; the validation figures are those of a search and so too good.")
    return lines


def _places(document: Mapping[str, Any]) -> list[str]:
    study = document["study"]
    rows = [("configuration", document["config"]), ("model", document["model"]), ("storage", document["storage"])]
    lines = table([(name, str(place)) for name, place in rows if place])
    return [*lines, f"dashboard      tuner dashboard {study}", f'in Python      tuner.load_best("{study}")']


def trial_text(record: TrialRecord, task: str) -> list[str]:
    """Return the life of one trial: its values, its figures, its epochs, and why it ended."""
    name = f"Trial {record.number}" + (f" ({record.label})" if record.label else "")
    lines = [f"{name}, {record.state}: {clean(record.reason) or 'under way'}", ""]
    lines += table([(key, number(value)) for key, value in record.all_values.items()]) if record.all_values else []
    found = figures(record, task)
    if found is not None:
        rows = [["", "train", "validation", "gap"]]
        rows += [[key, *(number(found[part].get(key)) for part in ("train", "val", "gap"))] for key in found["val"]]
        lines += ["", f"At epoch {found['epoch']}, score {number(found['score'])}:"]
        lines += table(rows, frozenset({1, 2, 3}))
    if record.verdict is not None:
        compared = ", ".join(f"{key} {number(value)}" for key, value in record.verdict.numbers.items())
        lines += ["", f"Verdict: {record.verdict.kind} at epoch {record.verdict.epoch}; compared: {compared}"]
    return lines + (_epochs(record) if record.curve is not None and len(record.curve) else [])


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
    return ["", *table(rows, frozenset({0, 1, 2}))]


def list_text(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line a study."""
    if not documents:
        return ["There are no studies yet; start one with `tuner run SPACE`."]
    rows = [["study", "trials", "running", "failed", "metric", "best trial", "score", "validation", "test"]]
    for document in documents:
        best, test, metric = document["best"], document["test"], document["metric"]
        trials = document["trials"]
        row = [document["study"], *(str(trials[key]) for key in ("total", "running", "failed")), metric]
        row += [str(best["trial"]), number(best["score"]), number(best["val"].get(metric))] if best else ["-"] * 3
        rows.append([*row, number(test.get(metric, {}).get("value")) if test else "-"])
    return table(rows, frozenset({1, 2, 3, 5, 6, 7, 8}))
