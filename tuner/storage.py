"""Opens a storage safely: SQLite or a PostgreSQL server.

Decides how SQLite is opened (write-ahead log, BEGIN IMMEDIATE, a busy timeout, tables made under a lock), which
files are refused as damaged, as of another schema or as lying on a network, and what a database's error is in one line.
Knows nothing of what studies hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as _models
from optuna.storages._rdb import storage as _storage

from tuner.errors import PassingError, StorageError, UsageError, nearest, no_room
from tuner.guard import undivided

models: Any = _models  # its columns are typed for SQLAlchemy 1, not for the 2 that is installed
BUSY_SECONDS, MOMENT = 30.0, 0.5  # that a lock is waited for; and where somebody waits for the end
GLANCE = 250  # milliseconds in which SQLite, waiting for a lock, hears of nothing else, such as Ctrl-C
CONNECT = {  # seconds until a server that says nothing is given up: when connecting, and later
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
MAKING = 0x74756E6572  # the name of a lock
LITTLE = 1 << 16  # bytes: less than a transaction needs
SCHEMA = "SELECT schema_version FROM version_info"
REVISION_TABLE = (  # alembic's
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
OLDER = "its tables were made by an older version of Optuna; `tuner repair STUDY` keeps a backup and updates them"
NEWER = "its tables were made by another version of Optuna, newer than this one; pip install -U optuna"
SERVER = "its tables were made by an older version of Optuna; keep a dump of them, then run `optuna storage upgrade`"
DAMAGED = ("malformed", "not a database", "Could not decode", "no such table", "no such column", "datatype mismatch")
REPAIR = "`tuner repair STUDY` rebuilds it from its studies' ledgers"
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
TABLES = set(models.BaseModel.metadata.tables)
DRIVERS = {
    "sqlite": "sqlite", "sqlite+pysqlite": "sqlite", "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql", "postgresql+psycopg2": "postgresql",
}  # fmt: skip


class DamagedError(StorageError):
    """What is in a database isn't what was written; `tuner repair` may mend it."""


class MissingError(StorageError):
    """There is no such database."""


class OlderError(StorageError):
    """A database's tables are of an older version of Optuna."""


def masked(url: str) -> str:
    """Return a storage URL without its password and its options, which may hold one, for people's eyes."""
    try:
        parsed = _parse(url)
        return parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)
    except UsageError:
        return "an unreadable URL"


def _parse(url: str) -> sqlalchemy.engine.URL:
    """Return the parts of a URL; no error repeats it, for it may hold a password."""
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UsageError("--storage: isn't a URL; write sqlite:///studies/tuner.db or postgresql://...") from None
    if "@" in (parsed.host or ""):
        raise UsageError("--storage: the URL has two @; write one that belongs to the password as %40")
    return parsed


def open_storage(url: str, *, create: bool = False, read_only: bool = False) -> RDBStorage:
    """Open a storage; with `create`, make the database and its tables where they are missing.

    With `read_only`, SQLite itself refuses to write.

    Raises:
        StorageError: it is missing, unreachable, damaged, of another schema, or can't be written.
        UsageError: the URL isn't one that is supported.
    """
    parsed = _parse(url)
    scheme = DRIVERS.get(parsed.drivername)
    if scheme is None:
        hint = nearest(parsed.drivername, tuple(DRIVERS))
        raise UsageError(f"--storage: unknown scheme {parsed.drivername!r}{hint}; one of sqlite, postgresql")
    if scheme == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("--storage: a study needs a file that outlives the program; write sqlite:///studies/tuner.db")
    with spoken(masked(url)):
        if scheme == "sqlite":
            return _open_sqlite(Path(parsed.database or ""), create, read_only)
        return _open_server(url, create)


@contextmanager
def opened(url: str, *, create: bool = False, read_only: bool = False) -> Iterator[RDBStorage]:
    """Hold a storage open, as `open_storage` opens it."""
    rdb = open_storage(url, create=create, read_only=read_only)
    try:
        yield rdb
    finally:
        rdb.scoped_session.remove()
        rdb.engine.dispose()


def _open_sqlite(path: Path, create: bool, read_only: bool) -> RDBStorage:
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


def database_file(rdb: RDBStorage) -> Path | None:
    """Return the file of a SQLite storage, or None for a server."""
    return file_of(rdb.url)


def file_of(url: str) -> Path | None:
    """Return the file that a URL names, or None for a server."""
    parsed = _parse(url)
    return Path(parsed.database or "") if parsed.drivername.startswith("sqlite") else None


def _make_file(path: Path) -> None:
    """Make a database with its tables beside its place and put it there: whoever is killed leaves no empty one."""
    logs = [f"{path.name}{end}" for end in ("-wal", "-shm") if path.with_name(f"{path.name}{end}").exists()]
    if logs:
        mend = "put the database back, or remove what is left of it"
        raise StorageError(f"{path}: is gone, but {' and '.join(logs)} of it lie there; {mend}")
    part = part_of(path)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        _make_tables(sqlite_url(part))
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


def _make_tables(url: str) -> None:
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


def sqlite_url(path: Path) -> str:
    """Return the URL of a file."""
    return sqlalchemy.engine.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


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


def first_line(text: str) -> str:
    """Return the beginning of what a database says, which may repeat what is in it."""
    line = next((line for line in text.strip().splitlines() if not line.startswith("***")), "")  # of SQLite's checks
    return line if len(line) <= 160 else f"{line[:160]}..."


def _connect(path: Path) -> sqlite3.Connection:
    """Connect to a database; where nothing can be written, as to one that nobody changes, for SQLite couldn't make the
    log that even a reader of such a database needs.
    """
    still = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    place = f"{path.absolute().as_uri()}?immutable=1" if still else path
    return sqlite3.connect(place, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=still)


def _rdb(path: Path, write: bool, read_only: bool) -> RDBStorage:
    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        if writable and not read_only and not _network(path):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        return connection

    with _known_tables():  # they have been checked
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
        while time.monotonic() - since < _lock_seconds(connection):
            try:
                with undivided(bad=False):
                    held.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # what is wrong is told as SQLAlchemy tells it
    finally:
        held.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")


def _lock_seconds(connection: sqlalchemy.engine.Connection) -> float:
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


def unchecked(path: Path) -> RDBStorage:
    """Open what may be left of a damaged database, to be read."""
    with spoken(str(path)):
        return _rdb(path, False, True)


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
def _known_tables() -> Iterator[None]:
    """Leave out Optuna's check of the tables: it loads what migrates a database, which takes a quarter of a second."""
    _storage._VersionManager = _Known  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        _storage._VersionManager = _OWN  # type: ignore[misc]


def newest_revision() -> str:
    """Return the revision that the installed Optuna brings a database to."""
    return max(revisions(), default="")


@cache
def revisions() -> frozenset[str]:
    """Return the revisions that the installed Optuna knows, by the names of its migrations."""
    folder = Path(_storage.__file__).parent / "alembic" / "versions"
    return frozenset(path.stem.rstrip("_") for path in folder.glob("v*.py"))


def _open_server(url: str, create: bool) -> RDBStorage:
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
    if (seconds := _lock_seconds(connection)) < BUSY_SECONDS:
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
        cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS:.0f}s'")
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{BUSY_SECONDS:.0f}s'")
    connection.commit()


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
