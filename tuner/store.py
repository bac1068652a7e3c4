"""One study in a storage: each trial is written in one transaction when it begins and in one when it ends, so that it
is either there whole or not; and it is in the study's ledger before.

Decides what of a trial lies in which of Optuna's columns, so that optuna-dashboard and `optuna.load_study` read it, and
finds what isn't as it was written: what tuner reads carries a checksum, and what must be there is counted. Optuna's
public storage methods write each value in a transaction of its own; here Optuna's own tables are written through its
own session. Knows nothing of how trials are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState

from tuner import lease, ledger
from tuner.access import Access, patient
from tuner.errors import StorageError
from tuner.pinning import NOTED, pin
from tuner.record import StudyRecord, TrialRecord
from tuner.rows import (
    COUNT,
    ENDED,
    FACTS,
    KEY,
    about,
    add,
    add_study,
    damaged,
    entry,
    entry_of,
    has_facts,
    insert,
    raw,
    raw_fact,
    steps,
    trial_of,
    value_of,
)
from tuner.sealing import seal, unseal
from tuner.speaking import DamagedError, spoken
from tuner.tables import models
from tuner.urls import masked

Suggested = Mapping[str, tuple[Any, BaseDistribution]]


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


@contextmanager
def readable(where: str, study: str) -> Iterator[None]:
    """Turn what a record that tuner can't have written makes of itself into one line: a storage may be anyone's.

    Raises:
        StorageError: it was changed, or is of another version.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise StorageError(
            f"{where}: study {study!r} can't be read ({said}); it was changed, or is of another version"
        ) from error


class Store(Access):
    """One study in a storage: its record, its trials, and facts that grow (`get`, `put`)."""

    def __init__(
        self, rdb: RDBStorage, study: StudyRecord, study_id: int, sealed: bool = True, facts: Iterable[str] = ()
    ) -> None:
        super().__init__(rdb, study.name, study_id)
        self.study = study
        self.sealed, self.facts = sealed, set(facts)  # not sealed: an older version made it
        self.ledger: Path | None = None  # where what ends is written first
        self.begun: dict[int, tuple[dict[str, Any], dict[int, float]]] = {}  # parameters, and values written so far

    @classmethod
    def load(cls, rdb: RDBStorage, name: str) -> Self | None:
        """Return the study of this name, or None if there is none.

        Raises:
            StorageError: a study of this name is there that tuner didn't make, or its record is damaged.
        """
        with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
            row = models.StudyModel.find_by_name(name, session)
            if row is None:
                return None
            text = raw_fact(session, row.study_id, KEY)
            if text is None and not has_facts(session, row.study_id):
                raise StorageError(f"{masked(rdb.url)}: study {name} wasn't made by tuner; choose another --study-name")
            try:
                document, sealed = unseal(text or b"", KEY)
                study = StudyRecord.from_json(document)
                if study.name != name:
                    raise ValueError("it has another name")
                told = raw_fact(session, row.study_id, f"{KEY}:{FACTS}")
                if told is None and sealed:
                    raise ValueError("what must be there is missing")
                facts = () if told is None else unseal(told, f"{study.name}/{FACTS}")[0]["value"]
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                raise damaged(name, "its record") from None
            return cls(rdb, study, row.study_id, sealed, facts)

    @classmethod
    def create(
        cls, rdb: RDBStorage, study: StudyRecord, shown: Mapping[str, Any], book: Path | None = None, place: str = ""
    ) -> Self:
        """Make a study in one transaction; `shown` are the attributes that the dashboard shows of it. `book` is its
        ledger, which says in which `place` the database is.

        Raises:
            StorageError: it can't be written, or is there.
        """
        with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
            store = cls(rdb, study, add_study(session, study, shown))
            if book is not None:
                ledger.begin(book, [ledger.head(study.to_json(), place)])
        store.ledger = book
        return store

    @patient
    def get(self, key: str) -> Any:
        """Return a fact of the study, or None.

        Raises:
            StorageError: it isn't as it was put.
        """
        with self.session() as session:
            text = raw_fact(session, self.study_id, f"{KEY}:{key}")
        if text is not None:
            return self._fact(key, text)
        if key in self.facts:
            raise damaged(self.study.name, key)
        return None

    @patient
    def found(self, prefix: str) -> list[Any]:
        """Return the facts of the study whose keys begin so, as `told` does."""
        return list(self.told(prefix).values())

    def told(self, prefix: str = "") -> dict[str, Any]:
        """Return the facts of the study whose keys begin so, by key, in the order in which they were put.

        Raises:
            StorageError: one isn't as it was put.
        """
        found = self.examined_facts(prefix)
        for key, value in found.items():
            if isinstance(value, StorageError):
                raise damaged(self.study.name, key)
        return found

    def examined_facts(self, prefix: str = "") -> dict[str, Any]:
        """Return what `told` does, with an error in place of a fact that isn't as it was put."""
        attribute = models.StudySystemAttributeModel
        with self.session() as session:
            rows = (
                session.query(attribute.key, raw(session, attribute.value_json))
                .filter(
                    attribute.study_id == self.study_id, attribute.key.startswith(f"{KEY}:{prefix}", autoescape=True)
                )
                .order_by(attribute.study_system_attribute_id)
                .all()
            )
        found: dict[str, Any] = {}
        for key, text in ((key.removeprefix(f"{KEY}:"), text) for key, text in rows):
            if key not in (COUNT, FACTS, NOTED) and not f"{KEY}:{key}".startswith(lease.PROCESS):
                try:
                    found[key] = self._fact(key, text)
                except DamagedError as error:
                    found[key] = error
        missing = {key for key in self.facts if key.startswith(prefix)} - set(found)
        return found | {key: damaged(self.study.name, key) for key in missing}

    def _fact(self, key: str, text: bytes | str) -> Any:
        try:
            document, sealed = unseal(text or b"", f"{self.study.name}/{key}")
        except ValueError:
            raise damaged(self.study.name, key) from None
        if self.sealed and not sealed:
            raise damaged(self.study.name, key)
        return document["value"] if sealed else document

    @patient
    def put(self, key: str, value: Any, lasting: bool = True) -> None:
        """Keep a fact of the study. One that isn't `lasting`, as it is soon put again, needn't be in the ledger."""
        with self.writing(alone=True) as session:
            self._put(session, key, value)
            if key not in self.facts:
                told = raw_fact(session, self.study_id, f"{KEY}:{FACTS}")
                keys = {key, *(self._fact(FACTS, told) if told is not None else ())}
                self._put(session, FACTS, sorted(keys))
                self.facts |= keys
            if self.ledger is not None and lasting:
                ledger.append(self.ledger, ledger.fact(key, value))

    def _put(self, session: Any, key: str, value: Any) -> None:
        attribute = models.StudySystemAttributeModel
        text = seal({"value": value}, f"{self.study.name}/{key}")
        there = (attribute.study_id == self.study_id, attribute.key == f"{KEY}:{key}")
        if not session.query(attribute).filter(*there).update({"value_json": text}, synchronize_session=False):
            insert(session, attribute, [{"study_id": self.study_id, "key": f"{KEY}:{key}", "value_json": text}])

    @patient
    def pin(self, figures: Mapping[str, str], notes: Mapping[int | None, str]) -> None:
        """Write figures (name: plotly's JSON) and notes (number of a trial, None for the study: Markdown) where
        optuna-dashboard shows them, in one transaction, in place of what was there.
        """
        with self.writing() as session:
            pin(session, self.study_id, figures, notes)

    @patient
    def records(self) -> list[TrialRecord]:
        """Return every trial, by number.

        Raises:
            StorageError: a trial is there that tuner didn't write, or one isn't as it was written, or isn't there.
        """
        told, trials = self.count(), self.examined()
        foreign = [str(number) for number, _, record in trials if record is None]
        if foreign and (told is None or all(int(number) >= told for number in foreign)):
            message = f"study {self.study.name} has trials that tuner didn't write ({', '.join(foreign[:5])})"
            raise StorageError(f"{self.where}: {message}; choose another --study-name")
        records = [record for _, _, record in trials if isinstance(record, TrialRecord)]
        numbers = [record.number for record in records]
        there = range(max(told or 0, len(trials)))
        if len(records) < len(there) or (told is not None and numbers != list(there)):
            lost = next((number for number in there if number not in numbers), len(there))
            raise damaged(self.study.name, f"trial {lost}")
        return records

    def count(self) -> int | None:
        """Return how many trials there must be; None in a study that an older version made."""
        with self.session() as session:
            text = raw_fact(session, self.study_id, f"{KEY}:{COUNT}")
        if text is None and self.sealed:
            raise damaged(self.study.name, "the number of its trials")
        return None if text is None else int(self._fact(COUNT, text))

    def examined(self) -> list[tuple[int, int, TrialRecord | ValueError | None]]:
        """Return for each number, with its id, what is there: a trial, one that isn't as it was written, or (None) one
        that tuner didn't write.
        """
        trial, attribute, worth = models.TrialModel, models.TrialSystemAttributeModel, models.TrialValueModel
        with self.session() as session:
            rows = (
                session.query(
                    trial.number, trial.trial_id, raw(session, trial.state), raw(session, attribute.value_json),
                    sqlalchemy.type_coerce(worth.value, sqlalchemy.Float), worth.trial_value_id,
                )
                .outerjoin(attribute, (attribute.trial_id == trial.trial_id) & (attribute.key == KEY))
                .outerjoin(worth, (worth.trial_id == trial.trial_id) & (worth.objective == 0))
                .filter(trial.study_id == self.study_id)
                .order_by(trial.number)
                .all()
            )  # fmt: skip
        return [(number, of, trial_of(self.study.name, self.sealed, number, *rest)) for number, of, *rest in rows]

    def entries(self, records: Iterable[TrialRecord]) -> list[ledger.Entry]:
        """Return what a ledger says of trials that are there."""
        with self.session() as session:
            return [entry_of(session, self.row(session, record.number), record) for record in records]

    @patient
    def begin(self, record: TrialRecord, suggested: Suggested) -> None:
        """Write a trial that starts to run, with its parameters, in one transaction.

        Raises:
            StorageError: somebody else added a trial to the study meanwhile.
        """
        with self.writing(alone=True) as session:
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
            insert(session, models.TrialParamModel, rows)
            document = record.to_json()
            text = seal(document, about(self.study.name, record.number, record.state))
            insert(session, models.TrialSystemAttributeModel,
                    [{"trial_id": row.trial_id, "key": KEY, "value_json": text}])  # fmt: skip
            self._put(session, COUNT, record.number + 1)
            if self.ledger is not None:
                params = {each["param_name"]: [float(each["param_value"]), each["distribution_json"]] for each in rows}
                self.begun[record.number] = params, {}
                begins = entry(row, record.state, record.number, document, params, [])
                ledger.append(self.ledger, begins, durable=False)
            if record.label:
                add(session, models.TrialUserAttributeModel, {"trial_id": row.trial_id}, {"label": record.label})
            if self.process is not None:
                lease.own(session, row.trial_id, self.process, new=True)

    def _is_begun(self, session: Any, record: TrialRecord) -> bool:
        """Tell whether this process began a trial of this number: the connection broke before it was told so."""
        trial = models.TrialModel
        query = session.query(trial.trial_id).filter(
            trial.study_id == self.study_id, trial.number == record.number, trial.state == TrialState.RUNNING
        )
        return self.process is not None and any(lease.owner_of(session, i) == self.process.id for (i,) in query)

    @patient
    def progress(self, number: int, values: Mapping[int, float]) -> None:
        """Add intermediate values of a running trial, in one transaction."""
        table = models.TrialIntermediateValueModel
        with self.writing() as session:
            row = self.row(session, number)
            if self.is_own(session, row):
                there = {step for (step,) in session.query(table.step).filter(table.trial_id == row.trial_id)}
                new = {step: value for step, value in values.items() if step not in there}
                insert(session, table, steps(row.trial_id, new))
        if number in self.begun:
            self.begun[number][1].update(values)

    @patient
    def finish(self, record: TrialRecord, values: Mapping[int, float], shown: Mapping[str, Any]) -> bool:
        """Write the end of a trial in one transaction; False if it isn't this process's to end: it had ended otherwise,
        or another process runs it.

        `values` are the intermediate values that aren't written yet, `shown` the attributes that people sort by.
        """
        with self.writing() as session:
            row = self.row(session, record.number)
            if not self.is_own(session, row):
                return self.process is not None and self._is_told(session, row, record)
            of = {"trial_id": row.trial_id}
            row.state, row.datetime_complete = ENDED[record.state], datetime.now()
            if record.score is not None and record.state != "failed":
                insert(session, models.TrialValueModel, [value_of(row.trial_id, record.score.value)])
            insert(session, models.TrialIntermediateValueModel, steps(row.trial_id, values))
            add(session, models.TrialUserAttributeModel, of, shown)
            attribute = models.TrialSystemAttributeModel
            document = record.to_json()
            text = seal(document, about(self.study.name, record.number, record.state))
            where = (attribute.trial_id == row.trial_id, attribute.key == KEY)
            session.query(attribute).filter(*where).update({"value_json": text}, synchronize_session=False)
            if self.ledger is not None:
                session.flush()  # what can't be written isn't to be in the ledger
                ledger.append(self.ledger, self._entry(session, row, record, document, values))
            return True

    def _entry(
        self, session: Any, row: Any, record: TrialRecord, document: Mapping[str, Any], values: Mapping[int, float]
    ) -> ledger.Entry:
        """Return what the ledger says of a trial that ends; what this process wrote of it needn't be read again."""
        if record.number not in self.begun:
            return entry_of(session, row, record)
        params, earlier = self.begun[record.number]
        points = [
            (step, value if math.isfinite(value) else None) for step, value in sorted({**earlier, **values}.items())
        ]
        return entry(row, record.state, record.number, document, params, points)

    @patient
    def release(self, number: int) -> None:
        """Give back a trial that didn't end: it waits to be run again, from its start."""
        with self.writing() as session:
            row = self.row(session, number)
            if self.is_own(session, row):
                self._set_back(session, row, TrialState.WAITING)
                lease.own(session, row.trial_id, None)

    @patient
    def adopt(self, number: int) -> bool:
        """Take a trial that was given back or whose process is gone: it runs again, from its start. False if it isn't
        to be had: it has ended, or a process that holds its lease runs it.
        """
        with self.writing(alone=True) as session:
            row = self.row(session, number)
            if row.state.is_finished() or not (self.is_own(session, row) or self.is_free(session, row)):
                return False
            self._set_back(session, row, TrialState.RUNNING)
            if self.process is not None:
                lease.own(session, row.trial_id, self.process)
            return True

    def _set_back(self, session: Any, row: Any, state: TrialState) -> None:
        row.state, row.datetime_start = state, datetime.now()
        table = models.TrialIntermediateValueModel
        session.query(table).filter(table.trial_id == row.trial_id).delete(synchronize_session=False)
        if row.number in self.begun:
            self.begun[row.number][1].clear()

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
        told = seal(record.to_json(), about(self.study.name, record.number, record.state))
        return bool(row.state == ENDED[record.state] and text == told)
