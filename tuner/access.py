"""A process's access to one study in a storage: transactions that begin by making sure that the study is still its own.

Decides what is locked while a transaction writes, how long is waited for what is in its way, and when a process has the
study or a trial of it. Knows nothing of what is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState
from sqlalchemy import bindparam

from tuner import lease
from tuner.errors import StorageError, TakenOverError
from tuner.faults import point
from tuner.guard import undivided
from tuner.lease import Lease, Process
from tuner.locking import hurried
from tuner.patience import Patience
from tuner.rows import damaged
from tuner.speaking import spoken
from tuner.tables import models
from tuner.urls import masked

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Own = TypeVar("Own", bound="Access")

# made once: every transaction asks these
_STUDY, _TRIAL = models.StudyModel, models.TrialModel
_FOUND = sqlalchemy.select(_STUDY.study_id).where(_STUDY.study_id == bindparam("study"))
STUDY = {alone: _FOUND.with_for_update(read=not alone) for alone in (False, True)}
TRIAL = sqlalchemy.select(_TRIAL).where(_TRIAL.study_id == bindparam("study"), _TRIAL.number == bindparam("number"))


def patient(
    act: Callable[Concatenate[Own, Arguments], Result],
) -> Callable[Concatenate[Own, Arguments], Result]:
    """Let a transaction be tried again, where its access has patience, until what stands in its way has passed."""

    @wraps(act)
    def persist(access: Own, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if access.patience is None:
            return act(access, *args, **kwargs)
        return access.patience.keep_trying(lambda: act(access, *args, **kwargs))

    return persist


class Access:
    """Access to a study, by name and by number. From `take` on it is for one process, and as long as no other one has
    taken the study: of trials only those that this process began or adopted are its own.
    """

    def __init__(self, rdb: RDBStorage, name: str, study_id: int) -> None:
        self.rdb, self.name, self.study_id, self.where = rdb, name, study_id, masked(rdb.url)
        self.process: Process | None = None
        self.patience: Patience | None = None

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        try:
            with spoken(self.where):
                yield
        except KeyError:  # Optuna's word for a study that isn't there
            raise StorageError(f"{self.where}: study {self.name} is gone; was it deleted?") from None
        except (LookupError, json.JSONDecodeError, UnicodeDecodeError):  # a value that nobody wrote
            raise damaged(self.name, "a value") from None

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Hold a transaction, committed at its end. Ctrl-C comes before or after it, for SQLAlchemy has moments when an
        exception leaves a lock behind; a server's driver may wait long, and has to be interrupted.
        """
        with (
            undivided() if self.rdb.engine.dialect.name == "sqlite" else nullcontext(),
            self._spoken(),
            _create_scoped_session(self.rdb.scoped_session) as session,
        ):
            yield session

    @contextmanager
    def writing(self, alone: bool = False) -> Iterator[Any]:
        """Hold a transaction that writes, committed at its end; with `alone`, no other one of the study at that time.

        Raises:
            TakenOverError: the study is another process's.
        """
        with self._spoken():
            point("before_write")
            with self.session() as session:
                self._lock(session, alone)
                self._refuse_taken(session)
                yield session
                point("in_write")
            point("after_write")

    def _lock(self, session: Any, alone: bool) -> None:
        """Lock the study's row until the transaction ends: who takes the study waits for who writes."""
        if session.execute(STUDY[alone], {"study": self.study_id}).one_or_none() is None:
            raise KeyError(self.study_id)

    def _refuse_taken(self, session: Any) -> None:
        if self.process is None:
            return
        own = lease.lease_of(session, self.study_id, self.process.id)
        if own is None or own.taken_by:
            by = own.taken_by if own is not None else "another process"
            what = f"study {self.name!r} was taken over by {by} while this process was paused"
            raise TakenOverError(f"{what}; nothing is lost, it goes on there")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Have no patience meanwhile; and where somebody waits for the end, as after Ctrl-C, let no lock be waited for
        longer than a moment, in whichever thread.
        """
        self.patience, before = None, self.patience
        waits = isinstance(sys.exception(), (GeneratorExit, KeyboardInterrupt))
        try:
            with hurried(self.rdb) if waits else nullcontext():
                yield
        finally:
            self.patience = before

    def take(self, process: Process) -> tuple[Lease, float] | None:
        """Let a process run the study; or return the lease of the one that does, and the seconds left of it."""
        with self.session() as session:
            self._lock(session, alone=True)
            other = lease.holder(session, self.study_id)
            if other is None:
                lease.take(session, self.study_id, process)
                self.process = process
            return other

    def holder(self) -> Lease | None:
        """Return the lease of the process that runs the study, if one does."""
        with self.session() as session:
            found = lease.holder(session, self.study_id)
        return found[0] if found is not None else None

    def renew(self) -> None:
        """Renew this process's lease.

        Raises:
            TakenOverError: the study is another process's.
        """
        with self.session() as session:
            self._lock(session, alone=False)
            self._refuse_taken(session)
            assert self.process is not None
            lease.renew(session, self.study_id, self.process)

    def leave(self) -> None:
        """Give the study back: this process runs it no more."""
        with self.session() as session:
            if self.process is not None:
                lease.drop(session, self.study_id, self.process)

    @patient
    def check(self) -> None:
        """Make sure that the study is still this process's, before something is written elsewhere.

        Raises:
            TakenOverError: it is another's.
        """
        with self.session() as session:
            self._refuse_taken(session)

    def row(self, session: Any, number: int) -> Any:
        """Return a trial's row.

        Raises:
            StorageError: it is gone.
        """
        row = session.execute(TRIAL, {"study": self.study_id, "number": number}).scalar_one_or_none()
        if row is None:
            raise StorageError(f"{self.where}: trial {number} of study {self.name} is gone; was it deleted?")
        return row

    def is_own(self, session: Any, row: Any) -> bool:
        """Tell whether a trial is under way and this process's; without a process, whether it is under way."""
        own = self.process is None or lease.owner_of(session, row.trial_id) == self.process.id
        return own and not row.state.is_finished()

    def is_free(self, session: Any, row: Any) -> bool:
        """Tell whether nobody runs a trial: it was given back, or its process's lease has run out."""
        owner = lease.owner_of(session, row.trial_id)
        if owner is None or row.state == TrialState.WAITING:
            return True
        held = lease.lease_of(session, self.study_id, owner)
        return held is None or not held.is_live(lease.clock(session))

    def close(self) -> None:
        """Close the connections."""
        self.rdb.scoped_session.remove()
        self.rdb.engine.dispose()
