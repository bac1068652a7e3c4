"""What stands around a command's work: Ctrl-C and SIGTERM end it cleanly, and stdout is kept for the result."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType

IN_TIME = 10.0  # seconds in which what was told to stop has ended
SOON = 0.05  # seconds until a signal comes again that came at a bad moment
_moment = {"bad": False}


class StoppedError(BaseException):
    """Ctrl-C or SIGTERM came; typer would swallow a KeyboardInterrupt."""

    def __init__(self, code: int) -> None:
        self.code = code


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does: cleanly, to be resumed. Both wait while torch is imported, for an
    exception that comes up in the middle of its C++ aborts the process, and while something is `undivided`. After one
    of them none is heeded for ten seconds: another would cut short what gives the trials back.

    Raises:
        StoppedError: one of them came; its code is the one to exit with.
    """

    class TerminatedError(KeyboardInterrupt):
        """SIGTERM came."""

    came = -IN_TIME

    def leave(sign: int, frame: FrameType | None) -> None:
        nonlocal came
        if time.monotonic() < came + IN_TIME:
            return
        if _moment["bad"] or _imports_torch(frame):
            _send_again(sign)
            return
        came = time.monotonic()
        raise TerminatedError if sign == signal.SIGTERM else KeyboardInterrupt

    def swallowed(unraisable: sys.UnraisableHookArgs) -> None:
        """Heed the signal later where Python drops what is raised, as in a finalizer or as it forks."""
        nonlocal came
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            told(unraisable)
            return
        came = -IN_TIME
        _send_again(signal.SIGTERM if issubclass(unraisable.exc_type, TerminatedError) else signal.SIGINT)

    told, sys.unraisablehook = sys.unraisablehook, swallowed
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, or somebody else's
    before = {sign: signal.signal(sign, leave) for sign in (signal.SIGTERM, *([signal.SIGINT] if heeded else []))}
    try:
        yield
    except TerminatedError:
        raise StoppedError(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise StoppedError(128 + signal.SIGINT) from None
    finally:
        sys.unraisablehook = told
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def heeded() -> Iterator[None]:
    """Have Ctrl-C come again a moment later where Python drops it, as in a finalizer: while the program is loaded,
    imports call such ones.
    """

    def swallowed(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        else:
            told(unraisable)

    told, sys.unraisablehook = sys.unraisablehook, swallowed
    try:
        yield
    finally:
        sys.unraisablehook = told


def _send_again(sign: int) -> None:
    again = threading.Timer(SOON, os.kill, (os.getpid(), sign))
    again.daemon = True
    again.start()


@contextmanager
def undivided(bad: bool = True) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM come after a block that they would leave half done; or, within such a block, while it only
    waits (`bad` is False). They come to the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _moment["bad"] = _moment["bad"], bad
    try:
        yield
    finally:
        _moment["bad"] = before


def _imports_torch(frame: FrameType | None) -> bool:
    """Tell whether a module of torch's is being run for the first time."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


@contextmanager
def apart() -> Iterator[None]:
    """Keep stdout for the result: what code of the user's prints goes to stderr, and closing it closes nothing."""
    with suppress(OSError, ValueError, AttributeError):  # it may be closed, or not be there at all
        sys.stdout.flush()
    with _put_aside(), os.fdopen(os.dup(2), "w", errors="replace") as aside, redirect_stdout(aside):
        yield


@contextmanager
def _put_aside() -> Iterator[None]:
    """Let the file behind stdout be the one behind stderr for a while."""
    try:
        kept = os.dup(1)
    except OSError:  # the command was started without one
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
