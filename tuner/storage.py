"""Opens a storage by its URL: a file of SQLite, or a PostgreSQL server.

Knows nothing of what studies hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import RDBStorage

from tuner.errors import UsageError, nearest
from tuner.server import open_server
from tuner.speaking import spoken
from tuner.sqlite import open_file
from tuner.urls import DRIVERS, masked, parse


def open_storage(url: str, *, create: bool = False, read_only: bool = False) -> RDBStorage:
    """Open a storage; with `create`, make the database and its tables where they are missing.

    With `read_only`, SQLite itself refuses to write.

    Raises:
        StorageError: it is missing, unreachable, damaged, of another schema, or can't be written.
        UsageError: the URL isn't one that is supported.
    """
    parsed = parse(url)
    scheme = DRIVERS.get(parsed.drivername)
    if scheme is None:
        hint = nearest(parsed.drivername, tuple(DRIVERS))
        raise UsageError(f"--storage: unknown scheme {parsed.drivername!r}{hint}; one of sqlite, postgresql")
    if scheme == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("--storage: a study needs a file that outlives the program; write sqlite:///studies/tuner.db")
    with spoken(masked(url)):
        if scheme == "sqlite":
            return open_file(Path(parsed.database or ""), create, read_only)
        return open_server(url, create)


@contextmanager
def opened(url: str, *, create: bool = False, read_only: bool = False) -> Iterator[RDBStorage]:
    """Hold a storage open, as `open_storage` opens it."""
    rdb = open_storage(url, create=create, read_only=read_only)
    try:
        yield rdb
    finally:
        rdb.scoped_session.remove()
        rdb.engine.dispose()
