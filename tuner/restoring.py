"""A study whose rows are written anew, for a repair: what of them Optuna's own tables hold is looked at, too.

Decides in which rows what a ledger says goes, in one transaction. Knows neither what is believed nor why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection

from tuner import lease, ledger
from tuner.errors import StorageError
from tuner.pinning import NOTED
from tuner.record import TrialRecord
from tuner.rows import (
    COUNT,
    FACTS,
    KEY,
    attributes_of,
    forget_orphans,
    forget_trial,
    insert,
    raw,
    shown_of_study,
    write_trials,
)
from tuner.sealing import seal
from tuner.speaking import spoken
from tuner.store import Store
from tuner.tables import models
from tuner.urls import masked


class Restored(Store):
    """A store whose rows may be looked at and written anew."""

    @classmethod
    def id_of(cls, rdb: RDBStorage, name: str) -> int | None:
        """Return the id of the study of this name, whatever else is there of it."""
        with spoken(masked(rdb.url)), _create_scoped_session(rdb.scoped_session) as session:
            row = models.StudyModel.find_by_name(name, session)
            return None if row is None else int(row.study_id)

    def taken(self, ids: Iterable[int]) -> set[int]:
        """Return which ids of trials are there, of any study."""
        trial = models.TrialModel.trial_id
        with self.session() as session:
            return {row[0] for row in session.query(trial).filter(trial.in_(list(ids)))}

    def mend(self, gone: Iterable[int], entries: Iterable[ledger.Entry], facts: Mapping[str, Any], count: int) -> None:
        """Write trials anew by what a ledger says of them, in place of those with the ids `gone`, and all facts, so
        that there are `count` trials; in one transaction.
        """
        attribute = models.StudySystemAttributeModel
        with self.writing() as session:
            text = {"value_json": seal(self.study.to_json(), KEY)}
            row = session.query(models.StudyModel).filter(models.StudyModel.study_id == self.study_id)
            row.update({"study_name": self.study.name}, synchronize_session=False)
            own = session.query(attribute).filter(attribute.study_id == self.study_id)
            if not own.filter(attribute.key == KEY).update(text, synchronize_session=False):
                insert(session, attribute, [{"study_id": self.study_id, "key": KEY, **text}])
            noted = own.filter(
                attribute.key.startswith(f"{KEY}:", autoescape=True), attribute.key != f"{KEY}:{NOTED}",
                ~attribute.key.startswith(lease.PROCESS, autoescape=True),
            )  # fmt: skip
            noted.delete(synchronize_session=False)
            for key, value in {**facts, COUNT: count, FACTS: sorted(facts)}.items():
                self._put(session, key, value)
            for trial_id in gone:
                forget_trial(session, trial_id)
            session.flush()
            write_trials(session, self.study, self.study_id, entries)
            forget_orphans(session)

    def is_shown(self, record: TrialRecord) -> bool:
        """Tell whether a trial has the attributes that people sort by."""
        attribute = models.TrialUserAttributeModel
        try:
            with self.session() as session:
                row = self.row(session, record.number)
                query = session.query(attribute.key, attribute.value_json).filter(attribute.trial_id == row.trial_id)
                there = {key: json.loads(text) for key, text in query}
        except (StorageError, ValueError):
            return False
        return attributes_of(record).items() <= there.items()

    def is_posted(self, attributes: Mapping[str, Any]) -> bool:
        """Tell whether what Optuna and its dashboard read of the study itself is whole."""
        try:
            posted = self.rdb.get_study_system_attrs(self.study_id)
            there = self.rdb.get_study_user_attrs(self.study_id)
            directions = self.rdb.get_study_directions(self.study_id)
        except (KeyError, LookupError, ValueError, TypeError, sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            return False
        named = posted.get("study:metric_names") == [f"score ({self.study.metric})"]
        return named and directions == [StudyDirection.MAXIMIZE] and attributes.items() <= there.items()

    def unpost(self, attributes: Mapping[str, Any]) -> None:
        """Write anew what Optuna reads of the study itself, and delete what was posted for its dashboard."""
        own, user = models.StudySystemAttributeModel, models.StudyUserAttributeModel
        with self.writing() as session:
            ids = [row[0] for row in session.query(own.study_system_attribute_id, raw(session, own.key)).filter(
                own.study_id == self.study_id, ~own.key.startswith(f"{KEY}:"), own.key != KEY)]  # fmt: skip
            session.query(own).filter(own.study_system_attribute_id.in_(ids)).delete(synchronize_session=False)
            noted = session.query(own).filter(own.study_id == self.study_id, own.key == f"{KEY}:{NOTED}")
            noted.delete(synchronize_session=False)
            session.query(user).filter(user.study_id == self.study_id).delete(synchronize_session=False)
            directions = models.StudyDirectionModel
            session.query(directions).filter(directions.study_id == self.study_id).delete(synchronize_session=False)
            shown_of_study(session, self.study, self.study_id, attributes)
