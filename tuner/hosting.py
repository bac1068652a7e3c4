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
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any, Protocol

from tuner.backbones import find_backbone
from tuner.data.shared import place_of
from tuner.engine import Ended, Event, Failed, Trained, Unsaved
from tuner.errors import TunerError, UsageError
from tuner.identity import this_code, this_version
from tuner.listening import LOOPBACK, WORD, Address, Door, Listening, Open
from tuner.own_code import code_of
from tuner.wire import CHUNK, PATIENCE, Link, Order, keep_alive, told_event
from tuner.workers import Processes

FOLDER, HELD = "tuner-host-", ".held"  # of temporary folders, and the file in each that its host holds
AT_ONCE = 3.0  # seconds in which a host that ends has not begun


@dataclass(frozen=True, slots=True)
class Served:
    """How a connection to a study ended: it was `over`, or the study's process is gone."""

    over: bool


class Rows(Protocol):
    """Where rows come from, if not from the study itself: they, and features of them, lie in `folder` on this machine,
    for all hosts here.
    """

    folder: Path

    def fetch(self, splits: int, place: Path) -> None:
        """See to it that those of a number lie in a folder."""
        ...


def connect(address: Address) -> Link:
    """Connect to a study.

    Raises:
        OSError: nothing listens at any of its names, or what does is no study that knows the secret.
    """
    found: OSError | None = None
    for host in address.hosts:
        try:
            sock = socket.create_connection((host, address.port), PATIENCE)
        except OSError as error:
            found = found or error
            continue
        try:
            link = Link.of_host(sock, address.secret.encode())
        except OSError as error:
            sock.close()
            found = error
            continue
        keep_alive(sock)
        return link
    raise found or ConnectionError("nothing listens there")


def serve(link: Link, slots: int, folder: Path, rows: Rows | None = None, own: str = "") -> Served:
    """Train for the study at the other end until it is over or gone. The user's code is looked for in `folder`. With
    `rows`, those that are trained on are got from there. `own` is what a host of the study's own is called.

    Raises:
        UsageError: the study would come out otherwise here: its code isn't there, or isn't the same.
    """
    try:
        terms, _ = link.wait()
    except OSError:
        return Served(over=False)
    if problem := unlike(terms, folder):
        link.close()
        raise UsageError(problem)
    name = f"{own or f'process {os.getpid()}'} on {socket.gethostname()}"
    with _own_folder() as place:
        shared = place if rows is None else rows.folder
        engine = Processes(slots, shared / "data", shared / "features")
        try:
            link.send({"what": "join", "name": name, "slots": slots, "own": bool(own)})
            link.sock.settimeout(None)
            return Served(_Host(link, engine, folder.resolve(), place, rows).run())
        except ConnectionError:
            return Served(over=False)
        except BaseException:  # as by Ctrl-C: the study needn't wait for it
            with suppress(OSError):
                link.send({"what": "leave"})
            raise
        finally:
            engine.close()
            link.close()


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Hold a temporary folder; remove those of hosts of this user that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{FOLDER}*/{HELD}"):
        with suppress(OSError), open(old) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old.parent, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as name,
        open(Path(name, HELD), "w") as held,
    ):
        fcntl.flock(held, fcntl.LOCK_EX)
        yield Path(name)


def unlike(terms: Mapping[str, Any], folder: Path) -> str:
    """Return why a study would come out otherwise here, nothing if it wouldn't."""
    here = versions_here()
    other = [
        f"{name} {there}, here {here.get(name)}" for name, there in terms["versions"].items() if here.get(name) != there
    ]
    if other:
        return f"the study is trained with {'; '.join(other)}; install the same on every host"
    names = list(terms["own"])
    found = code_of([f"{name}:_" for name in names], folder)
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
    return ""


def versions_here() -> dict[str, str]:
    """Return the versions of what a trial's figures depend on."""
    from importlib.metadata import version

    return {"tuner": this_version(), "tuner's code": this_code(), "torch": version("torch"), "numpy": version("numpy")}


class _Host:
    """One connection, and the engine that trains for it."""

    def __init__(self, link: Link, engine: Processes, folder: Path, place: Path, rows: Rows | None) -> None:
        self.link, self.engine, self.folder, self.place, self.rows = link, engine, folder, place, rows
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
        """Write a part of a file of some splits."""
        folder = place_of(self.engine.data, int(told["splits"]))
        folder.mkdir(0o700, parents=True, exist_ok=True)
        with open(folder / Path(told["name"]).name, "wb" if told["first"] else "ab") as file:
            file.write(some)

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
    """A host on this machine, which ends when the study does, and is started again when it ends before."""

    def __init__(self, address: Address, slots: int, folder: Path) -> None:
        own = replace(address, hosts=(LOOPBACK, *address.hosts))
        self.told = json.dumps({"address": own.to_json(), "slots": slots, "folder": str(folder)}).encode()
        self._start()

    def _start(self) -> None:
        self.process, self.began = Popen([sys.executable, "-m", __name__], stdin=PIPE, stdout=DEVNULL), time.monotonic()
        assert self.process.stdin is not None
        with self.process.stdin as told, suppress(BrokenPipeError):
            told.write(self.told + b"\n")

    def check(self) -> None:
        """Start it again if it has ended.

        Raises:
            TunerError: it ends as it begins.
        """
        if self.process.poll() is None:
            return
        if time.monotonic() - self.began < AT_ONCE:
            raise TunerError(f"the study's own host ended as it began (exit code {self.process.returncode})")
        self._start()

    def close(self) -> None:
        """Wait for its end."""
        with suppress(TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        self.process.wait()


def at_door(door: Door) -> Open:
    """Return what opens an engine that has, of its own, a host on this machine with so many workers."""
    return lambda data, terms, workers, folder: Listening(door, data, terms, lambda to: OwnHost(to, workers, folder))


def main() -> int:
    """Be a host of the process that started this one, for as long as that is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    told = json.loads(sys.stdin.readline())
    try:
        with suppress(OSError):
            link = connect(Address.from_json(told["address"]))
            serve(link, int(told["slots"]), Path(told["folder"]), own=f"the study's own host, process {os.getpid()}")
    except TunerError as error:
        print(f"tuner: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
