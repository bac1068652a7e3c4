"""Who runs a study: a process with a lease on it that it renews, and whose name every trial that it runs bears.

Decides when a process is gone (on its own machine at once, by its number and its start; seen from elsewhere, when its
lease has run out) and when one has lost its study. The clock is the database server's, or with SQLite this machine's.
Written in Optuna's tables, beside the other facts of a study. Knows nothing of what a study holds.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy
from sqlalchemy import bindparam

from tuner.tables import models

SECONDS = float(os.environ.get("TUNER_LEASE_SECONDS", "60"))
RENEWALS = 6  # in the length of a lease: some of them may fail or be late
PROCESS, OWNER = "tuner:process:", "tuner:owner"  # keys: of a study, one a process; of a trial
OF_STUDY, OF_TRIAL = models.StudySystemAttributeModel, models.TrialSystemAttributeModel
# made once: every transaction asks these
LEASE = sqlalchemy.select(OF_STUDY.value_json).where(
    OF_STUDY.study_id == bindparam("study"), OF_STUDY.key == bindparam("name")
)
OWNED_BY = sqlalchemy.select(OF_TRIAL.value_json).where(OF_TRIAL.trial_id == bindparam("trial"), OF_TRIAL.key == OWNER)


@dataclass(frozen=True, slots=True)
class Process:
    """A run of a study in a process: its name, and where the process is. `machine` says whose list of processes it is
    in: that of a machine since it was started, or of a container; `started` tells two of one number apart.
    """

    id: str
    host: str
    pid: int
    machine: str
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_gone(self) -> bool:
        """Tell whether it is known to have ended: only of a process of this machine it can be."""
        return self.machine == _machine() and _started(self.pid) != self.started


def this_process() -> Process:
    """Return a new name for this process: another run in it is another one."""
    return Process(uuid4().hex, socket.gethostname(), os.getpid(), _machine(), _started(os.getpid()) or 0)


def _machine() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks of its machine; None if there is no such process any more."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0 if not Path("/proc/self/stat").exists() and _answers(pid) else None
    return None if state in "ZX" else int(rest[18])


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


@dataclass(frozen=True, slots=True)
class Lease:
    """A process's hold on a study: until when, and who has taken the study from it."""

    process: Process
    until: float
    taken_by: str = ""

    def is_live(self, now: float) -> bool:
        """Tell whether it holds."""
        return not self.taken_by and self.until > now and not self.process.is_gone

    def to_json(self) -> dict[str, Any]:
        """Return what is stored under the process's name."""
        of = self.process
        where = {"host": of.host, "pid": of.pid, "machine": of.machine, "started": of.started}
        return {**where, "until": round(self.until, 3), "taken_by": self.taken_by}

    @classmethod
    def from_json(cls, name: str, told: Mapping[str, Any]) -> Lease:
        """Return what is stored under a process's name."""
        process = Process(name, told["host"], told["pid"], told["machine"], told["started"])
        return cls(process, told["until"], told["taken_by"])


def clock(session: Any) -> float:
    """Return the time that leases go by."""
    if session.get_bind().dialect.name == "sqlite":
        return time.time()
    return float(session.execute(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp())")).scalar())


def leases(session: Any, study_id: int) -> dict[str, Lease]:
    """Return the leases on a study, by the names of their processes."""
    found = session.query(OF_STUDY.key, OF_STUDY.value_json).filter(
        OF_STUDY.study_id == study_id, OF_STUDY.key.startswith(PROCESS, autoescape=True)
    )
    named = {key.removeprefix(PROCESS): json.loads(text) for key, text in found}
    return {name: Lease.from_json(name, told) for name, told in named.items()}


def holder(session: Any, study_id: int) -> tuple[Lease, float] | None:
    """Return a lease that holds, with the seconds that are left of it."""
    now = clock(session)
    live = [lease for lease in leases(session, study_id).values() if lease.is_live(now)]
    return (live[0], live[0].until - now) if live else None


def lease_of(session: Any, study_id: int, name: str) -> Lease | None:
    """Return a process's lease."""
    text = session.execute(LEASE, {"study": study_id, "name": f"{PROCESS}{name}"}).scalar()
    return None if text is None else Lease.from_json(name, json.loads(text))


def take(session: Any, study_id: int, process: Process) -> None:
    """Write a process's lease, and into those of others that have run out, who took the study from them: a process that
    was only paused can say so.
    """
    for other in leases(session, study_id).values():
        if other.taken_by or other.process.is_gone:
            drop(session, study_id, other.process)
        else:
            _write(session, study_id, replace(other, taken_by=str(process)))
    row = {"study_id": study_id, "key": f"{PROCESS}{process.id}", "value_json": "{}"}
    session.execute(OF_STUDY.__table__.insert(), [row])
    renew(session, study_id, process)


def renew(session: Any, study_id: int, process: Process) -> None:
    """Let a process's lease begin anew."""
    _write(session, study_id, Lease(process, clock(session) + SECONDS))


def drop(session: Any, study_id: int, process: Process) -> None:
    """Remove a process's lease."""
    query = session.query(OF_STUDY).filter(*_at(study_id, process.id))
    query.delete(synchronize_session=False)


def _write(session: Any, study_id: int, lease: Lease) -> None:
    query = session.query(OF_STUDY).filter(*_at(study_id, lease.process.id))
    query.update({"value_json": json.dumps(lease.to_json())}, synchronize_session=False)


def _at(study_id: int, name: str) -> tuple[Any, Any]:
    return OF_STUDY.study_id == study_id, OF_STUDY.key == f"{PROCESS}{name}"


def owner_of(session: Any, trial_id: int) -> str | None:
    """Return the name of the process that runs a trial, or ran it to its end."""
    text = session.execute(OWNED_BY, {"trial": trial_id}).scalar()
    return None if text is None else str(json.loads(text))


def own(session: Any, trial_id: int, process: Process | None, new: bool = False) -> None:
    """Let a trial bear a process's name, or nobody's; a `new` one bears none yet."""
    if not new:
        there = (OF_TRIAL.trial_id == trial_id, OF_TRIAL.key == OWNER)
        session.query(OF_TRIAL).filter(*there).delete(synchronize_session=False)
    if process is not None:
        row = {"trial_id": trial_id, "key": OWNER, "value_json": json.dumps(process.id)}
        session.execute(OF_TRIAL.__table__.insert(), [row])
