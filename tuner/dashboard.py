"""Shows the studies of a storage in optuna-dashboard, in the browser of the machine it runs on.

It decides who may ask (this machine's own pages, and nobody else's) and what may be asked (to read; to write only
when allowed). It does not know how a study is searched or judged, and it never reads a trial itself.

optuna-dashboard has no login, answers to any Host and lets any page delete a study. A browser on this machine is
therefore everyone's way in, and what `guard` refuses is what such a browser can be made to send.
"""

from __future__ import annotations

import csv
import errno
import io
import re
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tuner.errors import UsageError, nearest
from tuner.telling import harmless

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from optuna.storages import BaseStorage

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost", "[::1]")
READS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    (  # notes may be anyone's: what they name elsewhere isn't fetched, and what is script in them isn't run
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
TABLE = re.compile(r"/csv/[0-9]+")


def serve(
    storage: BaseStorage,
    *,
    port: int = 8080,
    allow_writes: bool = False,
    open_browser: bool = True,
    study: str | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the dashboard on this machine's `port` (0: any free one) until Ctrl-C; `ready` is told the page's URL."""
    path = page(storage, study)
    with suppress(KeyboardInterrupt), listen(storage, port=port, allow_writes=allow_writes) as server:
        url = f"http://{ADDRESS}:{server.server_port}{path}"
        if ready is not None:
            ready(url)
        if open_browser:
            # In a thread, because a text browser returns only when it is left.
            Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.serve_forever()


def listen(storage: BaseStorage, *, port: int, allow_writes: bool) -> WSGIServer:
    """Return a server that holds `port` and answers with the guarded dashboard once it is run."""
    server = _bind(port)
    try:
        server.set_app(guard(_dashboard(storage), port=server.server_port, allow_writes=allow_writes))
    except BaseException:
        server.server_close()
        raise
    return server


def page(storage: BaseStorage, study: str | None) -> str:
    """Return the path of the study's own page, or of the list of studies."""
    if study is None:
        return "/dashboard"
    try:
        return f"/dashboard/studies/{storage.get_study_id_from_name(study)}"
    except KeyError:
        names = sorted(known.study_name for known in storage.get_all_studies())
        listed = f"there are: {', '.join(map(repr, names))}" if names else "there are none yet"
        raise UsageError(f"no study {study!r}{nearest(study, names)}; {listed}") from None


def guard(app: WSGIApplication, *, port: int, allow_writes: bool) -> WSGIApplication:
    """Wrap `app`: it answers only to this machine's pages on `port`, and to writes only if `allow_writes`."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start = _hardened(start_response)
        problem = refuse(environ, port=port, allow_writes=allow_writes)
        if problem is None:
            # The dashboard fails with 500 on its own files if a client does not say which encodings it takes.
            environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
            return _harmless(app, environ, start) if TABLE.fullmatch(environ["PATH_INFO"]) else app(environ, start)
        body = f"{problem}\n".encode()
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return guarded


def _harmless(app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return the table of trials that the dashboard writes, with no cell that a spreadsheet would run."""
    told: list[Any] = []

    def start(*words: Any) -> Callable[[bytes], object]:
        told[:] = words
        return lambda _: None

    answer = app(environ, start)
    try:
        body = b"".join(answer)
    finally:
        getattr(answer, "close", lambda: None)()
    status, headers, *_ = told
    if status.startswith("200"):
        out = io.StringIO()
        csv.field_size_limit(max(csv.field_size_limit(), len(body) + 1))
        rows = csv.reader(io.StringIO(body.decode("utf-8", "replace"), newline=""))
        csv.writer(out).writerows([harmless(cell) for cell in row] for row in rows)
        body = out.getvalue().encode()
    kept = [pair for pair in headers if pair[0].lower() != "content-length"]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def refuse(environ: WSGIEnvironment, *, port: int, allow_writes: bool) -> str | None:
    """Return in one sentence why this request isn't answered, or None if it is."""
    # A page elsewhere can point its own name at 127.0.0.1, but it can't choose what the browser writes into Host.
    if environ.get("HTTP_HOST", "").lower() not in {*NAMES, *(f"{name}:{port}" for name in NAMES)}:
        return f"This dashboard answers only to http://{ADDRESS}:{port} and http://localhost:{port}."
    if environ.get("HTTP_ORIGIN") not in {None, *_own_origins(port)}:
        return "This dashboard doesn't answer to pages from elsewhere."
    # "none" is an address that was typed; a link that is followed from elsewhere may lead here, but nothing else
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin") and not _is_visit(environ):
        return "This dashboard doesn't answer to pages from elsewhere."
    if environ["REQUEST_METHOD"] not in READS and not allow_writes:
        return "This dashboard only reads: start it with --allow-writes to change or delete studies from the browser."
    return None


def _is_visit(environ: WSGIEnvironment) -> bool:
    """Tell whether a browser asks for a page to show it to its user, in a window of its own."""
    asked = (environ["REQUEST_METHOD"], environ.get("HTTP_SEC_FETCH_MODE"), environ.get("HTTP_SEC_FETCH_DEST"))
    return asked == ("GET", "navigate", "document")


def _own_origins(port: int) -> set[str]:
    # An origin without a port is port 80's: unless that is ours, it is another server of this machine.
    return {f"http://{name}:{port}" for name in NAMES} | {f"http://{name}" for name in NAMES if port == 80}


def _hardened(start_response: StartResponse) -> StartResponse:
    """Return a `start_response` that adds what every answer carries and drops what invites other origins."""
    replaced = tuple(name.lower() for name, _ in HEADERS)

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        kept = [pair for pair in headers if not pair[0].lower().startswith(("access-control-", *replaced))]
        return start_response(status, [*kept, *HEADERS], exc_info)

    return start


def _dashboard(storage: BaseStorage) -> WSGIApplication:
    try:
        from optuna_dashboard import wsgi  # here, because it costs seconds
    except ImportError as error:
        raise UsageError(f"the dashboard can't be loaded ({error}): pip install optuna-dashboard") from error
    app: WSGIApplication = wsgi(storage)
    return app


class _Request(WSGIRequestHandler):
    """One connection: given up when it stays silent, and never written to the terminal."""

    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, so that a slow one delays nobody and none delays Ctrl-C."""

    daemon_threads = True
    # On Windows this option would let a second program take over a port in use.
    allow_reuse_address = sys.platform != "win32"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a browser that went away or fell silent is no news
            super().handle_error(request, client_address)


def _bind(port: int) -> _Server:
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: a port is a number from 0 (any free one) to 65535")
    try:
        return _Server((ADDRESS, port), _Request)
    except OSError as error:
        problem = "is in use by another program" if error.errno == errno.EADDRINUSE else f"can't be opened ({error})"
        raise UsageError(f"port {port} {problem}: try --port {_free_port_after(port)}") from None


def _free_port_after(port: int) -> int:
    """Return the next port that can be opened, or 0, which stands for any free one."""
    first = max(port + 1, 1024)
    for candidate in range(first, min(first + 100, 65536)):
        with closing(socket.socket()) as attempt, suppress(OSError):
            attempt.bind((ADDRESS, candidate))
            return candidate
    return 0
