"""Hosts of a study that Ray places: on this machine, or on the nodes of a cluster that is there.

Decides what Ray is asked for: so many workers, each a processor and a share of a GPU, started again wherever there is
room when they end; and the rows, once, in its object store, of which a node has one copy. What is searched, judged and
stopped is the study's own business. A Ray that is started here listens on loopback alone and asks for a token. Needs
the package ray.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner.data.shared import arrays_of, write_arrays
from tuner.data.splits import Splits
from tuner.doors import LOOPBACK, Address, Door, host_and_port
from tuner.errors import StorageError, TunerError, UsageError
from tuner.hosting import FOLDER, connect, held, serve, sweep
from tuner.listening import Listening, Open
from tuner.supervising import try_apart

LOG = logging.getLogger("tuner")
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
    here, before = address is None, dict(os.environ)
    own = NEAR if here else {}
    if not here:
        _reach(str(address))
    if "RAY_AUTH_MODE" not in os.environ:
        if here:
            own = {**own, **TOKEN, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        elif _wants_token(str(address)):
            own = TOKEN
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    os.environ.update(QUIET | own)  # before Ray is imported, which reads them then
    try:
        _start(workers, gpus, address)
        _check_gpus(workers, gpus, here)
        for each, handler in handlers.items():  # Ray has put its own in place of those that end a run cleanly
            signal.signal(each, handler)
        yield
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        for name in QUIET | own:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in QUIET | own if name in before})


def _start(workers: int, gpus: float, address: str | None) -> None:
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray: needs the package ray; pip install 'overfit-tuner[ray]'") from None
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "address": address or "local"}
    if address is None:
        options |= {"num_cpus": workers, "include_dashboard": False} | ({} if gpus else {"num_gpus": 0})
    try:
        ray.init(**options)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        hint = "" if address is None else "; a cluster that asks for a token needs it in RAY_AUTH_TOKEN"
        raise UsageError(f"--engine ray: Ray can't be used ({said}){hint}") from error


def _wants_token(address: str) -> bool:
    """Tell whether a cluster asks for a token: Ray shows its own only where it is told to, and to a cluster that wants
    none it must not. It is asked in a process of its own, as Ray reads that once.
    """

    def ask() -> str:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            GcsClient(address=address)
        except Exception as error:
            return type(error).__name__
        return ""

    return try_apart(ask, SOON) == "AuthenticationError"


def _check_gpus(workers: int, gpus: float, here: bool) -> None:
    """Say how many of the workers there are GPUs for, if not for all: the others wait, for nodes that come.

    Raises:
        UsageError: for none, where no node can come.
    """
    if not gpus:
        return
    import ray

    found: Any = ray.nodes()  # type: ignore[no-untyped-call]
    there = [node["Resources"].get("GPU", 0.0) for node in found if node["Alive"]]
    room = sum(int(each / gpus + 1e-6) for each in there)
    if here and not room:
        raise UsageError(f"--gpus-per-worker {gpus:g}: Ray finds {sum(there):g} GPUs on this machine")
    if room < workers:
        LOG.warning("Ray has GPUs for %d of %d workers now; the others wait for room", room, workers)


def _reach(address: str) -> None:
    """Make sure that something is at an address: Ray itself asks for minutes.

    Raises:
        UsageError: nothing is.
    """
    place = host_and_port(address)
    if place is None or not place[1]:  # auto, or what Ray itself knows how to read
        return
    try:
        socket.create_connection((place[0] or LOOPBACK, place[1]), SOON).close()
    except OSError as error:
        raise UsageError(f"--ray-address {address}: can't be reached ({error.strerror or error})") from None


class OnRay(Listening):
    """Trains on hosts that Ray has placed; also on others that join."""

    def __init__(
        self, door: Door, data: Path, terms: Mapping[str, Any], workers: int, gpus: float, folder: Path, invites: bool
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.invites = invites

        # on this process's node: where that ends, the study does
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        made: Any = ray.remote(num_cpus=0)(_Shelf)
        self.shelf: Any = made.options(scheduling_strategy=here).remote()
        super().__init__(door, data, terms, lambda address: _Workers(address, workers, gpus, folder, self.shelf))

    def take(self, splits: Splits) -> int:
        import ray

        number = super().take(splits)
        ray.get(self.shelf.put.remote(number, [ray.put(arrays_of(splits))]))
        return number

    def drop(self, splits: int) -> None:
        self.shelf.drop.remote(splits)
        super().drop(splits)


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
            actor.run.remote(told, str(folder), shelf, number, gpus)
            for number, actor in enumerate(self.actors, start=1)
        ]

    def check(self, here: bool, needed: bool) -> None:
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

    def run(self, told: Mapping[str, Any], folder: str, shelf: Any, number: int, gpus: float) -> str | None:
        """Train for the study until it is over; return why that can't be done, if it can't."""
        if not gpus:  # else all workers of a node would find its first one, which Ray keeps for those that asked for it
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        address = Address.from_json(told)
        node = Path(tempfile.gettempdir(), f"{FOLDER}{hashlib.sha256(address.secret.encode()).hexdigest()[:32]}")
        try:
            with held(node):
                return self._serve(address, folder, _Node(node, shelf), number)
        finally:
            sweep(node)

    def _serve(self, address: Address, folder: str, rows: _Node, number: int) -> str | None:
        patience = time.monotonic() + 120
        while True:
            try:
                served = serve(connect(address), 1, Path(folder), rows, f"{WORKER}{number}")
            except TunerError as error:
                return str(error)
            except OSError as error:
                if time.monotonic() > patience:
                    return f"the study can't be reached at {' or '.join(address.hosts)} ({error})"
            else:
                if served.over:
                    return None
                patience = time.monotonic() + 10  # it closed: mostly it is gone for good
            time.sleep(AGAIN)


class _Node:
    """The rows of a study on a node: in a folder whose name only who knows the secret can tell, one for all there."""

    def __init__(self, folder: Path, shelf: Any) -> None:
        self.data, self.features, self.shelf = folder / "data", folder / "features", shelf

    def fetch(self, splits: int, place: Path) -> None:
        """Get rows from the object store, unless another worker here has.

        Raises:
            StorageError: they are no longer there, or there is no room for them.
        """
        import ray

        if place.is_dir():
            return
        try:
            self.data.mkdir(0o700, exist_ok=True)
            with open(self.data / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if place.is_dir():
                    return
                where = ray.get(self.shelf.get.remote(splits))
                if not where:
                    raise StorageError("the rows are no longer there")
                part = place.with_name(f"{place.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                arrays, encoder = ray.get(where[0])
                write_arrays(arrays, encoder, part)
                os.replace(part, place)
        except OSError as error:
            raise StorageError(f"the study's rows can't be written into {self.data} ({error.strerror})") from error


def at_door(door: Door, gpus: float, invites: bool) -> Open:
    """Return what opens an engine whose own hosts Ray places, each with a share of a GPU; perhaps it invites others."""
    return lambda data, terms, workers, folder: OnRay(door, data, terms, workers, gpus, folder, invites)
