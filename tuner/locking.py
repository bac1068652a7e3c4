"""How long a lock in a database is waited for: while a study runs, and where somebody waits for its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from optuna.storages import RDBStorage

BUSY_SECONDS, MOMENT = 30.0, 0.5  # that a lock is waited for; and where somebody waits for the end


def lock_seconds(connection: sqlalchemy.engine.Connection) -> float:
    """Return how long a lock is waited for now."""
    return float(connection.engine.get_execution_options().get("lock_seconds", BUSY_SECONDS))


@contextmanager
def hurried(rdb: RDBStorage) -> Iterator[None]:
    """Let a lock be waited for no longer than a moment meanwhile."""
    before = rdb.engine.get_execution_options().get("lock_seconds", BUSY_SECONDS)
    rdb.engine.update_execution_options(lock_seconds=MOMENT)
    try:
        yield
    finally:
        rdb.engine.update_execution_options(lock_seconds=before)
