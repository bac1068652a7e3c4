"""Hosts that train for a study: what is said arrives as it was, strangers are heard by nobody, and whoever leaves, is
killed or paused loses nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, SMALL, Said, call, lives, spawn, tuner, wait_for, write
from hypothesis import given
from hypothesis import strategies as st
from postgres import Server

from tuner.again import Again, retrain
from tuner.curve import Epoch, Measure, Standing
from tuner.doors import Address, door, host_and_port
from tuner.engine import Ended, Event, Failed, Task, Trained, Unsaved
from tuner.errors import StorageError, TunerError, UsageError
from tuner.hosting import OwnHost, Served, connect, held, serve, sweep, unlike, versions_here
from tuner.joining import look
from tuner.listening import Listening
from tuner.own_code import code_of
from tuner.planning import Plan, prepare
from tuner.study import open_study
from tuner.tasks import InProcess
from tuner.wire import MAC, SIZES, Link, LinkError, Order, event_of, told_event

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
MEASURES = st.builds(Measure, NUMBERS, st.dictionaries(st.text(max_size=8), NUMBERS, max_size=4), NUMBERS)
STANDINGS = st.builds(Standing, NUMBERS, NUMBERS, st.integers(1, 999), NUMBERS)
EPOCHS = st.builds(
    Epoch, st.integers(1, 999), MEASURES, MEASURES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, STANDINGS
)
WORDS = st.text(max_size=40)
EVENTS = st.one_of(
    st.builds(Trained, st.integers(0, 99), EPOCHS, st.lists(EPOCHS, max_size=3).map(tuple)),
    st.builds(Ended, st.integers(0, 99), st.dictionaries(WORDS, NUMBERS, max_size=3), st.binary(), WORDS),
    st.builds(Failed, st.integers(0, 99), WORDS, st.booleans(), st.booleans()),
    st.builds(Unsaved, st.integers(0, 99), WORDS, st.booleans(), st.booleans()),
)  # fmt: skip
SECRET = b"secret" * 8
ROOT = Path(__file__).parents[1]
TERMS: dict[str, Any] = {
    "versions": versions_here(), "own": {}, "names": [], "backbone": None,
    "training": {"device": "auto", "precision": "float32"},
}  # fmt: skip


def linked(one: bytes = SECRET, other: bytes = SECRET) -> tuple[Link, Link]:
    """Return both sides of a connection, greeted."""
    here, there = socket.socketpair()
    found: list[Any] = []

    def greet() -> None:
        try:
            found.append(Link.of_host(there, other))
        except OSError as error:
            there.close()
            found.append(error)

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        study = Link.of_study(here, one)
    except OSError:
        here.close()
        thread.join(10)
        raise
    thread.join(10)
    if isinstance(found[0], Exception):
        here.close()
        raise found[0]
    return study, found[0]


@given(EVENTS)
def test_an_event_arrives_as_it_was_said(event: Event) -> None:
    told, some = told_event(event)
    assert repr(event_of(json.loads(json.dumps(told)), some, event.number)) == repr(event)  # NaN is not itself


def test_a_task_arrives_as_it_was_given(tmp_path: Path) -> None:
    plan = prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies")
    config = plan.space.config.replace({"model.options": {"a": [1, 2.5, None], "b": "c"}, "budget.trial_timeout": 7.5})
    task = Task(4, config, 2**40, tmp_path, 3, tmp_path / "states" / "00004.state", 1.25)
    order = Order.from_json(json.loads(json.dumps(Order.of(task, 9).to_json())))
    assert order.task(tmp_path, tmp_path / "states") == replace(task, number=9)


def test_a_state_s_name_leads_out_of_no_folder(tmp_path: Path) -> None:
    plan = prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies")
    order = Order(1, plan.space.config, 0, 0, "../../etc/passwd", 0.0)
    assert order.task(tmp_path, tmp_path / "states").state == tmp_path / "states" / "passwd"


def test_what_is_said_is_heard_in_its_order_and_whole() -> None:
    study, host = linked()
    for number in range(50):
        study.send({"number": number}, bytes(number))
        host.send({"number": -number})
    assert [host.wait() for _ in range(50)] == [({"number": n}, bytes(n)) for n in range(50)]
    assert [study.wait()[0]["number"] for _ in range(50)] == [-n for n in range(50)]
    for each in (study, host):
        each.close()


@pytest.mark.parametrize("who", ["study", "host"])
def test_who_doesnt_know_the_secret_is_let_in_nowhere(who: str) -> None:
    with pytest.raises(OSError, match=r"know the study's secret|closed the connection"):
        linked(SECRET, b"other" * 8) if who == "study" else linked(b"other" * 8, SECRET)


@pytest.mark.parametrize("change", ["bit", "again", "back", "size", "cut"])
def test_what_isnt_the_other_sides_own_word_in_its_turn_is_refused(change: str) -> None:
    study, host = linked()
    study.send({"do": "go", "id": 1}, b"some")
    told = bytearray(host.sock.recv(1 << 16))
    if change == "bit":
        told[SIZES.size + 8] ^= 1
    elif change == "again":
        told += bytes(told)
    elif change == "back":  # its own words
        host.send({"what": "ping"})
        told = bytearray(study.sock.recv(1 << 16))
    elif change == "size":
        told[:4] = b"\xff\xff\xff\xff"
    elif change == "cut":
        told = told[: -MAC // 2] + bytes(MAC // 2)
    host.come += told
    if change == "again":
        assert host.next() is not None
    with pytest.raises(LinkError):
        host.next()
    for each in (study, host):
        each.close()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies")


@pytest.fixture
def engine(plan: Plan, tmp_path: Path) -> Iterator[Listening]:
    terms = dict(TERMS)
    data = tmp_path / "data"
    with (
        door("127.0.0.1") as opened,
        closing(Listening(opened, data, terms, lambda to: OwnHost(to, 2, plan.space.folder, data))) as found,
    ):
        found.take(plan.folds[0])
        yield found


def first_task(plan: Plan) -> Task:
    return Task(0, plan.space.config, 7, plan.space.folder)


@pytest.mark.slow
def test_a_host_trains_the_same_weights_and_tells_the_same_as_this_process(
    plan: Plan, engine: Listening, tmp_path: Path
) -> None:
    here = InProcess()
    here.take(plan.folds[0])
    jobs = [Again(replace(first_task(plan), number=n), 3, tmp_path / f"far-{n}") for n in range(4)]
    far = list(retrain(engine, jobs))
    near = list(retrain(here, [Again(first_task(plan), 3, tmp_path / "near")]))
    here.close()
    assert len({(tmp_path / name).read_bytes() for name in ("near", *(f"far-{n}" for n in range(4)))}) == 1
    assert {each.weights for each in far if hasattr(each, "weights")} == {near[-1].weights}  # type: ignore[union-attr]
    strip = [[replace(epoch, seconds=0.0) for epoch in each[-1].epochs] for each in (far, near)]
    assert strip[0] == strip[1]
    assert engine.slots == 2


@pytest.mark.slow
def test_a_host_that_is_killed_costs_no_trial_and_the_study_s_own_is_started_again(
    plan: Plan, engine: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tuner")
    while engine.slots == 0:
        engine.next(10)
    engine.start(first_task(plan))
    assert isinstance(engine.next(60), Trained)
    assert isinstance(engine.staff, OwnHost)
    engine.staff.process.kill()
    failed = engine.next(60)
    assert isinstance(failed, Failed)
    assert (failed.died, failed.together) == (True, True)
    while engine.slots == 0:
        engine.next(10)
    engine.start(first_task(plan))
    assert isinstance(engine.next(60), Trained)
    assert "the study's own host" in caplog.text


@pytest.mark.slow
def test_tasks_that_were_given_up_are_heard_of_no_more(plan: Plan, engine: Listening, tmp_path: Path) -> None:
    while engine.slots == 0:
        engine.next(10)
    long = plan.space.config.replace({"training.epochs": 50_000})
    for number in (0, 1):
        engine.start(Task(number, long, 7, plan.space.folder))
    engine.next(60)
    engine.clear()
    jobs = [Again(replace(first_task(plan), number=n), 2, tmp_path / f"{n}") for n in (0, 5, 6)]
    list(retrain(engine, jobs))
    assert len({job.save.read_bytes() for job in jobs if job.save}) == 1


@pytest.mark.slow
def test_weights_that_cant_be_written_are_kept_until_they_can(plan: Plan, engine: Listening, tmp_path: Path) -> None:
    while engine.slots == 0:
        engine.next(10)
    engine.start(first_task(plan))
    assert isinstance(engine.next(60), Trained)
    write(tmp_path / "file", "")
    engine.stop(0, tmp_path / "file" / "w.safetensors")
    event = engine.next(60)
    assert isinstance(event, Unsaved)
    assert event.kept
    (tmp_path / "file").unlink()
    engine.stop(0, tmp_path / "file" / "w.safetensors")
    assert isinstance(engine.next(60), Ended)
    assert (tmp_path / "file" / "w.safetensors").exists()


def test_a_study_is_trained_only_where_it_would_come_out_the_same(tmp_path: Path) -> None:
    write(tmp_path / "net.py", "x = 1")
    terms = dict(TERMS)
    assert unlike(terms, tmp_path) == ""
    assert "torch 1.0, here" in unlike({**terms, "versions": {"torch": "1.0"}}, tmp_path)
    assert "isn't here: gone" in unlike({**terms, "own": {"gone": "SHA-256 1"}, "names": ["gone:x"]}, tmp_path)
    own = {"own": {"net": "SHA-256 1"}, "names": ["net:x"]}
    assert "another one here: net" in unlike({**terms, **own}, tmp_path)
    write(tmp_path / "net.py", "import helper\n\ndef x(): ...\n")
    named = {"own": code_of(["net:x"], tmp_path), "names": ["net:x"]}
    assert "No module named 'helper'" in unlike({**terms, **named}, tmp_path)
    write(tmp_path / "helper.py", "from parts import one")
    write(tmp_path / "parts" / "__init__.py", "from . import one, two")
    for name in ("one", "two"):
        write(tmp_path / "parts" / f"{name}.py", "")
    named["own"] = code_of(["net:x"], tmp_path)
    assert set(named["own"]) == {"net", "helper", "parts", "parts.one", "parts.two"}
    assert unlike({**terms, **named}, tmp_path) == ""
    write(tmp_path / "parts" / "two.py", "changed = True")
    assert "another one here: parts.two" in unlike({**terms, **named}, tmp_path)


@pytest.mark.parametrize("text", ["nowhere.invalid:1", "0.0.0.0:70000", "host:port", "300.1.1.1", "::1:x"])
def test_a_place_where_nothing_can_listen_is_told_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--listen") as refused, door(text):
        pass
    assert "\n" not in str(refused.value)


class Nobody:
    """Stands for hosts of the study's own, of which there are none."""

    def __init__(self, _: Address) -> None: ...

    def check(self, here: bool, needed: bool) -> None: ...

    def close(self) -> None: ...


def joined(engine: Listening, name: str, slots: int = 1) -> Link:
    """Return a host's side of a connection, whose host has been let in."""
    told: list[Link] = []

    def host() -> None:
        link = connect(engine.address)
        link.wait()
        link.send({"what": "join", "name": name, "slots": slots})
        told.append(link)

    thread, before = threading.Thread(target=host), engine.slots
    thread.start()
    until = time.monotonic() + 30
    while engine.slots == before and time.monotonic() < until:
        engine.next(1)
    thread.join(10)
    return told[0]


def test_strangers_at_the_door_keep_nobody_out(tmp_path: Path) -> None:
    with door("127.0.0.1") as opened, closing(Listening(opened, tmp_path / "data", TERMS, Nobody)) as engine:
        strangers = [socket.create_connection(("127.0.0.1", engine.address.port)) for _ in range(150)]
        for sock in strangers[::2]:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        link = joined(engine, "it\x1b[31m", 3)
        assert (engine.slots, engine.hosts[0].name) == (3, "it?[31m")
        for sock in strangers:
            sock.close()
        link.close()
        engine.next(10)
        assert engine.slots == 0


def test_a_host_where_every_trial_fails_is_let_go_and_costs_none(plan: Plan, tmp_path: Path) -> None:
    epoch = Epoch(1, Measure(1.0, {}), Measure(1.0, {}), 0, 0, 0, 0, 0, Standing(1, 1, 1, 1))
    with door("127.0.0.1") as opened, closing(Listening(opened, tmp_path / "data", TERMS, Nobody)) as engine:
        engine.take(plan.folds[0])
        good, bad = joined(engine, "good"), joined(engine, "bad", 2)

        def orders(link: Link) -> Iterator[int]:
            while True:
                told, _ = link.wait()
                if told["do"] == "start":
                    yield told["id"]

        for number in range(2):
            engine.start(replace(first_task(plan), number=number))
        good.send(*told_event(Trained(next(orders(good)), epoch)))
        assert isinstance(engine.next(10), Trained)
        for number in range(2, 5):
            bad.send(*told_event(Failed(next(orders(bad)), "no module named helper")))
            failed = engine.next(10)
            assert isinstance(failed, Failed)
            assert (failed.died, failed.together) == (True, True), "it is run again"
            engine.start(replace(first_task(plan), number=failed.number))  # where one has come to something
            engine.start(replace(first_task(plan), number=number))
        while engine.slots == 3:
            engine.next(1)
        assert [host.name for host in engine.hosts] == ["good"]
        good.send(*told_event(Ended(1, {})))
        assert isinstance(engine.next(10), Ended)
        good.send(*told_event(Failed(next(orders(good)), "the model's own fault")))
        events = [engine.next(1) for _ in range(3)]
        own = [each for each in events if isinstance(each, Failed) and not each.died]
        assert [each.error for each in own] == ["the model's own fault"]
        for link in (good, bad):
            link.close()


def test_an_own_host_that_cant_begin_ends_the_study_in_one_line(plan: Plan, tmp_path: Path) -> None:
    def wrong(to: Address) -> OwnHost:
        return OwnHost(replace(to, secret="another"), 1, plan.space.folder, tmp_path)

    with (
        door("127.0.0.1") as opened,
        closing(Listening(opened, tmp_path / "data", TERMS, wrong)) as engine,
    ):

        def wait() -> None:
            while True:
                engine.next(1)

        with pytest.raises(TunerError, match="own host ends as it begins"):
            wait()


def test_a_network_that_drops_is_a_study_that_is_gone(tmp_path: Path) -> None:
    class Dropping:
        def recv(self, _: int) -> bytes:
            raise TimeoutError(110, "Connection timed out")

        def sendall(self, _: bytes) -> None:
            raise OSError(113, "No route to host")

        def close(self) -> None: ...

    study, host = linked()
    for each in (study, host):
        each.close()
    host.sock = Dropping()  # type: ignore[assignment]
    for act in (host.hear, lambda: host.send({})):
        with pytest.raises(ConnectionError, match="the connection broke"):
            act()
    assert serve(host, 1, tmp_path) == Served(over=False)


def test_only_folders_of_hosts_that_are_gone_are_swept(tmp_path: Path) -> None:
    gone, here, odd = (tmp_path / f"tuner-host-{name}" for name in ("gone", "here", "odd"))
    with held(gone):
        pass
    odd.mkdir()
    os.mkfifo(odd / ".held")
    with held(here), held(here):
        for folder in (gone, here, odd):
            sweep(folder)
        assert [folder.exists() for folder in (gone, here, odd)] == [False, True, True]
    sweep(here)
    assert not here.exists()


FIVE = SMALL.replace("trials: 3", "trials: 8").replace("{low: 2, high: 4}", "{low: 12, high: 20}")


def run_of(folder: Path, url: str, *words: str) -> subprocess.Popen[str]:
    return spawn("run", "small.yaml", "--listen", "127.0.0.1", "--storage", url, "--json", *words, cwd=folder)


def worker_of(folder: Path, url: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return spawn("worker", "small", "--storage", url, "--workers", "2", "--wait", "60s", cwd=folder)


def ended(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=SECONDS)
    return Said(process.returncode, out, err)


@pytest.mark.slow
def test_a_study_with_one_worker_elsewhere_is_the_study_that_it_is_here(tmp_path: Path) -> None:
    """The study's own host is such a worker: another process, which is told all and has no data."""
    documents = []
    for name, words in (("here", ()), ("far", ("--listen", "127.0.0.1"))):
        write(tmp_path / name / "small.yaml", SMALL.replace("confirm: false", "confirm: true"))
        done = tuner("run", "small.yaml", "--json", *words, cwd=tmp_path / name)
        assert done.code == 0, done.err
        documents.append(done.document)
    assert lives(documents[0]) == lives(documents[1])
    assert documents[0]["confirmed"]["val"] == documents[1]["confirmed"]["val"]
    one, other = (tmp_path / name / "studies" / "small" / "model.safetensors" for name in ("here", "far"))
    assert one.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "far" / "studies" / "small").glob(".data*"))


@pytest.mark.slow
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_a_study_listens_by_ipv6_too_and_imports_nothing_from_where_it_stands(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml", SMALL)
    write(tmp_path / "pydantic.py", "open('imported', 'w')")
    done = subprocess.run(
        [Path(sys.executable).with_name("tuner"), "run", "small.yaml", "--listen", "[::]", "-q"], cwd=tmp_path,
        capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.slow
def test_hosts_and_the_study_itself_are_killed_and_nothing_is_lost_or_done_twice(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.new()
    write(tmp_path / "small.yaml", FIVE)
    study, hosts = run_of(tmp_path, url), [worker_of(tmp_path / f"host{n}", url) for n in range(2)]

    def trials() -> list[str]:
        import psycopg

        with psycopg.connect(url) as connection:
            if connection.execute("SELECT to_regclass('trials')").fetchone() == (None,):
                return []
            return [str(row[0]) for row in connection.execute("SELECT state FROM trials").fetchall()]

    try:
        wait_for(lambda: len(trials()) >= 2)
        hosts[0].kill()
        wait_for(lambda: sum(state in ("COMPLETE", "PRUNED") for state in trials()) >= 2)
        study.kill()
        study.communicate(timeout=SECONDS)
        study = run_of(tmp_path, url)
        hosts.append(worker_of(tmp_path / "host3", url))
        done = ended(study)
        assert done.code == 0, done.err
        assert done.document["trials"]["total"] == 8
        assert done.document["trials"]["running"] == 0
        assert (trials().count("FAIL"), len(trials())) == (0, 8)
        for host in hosts[1:]:
            said = ended(host)
            assert said.code == 0, said.err
            assert "small is over" in said.err
    finally:
        for each in (study, *hosts):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.communicate(timeout=SECONDS)
    checked = tuner("replay", "small", "--trial", "3", "--storage", url, cwd=tmp_path)
    assert checked.code == 0, checked.out


@pytest.mark.slow
def test_a_host_that_is_told_to_stop_leaves_at_once_and_its_trials_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies' / 'tuner.db'}"
    write(tmp_path / "small.yaml", FIVE.replace("trials: 8", "trials: 5"))
    study, host = run_of(tmp_path, url), worker_of(tmp_path / "host", url)
    assert host.stderr is not None
    for line in host.stderr:
        if "training for" in line:
            break
    time.sleep(1.5)
    began = time.monotonic()
    host.send_signal(signal.SIGTERM)
    assert ended(host).code == 130 or host.returncode == 143
    assert time.monotonic() - began < 10
    done = ended(study)
    assert done.code == 0, done.err
    assert done.document["trials"] == {**done.document["trials"], "total": 5, "running": 0}
    assert "left" in done.err


def test_a_worker_is_told_what_it_waits_for_and_gives_up_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (("worker", "small", "--wait", "1s"), "no such database"),
        (("worker", "small", "--wait", "soon"), "--wait"),
        (("worker", "small", "--connect", "nowhere"), "--connect"),
    ):
        done = call(capsys, *words)
        assert done.code in (2, 4), done.err
        assert said in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_secret_is_shown_nowhere_and_a_study_that_has_ended_listens_nowhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies' / 'tuner.db'}"
    write(tmp_path / "small.yaml", SMALL)
    study = run_of(tmp_path, url)
    secrets: set[str] = set()

    def heard() -> bool:
        with suppress(Exception):
            seen = look(url, "small")
            secrets.update([seen.address.secret] if seen.address else [])
        return bool(secrets) or study.poll() is not None

    wait_for(heard)
    (secret,) = secrets
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
    assert secret.encode() not in b"".join(lines)
    done = ended(study)
    assert secret not in done.out + done.err
    for words in (("show", "small", "--json"), ("list", "--json")):
        assert secret not in tuner(*words, cwd=tmp_path).out
    left = b"".join(p.read_bytes() for p in (tmp_path / "studies" / "small").rglob("*") if p.is_file())
    assert secret.encode() not in left
    assert look(url, "small").over


@pytest.mark.slow
def test_a_study_that_trains_nothing_itself_is_trained_by_who_joins(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies' / 'tuner.db'}"
    write(tmp_path / "small.yaml", SMALL)
    study = run_of(tmp_path, url, "--workers", "0")

    def listens() -> bool:
        with suppress(StorageError):
            return study.poll() is not None or look(url, "small").address is not None
        return False

    wait_for(listens)
    time.sleep(1.0)
    assert open_study("small", studies_dir=tmp_path / "studies").trials == {}
    host = worker_of(tmp_path / "other", url)
    done = ended(study)
    assert done.code == 0, done.err
    assert done.document["trials"]["complete"] == 3
    assert "the study's own host" not in done.err
    assert ended(host).code == 0


def test_the_numbers_that_json_has_no_word_for_arrive() -> None:
    epoch = Epoch(1, Measure(math.nan, {}), Measure(math.inf, {"m": -math.inf}), 0, 0, 0, 0, 0, Standing(1, 1, 1, 1))
    told, _ = told_event(Trained(0, epoch))
    found = event_of(json.loads(json.dumps(told)), b"", 0)
    assert isinstance(found, Trained)
    assert found.epoch.val == epoch.val


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0.0.0.0", ("0.0.0.0", 0)), ("db:7400", ("db", 7400)), (":7400", ("", 7400)), ("::", ("::", 0)),
        ("fe80::1", ("fe80::1", 0)), ("[::1]:80", ("::1", 80)), ("[::1]", ("::1", 0)), ("a:65536", None), ("a:", None),
        ("a:b", None), ("a:-1", None), ("a:\u0663", None),
    ],
)  # fmt: skip
def test_a_place_is_read_as_people_write_it(text: str, place: tuple[str, int] | None) -> None:
    assert host_and_port(text) == place
