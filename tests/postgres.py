"""A PostgreSQL server for the tests, started once for all of them and gone after: on a socket and a port of its own,
with a password, and kept safe from its own end, but not from the machine's: nothing of it is to outlast them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

USER = "tester"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200",
            "log_destination": "stderr"}  # fmt: skip
ACCOUNTS = ("postgres", "nobody")  # the server doesn't run as root
databases = count()


@dataclass(frozen=True)
class Server:
    """A server that runs: where it is, its password, and how it is stopped and started again."""

    programs: Path
    folder: Path
    port: int
    password: str
    account: tuple[str, ...]

    def _ctl(self, *words: str) -> None:
        command = [*self.account, self.programs / "pg_ctl", "-D", self.folder / "data", "-w", *words]
        with open(self.folder / "log", "a") as log:
            subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=True, timeout=60)

    def start(self) -> None:
        self._ctl("-l", str(self.folder / "server.log"), "start")

    def stop(self, mode: str = "fast") -> None:
        self._ctl("-m", mode, "stop")

    def url(self, database: str, password: str | None = None) -> str:
        return f"postgresql://{USER}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def new(self) -> str:
        """Return the URL of a new, empty database."""
        import psycopg

        name = f"studies_{os.getpid()}_{next(databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def programs() -> Path | None:
    """Return the folder of PostgreSQL's own programs, the newest ones."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running() -> Iterator[Server]:
    """Hold a server.

    Raises:
        LookupError: there is none to be started here.
    """
    where = programs()
    if where is None:
        raise LookupError("no PostgreSQL server is installed (Debian: apt install postgresql)")
    account: tuple[str, ...] = ()
    if os.geteuid() == 0:
        name = next(
            (name for name in ACCOUNTS if subprocess.run(["id", name], capture_output=True).returncode == 0), ""
        )
        if not name or shutil.which("runuser") is None:
            raise LookupError("a PostgreSQL server doesn't run as root, and there is no other user to run it")
        account = ("runuser", "-u", name, "--")
    folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))  # short: a socket's path may have 107 characters
    password = secrets.token_hex(8)
    server = Server(where, folder, free_port(), password, account)
    try:
        (folder / "password").write_text(password)
        if account:
            shutil.chown(folder, account[2])
            shutil.chown(folder / "password", account[2])
        command = [where / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--no-sync",
                   "--pwfile", folder / "password", "-E", "UTF8", "--locale", "C"]  # fmt: skip
        subprocess.run([*account, *command], cwd=folder, capture_output=True, check=True, timeout=120)
        lines = {**SETTINGS, "port": server.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder}
        with open(folder / "data" / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())
        server.start()
        yield server
    finally:
        _end(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end(folder: Path) -> None:
    """End the server, however it is."""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
    except (OSError, ValueError, IndexError):
        return
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server, or the test is skipped."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver isn't installed: pip install psycopg[binary]")
    holding = running()
    try:
        server = holding.__enter__()
    except LookupError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        holding.__exit__(None, None, None)
