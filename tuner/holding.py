"""A study is run by one process at a time, wherever it runs: its lease in the storage says so, and its folder's lock.

Decides that the lease is renewed by a thread, for an epoch may take minutes and nothing else happens in them; with
SQLite its transaction, some milliseconds in ten seconds, waits for others as they wait for it. A process that comes
back after its lease has run out goes on if nobody has taken its study, and else ends at the first thing that it writes.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tuner import lease
from tuner.best import LOCK
from tuner.errors import StorageError, UsageError
from tuner.files import writing
from tuner.locking import MOMENT
from tuner.sqlite import owned
from tuner.store import Store
from tuner.urls import database_file

TRIES, INSTANT = 5, 0.05  # to lock a study's folder, and seconds between them


@contextmanager
def held(store: Store, folder: Path) -> Iterator[None]:
    """Hold a study: as long as this lasts no other process runs it.

    Raises:
        UsageError: another one does, or its folder is in use by a study of another database.
    """
    other = store.take(lease.this_process())
    if other is not None:
        by, left = other
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        lasts = f"its lease lasts until {until} and is renewed as long as it runs"
        runs = f"study {store.study.name!r} is being run by {by.process} ({lasts})"
        raise UsageError(f"{runs}; wait, or choose --study-name")
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(store, done), daemon=True)
    thread.start()
    try:
        with _locked(folder / LOCK, store):
            yield
    finally:
        done.set()
        with suppress(StorageError), store.at_once():  # else it runs out
            thread.join(2 * MOMENT)  # it may wait for a lock; a lease that is gone it doesn't renew
            store.leave()


def _renew(store: Store, done: threading.Event) -> None:
    """Renew a lease until it is no longer needed; what stands in the way may be gone the next time."""
    while not done.wait(lease.SECONDS / lease.RENEWALS):
        with suppress(StorageError):
            store.renew()
    store.rdb.scoped_session.remove()  # this thread's own


@contextmanager
def _locked(path: Path, store: Store) -> Iterator[None]:
    """Hold the lock of a study's folder, which studies of several databases may name. Who holds it for the same study
    can only be a process that was paused and has lost that.
    """
    database = database_file(store.rdb)
    place = store.where if database is None else str(database.resolve())
    file = _opened(path)
    if not _lock(file):
        pid, there = _holder(file)
        if there != place:
            told = f"{path.parent} is in use by process {pid}, for a study of this name in another database"
            raise UsageError(f"{told}; wait, or choose --study-name")
        with writing(path):
            path.unlink(missing_ok=True)
        file = _opened(path)
        _lock(file)
    with file:
        _sign(file, path, place)
        yield


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """Hold the lock of a study's folder, whatever its database has to say.

    Raises:
        UsageError: a process that runs the study holds it.
    """
    path = folder / LOCK
    file = _opened(path)
    if not _lock(file):
        message = f"study {folder.name!r} is being run by process {_holder(file)[0]}; wait until it has ended"
        raise UsageError(message)
    with file:
        _sign(file, path, "")
        yield


def _opened(path: Path) -> IO[str]:
    with writing(path):
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        return open(path, "a+", opener=owned)


def _sign(file: IO[str], path: Path, place: str) -> None:
    with writing(path):
        file.truncate(0)
        file.write(f"{os.getpid()}\n{place}")
        file.flush()


def _holder(file: IO[str]) -> tuple[str, str]:
    """Return the process that holds a lock, and for a study in which place; close the file."""
    with file:
        file.seek(0)
        pid, _, place = file.read().partition("\n")
    return pid or "?", place


def _lock(file: IO[str]) -> bool:
    for _ in range(TRIES):  # whoever is about to end holds it for an instant
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(INSTANT)
    return False
