"""The dashboard over real HTTP, in front of a real SQLite file: who gets an answer, and to what."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from tuner import dashboard
from tuner.errors import UsageError

STUDY = "digits"
OURS = ("X-Content-Type-Options", "X-Frame-Options", "Cross-Origin-Resource-Policy")
READ_ONLY = "--allow-writes"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[optuna.storages.RDBStorage]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'studies.db'}")
    study = optuna.create_study(storage=storage, study_name=STUDY)
    storage.set_study_system_attr(study._study_id, "study:metric_names", ["log_loss with gap penalty"])
    for _ in range(3):
        study.add_trial(_finished_trial())
    yield storage
    storage.engine.dispose()


def _finished_trial() -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        value=0.4,
        params={"regularization.dropout": 0.2},
        distributions={"regularization.dropout": optuna.distributions.FloatDistribution(0.0, 0.6)},
        user_attrs={"train_loss": 0.1, "val_loss": 0.4, "verdict": "overfit", "reason": "val rose while train fell"},
        intermediate_values={0: 0.5, 1: 0.4},
    )


@contextmanager
def running(storage: optuna.storages.BaseStorage, *, allow_writes: bool = False) -> Iterator[int]:
    server = dashboard.listen(storage, port=0, allow_writes=allow_writes)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def port(storage: optuna.storages.RDBStorage) -> Iterator[int]:
    with running(storage) as port:
        yield port


def ask(
    port: int, path: str, method: str = "GET", *, host: str | None = None, body: bytes | None = None, **headers: str
) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{port}")
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


# Reading


def test_the_study_its_page_and_its_files_can_be_read(port: int) -> None:
    page = ask(port, f"/dashboard/studies/{_study_id(port)}")
    assert page.status == 200
    assert "<title>Optuna Dashboard</title>" in page.text
    trials = json.loads(ask(port, f"/api/studies/{_study_id(port)}").body)["trials"]
    assert {"key": "verdict", "value": "overfit"} in trials[0]["user_attrs"]


def _study_id(port: int) -> int:
    studies = json.loads(ask(port, "/api/studies").body)["study_summaries"]
    return next(study["study_id"] for study in studies if study["study_name"] == STUDY)


def test_the_metric_has_the_name_it_was_given(port: int) -> None:
    assert json.loads(ask(port, f"/api/studies/{_study_id(port)}").body)["objective_names"] == [
        "log_loss with gap penalty"
    ]


@pytest.mark.parametrize("encoding", [{}, {"Accept-Encoding": "gzip"}])
def test_the_script_is_served_with_its_type_to_any_client(port: int, encoding: dict[str, str]) -> None:
    script = ask(port, "/static/bundle.js", **encoding)
    assert (script.status, script.headers.get_content_type()) == (200, "text/javascript")
    assert script.headers["Content-Encoding"] == encoding.get("Accept-Encoding")


def test_head_has_the_headers_and_no_body(port: int) -> None:
    answer = ask(port, "/dashboard", "HEAD")
    assert (answer.status, answer.body) == (200, b"")


# Who may ask


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "[::1]:{}", "LocalHost:{}", "127.0.0.1", "localhost"])
def test_this_machine_s_names_are_answered(port: int, host: str) -> None:
    assert ask(port, "/api/studies", host=host.format(port)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:{}", "evil.example", "127.0.0.1.evil.example:{}", "localhost.evil.example", "127.0.0.1:1",
     "localhost.", "0.0.0.0:{}", "127.0.0.1:{}@evil.example", "localhost:{},evil.example", " ", ""],
)  # fmt: skip
def test_any_other_host_is_refused(port: int, host: str) -> None:
    answer = ask(port, "/api/studies", host=host.format(port))
    assert answer.status == 403
    assert STUDY not in answer.text
    assert answer.text == f"This dashboard answers only to http://127.0.0.1:{port} and http://localhost:{port}.\n"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{}", "http://localhost:{}", "http://[::1]:{}"])
def test_its_own_pages_are_answered(port: int, origin: str) -> None:
    assert ask(port, "/api/studies", Origin=origin.format(port)).status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://127.0.0.1:{}", "http://127.0.0.1", "http://localhost:1", "null", "",
     "http://localhost:{}.evil.example", "http://localhost:{}/", "file://"],
)  # fmt: skip
def test_pages_from_elsewhere_are_refused(port: int, origin: str) -> None:
    answer = ask(port, "/api/studies", Origin=origin.format(port))
    assert (answer.status, answer.text) == (403, "This dashboard doesn't answer to pages from elsewhere.\n")


def test_only_this_machine_can_connect(storage: optuna.storages.RDBStorage) -> None:
    with dashboard.listen(storage, port=0, allow_writes=True) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.socket.family == socket.AF_INET


# What may be asked

WRITES = [
    ("DELETE", "/api/studies/{}", None),
    ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
    ("POST", "/api/studies/{}/rename", {"study_name": "renamed"}),
    ("PUT", "/api/studies/{}/note", {"version": 1, "body": "hello"}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"verdict": "finished"}}),
    ("POST", "/incompatible-rdb-schema", None),
    ("PATCH", "/api/studies", None),
    ("TRACE", "/dashboard", None),
    ("delete", "/api/studies/{}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_write_is_refused_in_one_plain_sentence(port: int, method: str, path: str, body: object) -> None:
    before = ask(port, f"/api/studies/{_study_id(port)}").body
    answer = ask(port, path.format(_study_id(port)), method, body=json.dumps(body).encode() if body else None)
    assert answer.status == 403
    assert answer.text.count("\n") == 1
    assert READ_ONLY in answer.text
    assert ask(port, f"/api/studies/{_study_id(port)}").body == before


def test_a_write_passes_when_allowed_but_never_from_elsewhere(storage: optuna.storages.RDBStorage) -> None:
    study_id = optuna.create_study(storage=storage, study_name="to delete")._study_id
    note = json.dumps({"version": 1, "body": "hello"}).encode()
    with running(storage, allow_writes=True) as port:
        assert ask(port, f"/api/studies/{study_id}", "DELETE", Origin="http://evil.example").status == 403
        assert ask(port, f"/api/studies/{study_id}", "DELETE", host="evil.example").status == 403
        assert ask(port, f"/api/studies/{study_id}/note", "PUT", body=note).status == 204
        assert storage.get_study_system_attrs(study_id)["dashboard:note_str:0"] == "hello"
        assert ask(port, f"/api/studies/{study_id}", "DELETE", Origin=f"http://localhost:{port}").status == 204
    assert [study.study_name for study in storage.get_all_studies()] == [STUDY]


def test_reading_needs_no_other_method_than_get(storage: optuna.storages.RDBStorage) -> None:
    from optuna_dashboard import wsgi

    # Each of these changes something, or asks a language model, of which we have none. A new one must be looked at.
    assert sorted({f"{route.method} {route.rule}" for route in wsgi(storage).routes if route.method != "GET"}) == [
        "DELETE /api/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
        "DELETE /api/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
        "DELETE /api/studies/<study_id:int>",
        "DELETE /api/studies/<study_id:int>/preference/<history_id>",
        "POST /api/artifacts/<study_id:int>",
        "POST /api/artifacts/<study_id:int>/<trial_id:int>",
        "POST /api/llm/generate_plotly_graph_query",
        "POST /api/llm/re_generate_plotly_graph_query",
        "POST /api/llm/trial_filter_query",
        "POST /api/studies",
        "POST /api/studies/<study_id:int>/<trial_id:int>/skip",
        "POST /api/studies/<study_id:int>/preference",
        "POST /api/studies/<study_id:int>/preference/<history_id>",
        "POST /api/studies/<study_id:int>/rename",
        "POST /api/trials/<trial_id:int>/tell",
        "POST /api/trials/<trial_id:int>/user-attrs",
        "POST /incompatible-rdb-schema",
        "PUT /api/studies/<study_id:int>/<trial_id:int>/note",
        "PUT /api/studies/<study_id:int>/note",
        "PUT /api/studies/<study_id:int>/preference_feedback_component",
    ]


# What every answer carries


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/dashboard", None, 200), ("/api/studies", None, 200), ("/nowhere", None, 404), ("/", "evil.example", 403)],
)  # fmt: skip
def test_every_answer_carries_the_same_headers_once(port: int, path: str, host: str | None, status: int) -> None:
    answer = ask(port, path, host=host)
    assert answer.status == status
    assert [answer.headers.get_all(name) for name in OURS] == [["nosniff"], ["DENY"], ["same-origin"]]


def test_what_invites_other_origins_is_dropped_and_all_else_passes() -> None:
    sent = [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*"), ("access-control-allow-methods", "*"),
            ("X-FRAME-OPTIONS", "ALLOWALL"), ("Set-Cookie", "a=1")]  # fmt: skip

    def app(environ: dict[str, object], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", sent)
        return [b"page"]

    environ: dict[str, object] = {"HTTP_HOST": "localhost:9"}
    setup_testing_defaults(environ)
    got: list[tuple[str, str]] = []
    body = dashboard.guard(app, port=9, allow_writes=False)(
        environ, lambda status, headers, exc=None: got.extend(headers)
    )
    assert list(body) == [b"page"]
    assert got == [("Content-Type", "text/html"), ("Set-Cookie", "a=1"), *dashboard.HEADERS]


def test_an_origin_without_a_port_is_ours_on_port_80_only() -> None:
    environ = {"HTTP_HOST": "localhost", "HTTP_ORIGIN": "http://localhost", "REQUEST_METHOD": "GET"}
    assert dashboard.refuse(environ, port=80, allow_writes=False) is None
    assert dashboard.refuse(environ, port=8080, allow_writes=False) is not None


# The server


def test_a_client_that_never_finishes_its_request_delays_nobody(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port))) as slow:
        slow.sendall(b"GET /dashboard HTTP/1.1\r\nHost: ")
        assert ask(port, "/api/studies").status == 200


def test_a_client_that_hangs_up_is_no_news(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    for half in (b"", b"GET /dash", b"GET /static/bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with closing(socket.create_connection(("127.0.0.1", port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closed by a reset
            client.sendall(half)
    assert ask(port, "/api/studies").status == 200
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_ends_it_at_once_and_frees_the_port(
    storage: optuna.storages.RDBStorage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def browse_then_press_ctrl_c(url: str) -> None:
        opened.append(url)
        silent.connect(("127.0.0.1", _port_of(url)))
        assert ask(_port_of(url), "/api/studies").status == 200
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("webbrowser.open", browse_then_press_ctrl_c)
    told: list[str] = []
    silent = socket.socket()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with closing(silent):
            dashboard.serve(storage, port=0, study=STUDY, ready=told.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == opened
    assert opened[0].endswith(f"/dashboard/studies/{storage.get_study_id_from_name(STUDY)}")
    with pytest.raises(ConnectionRefusedError):
        ask(_port_of(opened[0]), "/")
    assert capfd.readouterr() == ("", "")


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def test_a_port_in_use_is_one_line_that_proposes_a_free_one(storage: optuna.storages.RDBStorage, port: int) -> None:
    with pytest.raises(UsageError) as caught:
        dashboard.serve(storage, port=port, open_browser=False)
    message = str(caught.value)
    assert message.startswith(f"port {port} is in use by another program: try --port ")
    assert "\n" not in message
    proposed = int(message.rsplit(" ", 1)[1])
    assert proposed != port
    dashboard.listen(storage, port=proposed, allow_writes=False).server_close()


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_an_impossible_port_is_one_line(storage: optuna.storages.RDBStorage, port: int) -> None:
    with pytest.raises(UsageError, match=rf"^--port {port}: a port is a number from 0 \(any free one\) to 65535$"):
        dashboard.serve(storage, port=port, open_browser=False)


def test_an_unknown_study_is_one_line_that_names_those_there_are(storage: optuna.storages.RDBStorage) -> None:
    with pytest.raises(UsageError, match=r"^no study 'digit' \(did you mean 'digits'\?\); there are: 'digits'$"):
        dashboard.serve(storage, port=0, open_browser=False, study="digit")
    with pytest.raises(UsageError, match=r"^no study 'digits'; there are none yet$"):
        dashboard.page(optuna.storages.InMemoryStorage(), STUDY)


def test_importing_the_module_loads_neither_optuna_nor_its_dashboard() -> None:
    loaded = "import sys, tuner.dashboard; print({'optuna', 'optuna_dashboard', 'bottle'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# In a real browser


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "shown"),
    [("", ["log_loss with gap penalty", "regularization.dropout"]),
     ("/trials", ["Trial 0", "val rose while train fell"]),
     ("/smartSelection", ["UserAttribute verdict", "UserAttribute train_loss", "val rose while train fell"])],
)  # fmt: skip
def test_a_browser_shows_the_study_and_its_attributes(port: int, tmp_path: Path, view: str, shown: list[str]) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("NOT TESTED IN A BROWSER: chromium is missing (apt-get install chromium)")
    dom = _dom_of(chromium, f"http://127.0.0.1:{port}/dashboard/studies/{_study_id(port)}{view}", tmp_path)
    assert [text for text in (STUDY, *shown) if text not in dom] == []


def _dom_of(chromium: str, url: str, folder: Path) -> str:
    quiet = [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
    options = ["--headless", "--no-sandbox", "--no-first-run", *quiet, f"--user-data-dir={folder / 'profile'}"]
    page = [
        "--window-size=1600,2000",
        "--virtual-time-budget=8000",
        f"--screenshot={folder / 'page.png'}",
        "--dump-dom",
    ]
    done = subprocess.run([chromium, *options, *page, url], capture_output=True, text=True, timeout=90, check=True)
    assert (folder / "page.png").stat().st_size > 10_000, "the page is blank"
    return done.stdout
