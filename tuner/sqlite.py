"""Opens SQLite's files safely.

Decides how (write-ahead log, BEGIN IMMEDIATE, a busy timeout, tables made under a lock), and which files are refused as
damaged, as of another schema or as lying on a network. Knows nothing of what studies hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage

from tuner import locking
from tuner.errors import StorageError
from tuner.guard import undivided
from tuner.speaking import NEWER, OLDER, REPAIR, DamagedError, MissingError, OlderError, first_line, spoken
from tuner.tables import SCHEMA, TABLES, known_tables, make_tables, models, newest_revision, revisions
from tuner.urls import sqlite_url

GLANCE = 250  # milliseconds in which SQLite, waiting for a lock, hears of nothing else, such as Ctrl-C
MOUNTS = Path("/proc/self/mountinfo")
NETWORKS = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "afs", "ceph", "gpfs", "beegfs", "glusterfs", "ocfs2", "gfs2",
    "ncpfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.juicefs",
}  # fmt: skip
# of SQLite's errors those that say nothing of what is in a file
ELSEWHERE = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


def open_file(path: Path, create: bool, read_only: bool) -> RDBStorage:
    """Open a database; with `create`, make it and its tables where they are missing.

    Raises:
        StorageError: it is missing, damaged, of another schema, or lies where it would be.
    """
    if not path.exists() and not create:
        raise MissingError(f"{path}: no such database; `tuner run SPACE` makes it, --studies-dir names another place")
    if path.is_dir():
        raise StorageError(f"{path}: is a folder, not a database file")
    if path.is_file():
        _check_head(path)  # a file that isn't a database gets no lock beside it
    if create and path.parent.is_file():
        raise StorageError(f"{path.parent}: is a file, where the folder of the database should be; move it away")
    network = _network(path)
    if create and network:
        mend = "use --storage postgresql://..., or a --studies-dir on a disk of this machine"
        raise StorageError(f"{path}: lies on a network file system ({network}), where SQLite loses data; {mend}")
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path) if create else nullcontext():
        if not path.exists():
            _make_file(path)
        _check_file(path)
        return _rdb(path, create, read_only)


def owned(path: str, flags: int) -> int:
    """Open a file that is its owner's alone, as `open` wants an opener to; a link that lies in its place is refused."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageError(f"{path}: is a symbolic link, which no lock may be; remove it") from error
        raise


def _network(path: Path) -> str:
    """Return the kind of the file system that a path lies on, if it is one of a network; Linux alone says so."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place, found = path.absolute().parent.resolve() / path.name, (Path(), "")
    for line in lines:
        fields, _, kind = (part.split() for part in line.partition(" - "))
        mount = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= len(found[0].parts):
            found = (mount, kind[0])
    return found[1] if found[1] in NETWORKS else ""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock beside a database: one process at a time makes it, or puts another one in its place."""
    with open(path.with_name(f"{path.name}.lock"), "a", opener=owned) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_file(path: Path) -> None:
    """Make a database with its tables beside its place and put it there: whoever is killed leaves no empty one."""
    logs = [f"{path.name}{end}" for end in ("-wal", "-shm") if path.with_name(f"{path.name}{end}").exists()]
    if logs:
        mend = "put the database back, or remove what is left of it"
        raise StorageError(f"{path}: is gone, but {' and '.join(logs)} of it lie there; {mend}")
    part = part_of(path)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        make_tables(sqlite_url(part))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return the name under which a database is made; remove what others left of theirs, who were killed: whoever makes
    it holds the lock.
    """
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{12}}\.part(-journal|-wal|-shm|\.lock)?")
    for each in path.parent.iterdir():
        if left.fullmatch(each.name):
            each.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")


def _check_head(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise DamagedError(f"{path}: is empty (0 bytes), so its studies are gone; {REPAIR}, or restore a copy")
    if head != b"SQLite format 3\x00":
        raise DamagedError(f"{path}: isn't a SQLite database; name another with --storage, or if it was one, {REPAIR}")


def _check_file(path: Path) -> None:
    """Refuse a file that Optuna would silently take for an empty or a whole database.

    Raises:
        DamagedError, OlderError: what is in it is to be mended.
        StorageError: it can't be read, or is of a newer schema.
    """
    _check_head(path)
    with closing(_connect(path)) as connection:
        try:
            _check_tables(path, connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite says with raw bytes what is wrong
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in ELSEWHERE:
                raise
            raise DamagedError(f"{path}: is damaged ({first_line(str(error))}); {REPAIR}, or restore a copy") from error


def _check_tables(path: Path, connection: sqlite3.Connection) -> None:
    broken = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if broken != "ok":
        raise DamagedError(f"{path}: is damaged ({first_line(broken)}); {REPAIR}, or restore a copy")
    found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if {"version_info", "alembic_version"} <= found:
        _check_schema(path, connection)
    if missing := sorted({*TABLES, "alembic_version"} - found):
        raise DamagedError(f"{path}: lacks the tables {', '.join(missing)}; {REPAIR}, or restore a copy")
    for name, table in models.BaseModel.metadata.tables.items():
        if missing := sorted(
            set(table.columns.keys()) - {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
        ):
            raise DamagedError(f"{path}: table {name} lacks {', '.join(missing)}; {REPAIR}, or restore a copy")


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    schema = [row[0] for row in connection.execute(SCHEMA)]
    revision = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    if len(schema) != 1 or len(revision) != 1:
        raise DamagedError(f"{path}: doesn't say of which version its tables are; {REPAIR}, or restore a copy")
    if schema[0] == models.SCHEMA_VERSION and revision[0] == newest_revision():
        return
    if revision[0] in revisions() and schema[0] <= models.SCHEMA_VERSION:
        raise OlderError(f"{path}: {OLDER}")
    raise StorageError(f"{path}: {NEWER}")


def _connect(path: Path) -> sqlite3.Connection:
    """Connect to a database; where nothing can be written, as to one that nobody changes, for SQLite couldn't make the
    log that even a reader of such a database needs.
    """
    still = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    place = f"{path.absolute().as_uri()}?immutable=1" if still else path
    return sqlite3.connect(place, locking.BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=still)


def _rdb(path: Path, write: bool, read_only: bool) -> RDBStorage:
    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        if writable and not read_only and not _network(path):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        return connection

    with known_tables():  # they have been checked
        rdb = RDBStorage(sqlite_url(path), {"creator": connect}, skip_table_creation=True)
    sqlalchemy.event.listen(rdb.engine, "begin", _begin_to_write if write else _begin_to_read)
    return rdb


def _begin_to_read(connection: sqlalchemy.engine.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_to_write(connection: sqlalchemy.engine.Connection) -> None:
    """Begin a transaction with the lock that writers need; the wait for it can be interrupted."""
    held: Any = connection.connection.dbapi_connection
    since = time.monotonic()
    held.execute(f"PRAGMA busy_timeout={GLANCE}")
    try:
        while time.monotonic() - since < locking.lock_seconds(connection):
            try:
                with undivided(bad=False):
                    held.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # what is wrong is told as SQLAlchemy tells it
    finally:
        held.execute(f"PRAGMA busy_timeout={locking.BUSY_SECONDS * 1000:.0f}")


def unchecked(path: Path) -> RDBStorage:
    """Open what may be left of a damaged database, to be read."""
    with spoken(str(path)):
        return _rdb(path, False, True)
