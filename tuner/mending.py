"""What a repair does to the file of a SQLite database: looks whether it is whole, keeps a backup of it, moves it aside,
brings its tables up to date, and reads what is left of one that is damaged.

Decides the names of what is kept. Knows nothing of ledgers, nor of what is written in place of what was lost.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage

from tuner import ledger
from tuner.errors import StorageError
from tuner.record import StudyRecord, TrialRecord
from tuner.speaking import first_line, spoken
from tuner.sqlite import alone, part_of, unchecked
from tuner.storage import opened
from tuner.store import Store, study_names
from tuner.urls import sqlite_url


@dataclass(slots=True)
class Left:
    """What a database holds of a study that is as it was written."""

    study: StudyRecord
    trials: dict[int, ledger.Entry] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def beside(path: Path, word: str) -> Path:
    """Return a name for what is kept of a file, that nothing has yet."""
    stem = f"{path.name}.{word}-{datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{again}" for again in range(2, 1000))]
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def back_up(path: Path) -> Path:
    """Copy a database as it stands, by SQLite's own means; return the copy."""
    copy = beside(path, "backup")
    with spoken(str(path)):
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    return copy


def inconsistency(path: Path) -> str:
    """Return what is wrong with a database's pages and indices, of which opening it looks at a part only."""
    with spoken(str(path)), closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        return "" if found == "ok" else first_line(found)


def migrate(path: Path) -> None:
    """Bring the tables of an older Optuna to those of the installed one, by its own means."""
    with spoken(str(path)):
        rdb = RDBStorage(sqlite_url(path), skip_compatibility_check=True, skip_table_creation=True)
        try:
            rdb.upgrade()
        finally:
            rdb.engine.dispose()


@contextmanager
def replacing(path: Path, aside: Path) -> Iterator[RDBStorage]:
    """Hold a new database, which takes the place of the one that is there when all has been written to it; that one is
    moved `aside` with its log.
    """
    with spoken(str(path)), alone(path):
        part = part_of(path)
        try:
            with opened(sqlite_url(part), create=True) as rdb:
                yield rdb
            for end in ("-wal", "-shm", ""):
                if path.with_name(f"{path.name}{end}").exists():
                    os.replace(path.with_name(f"{path.name}{end}"), aside.with_name(f"{aside.name}{end}"))
            os.replace(part, path)
        finally:
            for end in ("", ".lock", "-wal", "-shm"):
                part.with_name(f"{part.name}{end}").unlink(missing_ok=True)


def salvaged(path: Path) -> dict[str, Left]:
    """Return what a damaged database still holds of its studies, as far as checksums prove it."""
    found: dict[str, Left] = {}
    rdb = unchecked(path)
    try:
        for name in study_names(rdb):
            try:
                store = Store.load(rdb, name)
                if store is not None and store.sealed:
                    found[name] = left_of(store)
            except StorageError:
                continue
    except (StorageError, ValueError):
        pass
    finally:
        rdb.scoped_session.remove()
        rdb.engine.dispose()
    return found


def left_of(store: Store) -> Left:
    """Return what is left of a study, as far as it can be read."""
    left = Left(store.study)
    try:
        left.facts = {
            key: value for key, value in store.examined_facts().items() if not isinstance(value, StorageError)
        }
        rows = store.examined()
    except (StorageError, ValueError):
        rows = []
    for number, _, record in rows:
        if isinstance(record, TrialRecord):
            try:
                left.trials[number] = store.entries([record])[0]
            except (StorageError, ValueError):
                continue
    return left
