"""What a study and a host that trains for it say to each other over a network, and how.

Decides how tasks and events are written (JSON, and bytes beside it; nothing that is read runs as code), and that each
side proves to the other that it knows the study's secret, for every message anew: what doesn't come from the other
side, in its turn, is refused. What is said isn't hidden from who can listen. Knows neither who trains nor who judges.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tuner.config import RunConfig
from tuner.curve import Epoch, Measure, Standing
from tuner.engine import Ended, Event, Failed, Task, Trained, Unsaved

SIZES = struct.Struct("!II")  # of a message's JSON and of the bytes beside it
NONCE, MAC = 32, 32
MOST_TEXT, MOST_BYTES = 256 << 20, 16 << 20
CHUNK = 8 << 20  # of a file that is sent
PATIENCE = 10.0  # seconds for the greeting
GREETING = b"tuner 1 "
# A host that is gone without a word, as by a cable that is cut, is missed after half a minute; where something is on
# its way to it, after longer than a study waits for its database, in which it takes in nothing.
ALIVE = ((socket.SO_KEEPALIVE, 1),)
ALIVE_TCP = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 700_000, "TCP_NODELAY": 1}


class LinkError(ConnectionError):
    """The other side said what it could not have said, or doesn't know the secret."""


class Link:
    """One side of a connection whose other side knows the secret, too."""

    def __init__(self, sock: socket.socket, session: bytes, own: bytes, other: bytes) -> None:
        self.sock = sock
        self.keys = _mac(session, own), _mac(session, other)
        self.sent = self.heard = 0
        self.come = bytearray()

    @classmethod
    def of_study(cls, sock: socket.socket, secret: bytes) -> Self:
        """Greet a host that has connected.

        Raises:
            OSError: it doesn't know the secret, or is gone.
        """
        mine = secrets.token_bytes(NONCE)
        sock.sendall(GREETING + mine)
        told = _exactly(sock, NONCE + MAC)
        theirs, proof = told[:NONCE], told[NONCE:]
        if not hmac.compare_digest(proof, _mac(secret, b"host", mine, theirs)):
            raise LinkError("it doesn't know the study's secret")
        sock.sendall(_mac(secret, b"study", mine, theirs))
        return cls(sock, _mac(secret, b"session", mine, theirs), b"study", b"host")

    @classmethod
    def of_host(cls, sock: socket.socket, secret: bytes) -> Self:
        """Greet the study that this host has connected to.

        Raises:
            OSError: it doesn't know the secret, or is gone.
        """
        told = _exactly(sock, len(GREETING) + NONCE)
        if not told.startswith(GREETING):
            raise LinkError("what answers there is no study of this version of tuner")
        theirs, mine = told[len(GREETING) :], secrets.token_bytes(NONCE)
        sock.sendall(mine + _mac(secret, b"host", theirs, mine))
        if not hmac.compare_digest(_exactly(sock, MAC), _mac(secret, b"study", theirs, mine)):
            raise LinkError("what answers there doesn't know the study's secret")
        return cls(sock, _mac(secret, b"session", theirs, mine), b"host", b"study")

    def send(self, message: Mapping[str, Any], some: bytes = b"") -> None:
        """Send a message and, beside it, some bytes.

        Raises:
            ConnectionError: the other side is gone.
        """
        text = json.dumps(message).encode()
        assert len(text) <= MOST_TEXT
        assert len(some) <= MOST_BYTES
        head = SIZES.pack(len(text), len(some))
        proof = _mac(self.keys[0], self.sent.to_bytes(8), head, text, some)
        with _gone():
            self.sock.sendall(b"".join((head, text, some, proof)))
        self.sent += 1

    def hear(self) -> None:
        """Take in what has come, waiting until something has.

        Raises:
            ConnectionError: the other side is gone.
        """
        with _gone():
            some = self.sock.recv(1 << 20)
        if not some:
            raise ConnectionError("it closed the connection")
        self.come += some

    def next(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message of what has come, if it is there whole.

        Raises:
            LinkError: it doesn't come from the other side, or not in its turn.
        """
        if len(self.come) < SIZES.size:
            return None
        text, some = SIZES.unpack_from(self.come)
        if text > MOST_TEXT or some > MOST_BYTES:
            raise LinkError("it said more at once than it may")
        end = SIZES.size + text + some
        if len(self.come) < end + MAC:
            return None
        told, proof = bytes(self.come[:end]), bytes(self.come[end : end + MAC])
        if not hmac.compare_digest(proof, _mac(self.keys[1], self.heard.to_bytes(8), told)):
            raise LinkError("a message isn't its own")
        del self.come[: end + MAC]
        self.heard += 1
        body = SIZES.size + text
        try:
            return dict(json.loads(told[SIZES.size : body])), told[body:]
        except ValueError as error:
            raise LinkError("a message can't be read") from error

    def wait(self) -> tuple[dict[str, Any], bytes]:
        """Return the next message, waiting for it.

        Raises:
            ConnectionError: the other side is gone, or says what it can't.
        """
        while (found := self.next()) is None:
            self.hear()
        return found

    def close(self) -> None:
        """Close the connection; the other side finds out."""
        self.sock.close()


@contextmanager
def _gone() -> Iterator[None]:
    """Turn whatever ends a connection, as a network that drops does, into one error."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionError(f"the connection broke ({error.strerror or error})") from error


def keep_alive(sock: socket.socket) -> None:
    """Have a connection whose other side is gone without a word be closed."""
    for option, value in ALIVE:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    for name, value in ALIVE_TCP.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _mac(key: bytes, *parts: bytes) -> bytes:
    found = hmac.new(key, digestmod="sha256")
    for part in parts:
        found.update(part)
    return found.digest()


def _exactly(sock: socket.socket, size: int) -> bytes:
    told = b""
    while len(told) < size:
        some = sock.recv(size - len(told))
        if not some:
            raise ConnectionError("it closed the connection")
        told += some
    return told


@dataclass(frozen=True, slots=True)
class Order:
    """A task as a host is given it: all but where it is trained. `id` is its own alone; `state` names its state."""

    id: int
    config: RunConfig
    seed: int
    splits: int
    state: str | None
    spent: float

    @classmethod
    def of(cls, task: Task, number: int) -> Self:
        """Return the order for a task."""
        state = task.state.name if task.state is not None else None
        return cls(number, task.config, task.seed, task.splits, state, task.spent)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "id": self.id, "config": self.config.model_dump(mode="json"), "seed": self.seed, "splits": self.splits,
            "state": self.state, "spent": self.spent,
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        config = RunConfig.model_validate(told["config"])
        return cls(told["id"], config, told["seed"], told["splits"], told["state"], told["spent"])

    def task(self, folder: Path, states: Path) -> Task:
        """Return the task on a host that has the user's code in `folder` and keeps states in `states`."""
        state = states / Path(self.state).name if self.state else None
        return Task(self.id, self.config, self.seed, folder, self.splits, state, self.spent)


def told_event(event: Event) -> tuple[dict[str, Any], bytes]:
    """Return an event as plain values, and the bytes of it."""
    match event:
        case Trained(number, epoch, earlier):
            each = [asdict(one) for one in (*earlier, epoch)]
            return {"what": "trained", "id": number, "epochs": each}, b""
        case Ended(number, model, examples, weights):
            return {"what": "ended", "id": number, "model": model, "weights": weights}, examples
        case Failed(number, error, died, together):
            return {"what": "failed", "id": number, "error": error, "died": died, "together": together}, b""
        case Unsaved(number, error, passing, kept):
            return {"what": "unsaved", "id": number, "error": error, "passing": passing, "kept": kept}, b""


def event_of(told: Mapping[str, Any], some: bytes, number: int) -> Event:
    """Return the event that `told_event` wrote, of the trial of that number.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    match told["what"]:
        case "trained":
            *earlier, epoch = map(_epoch, told["epochs"])
            return Trained(number, epoch, tuple(earlier))
        case "ended":
            return Ended(number, _numbers(told["model"]), some, str(told["weights"]))
        case "failed":
            return Failed(number, str(told["error"]), bool(told["died"]), bool(told["together"]))
        case "unsaved":
            return Unsaved(number, str(told["error"]), bool(told["passing"]), bool(told["kept"]))
    raise ValueError(f"no event {told['what']!r}")


def _epoch(told: Mapping[str, Any]) -> Epoch:
    parts = {part: _measure(told[part]) for part in ("train", "val")}
    return Epoch(**{**told, **parts, "standing": Standing(**told["standing"])})


def _measure(told: Mapping[str, Any]) -> Measure:
    return Measure(told["loss"], _numbers(told["metrics"]), told["metric_se"])


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    if not all(isinstance(value, (int, float)) for value in told.values()):
        raise ValueError("numbers are wanted")
    return dict(told)
