"""Opens a database of a PostgreSQL server.

Decides how long is waited for it, and that one process at a time makes its tables. Knows nothing of what studies hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage

from tuner import locking
from tuner.errors import StorageError
from tuner.urls import masked

CONNECT = {  # seconds until a server that says nothing is given up: when connecting, and later
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
MAKING = 0x74756E6572  # the name of a lock


def open_server(url: str, create: bool) -> RDBStorage:
    """Open a server's database; with `create`, make its tables where they are missing.

    Raises:
        StorageError: its driver isn't installed, or it has no tables.
    """
    if url.startswith("postgresql://"):
        url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
    try:
        with _tables(url, create):
            rdb = RDBStorage(url, {"connect_args": CONNECT, "pool_pre_ping": True}, skip_table_creation=not create)
    except ImportError:
        raise StorageError("postgresql needs its driver: pip install 'overfit-tuner[postgresql]'") from None
    rdb.engine.dispose()  # what was opened so far knows no limits
    sqlalchemy.event.listen(rdb.engine, "connect", _limit)
    sqlalchemy.event.listen(rdb.engine, "begin", _begin_on_server)
    return rdb


def _begin_on_server(connection: sqlalchemy.engine.Connection) -> None:
    if (seconds := locking.lock_seconds(connection)) < locking.BUSY_SECONDS:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{seconds * 1000:.0f}ms'")


@contextmanager
def _tables(url: str, create: bool) -> Iterator[None]:
    """Make sure that a server's database has tables, or hold a lock of it: they are made by one process at a time."""
    engine = sqlalchemy.engine.create_engine(url, connect_args=CONNECT, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:  # the lock goes with it
        if create:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:name)"), {"name": MAKING})
        elif not sqlalchemy.inspect(connection).has_table("version_info"):
            raise StorageError(f"{masked(url)}: holds no studies yet; `tuner run SPACE` makes its tables")
        yield


def _limit(connection: Any, _: Any) -> None:
    """Have the server end what holds a lock and says nothing, as a process that was paused does."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"SET lock_timeout = '{locking.BUSY_SECONDS:.0f}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{locking.BUSY_SECONDS:.0f}s'")
    connection.commit()
