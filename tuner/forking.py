"""A fork server: a process that has imported once what all workers need, and forks their parents.

To import takes two seconds of a processor, to fork some milliseconds, and what was imported lies in memory once.
Decides what becomes of what a parent leaves behind that was killed: it ends, too. Knows nothing of what workers do.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from struct import Struct
from typing import NoReturn

from tuner.supervising import LINUX, be_parent, fork_supervisor, parents_of, send_all

ORDER = Struct("<i")  # the number of one that is to be forked; it comes with the socket that its orders come over
REPORT = Struct("<ii")  # the number of one that has ended, and its status
PATIENCE, ENDING = 30.0, 5.0  # seconds for the kernel to end what was killed; for a process to end what it started


class ForkServer:
    """A fork server, as the one who started it sees it: a Python process that runs a module, told the handle of its
    socket and the process that started it.
    """

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self.control, theirs = socket.socketpair()
        handle = theirs.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(handle), str(os.getpid())],
            pass_fds=[handle], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, env=environment,
        )  # fmt: skip
        theirs.close()
        self.count, self.ended = 0, dict[int, int]()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def fork(self) -> Forked:
        """Have another process forked; it is there once the server has imported all."""
        self.count += 1
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.control, [ORDER.pack(self.count)], [theirs.fileno()])
        except OSError:  # it has just died; or it can't be reached, and then it is of no use
            self.process.kill()
        return Forked(self, self.count, ours)

    def status(self, number: int, seconds: float | None = None) -> int | None:
        """Wait for the end of a process; return its exit code, or less than 0: the signal. The server's, if that has
        died: it takes along all that it forked. None if it takes longer than some seconds.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while number not in self.ended:
            if self.control.fileno() < 0:
                return self.process.wait()
            if not wait([self.control], None if until is None else max(0.0, until - time.monotonic())):
                return None
            report = _exactly(self.control, REPORT.size)
            if not report:
                return self.process.wait()
            which, code = REPORT.unpack(report)
            self.ended[which] = code
        return self.ended[number]

    def close(self) -> None:
        """End it, and all that it forked."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        self.process.wait()
        self.control.close()


@dataclass(frozen=True, slots=True, eq=False)
class Forked:
    """A process that a server forked, or will: its number there, and the socket that its orders go over."""

    server: ForkServer
    number: int
    control: socket.socket

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end, as `ForkServer.status` does."""
        return self.server.status(self.number, seconds)

    def end(self) -> int:
        """Return how it ended, of which nothing is to be heard any more; a server that doesn't tell is killed."""
        if (code := self.wait(PATIENCE)) is None:
            self.server.process.kill()
            code = self.server.process.wait()
        return code

    def leave(self) -> None:
        """Let it end: there will be no more orders."""
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self.control.close()


def _exactly(control: socket.socket, size: int) -> bytes:
    """Return so many bytes, or none if there is nobody any more who could send them."""
    try:
        found = control.recv(size, socket.MSG_WAITALL)
    except OSError:
        found = b""
    return found if len(found) == size else b""


def serve_forks(control: socket.socket, parent: int, work: Callable[[int], None]) -> NoReturn:
    """Fork a worker's parent for each order, until the socket closes or whoever started this process is gone. `work` is
    what a worker does, told the handle of its pipe.
    """
    signals, woken = be_parent()
    forked, others = dict[int, int](), [each.fileno() for each in (control, signals, woken)]
    with suppress(OSError):  # nobody is there to report to
        # SIGHUP comes when the parent ends, but also when no more than a thread of it does
        while os.getppid() == parent:
            ready, _, _ = select.select([control, signals], [], [])
            if signals in ready and signal.SIGTERM in signals.recv(4096):
                break
            if control in ready and not _obey(control, forked, work, others):
                break
            _bury(control, forked)
    _end(forked)
    os._exit(0)


def _obey(control: socket.socket, forked: dict[int, int], work: Callable[[int], None], others: Sequence[int]) -> bool:
    """Fork a process by an order, and keep its number; False if there will be no more orders."""
    order, handles, _, _ = socket.recv_fds(control, ORDER.size, 1)
    if len(order) < ORDER.size:
        return False
    (number,) = ORDER.unpack(order)
    try:
        with socket.socket(fileno=handles[0]) as orders:
            forked[fork_supervisor(orders, work, others)] = number
    except (OSError, IndexError):  # there may be no more processes, or no more files
        control.sendall(REPORT.pack(number, 1))
    return True


def _bury(control: socket.socket, forked: dict[int, int]) -> None:
    """Report the processes that have ended, by their number, when nothing is left of what they had started."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if (number := forked.pop(found[0], None)) is not None:
                until = time.monotonic() + ENDING
                while _sweep(forked) and time.monotonic() < until:
                    time.sleep(0.002)
                control.sendall(REPORT.pack(number, os.waitstatus_to_exitcode(found[1])))


def _sweep(forked: dict[int, int]) -> bool:
    """Kill what became a child of this process as its own parent was killed; tell whether there was any. What that
    leaves becomes one in turn.
    """
    if not LINUX:
        return False
    strays = []
    with suppress(OSError):
        strays = [each for each, parent in parents_of() if parent == os.getpid() and each not in forked]
    for each in strays:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(each, os.WNOHANG)
    return bool(strays)


def _end(forked: dict[int, int]) -> None:
    """End what was forked, and what that leaves behind: in good order, but a process that was stopped is killed."""
    until = time.monotonic() + ENDING
    send_all(signal.SIGTERM, forked)
    with suppress(ChildProcessError):
        while time.monotonic() < until + ENDING:
            if time.monotonic() >= until:
                send_all(signal.SIGKILL, forked)
            _sweep(forked)
            if (process := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                forked.pop(process, None)
            else:
                time.sleep(0.005)
