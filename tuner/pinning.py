"""Figures and notes in the rows where optuna-dashboard looks for them.

Decides their keys and pieces, and which note may be written anew. Knows nothing of what they show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tuner.rows import KEY, add
from tuner.tables import models

DASHBOARD, NOTED, PIECE = "dashboard:", "noted", 2045  # optuna-dashboard's keys, and its length of an attribute


def pin(session: Any, study_id: int, figures: Mapping[str, str], notes: Mapping[int | None, str]) -> None:
    """Write figures (name: plotly's JSON) and notes (number of a trial, None for the study: Markdown) of a study in
    place of those that are there. A note that somebody else has changed since stays as it is.
    """
    attribute = models.StudySystemAttributeModel
    mine = session.query(attribute).filter(attribute.study_id == study_id)
    there = {row.key: row for row in mine.filter(attribute.key.startswith(DASHBOARD, autoescape=True))}
    written = mine.filter(attribute.key == f"{KEY}:{NOTED}").one_or_none()
    versions: dict[str, int] = json.loads(written.value_json) if written is not None else {}
    values = {f"{DASHBOARD}plot_data:{name}:": text for name, text in figures.items()}
    ids = dict(session.query(models.TrialModel.number, models.TrialModel.trial_id)
               .filter(models.TrialModel.study_id == study_id).all())  # fmt: skip
    numbers: dict[str, Any] = {}
    for trial, body in notes.items():
        of = DASHBOARD if trial is None else f"{DASHBOARD}{ids[trial]}:"
        version = there.get(f"{of}note_ver")
        now = json.loads(version.value_json) if version is not None else 0
        if now == versions.get(of, 0):
            values[f"{of}note_str:"] = body
            numbers[f"{of}note_ver"] = versions[of] = now + 1
    pieces = {f"{key}{i}": part for key, text in values.items() for i, part in enumerate(_pieces(text))}
    for key, row in there.items():
        if key in numbers or key.startswith(tuple(values)):
            session.delete(row)
    if written is not None:
        session.delete(written)
    session.flush()
    add(session, attribute, {"study_id": study_id}, {**pieces, **numbers, f"{KEY}:{NOTED}": versions})


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
