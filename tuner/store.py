"""One study in a storage: each trial is written in one transaction when it begins and in one when it ends, so that it
is either there whole or not.

Decides what of a trial lies in which of Optuna's columns, so that optuna-dashboard and `optuna.load_study` read it.
Optuna's public storage methods write each value in a transaction of its own; here Optuna's own tables are
written through its own session. Knows nothing of how trials are judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tuner import lease
from tuner.errors import StorageError, TakenOverError
from tuner.faults import point
from tuner.lease import Lease, Process
from tuner.patience import Patience
from tuner.record import State, StudyRecord, TrialRecord
from tuner.storage import masked, models, spoken

KEY = "tuner"
DASHBOARD, NOTED, PIECE = "dashboard:", "noted", 2045  # optuna-dashboard's keys, and its length of an attribute
STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip
ENDED = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
Suggested = Mapping[str, tuple[Any, BaseDistribution]]


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _patient(
    act: Callable[Concatenate[Store, Arguments], Result],
) -> Callable[Concatenate[Store, Arguments], Result]:
    """Let a transaction be tried again, where its store has patience, until what stands in its way has passed."""

    @wraps(act)
    def persist(store: Store, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if store.patience is None:
            return act(store, *args, **kwargs)
        return store.patience.keep_trying(lambda: act(store, *args, **kwargs))

    return persist


def study_names(rdb: RDBStorage) -> list[str]:
    """Return the names of the studies that were made by tuner."""
    with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
        query = (
            session.query(models.StudyModel.study_name)
            .join(models.StudySystemAttributeModel)
            .filter(models.StudySystemAttributeModel.key == KEY)
            .order_by(models.StudyModel.study_id)
        )
        return [row[0] for row in query]


class Store:
    """One study in a storage: its record, its trials, and facts that grow (`get`, `put`).

    From `take` on it writes for one process, and as long as no other one has taken the study: of trials only what this
    process began or adopted.
    """

    def __init__(self, rdb: RDBStorage, study: StudyRecord, study_id: int) -> None:
        self.rdb, self.study, self.study_id, self.where = rdb, study, study_id, masked(rdb.url)
        self.process: Process | None = None
        self.patience: Patience | None = None

    @classmethod
    def load(cls, rdb: RDBStorage, name: str) -> Store | None:
        """Return the study of this name, or None if there is none.

        Raises:
            StorageError: a study of this name is there that tuner didn't make.
        """
        with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
            row = models.StudyModel.find_by_name(name, session)
            if row is None:
                return None
            attribute = models.StudySystemAttributeModel.find_by_study_and_key(row, KEY, session)
            if attribute is None:
                raise StorageError(f"{masked(rdb.url)}: study {name} wasn't made by tuner; choose another --study-name")
            return cls(rdb, StudyRecord.from_json(json.loads(attribute.value_json)), row.study_id)

    @classmethod
    def create(cls, rdb: RDBStorage, study: StudyRecord, shown: Mapping[str, Any]) -> Store:
        """Make a study in one transaction; `shown` are the attributes that the dashboard shows of it.

        Raises:
            StorageError: it can't be written, or is there.
        """
        with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
            direction = models.StudyDirectionModel(objective=0, direction=StudyDirection.MAXIMIZE)
            row = models.StudyModel(study_name=study.name, directions=[direction])
            session.add(row)
            session.flush()
            system = {KEY: study.to_json(), "study:metric_names": [f"score ({study.metric})"]}
            _add(session, models.StudySystemAttributeModel, {"study_id": row.study_id}, system)
            _add(session, models.StudyUserAttributeModel, {"study_id": row.study_id}, shown)
            study_id = row.study_id
        return cls(rdb, study, study_id)

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        try:
            with spoken(self.where):
                yield
        except KeyError:  # Optuna's word for a study that isn't there
            raise StorageError(f"{self.where}: study {self.study.name} is gone; was it deleted?") from None

    @contextmanager
    def _session(self) -> Iterator[Any]:
        with self._spoken(), _create_scoped_session(self.rdb.scoped_session) as session:
            yield session

    @contextmanager
    def _writing(self, alone: bool = False) -> Iterator[Any]:
        """Hold a transaction that writes, committed at its end; with `alone`, no other one of the study at that time.

        Raises:
            TakenOverError: the study is another process's.
        """
        with self._spoken():
            point("before_write")
            with self._session() as session:
                self._lock(session, alone)
                self._refuse_taken(session)
                yield session
                point("in_write")
            point("after_write")

    def _lock(self, session: Any, alone: bool) -> None:
        """Lock the study's row until the transaction ends: who takes the study waits for who writes."""
        study = models.StudyModel
        query = session.query(study.study_id).filter(study.study_id == self.study_id)
        if query.with_for_update(read=not alone).one_or_none() is None:
            raise KeyError(self.study_id)

    def _refuse_taken(self, session: Any) -> None:
        if self.process is None:
            return
        own = lease.lease_of(session, self.study_id, self.process.id)
        if own is None or own.taken_by:
            by = own.taken_by if own is not None else "another process"
            what = f"study {self.study.name!r} was taken over by {by} while this process was paused"
            raise TakenOverError(f"{what}; nothing is lost, it goes on there")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Wait for nothing meanwhile: what is in the way is told at once."""
        self.patience, before = None, self.patience
        try:
            yield
        finally:
            self.patience = before

    def take(self, process: Process) -> tuple[Lease, float] | None:
        """Let a process run the study; or return the lease of the one that does, and the seconds left of it."""
        with self._session() as session:
            self._lock(session, alone=True)
            other = lease.holder(session, self.study_id)
            if other is None:
                lease.take(session, self.study_id, process)
                self.process = process
            return other

    def holder(self) -> Lease | None:
        """Return the lease of the process that runs the study, if one does."""
        with self._session() as session:
            found = lease.holder(session, self.study_id)
        return found[0] if found is not None else None

    def renew(self) -> None:
        """Renew this process's lease.

        Raises:
            TakenOverError: the study is another process's.
        """
        with self._session() as session:
            self._lock(session, alone=False)
            self._refuse_taken(session)
            assert self.process is not None
            lease.renew(session, self.study_id, self.process)

    def leave(self) -> None:
        """Give the study back: this process runs it no more."""
        with self._session() as session:
            if self.process is not None:
                lease.drop(session, self.study_id, self.process)

    @_patient
    def check(self) -> None:
        """Make sure that the study is still this process's, before something is written elsewhere.

        Raises:
            TakenOverError: it is another's.
        """
        with self._session() as session:
            self._refuse_taken(session)

    @_patient
    def get(self, key: str) -> Any:
        """Return a fact of the study, or None."""
        with self._session() as session:
            row = models.StudySystemAttributeModel.find_by_study_and_key(
                models.StudyModel(study_id=self.study_id), f"{KEY}:{key}", session
            )
            return None if row is None else json.loads(row.value_json)

    @_patient
    def found(self, prefix: str) -> list[Any]:
        """Return the facts of the study whose keys begin so, in the order in which they were put."""
        attribute = models.StudySystemAttributeModel
        with self._session() as session:
            rows = (
                session.query(attribute.value_json)
                .filter(
                    attribute.study_id == self.study_id, attribute.key.startswith(f"{KEY}:{prefix}", autoescape=True)
                )
                .order_by(attribute.study_system_attribute_id)
                .all()
            )
        return [json.loads(row[0]) for row in rows]

    @_patient
    def put(self, key: str, value: Any) -> None:
        """Keep a fact of the study."""
        attribute, text = models.StudySystemAttributeModel, json.dumps(value)
        with self._writing() as session:
            there = session.query(attribute).filter(
                attribute.study_id == self.study_id, attribute.key == f"{KEY}:{key}"
            )
            if not there.update({"value_json": text}, synchronize_session=False):
                _insert(session, attribute, [{"study_id": self.study_id, "key": f"{KEY}:{key}", "value_json": text}])

    @_patient
    def pin(self, figures: Mapping[str, str], notes: Mapping[int | None, str]) -> None:
        """Write figures (name: plotly's JSON) and notes (number of a trial, None for the study: Markdown) where
        optuna-dashboard shows them, in one transaction, in place of what was there. A note that somebody else has
        changed since stays as it is.
        """
        attribute = models.StudySystemAttributeModel
        with self._writing() as session:
            mine = session.query(attribute).filter(attribute.study_id == self.study_id)
            there = {row.key: row for row in mine.filter(attribute.key.startswith(DASHBOARD, autoescape=True))}
            written = mine.filter(attribute.key == f"{KEY}:{NOTED}").one_or_none()
            versions: dict[str, int] = json.loads(written.value_json) if written is not None else {}
            values = {f"{DASHBOARD}plot_data:{name}:": text for name, text in figures.items()}
            ids = dict(session.query(models.TrialModel.number, models.TrialModel.trial_id)
                       .filter(models.TrialModel.study_id == self.study_id).all())  # fmt: skip
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
            _add(session, attribute, {"study_id": self.study_id}, {**pieces, **numbers, f"{KEY}:{NOTED}": versions})

    @_patient
    def records(self) -> list[TrialRecord]:
        """Return every trial, by number.

        Raises:
            StorageError: a trial is there that tuner didn't write.
        """
        trial, attribute = models.TrialModel, models.TrialSystemAttributeModel
        with self._session() as session:
            rows = (
                session.query(trial.number, trial.state, attribute.value_json)
                .outerjoin(attribute, (attribute.trial_id == trial.trial_id) & (attribute.key == KEY))
                .filter(trial.study_id == self.study_id)
                .order_by(trial.number)
                .all()
            )
        foreign = [str(number) for number, _, text in rows if text is None]
        if foreign:
            message = f"study {self.study.name} has trials that tuner didn't write ({', '.join(foreign[:5])})"
            raise StorageError(f"{self.where}: {message}; choose another --study-name")
        return [TrialRecord.from_json(number, STATES[state], json.loads(text)) for number, state, text in rows]

    @_patient
    def begin(self, record: TrialRecord, suggested: Suggested) -> None:
        """Write a trial that starts to run, with its parameters, in one transaction.

        Raises:
            StorageError: somebody else added a trial to the study meanwhile.
        """
        with self._writing(alone=True) as session:
            if self._is_begun(session, record):
                return
            row = models.TrialModel(
                study_id=self.study_id, number=record.number, state=TrialState.RUNNING, datetime_start=datetime.now()
            )
            session.add(row)
            session.flush()
            if row.count_past_trials(session) != record.number:
                raise StorageError(f"{self.where}: study {self.study.name} got a trial from elsewhere; run it again")
            rows = [
                {"trial_id": row.trial_id, "param_name": name, "param_value": kind.to_internal_repr(value),
                 "distribution_json": distribution_to_json(kind)}
                for name, (value, kind) in suggested.items()
            ]  # fmt: skip
            _insert(session, models.TrialParamModel, rows)
            _add(session, models.TrialSystemAttributeModel, {"trial_id": row.trial_id}, {KEY: record.to_json()})
            if record.label:
                _add(session, models.TrialUserAttributeModel, {"trial_id": row.trial_id}, {"label": record.label})
            if self.process is not None:
                lease.own(session, row.trial_id, self.process)

    def _is_begun(self, session: Any, record: TrialRecord) -> bool:
        """Tell whether this process began a trial of this number: the connection broke before it was told so."""
        trial = models.TrialModel
        query = session.query(trial.trial_id).filter(
            trial.study_id == self.study_id, trial.number == record.number, trial.state == TrialState.RUNNING
        )
        return self.process is not None and any(lease.owner_of(session, i) == self.process.id for (i,) in query)

    @_patient
    def progress(self, number: int, values: Mapping[int, float]) -> None:
        """Add intermediate values of a running trial, in one transaction."""
        steps = models.TrialIntermediateValueModel
        with self._writing() as session:
            row = self._row(session, number)
            if self._is_own(session, row):
                there = {step for (step,) in session.query(steps.step).filter(steps.trial_id == row.trial_id)}
                new = {step: value for step, value in values.items() if step not in there}
                _insert(session, steps, _steps(row.trial_id, new))

    @_patient
    def finish(self, record: TrialRecord, values: Mapping[int, float], shown: Mapping[str, Any]) -> bool:
        """Write the end of a trial in one transaction; False if it isn't this process's to end: it had ended otherwise,
        or another process runs it.

        `values` are the intermediate values that aren't written yet, `shown` the attributes that people sort by.
        """
        with self._writing() as session:
            row = self._row(session, record.number)
            if not self._is_own(session, row):
                return self.process is not None and self._is_told(session, row, record)
            of = {"trial_id": row.trial_id}
            row.state, row.datetime_complete = ENDED[record.state], datetime.now()
            if record.score is not None and record.state != "failed":
                stored, kind = models.TrialValueModel.value_to_stored_repr(record.score.value)
                _insert(session, models.TrialValueModel, [{**of, "objective": 0, "value": stored, "value_type": kind}])
            _insert(session, models.TrialIntermediateValueModel, _steps(row.trial_id, values))
            _add(session, models.TrialUserAttributeModel, of, shown)
            attribute = models.TrialSystemAttributeModel
            text = json.dumps(record.to_json())
            where = (attribute.trial_id == row.trial_id, attribute.key == KEY)
            session.query(attribute).filter(*where).update({"value_json": text}, synchronize_session=False)
            return True

    @_patient
    def release(self, number: int) -> None:
        """Give back a trial that didn't end: it waits to be run again, from its start."""
        with self._writing() as session:
            row = self._row(session, number)
            if self._is_own(session, row):
                _set_back(session, row, TrialState.WAITING)
                lease.own(session, row.trial_id, None)

    @_patient
    def adopt(self, number: int) -> bool:
        """Take a trial that was given back or whose process is gone: it runs again, from its start. False if it isn't
        to be had: it has ended, or a process that holds its lease runs it.
        """
        with self._writing(alone=True) as session:
            row = self._row(session, number)
            if row.state.is_finished() or not (self._is_own(session, row) or self._is_free(session, row)):
                return False
            _set_back(session, row, TrialState.RUNNING)
            if self.process is not None:
                lease.own(session, row.trial_id, self.process)
            return True

    def _is_own(self, session: Any, row: Any) -> bool:
        """Tell whether a trial is under way and this process's; without a process, whether it is under way."""
        own = self.process is None or lease.owner_of(session, row.trial_id) == self.process.id
        return own and not row.state.is_finished()

    def _is_free(self, session: Any, row: Any) -> bool:
        owner = lease.owner_of(session, row.trial_id)
        if owner is None or row.state == TrialState.WAITING:
            return True
        held = lease.lease_of(session, self.study_id, owner)
        return held is None or not held.is_live(lease.clock(session))

    def _is_told(self, session: Any, row: Any, record: TrialRecord) -> bool:
        """Tell whether a trial ended with this very record: it was written, and the connection broke before that was
        told.
        """
        attribute = models.TrialSystemAttributeModel
        text = (
            session.query(attribute.value_json)
            .filter(attribute.trial_id == row.trial_id, attribute.key == KEY)
            .scalar()
        )
        return bool(row.state == ENDED[record.state] and text == json.dumps(record.to_json()))

    def _row(self, session: Any, number: int) -> Any:
        trial = models.TrialModel
        row = session.query(trial).filter(trial.study_id == self.study_id, trial.number == number).one_or_none()
        if row is None:
            raise StorageError(f"{self.where}: trial {number} of study {self.study.name} is gone; was it deleted?")
        return row

    def close(self) -> None:
        """Close the connections."""
        self.rdb.scoped_session.remove()
        self.rdb.engine.dispose()


def _set_back(session: Any, row: Any, state: TrialState) -> None:
    row.state, row.datetime_start = state, datetime.now()
    steps = models.TrialIntermediateValueModel
    session.query(steps).filter(steps.trial_id == row.trial_id).delete(synchronize_session=False)


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _insert(session: Any, model: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        session.execute(sqlalchemy.insert(model), rows)


def _add(session: Any, model: Any, of: Mapping[str, int], values: Mapping[str, Any]) -> None:
    _insert(session, model, [{**of, "key": key, "value_json": json.dumps(value)} for key, value in values.items()])


def _steps(trial_id: int, values: Mapping[int, float]) -> list[dict[str, Any]]:
    represent = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    rows = []
    for step, value in values.items():
        stored, kind = represent(value if not math.isinf(value) else math.nan)
        rows.append({"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind})
    return rows
