"""What is said while something runs, and how anything is laid out: lines of plain text for a terminal.

Text that came from a user's data is shown without control characters, so that no name can steer the terminal.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

import typer

from tuner.config import Score
from tuner.confirmation import ROUNDS, T95, Confirmed, Repeat
from tuner.record import StudyRecord, TrialRecord
from tuner.reporting import figures
from tuner.rescoring import Rescored
from tuner.space import Space
from tuner.telling import clean, counted, number

WIDTH = 118  # columns of a line of words


def say(*lines: str) -> None:
    """Print lines on stderr, without control characters."""
    for line in lines:
        typer.echo(clean(line), err=True)


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset(), within: int | None = None) -> list[str]:
    """Return rows as aligned columns; columns in `right` are right-aligned. Those that don't fit `within` so many
    characters follow below, beside the first column once more.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    fitting = len(widths)
    while within is not None and fitting > 2 and sum(widths[:fitting]) + 2 * (fitting - 1) > within:
        fitting -= 1
    if fitting < len(widths):
        rest = [[row[0], *row[fitting:]] for row in rows]
        moved = frozenset({i - fitting + 1 for i in right if i >= fitting} | (right & {0}))
        return [*table([row[:fitting] for row in rows], right), "", *table(rest, moved, within)]

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return ["  ".join(cell(i, text) for i, text in enumerate(row)).rstrip() for row in rows]


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
    if seconds is None:
        return "-"
    return duration(float(f"{seconds:.2g}")) if seconds >= 1 else "<1 s"


def width() -> int:
    """Return the columns of a line of words: those of a terminal, but no more than can be read."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH


def room() -> int | None:
    """Return the columns of a terminal; None where the output goes elsewhere, and may be as wide as it is."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else None


def run_head(study: StudyRecord, space: Space, trials: int, narrow: bool = False) -> list[str]:
    """Return what is said before the first trial: what runs, how to stop it, and the head of the trials' columns."""
    counts = f"{counted(trials, 'trial')}, {counted(space.config.budget.workers, 'worker')}"
    lines = [f"study {study.name}: {counts}; Ctrl-C stops, the same command goes on from there"]
    lines += [line for text in (*space.notes, *study.data["notes"]) for line in note(text)]
    names = ("trial", "", "score", f"val {study.metric}", f"train {study.metric}", "kept", "run", "left", "ended")
    head = _columns(*names, narrow=narrow)
    return [*lines, head]


def trial_line(record: TrialRecord, study: StudyRecord, left: float | None = None, narrow: bool = False) -> str:
    """Return what is said of a trial that has ended; `kept` and `run` are epochs, `left` the time that the rest of the
    study will take. A `narrow` line leaves out what `tuner show` tells.
    """
    found, name, time = figures(record, study.data["task"]), str(record.number), roughly(left)
    if found is None or record.state == "failed":
        return _columns(name, clean(record.label), "-", "-", "-", "-", "-", time, f"failed: {clean(record.reason)}",
                        narrow=narrow)  # fmt: skip
    kind = record.verdict.kind if record.verdict else ""
    ended = f"{record.state}: {kind}" + ("  <- best so far" if record.leads else "")
    val, train = (number(found[part].get(study.metric)) for part in ("val", "train"))
    epochs = str(len(record.curve)) if record.curve else "-"
    score, kept = number(found["score"]), str(found["epoch"])
    return _columns(name, clean(record.label), score, val, train, kept, epochs, time, ended, narrow=narrow)


MOST_RESCORED = 15


def rescored_text(
    rows: Sequence[Rescored], rule: Score, metric: str, before: Confirmed | None = None, after: Confirmed | None = None
) -> list[str]:
    """Return the trials of a study under another score, the best ones and those on the front, and what its
    confirmation comes to under it.
    """
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
    if before:
        lines += wrap(_reconfirmed_text(before, after, first.trial), width())
    cells = [["trial", "score", "place before", "score before", "validation", "gap", "penalty", "front"]]
    for place, row in enumerate(rows):
        if place < MOST_RESCORED or row.on_front:
            figures = (row.score.skill, row.score.gap, row.score.penalty)
            cells.append([str(row.trial), number(row.score.value), str(row.place), number(row.before),
                          *map(number, figures), "*" if row.on_front else ""])  # fmt: skip
    return [*lines, "", *table(cells, frozenset(range(7))), "", "*: no other trial is better in validation and in gap."]


def _reconfirmed_text(before: Confirmed, after: Confirmed | None, leader: int) -> str:
    tried = f"Of the {len(before.standings)} configurations that were confirmed"
    if after is None:
        return f"{tried} none comes to such a score in all rounds."
    other = "also chooses" if after.trial == before.trial else "chooses"
    said = (
        f"{tried} this {other} trial {after.trial} ({number(after.standings[0].mean)} over {len(after.rounds)} rounds)"
    )
    said += "." if after.trial == before.trial else f"; the study chose trial {before.trial}."
    tried_too = any(each.trial == leader for each in before.standings)
    return said if tried_too else f"{said} Trial {leader} wasn't among them."


def ablation_text(document: Mapping[str, Any]) -> list[str]:
    """Return what each regularizer of a configuration brought."""
    rows = [["switched off", "was", "score bought", "+- (95 %)", "gap closed", "+- (95 %)"]]
    for each in document["regularizers"]:
        t = T95[each["rounds"]]
        figures = each["score"], t * each["score_se"], each["gap"], t * each["gap_se"]
        rows.append([each["name"], number(each["value"]), *(f"{figure:.3g}" for figure in figures)])
    if not document["values"]:
        return [f"Trial {document['trial']} has no regularizer: there is nothing to switch off."]
    if len(rows) == 1:
        return ["No regularizer could be compared: too many runs failed."]
    rounds = max(each["rounds"] for each in document["regularizers"])
    head = f"Trial {document['trial']}, on {rounds} splits and seeds, with and without each regularizer:"
    return [head, *table(rows, frozenset(range(1, 6))), "", *wrap(
        "score bought: by how much the score is lower without it; gap closed: by how much the gap is larger. Of "
        "what is within its noise (+-) nothing can be said.", width(),
    )]  # fmt: skip


def repeat_line(repeat: Repeat, left: float | None = None, what: str = "confirm", narrow: bool = False) -> str:
    """Return what is said of a run of the confirmation, or of an ablation (a `round`), that has ended."""
    score = number(repeat.score.value) if repeat.score else "-"
    said = f"failed: {clean(repeat.error)}" if repeat.error else "" if repeat.score else "no finite score"
    said = f"without {repeat.without}  {said}" if repeat.without else said
    name, time = f"{what} {repeat.round + 1}/{ROUNDS}", "" if left is None else roughly(left)
    cells = str(repeat.trial), name, score, "", "", str(repeat.kept), "", time, said
    return _columns(*cells, narrow=narrow).rstrip()


def _columns(
    trial: str, label: str, score: str, val: str, train: str, kept: str, run: str, left: str, ended: str,
    narrow: bool = False,
) -> str:  # fmt: skip
    if narrow:
        return f"{trial:>5}  {label:<11}{score:>8}{val:>14}  {ended}"
    return f"{trial:>5}  {label:<13}{score:>9}{val:>14}{train:>16}{kept:>6}{run:>5}{left:>9}  {ended}"


def told_of(data: Mapping[str, Any], outputs: str = "") -> str:
    """Return what data are, and how many rows they have; `outputs` is what is to be said of a network's."""
    if data["kind"] == "none":
        return f"the training loop's own, {data['task']}"
    shape = " x ".join(str(side) for side in data["input"])
    return f"{data['kind']} {shape}, {data['task']}{outputs}; rows: {rows_of(data)}"


def rows_of(data: Mapping[str, Any]) -> str:
    """Return how many rows each part has; of a cross-validation, which rows its folds are made of."""
    if data.get("folds"):
        return f"{data['refit']} train and validation in {data['folds']} folds, {data['test']} test"
    return f"{data['train']} train, {data['val']} validation, {data['test']} test"


@contextmanager
def warned(say: Callable[[str], None]) -> Iterator[None]:
    """Have what the program warns of while it works said, a line each."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"tuner: {clean(record.getMessage())}")

    logger, told = logging.getLogger("tuner"), Told()
    logger.addHandler(told)
    try:
        yield
    finally:
        logger.removeHandler(told)


def note(text: str, opening: str = "note: ") -> list[str]:
    """Return a note as lines, indented under its opening."""
    return wrap(opening + clean(text), width(), subsequent_indent=" " * len(opening), break_on_hyphens=False)
