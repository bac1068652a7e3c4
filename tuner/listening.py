"""An engine that trains on hosts which join a study and leave it: on this machine or on others.

Decides which host a trial goes to, what of the data a host is sent (the rows that its trials train on, once), and what
becomes of the trials of a host that is gone. Each host trains with an engine of its own; here is told what is to be
trained, and heard what came of it. Weights come back over the connection, so that no folder need be shared. Knows
nothing of how hosts find the study.
"""

from __future__ import annotations

import logging
import math
import queue
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol

from tuner.data.shared import place_of, write_shared
from tuner.data.splits import Splits
from tuner.doors import Address, Door, names_of
from tuner.engine import Ended, Event, Failed, Task, Trained, Unsaved
from tuner.errors import no_room
from tuner.telling import clean, counted
from tuner.whole import whole
from tuner.wire import CHUNK, PATIENCE, Link, LinkError, Order, event_of, keep_alive

LOG = logging.getLogger("tuner")
WORD, SILENT = 10.0, 60.0  # seconds between two words of a host, and without one after which it must have been paused
GREETED, GREETING = 64, 5.0  # who connects: so many are greeted at a time, in so many seconds
FAILURES = 3  # trials that fail on a host where none has come to anything, until it is let go
AWHILE = 1.0  # seconds that what can't be done at once is waited for


class Staff(Protocol):
    """Hosts of the study's own, which somebody has started."""

    def check(self, here: bool, needed: bool) -> None:
        """Start those again that have ended; they are `here`, if they are, and `needed` where no other host is.

        Raises:
            TunerError: they are needed, and can't be started.
        """
        ...

    def close(self) -> None:
        """End them: their connections are closed."""
        ...


@dataclass(slots=True)
class _Job:
    """A task on a host: `id` is its own; `weights` are what has come of its network, to be written to `save`."""

    task: Task
    id: int
    save: Path | None = None
    weights: bytearray = field(default_factory=bytearray)
    ended: Ended | None = None


class Guest:
    """A host that has joined: what it is called, its slots and jobs, and which rows it has."""

    def __init__(self, link: Link, name: str, slots: int, own: bool = False) -> None:
        self.link, self.name, self.slots, self.own = link, name, slots, own
        self.jobs: dict[int, _Job] = {}
        self.splits: set[int] = set()
        self.sound, self.failed = own, 0  # whether a trial has come to something here, and how many failed before
        self.heard = time.monotonic()
        self.out: queue.SimpleQueue[Mapping[str, Any] | tuple[int, Path] | None] = queue.SimpleQueue()
        # a host that is slow to take in what it is sent holds nothing up but itself
        self.sender = threading.Thread(target=self._send, name=f"to {name}", daemon=True)
        self.sender.start()

    def tell(self, message: Mapping[str, Any]) -> None:
        self.out.put(message)

    def _send(self) -> None:
        try:
            while (what := self.out.get()) is not None:
                if isinstance(what, tuple):
                    self._send_rows(*what)
                else:
                    self.link.send(what)
        except (OSError, ValueError):  # it is gone, or its rows can't be read: `next` hears of it
            with suppress(OSError):
                self.link.sock.shutdown(socket.SHUT_RDWR)

    def _send_rows(self, number: int, folder: Path) -> None:
        """Send the files of some splits; those that are dropped meanwhile are wanted no more."""
        try:
            for path in sorted(folder.iterdir()):
                with open(path, "rb") as file:
                    some, first = file.read(CHUNK), True
                    while some or first:
                        self.link.send({"do": "file", "splits": number, "name": path.name, "first": first}, some)
                        some, first = file.read(CHUNK), False
        except FileNotFoundError:
            return

    def close(self) -> None:
        self.out.put(None)
        with suppress(OSError):
            self.link.sock.shutdown(socket.SHUT_RDWR)
        self.link.close()


class Listening:
    """Trains on the hosts that come in by a `door` and that `terms` suit; the rows lie in the folder `data`.

    Some hosts it has from the beginning: those that `staff` starts, told where to go, and starts again if they end.
    Others are told where it is if it `invites` them.
    """

    invites = True

    def __init__(self, door: Door, data: Path, terms: Mapping[str, Any], staff: Callable[[Address], Staff]) -> None:
        self.data, self.terms, self.count, self.ids = data.absolute(), dict(terms), 0, 0
        self.hosts: list[Guest] = []
        self.at: dict[int, tuple[Guest, _Job]] = {}  # where each task is, by its number
        self.waiting: deque[Task] = deque()
        self.events: deque[Event] = deque()
        self.arrived: queue.SimpleQueue[Guest] = queue.SimpleQueue()
        self.greeting: deque[socket.socket] = deque()
        self.wary: set[int] = set()  # tasks that failed where none had come to anything: they are tried where one has
        self.closed = False
        self.bell, self.ringer = socket.socketpair()
        self.ears = selectors.DefaultSelector()
        self.ears.register(self.bell, selectors.EVENT_READ)
        self.checked = time.monotonic()
        self.door, (host, port, *_) = door, door.getsockname()
        self.address = Address(names_of(host), port, secrets.token_hex(32))
        self.staff = staff(self.address)
        self.keeper = threading.Thread(target=self._keep_door, name="door", daemon=True)
        self.keeper.start()

    @property
    def slots(self) -> int:
        """How many tasks the hosts that are here train at a time."""
        return sum(host.slots for host in self.hosts)

    def take(self, splits: Splits) -> int:
        write_shared(splits, place_of(self.data, self.count))
        self.count += 1
        return self.count - 1

    def drop(self, splits: int) -> None:
        rmtree(place_of(self.data, splits), ignore_errors=True)
        for host in self.hosts:
            if splits in host.splits:
                host.splits.discard(splits)
                host.tell({"do": "drop", "splits": splits})

    def start(self, task: Task) -> None:
        self.waiting.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give the tasks that wait to hosts that have room: of one whose host left there may be none yet."""
        for task in list(self.waiting):
            free = [host for host in self.hosts if len(host.jobs) < host.slots]
            sound = [host for host in free if host.sound]
            if task.number in self.wary and any(host.sound for host in self.hosts):
                free = sound
            if not free:
                continue
            self.waiting.remove(task)
            host = min(free, key=lambda each: len(each.jobs) / each.slots)
            if task.splits not in host.splits and not host.own:  # own ones have them from this machine, or from Ray
                host.splits.add(task.splits)
                host.out.put((task.splits, place_of(self.data, task.splits)))
            self.ids += 1
            host.jobs[self.ids] = job = _Job(task, self.ids)
            self.at[task.number] = host, job
            host.tell({"do": "start", **Order.of(task, self.ids).to_json()})

    def go(self, number: int) -> None:
        if number in self.at:  # else its host has left: that is among the events
            host, job = self.at[number]
            host.tell({"do": "go", "id": job.id})

    def stop(self, number: int, save: Path | None, newest: bool = False) -> None:
        if number not in self.at:
            return
        host, job = self.at[number]
        job.save = save.absolute() if save is not None else None
        if job.ended is not None:  # its weights are here, and could not be written
            self._end(host, job, job.ended)
        else:
            host.tell({"do": "stop", "id": job.id, "save": save is not None, "newest": newest})

    def next(self, timeout: float | None = None) -> Event | None:
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.events:
            before, own = len(self.hosts), any(host.own for host in self.hosts)
            for key, _ in self.ears.select(min(WORD if own else AWHILE, max(0.0, until - time.monotonic()))):
                if key.data is None:
                    self._let_in()
                else:
                    self._hear(key.data)
            self._check_silence()
            own = any(host.own for host in self.hosts)
            self.staff.check(own, needed=all(host.own for host in self.hosts))
            if not self.events and (len(self.hosts) != before or time.monotonic() >= until):
                return None
        return self.events.popleft()

    def _check_silence(self) -> None:
        """Let hosts go that have been paused."""
        now = time.monotonic()
        if now - self.checked < WORD:
            return
        for host in [each for each in self.hosts if now - each.heard > SILENT and now - self.checked < SILENT]:
            self._lose(host, "said nothing for a minute")
        self.checked = now

    def _keep_door(self) -> None:
        """Greet who connects, each in a thread of its own: one that says nothing keeps none waiting, and who has been
        there for longest makes room for who comes.
        """
        while not self.closed:
            try:
                sock, _ = self.door.accept()
                self.greeting.append(sock)
                while len(self.greeting) > GREETED:
                    with suppress(OSError, IndexError):
                        self.greeting.popleft().shutdown(socket.SHUT_RDWR)
                threading.Thread(target=self._greet, args=(sock,), name="greeting", daemon=True).start()
            except (OSError, RuntimeError):  # it was closed, or too many files are open, or threads run
                if not self.closed:
                    time.sleep(AWHILE)

    def _greet(self, sock: socket.socket) -> None:
        late = threading.Timer(GREETING, _end, [sock])
        late.daemon = True
        late.start()
        try:
            sock.settimeout(GREETING)
            link = Link.of_study(sock, self.address.secret.encode())
            link.send({"do": "terms", **self.terms})
            late.cancel()  # it knows the secret, and looks whether the terms suit it
            sock.settimeout(PATIENCE)
            told, _ = link.wait()
            if told.get("what") != "join" or self.closed:
                raise LinkError("it does not join")
            name, slots = clean(str(told["name"]))[:100], min(1024, max(1, int(told["slots"])))
            keep_alive(sock)
            sock.settimeout(None)
            self.arrived.put(Guest(link, name, slots, bool(told.get("own"))))
            self.ringer.send(b"!")
        except (OSError, KeyError, TypeError, ValueError):  # it tells whoever started it
            sock.close()
        finally:
            late.cancel()
            with suppress(ValueError):
                self.greeting.remove(sock)

    def _let_in(self) -> None:
        with suppress(OSError):
            self.bell.recv(1024)
        while not self.arrived.empty():
            host = self.arrived.get()
            host.heard = time.monotonic()
            self.hosts.append(host)
            self.ears.register(host.link.sock, selectors.EVENT_READ, host)
            self._hand_out()
            if not host.own:
                LOG.warning("%s joined with %s; %d in all", host.name, counted(host.slots, "worker"), self.slots)

    def _hear(self, host: Guest) -> None:
        """Take in what a host says."""
        try:
            host.link.hear()
            host.heard = time.monotonic()
            while (found := host.link.next()) is not None:
                self._take_in(host, *found)
        except ConnectionError as error:
            self._lose(host, str(error) if isinstance(error, LinkError) else "is gone")
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._lose(host, f"said what can't be ({type(error).__name__})")

    def _take_in(self, host: Guest, told: Mapping[str, Any], some: bytes) -> None:
        what = told["what"]
        if what == "leave":
            raise LinkError(f"left{': ' * bool(told.get('why'))}{clean(str(told.get('why', '')))[:300]}")
        job = host.jobs.get(told["id"]) if what != "ping" else None
        if job is None:  # of a task that was given up
            return
        if what == "weights":
            job.weights += some
            return
        event = self._trusted(host, event_of(told, some, job.task.number))
        if isinstance(event, Ended):
            self._end(host, job, event)
            return
        if not isinstance(event, Trained) and not (isinstance(event, Unsaved) and event.kept):
            self._forget(host, job)
        self.events.append(event)
        if host.failed >= FAILURES and not host.sound:
            raise LinkError("let go, for every trial fails there")

    def _trusted(self, host: Guest, event: Event) -> Event:
        """Return an event; of a trial that failed where none has come to anything, as of one that is to be run again,
        where one has: it may be the host that lacks something.
        """
        if isinstance(event, Trained):
            host.sound = True
        if not isinstance(event, Failed) or event.died:
            return event
        others = any(each.sound for each in self.hosts if each is not host)
        if host.sound or not others or event.number in self.wary:
            return event
        self.wary.add(event.number)
        host.failed += 1
        LOG.warning("%s: a trial failed there and is tried elsewhere (%s)", host.name, event.error[:200])
        return replace(event, died=True, together=True)

    def _forget(self, host: Guest, job: _Job) -> None:
        del host.jobs[job.id], self.at[job.task.number]
        self._hand_out()

    def _end(self, host: Guest, job: _Job, event: Ended) -> None:
        """Write the weights that came; if that can't be done they are kept until it is tried again."""
        number = job.task.number
        if job.save is not None and job.weights:
            try:
                with whole(job.save) as file:
                    file.write(job.weights)
            except OSError as error:
                job.ended, what = event, f"weights can't be written: {job.save}: {error.strerror or error}"
                self.events.append(Unsaved(number, what, passing=no_room(error), kept=True))
                return
        self._forget(host, job)
        self.events.append(event)

    def _lose(self, host: Guest, why: str) -> None:
        """Let a host go: its trials are run again, elsewhere, and are not to blame."""
        self.hosts.remove(host)
        self.ears.unregister(host.link.sock)
        host.close()
        LOG.warning("%s %s, with %s; %d are left", host.name, why, counted(host.slots, "worker"), self.slots)
        for job in list(host.jobs.values()):
            self._forget(host, job)
            self.events.append(Failed(job.task.number, f"{host.name} {why}", died=True, together=True))

    def clear(self) -> None:
        self.events.clear()
        self.waiting.clear()
        self.wary.clear()
        for host in self.hosts:
            if host.jobs:
                host.jobs.clear()
                host.tell({"do": "clear"})
        self.at.clear()

    def close(self) -> None:
        self.clear()
        self.closed = True
        with suppress(OSError):
            self.door.shutdown(socket.SHUT_RDWR)  # which wakes who waits at it
        self.keeper.join(1.0)
        for sock in list(self.greeting):
            _end(sock)
        while not self.arrived.empty():
            self.hosts.append(self.arrived.get())
        for host in self.hosts:
            host.tell({"do": "end"})
            host.out.put(None)
        until = time.monotonic() + AWHILE
        for host in self.hosts:
            host.sender.join(max(0.0, until - time.monotonic()))
            host.close()
        self.hosts.clear()
        self.staff.close()
        self.ears.close()
        self.bell.close()
        self.ringer.close()


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


Open = Callable[[Path, Mapping[str, Any], int, Path], Listening]
