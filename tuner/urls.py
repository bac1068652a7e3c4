"""A storage's URL: what it names, and how it is shown to people, without its password."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from optuna.storages import RDBStorage

from tuner.errors import UsageError

DRIVERS = {
    "sqlite": "sqlite", "sqlite+pysqlite": "sqlite", "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql", "postgresql+psycopg2": "postgresql",
}  # fmt: skip


def parse(url: str) -> sqlalchemy.engine.URL:
    """Return the parts of a URL; no error repeats it, for it may hold a password."""
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UsageError("--storage: isn't a URL; write sqlite:///studies/tuner.db or postgresql://...") from None
    if "@" in (parsed.host or ""):
        raise UsageError("--storage: the URL has two @; write one that belongs to the password as %40")
    return parsed


def masked(url: str) -> str:
    """Return a storage URL without its password and its options, which may hold one, for people's eyes."""
    try:
        parsed = parse(url)
        return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)
    except UsageError:
        return "an unreadable URL"


def file_of(url: str) -> Path | None:
    """Return the file that a URL names, or None for a server."""
    parsed = parse(url)
    return Path(parsed.database or "") if parsed.drivername.startswith("sqlite") else None


def database_file(rdb: RDBStorage) -> Path | None:
    """Return the file of a SQLite storage, or None for a server."""
    return file_of(rdb.url)


def sqlite_url(path: Path) -> str:
    """Return the URL of a file."""
    return sqlalchemy.engine.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
