"""The rows of Optuna's tables that a study is made of, as the store and a repair write them.

Decides which texts carry a checksum, and what it is about. Knows no transaction: whoever calls holds one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tuner import ledger
from tuner.record import State, StudyRecord, TrialRecord, shown
from tuner.sealing import seal, unseal
from tuner.speaking import DamagedError
from tuner.tables import models

KEY = "tuner"
PARTS = (
    models.TrialParamModel, models.TrialValueModel, models.TrialIntermediateValueModel, models.TrialHeartbeatModel,
    models.TrialUserAttributeModel,
)  # fmt: skip
COUNT, FACTS = "trials", "facts"  # of what must be there: how many trials, the keys of which facts
STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip
ENDED = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OtherValueError(ValueError):
    """Optuna's own table has another value for a trial than its record, which is as it was written."""

    def __init__(self, record: TrialRecord) -> None:
        super().__init__("its value isn't that of its record")
        self.record = record


def damaged(study: str, what: str) -> DamagedError:
    """Return the error of a study of which something isn't as it was written."""
    return DamagedError(f"study {study}: {what} is damaged in the database; `tuner repair {study}` restores it")


def about(study: str, number: int, state: State) -> str:
    """Return what the checksum of a trial covers beside its record: what of its row doesn't change any more."""
    return f"{study}/{number}/{state if state not in ('running', 'waiting') else ''}"


def raw(session: Any, column: Any) -> Any:
    """Return a column of text as it lies there: as bytes, where it may not be text any more."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlalchemy.cast(sqlalchemy.type_coerce(column, sqlalchemy.String), sqlalchemy.LargeBinary)
    return sqlalchemy.type_coerce(column, sqlalchemy.String)


def raw_fact(session: Any, study_id: int, key: str) -> Any:
    """Return the text of a study's attribute, or None."""
    attribute = models.StudySystemAttributeModel
    query = session.query(raw(session, attribute.value_json))
    row = query.filter(attribute.study_id == study_id, attribute.key == key).one_or_none()
    return None if row is None else row[0]


def has_facts(session: Any, study_id: int) -> bool:
    """Tell whether a study has attributes of tuner's."""
    attribute = models.StudySystemAttributeModel
    query = session.query(attribute.key).filter(attribute.study_id == study_id)
    return query.filter(attribute.key.startswith(f"{KEY}:", autoescape=True)).first() is not None


def add_study(session: Any, study: StudyRecord, attributes: Mapping[str, Any]) -> int:
    """Add the rows of a study; return its id."""
    row = models.StudyModel(study_name=study.name)
    session.add(row)
    session.flush()
    attribute, of = models.StudySystemAttributeModel, {"study_id": row.study_id}
    sealed = {KEY: seal(study.to_json(), KEY)}
    for key, value in ((COUNT, 0), (FACTS, [])):
        sealed[f"{KEY}:{key}"] = seal({"value": value}, f"{study.name}/{key}")
    insert(session, attribute, [{**of, "key": key, "value_json": text} for key, text in sealed.items()])
    shown_of_study(session, study, row.study_id, attributes)
    study_id: int = row.study_id
    return study_id


def trial_of(
    study: str, sealed: bool, number: int, state: bytes | str, text: bytes | str | None, value: Any, valued: Any
) -> TrialRecord | ValueError | None:
    """Return the trial that a row and its attributes hold; what is wrong with it; or None where tuner didn't write it.

    `value` is what Optuna's own table says of its score, `valued` the id of that row. In a study that is `sealed` every
    record has a checksum.
    """
    if text is None:
        return None
    try:
        if not isinstance(number, int):
            raise ValueError("its number is none")
        word = STATES[TrialState[state.decode() if isinstance(state, bytes) else state]]
        document, whole = unseal(text, about(study, number, word))
        if sealed and not whole:
            raise ValueError("it has lost its checksum")
        record = TrialRecord.from_json(number, word, document)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        return ValueError(str(error))
    score = record.score if record.ended and word != "failed" else None
    expected = None if score is None else models.TrialValueModel.value_to_stored_repr(score.value)[0]
    same = value == expected and (valued is None) == (score is None)
    return record if same else OtherValueError(record)


def shown_of_study(session: Any, study: StudyRecord, study_id: int, attributes: Mapping[str, Any]) -> None:
    """Add the rows of a study that Optuna and its dashboard read: its direction, its metric, attributes."""
    of = {"study_id": study_id}
    insert(session, models.StudyDirectionModel, [{**of, "objective": 0, "direction": StudyDirection.MAXIMIZE}])
    names = [f"score ({study.metric})"]
    add(session, models.StudySystemAttributeModel, of, {"study:metric_names": names})
    add(session, models.StudyUserAttributeModel, of, attributes)


def entry_of(session: Any, row: Any, record: TrialRecord) -> ledger.Entry:
    """Return what a ledger says of a trial: its record, and what else is needed to write its rows."""
    param, step = models.TrialParamModel, models.TrialIntermediateValueModel
    params = session.query(param.param_name, param.param_value, param.distribution_json)
    steps = session.query(step.step, step.intermediate_value)
    of = row.trial_id
    kinds = {name: rest for name, *rest in params.filter(param.trial_id == of).order_by(param.param_id)}
    points = [tuple(each) for each in steps.filter(step.trial_id == of).order_by(step.step)]
    return entry(row, record.state, record.number, record.to_json(), kinds, points)


def entry(
    row: Any, state: State, number: int, record: Mapping[str, Any], params: Mapping[str, Any], steps: Sequence[Any]
) -> ledger.Entry:
    """Return what a ledger says of a trial that has a row."""
    return {
        "trial": number, "state": state, "id": row.trial_id,
        "begun": row.datetime_start and row.datetime_start.isoformat(),
        "ended": row.datetime_complete and row.datetime_complete.isoformat(),
        "params": params, "steps": steps, "record": record,
    }  # fmt: skip


def forget_trial(session: Any, trial_id: int) -> None:
    """Delete the rows of a trial, but for what others than tuner hold of it in its system attributes."""
    _empty_trial(session, trial_id)
    session.query(models.TrialModel).filter(models.TrialModel.trial_id == trial_id).delete(synchronize_session=False)


def forget_orphans(session: Any) -> None:
    """Delete rows of trials that aren't there: a new trial may get the id of one that was lost."""
    there = session.query(models.TrialModel.trial_id)
    for model in (*PARTS, models.TrialSystemAttributeModel):
        session.query(model).filter(model.trial_id.not_in(there)).delete(synchronize_session=False)


def _empty_trial(session: Any, trial_id: int) -> None:
    for model in PARTS:
        session.query(model).filter(model.trial_id == trial_id).delete(synchronize_session=False)
    own = models.TrialSystemAttributeModel
    ours = (own.key == KEY) | own.key.startswith(f"{KEY}:", autoescape=True)  # its record, and whose it was
    session.query(own).filter(own.trial_id == trial_id, ours).delete(synchronize_session=False)


def write_trials(session: Any, study: StudyRecord, study_id: int, entries: Iterable[ledger.Entry]) -> None:
    """Write the rows of trials by what a ledger says of them: under their old ids, unless another study has one."""
    listed = sorted(entries, key=lambda entry: entry["trial"])
    ids = [entry["id"] for entry in listed if entry["id"] is not None]
    there = session.query(models.TrialModel.trial_id).filter(models.TrialModel.trial_id.in_(ids)).first()
    taken = there is not None or len(ids) < len(listed)
    for entry in listed:
        _write_trial(session, study, study_id, entry, None if taken else entry["id"])


def _write_trial(session: Any, study: StudyRecord, study_id: int, entry: ledger.Entry, trial_id: int | None) -> None:
    record = TrialRecord.from_json(entry["trial"], entry["state"], entry["record"])
    state = ENDED.get(record.state) or TrialState[record.state.upper()]
    times = {name: entry[key] and datetime.fromisoformat(entry[key])
             for name, key in (("datetime_start", "begun"), ("datetime_complete", "ended"))}  # fmt: skip
    row = models.TrialModel(study_id=study_id, number=record.number, state=state, **times)
    row.trial_id = trial_id
    session.add(row)
    session.flush()
    of = {"trial_id": row.trial_id}
    _empty_trial(session, row.trial_id)  # there may be some of one that was lost
    kinds = [{**of, "param_name": name, "param_value": value, "distribution_json": kind}
             for name, (value, kind) in entry["params"].items()]  # fmt: skip
    insert(session, models.TrialParamModel, kinds)
    insert(session, models.TrialIntermediateValueModel, steps(row.trial_id, {
        step: math.nan if value is None else value for step, value in entry["steps"]}))  # fmt: skip
    if record.ended and record.score is not None and record.state != "failed":
        insert(session, models.TrialValueModel, [value_of(row.trial_id, record.score.value)])
    text = seal(record.to_json(), about(study.name, record.number, record.state))
    insert(session, models.TrialSystemAttributeModel, [{**of, "key": KEY, "value_json": text}])
    add(session, models.TrialUserAttributeModel, of, attributes_of(record))


def attributes_of(record: TrialRecord) -> dict[str, Any]:
    """Return the attributes of a trial that people sort by."""
    return ({"label": record.label} if record.label else {}) | (shown(record) if record.ended else {})


def value_of(trial_id: int, score: float) -> dict[str, Any]:
    """Return the row of a trial's value."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(score)
    return {"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}


def insert(session: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    """Insert rows, if there are any: into the table itself, which takes half the time of going by its class."""
    if rows:
        session.execute(model.__table__.insert(), rows)


def add(session: Any, model: Any, of: Mapping[str, int], values: Mapping[str, Any]) -> None:
    """Insert attributes of a study or a trial."""
    insert(session, model, [{**of, "key": key, "value_json": json.dumps(value)} for key, value in values.items()])


def steps(trial_id: int, values: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return the rows of intermediate values."""
    represent = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    rows = []
    for step, value in values.items():
        stored, kind = represent(value if not math.isinf(value) else math.nan)
        rows.append({"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind})
    return rows
