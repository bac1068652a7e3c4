"""Hosts of a study that Ray places: on this machine, or on the nodes of a cluster that is there.

Decides what Ray is asked for: so many workers, each a processor and a share of a GPU, started again wherever there is
room when they end; and the rows, once, in its object store, of which a node has one copy. What is searched, judged and
stopped is the study's own business. A Ray that is started here listens on loopback alone and asks for a token. Needs
the package ray.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner.data.shared import arrays_of, write_arrays
from tuner.data.splits import Splits
from tuner.errors import StorageError, TunerError, UsageError
from tuner.hosting import connect, serve
from tuner.listening import LOOPBACK, Address, Door, Guest, Listening, Open

SOON = 5.0  # seconds to reach a cluster in
AGAIN = 1.0  # seconds before a study is looked for again that can't be reached
TOKEN = {"RAY_AUTH_MODE": "token"}
NEAR = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # so that all of a Ray's parts are on loopback, as there
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # no word to anybody


@contextmanager
def started(workers: int, gpus: float, address: str | None) -> Iterator[None]:
    """Hold Ray: one that is started for this process, with room for so many workers, or the cluster at an address.

    Raises:
        UsageError: Ray isn't installed, or the cluster can't be reached.
    """
    here = address is None
    own = {**TOKEN, "RAY_AUTH_TOKEN": secrets.token_hex(32)} if here and "RAY_AUTH_MODE" not in os.environ else {}
    own |= NEAR if here else {}
    os.environ.update(QUIET | own)  # before Ray is imported, which reads them then
    if not here:
        _reach(str(address))
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray: needs the package ray; pip install 'overfit-tuner[ray]'") from None
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if here:
        options |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
        options |= {} if gpus else {"num_gpus": 0}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"--engine ray: Ray can't be used ({said})") from error
    for each, handler in handlers.items():  # Ray has put its own in place of those that end a run cleanly
        signal.signal(each, handler)
    try:
        yield
    finally:
        ray.shutdown()
        for name in own:
            os.environ.pop(name, None)


def _reach(address: str) -> None:
    """Make sure that something is at an address: Ray itself asks for minutes.

    Raises:
        UsageError: nothing is.
    """
    host, _, port = address.rpartition(":")
    if address == "auto" or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]") or LOOPBACK, int(port)), SOON).close()
    except OSError as error:
        raise UsageError(f"--ray-address {address}: can't be reached ({error.strerror or error})") from None


class OnRay(Listening):
    """Trains on hosts that Ray has placed; also on others that join."""

    def __init__(
        self, door: Door, data: Path, terms: Mapping[str, Any], workers: int, gpus: float, folder: Path, invites: bool
    ) -> None:
        import ray

        self.invites = invites

        self.shelf: Any = ray.remote(num_cpus=0)(_Shelf).remote()
        super().__init__(door, data, terms, lambda address: _Workers(address, workers, gpus, folder, self.shelf))

    def take(self, splits: Splits) -> int:
        import ray

        number = super().take(splits)
        ray.get(self.shelf.put.remote(number, [ray.put(arrays_of(splits))]))
        return number

    def drop(self, splits: int) -> None:
        self.shelf.drop.remote(splits)
        super().drop(splits)

    def _give_rows(self, host: Guest, splits: int) -> None:
        if not host.name.startswith(WORKER):  # it gets them itself, from the object store
            super()._give_rows(host, splits)


WORKER = "Ray worker "


class _Shelf:
    """What says where in Ray's object store the rows lie."""

    def __init__(self) -> None:
        self.there: dict[int, list[Any]] = {}

    def put(self, number: int, where: list[Any]) -> None:
        self.there[number] = where

    def get(self, number: int) -> list[Any]:
        return self.there.get(number, [])

    def drop(self, number: int) -> None:
        self.there.pop(number, None)


class _Workers:
    """The workers that Ray was asked for: each is started again when it ends, and joins the study again."""

    def __init__(self, address: Address, workers: int, gpus: float, folder: Path, shelf: Any) -> None:
        import ray

        made: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(_Worker)
        self.actors = [made.remote() for _ in range(workers)]
        told = address.to_json()
        self.runs = [
            actor.run.remote(told, str(folder), shelf, number) for number, actor in enumerate(self.actors, start=1)
        ]

    def check(self) -> None:
        """Raise what a worker says it can't train for.

        Raises:
            TunerError: a worker can't be of use.
        """
        import ray

        ended, _ = ray.wait(self.runs, num_returns=len(self.runs), timeout=0) if self.runs else ([], [])
        for each in ended:
            if (problem := ray.get(each)) is not None:
                raise TunerError(f"a worker that Ray placed can't train: {problem}")
            self.runs.remove(each)

    def close(self) -> None:
        import ray

        with suppress(Exception):
            ray.wait(self.runs, num_returns=len(self.runs), timeout=5.0)
        for actor in self.actors:
            ray.kill(actor)


class _Worker:
    """A worker on some node: one process at a time trains for the study."""

    def run(self, told: Mapping[str, Any], folder: str, shelf: Any, number: int) -> str | None:
        """Train for the study until it is over; return why that can't be done, if it can't."""
        address = Address.from_json(told)
        rows = _Node(address.secret, shelf)
        patience = time.monotonic() + 120
        while True:
            try:
                link = connect(address)
                served = serve(link, 1, Path(folder), rows, f"{WORKER}{number}")
            except TunerError as error:
                return str(error)
            except OSError as error:
                if time.monotonic() > patience:
                    return f"the study can't be reached at {' or '.join(address.hosts)} ({error})"
                time.sleep(AGAIN)
                continue
            if served.over:
                rows.forget()
                return None
            patience = time.monotonic() + 10  # it closed: mostly it is gone for good
            time.sleep(AGAIN)


class _Node:
    """The rows of a study on a node: in a folder whose name only who knows the secret can tell, one for all there."""

    def __init__(self, secret: str, shelf: Any) -> None:
        name = hashlib.sha256(f"rows {secret}".encode()).hexdigest()[:32]
        self.folder, self.shelf = Path(tempfile.gettempdir(), f"tuner-{name}"), shelf

    def fetch(self, splits: int, place: Path) -> None:
        """Get rows from the object store, unless another worker here has.

        Raises:
            StorageError: they are no longer there.
        """
        import ray

        if place.is_dir():
            return
        self.folder.mkdir(0o700, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if place.is_dir():
                return
            where = ray.get(self.shelf.get.remote(splits))
            if not where:
                raise StorageError("the rows are no longer there")
            arrays, encoder = ray.get(where[0])
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            write_arrays(arrays, encoder, part)
            os.replace(part, place)

    def forget(self) -> None:
        """Remove what lies here: the study is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def at_door(door: Door, gpus: float, invites: bool) -> Open:
    """Return what opens an engine whose own hosts Ray places, each with a share of a GPU; perhaps it invites others."""
    return lambda data, terms, workers, folder: OnRay(door, data, terms, workers, gpus, folder, invites)
