"""Records and documents -> lines of plain text for a terminal. Decides wording and layout, and nothing else.

Text that came from a user's data is shown without control characters, so that no name can steer the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from tuner.config import Score
from tuner.confirmation import ROUNDS, Repeat
from tuner.diagnosis import diagnose
from tuner.record import StudyRecord, TrialRecord
from tuner.reporting import figures
from tuner.rescoring import Rescored
from tuner.scoring import LOSS
from tuner.space import Space
from tuner.stopping import alone

WIDTH = 118  # columns of a line of words
MOST_CLASSES = 6
FORMS = {
    "penalty": "the gap penalty", "conservative": "the standard error", "tiebreak": "the smaller gap of a tie",
    "none": "the score",
}  # fmt: skip
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
    """Return rows as aligned columns; columns in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return ["  ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]


def counted(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count} {noun}" + "s" * (count != 1)


def duration(seconds: float | None) -> str:
    """Return a time as people say it."""
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def roughly(seconds: float | None) -> str:
    """Return a time that is an estimate, with the digits that it deserves."""
    return "-" if seconds is None else duration(float(f"{seconds:.2g}"))


def run_head(study: StudyRecord, space: Space, trials: int) -> list[str]:
    """Return what is said before the first trial: what runs, how to stop it, and the head of the trials' columns."""
    counts = f"{counted(trials, 'trial')}, {counted(space.config.budget.workers, 'worker')}"
    lines = [f"study {study.name}: {counts}; Ctrl-C stops, the same command goes on from there"]
    lines += [line for note in (*space.notes, *study.data["notes"]) for line in _note(note)]
    names = ("trial", "", "score", f"val {study.metric}", f"train {study.metric}", "kept", "run", "left", "ended")
    head = _columns(*names)
    return [*lines, head]


def trial_line(record: TrialRecord, study: StudyRecord, left: float | None = None) -> str:
    """Return what is said of a trial that has ended; `kept` and `run` are epochs, `left` the time that the rest of the
    study will take.
    """
    found, name, time = figures(record, study.data["task"]), str(record.number), roughly(left)
    if found is None or record.state == "failed":
        return _columns(name, record.label, "-", "-", "-", "-", "-", time, f"failed: {clean(record.reason)}")
    kind = record.verdict.kind if record.verdict else ""
    ended = f"{record.state}: {kind}" + ("  <- best so far" if record.leads else "")
    val, train = (number(found[part].get(study.metric)) for part in ("val", "train"))
    epochs = str(len(record.curve)) if record.curve else "-"
    return _columns(name, record.label, number(found["score"]), val, train, str(found["epoch"]), epochs, time, ended)


MOST_RESCORED = 15


def rescored_text(rows: Sequence[Rescored], rule: Score, metric: str) -> list[str]:
    """Return the trials of a study under another score, the best ones and those on the front."""
    said = f"{metric}, form {rule.form}"
    if rule.form == "penalty":
        said = f"{metric}, gap_penalty {rule.gap_penalty:g}, noise {rule.noise:g}, tolerance {rule.tolerance:g}"
    first, led = rows[0], next(row for row in rows if row.place == 1)
    lines = [
        f"Under {said} trial {first.trial} leads"
        + (
            f", as it did (score {number(first.score.value)})."
            if first is led
            else f" ({number(first.score.value)}), not {led.trial} ({number(led.score.value)})."
        )
    ]
    cells = [["trial", "score", "place before", "score before", "validation", "gap", "penalty", "front"]]
    for place, row in enumerate(rows):
        if place < MOST_RESCORED or row.on_front:
            figures = (row.score.skill, row.score.gap, row.score.penalty)
            cells.append([str(row.trial), number(row.score.value), str(row.place), number(row.before),
                          *map(number, figures), "*" if row.on_front else ""])  # fmt: skip
    return [*lines, "", *table(cells, frozenset(range(7))), "", "*: no other trial is better in validation and in gap."]


def ablation_text(document: Mapping[str, Any]) -> list[str]:
    """Return what each regularizer of a configuration brought."""
    rows = [["switched off", "was", "score bought", "+-", "gap closed", "+-"]]
    for each in document["regularizers"]:
        figures = (f"{each[key]:.3g}" for key in ("score", "score_se", "gap", "gap_se"))
        rows.append([each["name"], number(each["value"]), *figures])
    if not document["values"]:
        return [f"Trial {document['trial']} has no regularizer: there is nothing to switch off."]
    if len(rows) == 1:
        return ["No regularizer could be compared: too many runs failed."]
    head = f"Trial {document['trial']}, on {document['rounds']} splits and seeds, with and without each regularizer:"
    return [head, *table(rows, frozenset(range(1, 6))), "", *wrap(
        "score bought: by how much the score is lower without it; gap closed: by how much the gap is larger. Within "
        "two standard errors of 0 nothing can be said of it.", WIDTH,
    )]  # fmt: skip


def repeat_line(repeat: Repeat, left: float | None = None) -> str:
    """Return what is said of a run of the confirmation, or of an ablation, that has ended."""
    score = number(repeat.score.value) if repeat.score else "-"
    said = f"failed: {clean(repeat.error)}" if repeat.error else "" if repeat.score else "no finite score"
    said = f"without {repeat.without}  {said}" if repeat.without else said
    name, time = f"confirm {repeat.round + 1}/{ROUNDS}", "" if left is None else roughly(left)
    return _columns(str(repeat.trial), name, score, "", "", str(repeat.kept), "", time, said).rstrip()


def _columns(
    trial: str, label: str, score: str, val: str, train: str, kept: str, run: str, left: str, ended: str
) -> str:
    return f"{trial:>5}  {label:<13}{score:>9}{val:>14}{train:>16}{kept:>6}{run:>5}{left:>9}  {ended}"


def study_text(document: Mapping[str, Any]) -> list[str]:
    """Return a study as people want to know it: counts, the best configuration, its figures, where things are."""
    lines = [*_counts(document), ""]
    best = document["best"]
    if best is None:
        return [*lines, "No trial is complete, so there is no best configuration yet."]
    lines += [f"Best configuration: trial {best['trial']}, epoch {best['epoch']}, score {number(best['score'])}"]
    lines += [f"  ({document['formula']})"]
    lines += _confirmed(document)
    searched = table([(name, number(value)) for name, value in best["params"].items()])
    lines += [f"  {line}" for line in searched or ["nothing was searched: the configuration is the space file's"]]
    facts = f"{best['parameters']:,.0f} parameters" if best["parameters"] else ""
    facts += f", {best['sparsity']:.0%} of the weights are exactly zero" if best["sparsity"] else ""
    lines += [f"  {facts}"] if facts else []
    return [*lines, "", *_figures(document), *_classes(document), *_said(document), "", *_places(document)]


def _confirmed(document: Mapping[str, Any]) -> list[str]:
    """Return what the confirmation found: who was chosen, with which score, and how far the search's score was luck."""
    found = document["confirmed"]
    if found is None:
        several = document["trials"]["complete"] > 1
        return ["  not confirmed: it may owe some of its score to the rows that it was chosen on"] * several
    first = found["contenders"][0]
    score = f"{number(first['score'])} +- {number(first['se'])}"
    what = "fresh splits and seeds" if found["fresh_splits"] else "fresh seeds (the data name the validation rows)"
    lines = [f"  confirmed on {found['rounds']} {what}: score {score}"]
    if found["search_choice"] != found["trial"]:
        lines[0] += f"; chosen over trial {found['search_choice']}, which led the search"
    more = "more" if (found["optimism"] or 0.0) >= 0 else "less"
    by = number(abs(found["optimism"] or 0.0))
    lines += [f"  optimism: the search's choice scored {by} {more} in the search than confirmed"]
    head = ["contender", "in the search", "confirmed", "+-"]
    rows = [
        [str(c["trial"]), *(number(c[key]) for key in ("search_score", "score", "se"))] for c in found["contenders"]
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
    shape = " x ".join(str(side) for side in data["input"])
    lines = [
        f"Study {document['study']}: {counted(trials['total'], 'trial')}{f' ({states})' if states else ''} in "
        f"{duration(document['seconds'])}",
        f"  data: {data['kind']} {shape}, {data['task']}; rows: {rows_of(data)}",
    ]
    lines += (
        [f"  ended: {kinds}; {epochs['run']} of {epochs['budgeted']} epochs run, {saved:.0%} saved"] if kinds else []
    )
    return lines + [line for note in data["notes"] for line in _note(note, "  note: ")]


def rows_of(data: Mapping[str, Any]) -> str:
    """Return how many rows each part has; of a cross-validation, which rows its folds are made of."""
    if data.get("folds"):
        return f"{data['refit']} train and validation in {data['folds']} folds, {data['test']} test"
    return f"{data['train']} train, {data['val']} validation, {data['test']} test"


def _note(text: str, opening: str = "note: ") -> list[str]:
    return wrap(opening + clean(text), WIDTH, subsequent_indent=" " * len(opening), break_on_hyphens=False)


def _figures(document: Mapping[str, Any]) -> list[str]:
    best, base, test = document["best"], document["baseline"], document["test"]
    names = [name for name in HEADLINE[document["data"]["task"]] if name in best["val"]]
    names += [document["metric"]] if document["metric"] not in names else []
    fresh = document["confirmed"]["val"] if document["confirmed"] else {}
    head = ["", "train", "val", *(["confirmed"] * bool(fresh)), "gap", "test (95 % interval)"]
    rows = [[*head, "baseline val", "baseline test"]]
    for name in names:
        row = [name, *(number(best[part].get(name)) for part in ("train", "val"))]
        row += [_with_spread(fresh.get(name))] * bool(fresh)
        row += [number(best["gap"].get(name))]
        row += [_with_interval(test.get(name)) if test and not test["stale"] else "-"]
        row += [number(base["val"].get(name)) if base else "-"]
        rows.append([*row, number(test["baseline"].get(name, {}).get("value")) if test and test["baseline"] else "-"])
    return table(rows, frozenset(range(1, 8)))


def _with_spread(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["sd"] is None:  # it wasn't finite in enough of the rounds
        return number(figure["mean"]) if figure else "-"
    return f"{number(figure['mean'])} +- {figure['sd']:.2g}"


def _with_interval(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{number(figure['value'])} ({number(figure['low'])} to {number(figure['high'])})"


def _said(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences that keep the figures honest."""
    lines = [*_fits(document["diagnosis"]), *_movers(document["importances"])]
    best, free, test = document["best"], document["without_gap_penalty"], document["test"]
    first = document["search_best"]
    if free and first and free["trial"] != first["trial"]:
        loss = LOSS[document["data"]["task"]]
        moved = f"val {loss} {number(free['val'][loss])} -> {number(first['val'][loss])}"
        if apart := free.get("better_by"):
            unit = f"1 - {loss}/L_0" if document["metric"] == loss else document["metric"]
            moved += f" ({unit} lower by {number(apart['value'])} +- {number(apart['se'])}, paired)"
        gaps = f"gap {number(free['relative_gap'])} -> {number(first['relative_gap'])}"
        what = FORMS[document["score"]["form"]]
        lines.append(f"In the search {what} put trial {first['trial']} before {free['trial']}: {moved}, {gaps}.")
    if rows := document["data"].get("refit"):
        lines.append(
            f"The model was trained again on {rows} rows, {best['epoch']} epochs; train and validation are the "
            "trial's, test is the model's."
        )
    if test and test["stale"]:
        lines.append(f"The test set was looked at for trial {test['trial']}; `tuner run` looks at the new best one.")
    elif test:
        looks = "once" if test["looks"] == 1 else f"{test['looks']} times, so its figures are no longer untouched"
        lines += [test["verdict"], f"The test set has been looked at {looks}."]
    elif document["data"]["test"] == 0:
        lines.append("There is no test set; the validation figures are those of a search and so too good.")
    return [part for line in lines for part in wrap(clean(line), WIDTH, subsequent_indent="  ")]


def _fits(diagnosis: Mapping[str, Any]) -> list[str]:
    """Return how the chosen trial and the baseline fit, and which ranges are too narrow."""
    best, base, lines = diagnosis["best"], diagnosis["baseline"], list[str]()
    if best:
        lines.append(f"Trial {best['trial']} is {best['fit']}: {best['reason']}.")
    if best and base and base["trial"] != best["trial"]:
        lines.append(f"The baseline is {base['fit']}: {base['reason']}.")
    return lines + [f"{bound['reason']}." for bound in diagnosis["bounds"]]


MOST_MOVERS = 4


def _movers(shares: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    """Return which values moved the score and the gap most."""
    return [
        f"What moved the {what}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in list(each.items())[:MOST_MOVERS])
        + " of the variance over complete trials."
        for what, each in (shares or {}).items()
    ]


def _places(document: Mapping[str, Any]) -> list[str]:
    study, folder = document["study"], str(Path(document["config"]).parent) if document["config"] else ""
    usual = folder in ("", f"studies/{study}")
    rows = [("configuration", document["config"]), ("model", document["model"]), ("storage", document["storage"])]
    rows += [("features", f"{document['features']} (for the trials to come; may be deleted)")] * bool(
        document["features"]
    )
    rows += [("one trial", f"tuner show {study if usual else folder} --trial {document['best']['trial']}")]
    rows += [("dashboard", f"tuner dashboard {study}" + ("" if usual else f" --studies-dir {Path(folder).parent}"))]
    rows += [("in Python", f'tuner.load_best("{study if usual else folder}")')] if document["config"] else []
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
        lines += [_alone(record)] if record.curve is not None and not record.folds else []
    return lines + (_epochs(record) if record.curve is not None and len(record.curve) else [])


def _alone(record: TrialRecord) -> str:
    """Return what each rule would have done to a trial by itself."""
    assert record.curve is not None
    said = [
        f"{kind} at epoch {epoch}" if epoch else f"{kind} not in these {len(record.curve)} epochs"
        for kind, epoch in alone(record.curve).items()
    ]
    return f"Each rule by itself would have ended it: {', '.join(said)}"


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
    return ["", *table(rows, frozenset({0, 1, 2}))]


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
        rows.append([*row, number(test.get(metric, {}).get("value")) if test else "-"])
    return table(rows, frozenset({1, 2, 3, 5, 6, 7, 8}))
