"""A worker's parent: it forks a worker when it is told to, watches it, and ends all that the worker started with it.

Decides when a worker is at an end and what is said of how it ended: by itself, on an order, or for its memory. Knows
nothing of what a worker does. It holds what a worker imports, so that a new one is there in an instant, and it is a
process of its own, so that nothing stays behind however the one who judges ends.

On Linux every process that descends from a worker is found, also one that left its group or lost its parent, as such a
one becomes a child of this process; elsewhere those that lost their parent are not.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NoReturn

BIRTH, LIMIT, END, SOON = b"b", b"l", b"e", b"s"
ORDER = Struct("<cid")  # what, of which life; LIMIT: bytes; END: seconds from SIGTERM to SIGKILL; SOON: to SIGKILL, for
# one that should end by itself. A BIRTH comes with a pipe.
BORN, ENDED = b"b", b"e"
REPORT = Struct("<ciic")  # what, of which life; BORN: the process, ENDED: its status, and how it came to its end
BY_ITSELF, BY_ORDER, BY_MEMORY = b"i", b"o", b"m"

SAID = "said: "  # before what is returned by a process of its own

EVERY = 0.5  # seconds between two looks at the memory
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
FIRST_KILLED = "500"  # of 1000: when memory runs out, the kernel ends a worker and not the one who judges


def die_with(parent: int, by: int) -> None:
    """Have the kernel send this process a signal when its parent ends; where it can't, closed pipes tell it."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)


def be_parent() -> tuple[socket.socket, socket.socket]:
    """Let what loses its parent below this process become its child, where the kernel can; return a socket in which
    each of SIGNALS is a byte from now on, so that one wait is for everything, and its other end.
    """
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    for each in SIGNALS:
        signal.signal(each, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # whoever started this process may not want to hear of them
    return signals, woken


@dataclass(slots=True)
class _Life:
    """A worker: its number among those of this parent, its process, what it may use, when it is to be killed."""

    number: int
    process: int
    limit: float = 0.0
    until: float | None = None
    how: bytes = BY_ITSELF


def supervise(control: socket.socket, parent: int, work: Callable[[int], None]) -> NoReturn:
    """Follow the orders that come over a socket until it closes or whoever holds its other end is gone; never return.
    `work` is what a worker does, told the handle of its pipe.
    """
    supervisor = _Supervisor(control, parent, work)
    with suppress(OSError):  # nobody is there to report to
        supervisor.run()
    sweep()
    os._exit(0)


def fork_supervisor(control: socket.socket, work: Callable[[int], None], others: Iterable[int]) -> int:
    """Fork a process that supervises, by the orders that come over a socket; return its number. `others` are handles
    that it is not to hold.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGINT})  # what comes at once is whose it is
    try:
        process = os.fork()
        if process == 0:
            _be_supervisor(control, parent, work, others)
        return process
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_supervisor(control: socket.socket, parent: int, work: Callable[[int], None], others: Iterable[int]) -> NoReturn:
    """Supervise in this process, that was just forked, and end it: in a session of its own, with nothing of others."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        for other in others:
            os.close(other)
        die_with(parent, signal.SIGHUP)
        supervise(control, parent, work)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # whatever happens, nothing of what its parent would do next


def try_apart(do: Callable[[], str], seconds: float | None) -> str | int | None:
    """Do something in a fork of this process, of which nothing stays; return what it returns. If it ended before that:
    how, as `waitstatus_to_exitcode` has it. None if it takes longer than some seconds.
    """

    def work(pipe: int) -> None:
        with open(pipe, "w", encoding="utf-8", errors="replace") as file:
            file.write(SAID + do())

    ours, theirs = socket.socketpair()
    said, written = os.pipe()
    process = 0
    try:
        with ours, theirs, open(said, encoding="utf-8", errors="replace") as file, open(written, "wb") as end:
            process = fork_supervisor(theirs, work, [ours.fileno(), said, written])
            theirs.close()
            socket.send_fds(ours, [ORDER.pack(BIRTH, 1, 0.0)], [written])
            end.close()
            ours.settimeout(seconds)
            status = _end_of(ours)
            text = "" if status is None else file.read()
            return text.removeprefix(SAID) if text.startswith(SAID) else status
    finally:
        if process:
            os.waitpid(process, 0)


def _end_of(control: socket.socket) -> int | None:
    """Return how a worker ended; None if it hasn't when its time is over."""
    try:
        while report := control.recv(REPORT.size, socket.MSG_WAITALL):
            what, _, value, _ = REPORT.unpack(report)
            if what == ENDED:
                return int(value)
    except TimeoutError:
        return None
    return -signal.SIGKILL  # its parent was killed


def cause(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # one without a name
        name = str(-code)
    return f"signal {name}" + ("; out of memory?" if code == -signal.SIGKILL else "")


class _Supervisor:
    def __init__(self, control: socket.socket, parent: int, work: Callable[[int], None]) -> None:
        self.control, self.parent, self.work = control, parent, work
        self.life: _Life | None = None
        self.signals, self.woken = be_parent()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self.control, self.signals], [], [], self._patience())
            came = self.signals.recv(4096) if self.signals in ready else b""
            # SIGHUP comes when the parent ends, but also when no more than a thread of it does
            if signal.SIGTERM in came or os.getppid() != self.parent:
                return
            if self.control in ready and not self._obey():
                return
            self._look()

    def _patience(self) -> float | None:
        if self.life is None:
            return None
        waits = self.life.limit > 0 or self.life.until is not None
        return EVERY if waits else None

    def _obey(self) -> bool:
        order, handles, _, _ = socket.recv_fds(self.control, ORDER.size, 1)
        if not order:
            return False
        what, number, value = ORDER.unpack(order)
        if what == BIRTH:
            self._finish()
            self._bear(number, handles[0])
        elif self.life is not None and self.life.number == number:
            if what == LIMIT:
                self.life.limit = value
            elif value:
                self.life.until = time.monotonic() + value
                if what == END:
                    send_all(signal.SIGTERM, descendants(os.getpid()))
            else:
                self._kill(BY_ORDER)
        return True

    def _bear(self, number: int, pipe: int) -> None:
        ours = os.getpid()
        process = os.fork()
        if process == 0:
            self._be_worker(ours, pipe)
        os.close(pipe)
        self.life = _Life(number, process)
        self.control.sendall(REPORT.pack(BORN, number, process, BY_ITSELF))

    def _be_worker(self, parent: int, pipe: int) -> None:
        """Do a worker's work in this process, and end it: in a session of its own, with nothing of its parent's."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            os.setsid()
            die_with(parent, signal.SIGKILL)
            for end in (self.control, self.signals, self.woken):
                end.close()
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(FIRST_KILLED)
            self.work(pipe)
            code = 0
        except OSError:  # its pipe is not there any more
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # threads of the user's may go on, and what they left to be done at exit isn't ours

    def _look(self) -> None:
        """See whether the worker has ended, or has to; bury what others left that ended."""
        life = self.life
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if life is not None and found[0] == life.process:
                    self._report(found[1])
                    return
        if life is None or life.how != BY_ITSELF:
            return
        if life.until is not None and time.monotonic() >= life.until:
            self._kill(BY_ORDER)
        elif life.limit and used(descendants(os.getpid()), life.limit) > life.limit:
            self._kill(BY_MEMORY)

    def _kill(self, how: bytes) -> None:
        assert self.life is not None
        self.life.how = how if self.life.how == BY_ITSELF else self.life.how
        with suppress(ProcessLookupError):
            os.kill(self.life.process, signal.SIGKILL)

    def _finish(self) -> None:
        """End the worker that there is, at once."""
        if self.life is not None:
            self._kill(BY_ORDER)
            self._report(os.waitpid(self.life.process, 0)[1])

    def _report(self, status: int) -> None:
        """Say how the worker ended, when nothing of it is left."""
        assert self.life is not None
        life, self.life = self.life, None
        sweep()
        self.control.sendall(REPORT.pack(ENDED, life.number, os.waitstatus_to_exitcode(status), life.how))


def sweep() -> None:
    """Kill all that descends from this process: what loses its parent becomes its child, so until there is none."""
    while True:
        send_all(signal.SIGKILL, descendants(os.getpid()))
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def send_all(which: int, processes: Iterable[int]) -> None:
    """Send processes a signal, as far as they are there and may be sent it."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, which)


def descendants(ancestor: int) -> list[int]:
    """Return the processes that descend from one."""
    children: dict[int, list[int]] = {}
    for process, parent in parents_of():
        children.setdefault(parent, []).append(process)
    found = list(children.get(ancestor, ()))
    for process in found:
        found += children.get(process, ())
    return found


def parents_of() -> Iterable[tuple[int, int]]:
    """Yield every process with its parent."""
    if not LINUX:
        table = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        yield from (tuple(map(int, line.split())) for line in table.splitlines())  # type: ignore[misc]
        return
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):  # it has just ended
                yield int(name), int(_read(f"/proc/{name}/stat").rpartition(")")[2].split()[1])


def used(processes: Iterable[int], limit: float) -> float:
    """Return the bytes of memory that processes hold; what they share counts once, where more than the limit would be
    counted otherwise: to know takes the kernel a look at each page.
    """
    mine = list(processes)
    resident = sum(map(_resident, mine))
    return resident if resident <= limit or not LINUX else sum(map(_proportional, mine))


def _resident(process: int) -> float:
    if not LINUX:
        words = ["ps", "-o", "rss=", "-p", str(process)]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
        return float(said) * 1024 if said else 0.0
    try:
        return float(_read(f"/proc/{process}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0.0


def _proportional(process: int) -> float:
    try:
        lines = _read(f"/proc/{process}/smaps_rollup").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return _resident(process)


def _read(path: str) -> str:
    return Path(path).read_text(errors="replace")
