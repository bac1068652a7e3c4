"""What stands around a command's work: Ctrl-C and SIGTERM end it cleanly, and stdout is kept for the result."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


class StoppedError(BaseException):
    """Ctrl-C or SIGTERM came; typer would swallow a KeyboardInterrupt."""

    def __init__(self, code: int) -> None:
        self.code = code


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does: cleanly, to be resumed.

    Raises:
        StoppedError: one of them came; its code is the one to exit with.
    """

    class TerminatedError(KeyboardInterrupt):
        """SIGTERM came."""

    def leave(*_: object) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except TerminatedError:
        raise StoppedError(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise StoppedError(128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


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
