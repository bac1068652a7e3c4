"""What optuna-dashboard shows of a study beside Optuna's own: figures under fixed names, and notes of the study and of
notable trials.

Decides what is posted and how often: keeping it fresh may cost a small share of a study's time and no more. It is
written where optuna-dashboard looks for it; its own functions would load it, which costs seconds, and write every piece
in a transaction of its own. Knows no server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import Any

from tuner import telling
from tuner.diagnosis import overfitters
from tuner.drawing import drawn
from tuner.plots import plots
from tuner.plots.base import said
from tuner.ranking import best_records
from tuner.record import TrialRecord
from tuner.store import Store
from tuner.telling import number

FIGURES = ("curves", "validation-gap", "regularizers")
EVERY, SHARE = 5.0, 0.005  # seconds between two postings, at least; and of a study's time
LEADING, WORST = 5, 3
LEGEND = 44  # pixels for two rows of it
CELL, LINE = 450, 70  # pixels of height that the dashboard has for a figure, characters of width in a small window
BETWEEN, BELOW = 52, 48  # pixels for the ticks and the title of an axis: between rows of panels, below the last


class Board:
    """Posts a study's figures and notes into its storage, as often as is worth it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.next = 0.0

    def post(
        self, document: Callable[[], Mapping[str, Any]], records: Mapping[int, TrialRecord], last: bool = False
    ) -> None:
        """Post what a study has come to, if it is time, or if it is the last time.

        Raises:
            StorageError: it can't be written.
        """
        began = time.monotonic()
        if began < self.next and not last:
            return
        found = document()
        figures = plots(found, records, FIGURES)
        self.store.pin({f"tuner-{plot.name}": _titled(plot.figure, plot.title, plot.sentence) for plot in figures},
                       notes(found, records))  # fmt: skip
        now = time.monotonic()
        self.next = now + max(EVERY, (now - began) / SHARE)


def _titled(figure: Mapping[str, Any], title: str, sentence: str) -> str:
    """Return a figure with its title and its sentence in it: the dashboard has no other place for them."""
    layout, words = figure["layout"], wrap(sentence, LINE)
    text = f"<b>{said(title)}</b><br><sub>{'<br>'.join(map(said, words))}</sub>"
    legend = LEGEND if any(trace.get("showlegend", True) for trace in figure["data"]) else 0
    margin = {**layout["margin"], "t": 50 + 16 * len(words), "b": BELOW + legend}
    room = CELL - margin["t"] - margin["b"]
    titled = {
        **layout, **_apart(layout, room), "height": CELL, "margin": margin,
        "title": {"text": text, "x": 0.02, "y": 0.97, "yanchor": "top", "font": {"size": 16}},
        # below the axis, where two rows of it print over nothing
        "legend": {**layout["legend"], "y": -BELOW / room, "yanchor": "top", "font": {"size": 11}},
    }  # fmt: skip
    return json.dumps({"data": figure["data"], "layout": titled}, separators=(",", ":"))


def _apart(layout: Mapping[str, Any], room: float) -> dict[str, Any]:
    """Return a figure's axes with small titles, and its rows of panels so far apart that these have room."""
    axes = {name: value for name, value in layout.items() if name.startswith(("xaxis", "yaxis"))}
    rows = sorted({tuple(axis["domain"]) for name, axis in axes.items() if name[0] == "y" and "domain" in axis})
    high, gap = (1 - (len(rows) - 1) * BETWEEN / room) / max(1, len(rows)), BETWEEN / room
    found = {name: dict(axis) for name, axis in axes.items()}
    for name, axis in found.items():
        if "title" in axis:
            axis["title"] = {**axis["title"], "standoff": 4, "font": {"size": 11}}
        if name[0] == "y" and "domain" in axis:
            low = rows.index(tuple(axis["domain"])) * (high + gap)
            axis["domain"] = [low, min(1.0, low + high)]
    return found


def notes(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> dict[int | None, str]:
    """Return the notes, in Markdown, by the number of the trial; of the study, by None."""
    found: dict[int | None, str] = {None: _of_study(document)}
    for trial, why in _notable(document, records).items():
        found[trial] = _of_trial(records[trial], why)
    return found


def _of_study(document: Mapping[str, Any]) -> str:
    told = "\n".join(f"- {_plain(telling.typeset(sentence))}" for sentence in telling.answer(document))
    return (
        f"# {document['study']}\n\n{told}\n\n`{document['formula']}`\n\n"
        "`L_val`, `L_train`: the losses at the epoch that is kept, both measured in evaluation mode; `L_0`: that of "
        "knowing nothing. Attributes (`val_loss`, `train_loss`, `gap`, `best_epoch`, `verdict`, ...) sort the table of "
        "trials and can be axes of plots.\n"
    )


def _notable(document: Mapping[str, Any], records: Mapping[int, TrialRecord]) -> dict[int, str]:
    """Return trials that are worth a note, and why."""
    ended = [record for record in records.values() if record.ended and record.score is not None and record.curve]
    leading = best_records(records.values(), LEADING, document["score"]["form"])  # those that the figure shows
    found = {record.number: f"Place {place} by score." for place, record in enumerate(leading, start=1)}
    overfit = overfitters(record for record in ended if record.number not in found)
    found |= {fit.trial: "Overfit, with one of the largest gaps." for fit in overfit[:WORST]}
    for name, why in (
        ("baseline", "The baseline: the middle of the space, unregularized."),
        ("best", "The chosen one."),
    ):
        if document[name] is not None and document[name]["trial"] in records:
            found[document[name]["trial"]] = why
    return found


def _of_trial(record: TrialRecord, why: str) -> str:
    assert record.score is not None
    assert record.curve is not None
    lines = "\n".join(drawn(record.curve))
    drawing = (
        f"\n```\n{lines}\n```\nt: train, v: validation, |: the epoch kept ({record.score.epoch})\n" if lines else ""
    )
    return (
        f"**{why}** Score {number(record.score.value)}, gap {number(record.score.gap)}, epoch {record.score.epoch} of "
        f"{len(record.curve)}.\n\n{_plain(record.reason)}\n{drawing}"
    )


def _plain(text: str) -> str:
    """Return words that came from a user's data without what Markdown would make of them."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|!" else c for c in telling.clean(text))
