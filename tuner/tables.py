"""Optuna's tables: what they are in the installed version, how they are made, and of which version some are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages._rdb import models as _models
from optuna.storages._rdb import storage as _storage

models: Any = _models  # its columns are typed for SQLAlchemy 1, not for the 2 that is installed
SCHEMA = "SELECT schema_version FROM version_info"
REVISION_TABLE = (  # alembic's
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
TABLES = set(models.BaseModel.metadata.tables)


def make_tables(url: str) -> None:
    """Make Optuna's tables in an empty database, and say of which version they are, as Optuna itself would: it loads
    all that migrates a database before it does.
    """
    engine = sqlalchemy.engine.create_engine(url)
    models.BaseModel.metadata.create_all(engine)
    with engine.begin() as connection:
        versions = {"schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
        connection.execute(sqlalchemy.insert(models.VersionInfoModel), versions)
        connection.exec_driver_sql(REVISION_TABLE)
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (newest_revision(),))
    engine.dispose()


def newest_revision() -> str:
    """Return the revision that the installed Optuna brings a database to."""
    return max(revisions(), default="")


@cache
def revisions() -> frozenset[str]:
    """Return the revisions that the installed Optuna knows, by the names of its migrations."""
    folder = Path(_storage.__file__).parent / "alembic" / "versions"
    return frozenset(path.stem.rstrip("_") for path in folder.glob("v*.py"))


class _Known:
    """Stands for Optuna's manager of a database's versions, where its tables have been found to be the newest. Who asks
    for more than whether they can be used, as the dashboard does, is answered by Optuna's own.
    """

    def __init__(self, *place: Any) -> None:
        self.place = place

    def check_table_schema_compatibility(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name == "place":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(_OWN(*self.place), name)


_OWN = _storage._VersionManager


@contextmanager
def known_tables() -> Iterator[None]:
    """Leave out Optuna's check of the tables: it loads what migrates a database, which takes a quarter of a second."""
    _storage._VersionManager = _Known  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        _storage._VersionManager = _OWN  # type: ignore[misc]
