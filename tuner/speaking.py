"""What a database says is wrong, as one line for people, with what mends it; and whether it passes by itself.

Knows no table, and nothing of how a database is opened.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import sqlalchemy

from tuner.errors import PassingError, StorageError, no_room

LITTLE = 1 << 16  # bytes: less than a transaction needs
OLDER = "its tables were made by an older version of Optuna; `tuner repair STUDY` keeps a backup and updates them"
NEWER = "its tables were made by another version of Optuna, newer than this one; pip install -U optuna"
SERVER = "its tables were made by an older version of Optuna; keep a dump of them, then run `optuna storage upgrade`"
DAMAGED = ("malformed", "not a database", "Could not decode", "no such table", "no such column", "datatype mismatch")
REPAIR = "`tuner repair STUDY` rebuilds it from its studies' ledgers"


class DamagedError(StorageError):
    """What is in a database isn't what was written; `tuner repair` may mend it."""


class MissingError(StorageError):
    """There is no such database."""


class OlderError(StorageError):
    """A database's tables are of an older version of Optuna."""


@contextmanager
def spoken(where: str) -> Iterator[None]:
    """Turn a database's error into one line."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        fault = getattr(cause, "orig", None) or cause or error
        text = first_line(str(fault)) or type(error).__name__
        hints = {
            "locked": f"{_who_holds(where)} holds it; stop that one or wait",
            "readonly": "it can't be written; check its permissions",
            "unable to open": "check that the folder exists and can be written",
            "full": "the disk is full; make room and run the same command again",
        }
        advice = next((advice for word, advice in hints.items() if word in text), "")
        if any(words in text for words in DAMAGED):
            raise DamagedError(f"{where}: {text}; the database is damaged, {REPAIR}") from error
        if awaited := _awaited(fault, where):
            raise PassingError(f"{where}: {text}", awaited, advice) from error
        raise StorageError(f"{where}: {text}" + f"; {advice}" * bool(advice)) from error
    except RuntimeError as error:
        if "version" not in str(error):
            raise
        raise StorageError(f"{where}: {NEWER if 'pip install' in str(error) else SERVER}") from error
    except OSError as error:
        if no_room(error):
            advice = "make room and run the same command again"
            raise PassingError(f"{where}: {error.strerror or error}", advice=advice) from error
        raise StorageError(f"{where}: {error.strerror or error}") from error


def first_line(text: str) -> str:
    """Return the beginning of what a database says, which may repeat what is in it."""
    line = next((line for line in text.strip().splitlines() if not line.startswith("***")), "")  # of SQLite's checks
    return line if len(line) <= 160 else f"{line[:160]}..."


def _awaited(fault: BaseException, where: str) -> str:
    """Return what is to be waited for, if what a database says may be otherwise in a while; else nothing."""
    if not isinstance(fault, sqlite3.Error):
        away = any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(fault).__mro__)
        return "for the server" if away else ""
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_IOERR:  # which it says, too, where there is no room for the log's index
        with suppress(OSError):
            code = sqlite3.SQLITE_FULL if shutil.disk_usage(_file_of(where).parent).free < LITTLE else code
    return {sqlite3.SQLITE_FULL: "for room", sqlite3.SQLITE_BUSY: "for the lock"}.get(code, "")


def _file_of(where: str) -> Path:
    """Return the file of a SQLite database, by its URL or its path."""
    return Path(where.removeprefix("sqlite:///"))


def _who_holds(where: str) -> str:
    """Return which process holds the lock that a writer of a SQLite database waits for, as far as can be known."""
    path, other = _file_of(where), "another program"
    files = [path.with_name(f"{path.name}{end}") for end in ("", "-wal", "-shm")]
    try:
        marks = {f"{os.major(s.st_dev):02x}:{os.minor(s.st_dev):02x}:{s.st_ino}"
                 for s in (file.stat() for file in files if file.exists())}  # fmt: skip
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "WRITE" in words and marks & {*words} and int(words[4]) not in (0, os.getpid()):
                return f"process {words[4]} ({Path(f'/proc/{words[4]}/comm').read_text().strip()})"
    except (OSError, ValueError, IndexError):
        return other
    return other
