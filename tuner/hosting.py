"""A host's side: it trains what a study tells it to, with worker processes of its own, and says what came of it.

Decides where on this machine the study's rows, the states of its trials and their weights lie meanwhile, and that a
study is trained for only where it would come out the same: with the same code and the same versions. Knows nothing of
how the study was found.

`python -m tuner.hosting` is such a host for the process that started it, told where the study listens on its stdin.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, Protocol

from tuner.backbones import find_backbone
from tuner.best import FEATURES
from tuner.config import Training, own_code
from tuner.data.shared import place_of
from tuner.doors import LOOPBACK, Address, Door
from tuner.engine import Ended, Event, Failed, Trained, Unsaved
from tuner.errors import StorageError, TunerError, UsageError
from tuner.listening import WORD, Listening, Open
from tuner.machine import lacking, versions_here
from tuner.own_code import code_of, find_own
from tuner.supervising import try_apart
from tuner.wire import CHUNK, PATIENCE, Link, Order, keep_alive, told_event
from tuner.workers import Processes

FOLDER, HELD = "tuner-host-", ".held"  # of temporary folders, and the file in each that its host holds
TRIES, SOON, SELDOM = 3, 1.0, 30.0  # times that a host may end as it begins; seconds until it is started again


@dataclass(frozen=True, slots=True)
class Served:
    """How a connection to a study ended: it was `over`, or the study's process is gone."""

    over: bool


class Rows(Protocol):
    """Where rows come from, if not from the study itself: on this machine they lie in `data`, features of them in
    `features`, for all hosts here.
    """

    @property
    def data(self) -> Path: ...

    @property
    def features(self) -> Path: ...

    def fetch(self, splits: int, place: Path) -> None:
        """See to it that those of a number lie in a folder."""
        ...


@dataclass(frozen=True, slots=True)
class Nearby:
    """Rows that lie where the study's process, on this machine, has put them."""

    data: Path
    features: Path

    def fetch(self, splits: int, place: Path) -> None:
        pass


def connect(address: Address) -> Link:
    """Connect to a study.

    Raises:
        OSError: nothing listens at any of its names, or what does is no study that knows the secret.
    """
    first: OSError | None = None
    for host in address.hosts:
        sock: socket.socket | None = None
        try:
            sock = socket.create_connection((host, address.port), PATIENCE)
            link = Link.of_host(sock, address.secret.encode())
        except OSError as error:
            first = first or error
            if sock is not None:
                sock.close()
        else:
            keep_alive(sock)
            return link
    raise first or ConnectionError("nothing listens there")


def serve(link: Link, slots: int, folder: Path, rows: Rows | None = None, own: str = "") -> Served:
    """Train for the study at the other end until it is over or gone. The user's code is looked for in `folder`. With
    `rows`, those that are trained on are got from there. `own` is what a host of the study's own is called.

    Raises:
        UsageError: the study would come out otherwise here: its code isn't there, or isn't the same.
        StorageError: there is no room for its rows.
    """
    name = f"{own or f'process {os.getpid()}'} on {socket.gethostname()}"
    try:
        terms, _ = link.wait()
        if problem := unlike(terms, folder):
            raise UsageError(problem)
        with _own_folder() as place:
            data, features = (place / "data", place / "features") if rows is None else (rows.data, rows.features)
            engine = Processes(slots, data, features)
            try:
                link.send({"what": "join", "name": name, "slots": slots, "own": bool(own)})
                link.sock.settimeout(None)
                return Served(_Host(link, engine, folder.resolve(), place, rows, list(terms["names"])).run())
            except BaseException as error:  # as by Ctrl-C: the study needn't wait for it
                why = str(error) if isinstance(error, TunerError) else ""
                with suppress(OSError):
                    link.send({"what": "leave", "why": why})
                raise
            finally:
                engine.close()
    except ConnectionError:
        return Served(over=False)
    finally:
        link.close()


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Hold a temporary folder; remove those of hosts of this user that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER}*/{HELD}"):
        sweep(old.parent)
    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as name, held(Path(name)):
        yield Path(name)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, and others that hold it, too: nobody sweeps it. The file that says so is there
    once it is locked.
    """
    folder.mkdir(0o700, exist_ok=True)
    new, name = folder / f"{HELD}.{os.getpid()}", folder / HELD
    with open(os.open(new, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if name.exists():  # another process's: to be locked, too, if it is still there
            new.unlink()
            with suppress(OSError), open(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+") as other:
                fcntl.flock(other, fcntl.LOCK_SH)
                yield
                return
        else:
            os.replace(new, name)
        yield


def sweep(folder: Path) -> None:
    """Remove a folder that nobody holds."""
    with suppress(OSError):
        handle = os.open(folder / HELD, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "r+") as file:
            there = os.fstat(handle)
            if stat.S_ISREG(there.st_mode) and there.st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def unlike(terms: Mapping[str, Any], folder: Path) -> str:
    """Return why a study would come out otherwise here, nothing if it wouldn't."""
    here = versions_here()
    other = [
        f"{name} {there}, here {here.get(name)}" for name, there in terms["versions"].items() if here.get(name) != there
    ]
    if other:
        return f"the study is trained with {'; '.join(other)}; install the same on every host"
    if problem := lacking(Training.model_validate(terms["training"])):
        return problem
    names, found = list(terms["own"]), code_of(terms["names"], folder)
    missing = [name for name in names if name not in found]
    if missing:
        return f"the study's own code isn't here: {', '.join(missing)}; looked in {folder.resolve()} (--folder)"
    changed = [name for name in names if found[name] != terms["own"][name]]
    if changed:
        return f"the study's own code is another one here: {', '.join(changed)} in {folder.resolve()} (--folder)"
    backbone = terms.get("backbone")
    if backbone is not None:
        found_here = find_backbone(backbone["name"], backbone["kind"], folder)
        if found_here.sha256 != backbone["sha256"]:
            return f"model.backbone: {found_here.weights} isn't the file that the study trains with"
    return _fails(terms["names"], folder)


def _fails(names: Sequence[str], folder: Path) -> str:
    """Return why code of the user's own can't be used here, if it can't: it is looked for in a process of its own."""

    def look() -> str:
        try:
            for name in names:
                find_own(name, folder, name, "a function")
        except TunerError as error:
            return str(error)
        return ""

    found = try_apart(look, None) if names else ""
    return found if isinstance(found, str) else f"the process that imports {', '.join(names)} ends"


class _Host:
    """One connection, and the engine that trains for it."""

    def __init__(
        self, link: Link, engine: Processes, folder: Path, place: Path, rows: Rows | None, names: Sequence[str]
    ) -> None:
        self.link, self.engine, self.folder, self.place, self.rows = link, engine, folder, place, rows
        self.names = frozenset(names)  # of code of the user's own, which was looked at
        self.running: dict[int, Order] = {}  # until each has ended
        self.saving: dict[int, Path] = {}
        self.spoke = time.monotonic()
        engine.ears = (link.sock,)

    def run(self) -> bool:
        """Train what comes; tell whether the study is over.

        Raises:
            OSError: the study is gone.
        """
        while True:
            if self.running:
                event = self.engine.next(WORD)
            else:
                event = None
                wait([self.link.sock], WORD)
            if event is not None:
                self._tell(event)
            if wait([self.link.sock], 0):
                self.link.hear()
            while (found := self.link.next()) is not None:
                if self._do(*found):
                    return True
            if time.monotonic() - self.spoke >= WORD:
                self._send({"what": "ping"})

    def _send(self, message: Mapping[str, Any], some: bytes = b"") -> None:
        self.link.send(message, some)
        self.spoke = time.monotonic()

    def _do(self, told: Mapping[str, Any], some: bytes) -> bool:
        """Do what the study says; tell whether it is over."""
        match told["do"]:
            case "file":
                self._write(told, some)
            case "drop":
                self.engine.drop(int(told["splits"]))
            case "start":
                order = Order.from_json(told)
                if other := set(own_code(order.config)) - self.names:
                    raise UsageError(f"the study asks for other code than it named: {', '.join(sorted(other))}")
                if self.rows is not None:
                    self.rows.fetch(order.splits, place_of(self.engine.data, order.splits))
                self.running[order.id] = order
                self.engine.start(order.task(self.folder, self.place / "states"))
            case "go" if told["id"] in self.running:
                self.engine.go(told["id"])
            case "stop" if told["id"] in self.running:
                save = self.place / f"{told['id']}.safetensors" if told["save"] else None
                if save is not None:
                    self.saving[told["id"]] = save
                self.engine.stop(told["id"], save, bool(told["newest"]))
            case "clear":
                self.engine.clear()
                self.running.clear()
                self.saving.clear()
            case "end":
                return True
        return False

    def _write(self, told: Mapping[str, Any], some: bytes) -> None:
        """Write a part of a file of some splits.

        Raises:
            StorageError: there is no room for it.
        """
        folder = place_of(self.engine.data, int(told["splits"]))
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            with open(folder / Path(told["name"]).name, "wb" if told["first"] else "ab") as file:
                file.write(some)
        except OSError as error:
            where = f"{tempfile.gettempdir()} ({error.strerror or error}); free it, or name another folder in TMPDIR"
            raise StorageError(f"the study's rows can't be written on {socket.gethostname()}, in {where}") from error

    def _tell(self, event: Event) -> None:
        """Tell what became of a task; before its end the weights, where they are wanted."""
        if event.number not in self.running:
            return
        if isinstance(event, Ended) and (path := self.saving.pop(event.number, None)) is not None:
            self._send_weights(event.number, path)
        if not isinstance(event, Trained) and not (isinstance(event, Unsaved) and event.kept):
            order = self.running.pop(event.number)
            if order.state is not None and not (isinstance(event, Failed) and event.died):
                (self.place / "states" / Path(order.state).name).unlink(missing_ok=True)
        self._send(*told_event(event))

    def _send_weights(self, number: int, path: Path) -> None:
        if not path.exists():  # a loop of the user's own that names no network leaves none
            return
        with open(path, "rb") as file:
            while some := file.read(CHUNK):
                self._send({"what": "weights", "id": number}, some)
        path.unlink()


class OwnHost:
    """A host on this machine, which ends when the study does, and is started again when it ends before. It has the rows
    from the folder `data` of the study's process, which it need not be sent.
    """

    def __init__(self, address: Address, slots: int, folder: Path, data: Path) -> None:
        own, data = replace(address, hosts=(LOOPBACK, "::1", *address.hosts)), data.absolute()
        told = {"address": own.to_json(), "slots": slots, "folder": str(folder), "data": str(data)}
        self.told, self.failures = json.dumps(told).encode(), 0
        self._start()

    def _start(self) -> None:
        # as a program, not as a module: nothing is imported from the current folder
        words = [sys.executable, "-P", "-m", __name__]
        self.process, self.began = Popen(words, stdin=PIPE, stdout=DEVNULL), time.monotonic()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as told:
            told.write(self.told + b"\n")

    def check(self, here: bool, needed: bool) -> None:
        """Start it again if it has ended: soon, or every half minute where it has ended several times as it began.

        Raises:
            TunerError: it ends as it begins, again and again, and is needed.
        """
        if here:
            self.failures = 0
        if self.process.poll() is None:
            return
        if self.failures >= TRIES and needed:
            raise TunerError(f"the study's own host ends as it begins (exit code {self.process.returncode})")
        if time.monotonic() - self.began >= (SELDOM if self.failures >= TRIES else SOON):
            self.failures += 1
            self._start()

    def close(self) -> None:
        """Wait for its end."""
        with suppress(TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        self.process.wait()


class Nobody:
    """The hosts of a study that leaves the training to others."""

    def check(self, here: bool, needed: bool) -> None:
        """Others come, or don't."""

    def close(self) -> None:
        """There is nobody to end."""


def at_door(door: Door, own: bool = True) -> Open:
    """Return what opens an engine that has, of its own, a host on this machine with so many workers, or nobody."""
    return lambda data, terms, workers, folder: Listening(
        door, data, terms, lambda address: OwnHost(address, workers, folder, data) if own else Nobody()
    )


def main() -> int:
    """Be a host of the process that started this one, for as long as that is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    told = json.loads(sys.stdin.readline())
    data = Path(told["data"])
    try:
        link, rows = connect(Address.from_json(told["address"])), Nearby(data, data.parent / FEATURES)
        name = f"the study's own host, process {os.getpid()}"
        serve(link, int(told["slots"]), Path(told["folder"]), rows, name)
    except (TunerError, OSError) as error:
        print(f"tuner: the study's own host: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, TunerError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
