"""Code of the user's own costs one trial, whatever it does: its reason is one line, the next trial is what it would be
in a fresh process, and no process stays.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from command import SECONDS, SMALL, call, spawn, write
from command import tuner as command

import tuner.opening
from tuner import workers
from tuner.config import RunConfig
from tuner.engine import Ended, Event, Failed, Task, Trained
from tuner.grammar import read_space
from tuner.planning import Plan, prepare
from tuner.space import differences
from tuner.study import open_study
from tuner.supervising import descendants
from tuner.tasks import InProcess
from tuner.tuning import conduct
from tuner.workers import Processes, processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")

RUDE = """\
import builtins, ctypes, gc, math, os, random, signal, subprocess, sys, threading, time, warnings
import numpy as np
import torch
from torch import nn

class Silent(Exception):
    def __str__(self): raise SystemExit(9)

def say(error): raise error
def dead(): os.kill(os.getpid(), signal.SIGKILL)
def forked():
    if os.fork() == 0: time.sleep(1000)
def session(): subprocess.Popen(["sleep", "1000"], start_new_session=True)
def orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(1000)
        os._exit(0)
def bereft():
    orphan()
    session()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)
def halted():
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(1000)
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
def busy():
    while True: pass
def held():
    kept = []
    while True: kept.append(bytearray(b"x" * 10_000_000))
def shared_out():
    for _ in range(4):
        if os.fork() == 0:
            kept = bytearray(b"x" * 200_000_000)
            time.sleep(1000)
    time.sleep(1000)
def deep(): return deep()
def strict():
    warnings.simplefilter("error")
    warnings.warn("too warm")
def written():
    for fd in range(3, 4096):
        try: os.write(fd, b"hello, whoever this is\\n")
        except OSError: pass
def swapped():
    os.closerange(3, 4096)
    for fd in range(3, 4096): os.open(os.devnull, os.O_RDWR)
def loud():
    sys.stdout.write("x" * 3_000_000)
    os.write(1, b"y" * 1_000_000)
    for fd in range(3): os.close(fd)
def thread():
    def run():
        while True: time.sleep(0.01)
    threading.Thread(target=run).start()
def seeds():
    torch.manual_seed(1); np.random.seed(1); random.seed(1)
def changed():
    os.chdir("/"); os.environ.update(OMP_NUM_THREADS="7", TUNER_FAULT="before_epoch:1:kill9"); sys.path.insert(0, "/")
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(each, signal.SIG_IGN)
    torch.set_default_dtype(torch.float64); torch.set_num_threads(2); torch.use_deterministic_algorithms(True)
    builtins.print = lambda *_: say(ValueError("patched")); sys.stdout = None
    nn.Linear.forward = lambda self, x: 2 * nn.functional.linear(x, self.weight, self.bias)
    np.random.seed(5); random.seed(5)

RUDENESS = {
    "raises": lambda: say(ValueError("too\\nwide \\x1b[31m \\udcff")),
    "base": lambda: say(BaseException("base")),
    "interrupt": lambda: say(KeyboardInterrupt()),
    "exit": lambda: sys.exit(3),
    "generator": lambda: say(GeneratorExit("out")),
    "silent": lambda: say(Silent()),
    "out0": lambda: os._exit(0),
    "out3": lambda: os._exit(3),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "realtime": lambda: os.kill(os.getpid(), 40),
    "dead": dead,
    "parent": lambda: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(1000)), "bereft": bereft,
    "halted": halted, "grouped": lambda: (os.killpg(os.getpgid(os.getppid()), signal.SIGKILL), time.sleep(1000)),
    "group": lambda: os.killpg(0, signal.SIGKILL),
    "asleep": lambda: time.sleep(1000), "in_c": lambda: ctypes.CDLL(None).sleep(1000), "busy": busy, "deaf": deaf,
    "held": held, "shared_out": shared_out,
    "deep": deep, "strict": strict, "written": written, "closed": lambda: os.closerange(3, 4096), "swapped": swapped,
    "loud": loud, "twice": lambda: os.fork(), "forked": forked, "session": session, "orphan": orphan,
    "thread": thread, "seeds": seeds, "changed": changed, "grad": lambda: torch.set_grad_enabled(False),
    "calm": lambda: None,
}
OUTPUTS = {
    "nothing": lambda x: None, "text": lambda x: "x", "huge": lambda x: 10**400, "nan": lambda x: x * math.nan,
    "inf": lambda x: x * math.inf, "shape": lambda x: x[:, :1], "half": lambda x: x.long(),
}

class Net(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.does = config.model.options["does"]
        self.layer = nn.Linear(shape.input[0], shape.outputs)
        self.done = False

    def forward(self, x):
        if not self.training or self.done: return self.layer(x)
        if self.does in OUTPUTS: return OUTPUTS[self.does](self.layer(x))
        self.done = True
        RUDENESS[self.does]()
        return self.layer(x) + torch.tensor(random.random() + np.random.rand(), dtype=torch.float32)

def net(config, shape):
    return Net(config, shape)
"""

DIES = "the worker process died ("
TOOK = "took longer than 2 s (--trial-timeout)"
HELD = "used more than 600 MB (--trial-memory)"
FAILS = {
    "raises": "ValueError: too wide ?[31m ? (",
    "base": "BaseException: base (",
    "interrupt": "KeyboardInterrupt (",
    "exit": "SystemExit: 3 (",
    "generator": "GeneratorExit: out (",
    "silent": "Silent (",
    "out0": DIES + "exit code 0)",
    "out3": DIES + "exit code 3)",
    "abort": DIES + "signal SIGABRT)",
    "segfault": DIES + "signal SIGSEGV)",
    "realtime": DIES + "signal 40)",
    "dead": DIES + "signal SIGKILL; out of memory?)",
    "parent": DIES,
    "bereft": DIES,
    "grouped": DIES,
    "group": DIES + "signal SIGKILL; out of memory?)",
    "asleep": TOOK,
    "in_c": TOOK,
    "busy": TOOK,
    "deaf": TOOK,
    "held": HELD,
    "shared_out": HELD,
    "deep": "RecursionError: ",
    "strict": "UserWarning: too warm (",
    "written": "wrote into a file that was not its own",
    "closed": "closed a file that was not its own",
    "swapped": "closed a file that was not its own",
    "grad": "RuntimeError: ",
    "nothing": "",
    "text": "",
    "huge": "",
    "shape": "",
    "half": "",
}  # fmt: skip
GOES_ON = ("loud", "twice", "forked", "session", "orphan", "thread", "seeds", "changed")
FAST = ("raises", "out3", "session", "twice", "changed", "asleep", "bereft")
PLACED = ("raises", "base", "interrupt", "exit", "generator", "silent", "deep", "strict")


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """A word in the environment of every process that comes of these tests."""
    os.environ["TUNER_TEST_MARK"] = word = f"mark-{os.getpid()}-{time.time()}"
    yield word
    del os.environ["TUNER_TEST_MARK"]


def marked(mark: str) -> set[int]:
    """Return the processes whose environment has a word; but this one."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in place.read_bytes():
                found.add(int(place.parent.name))
        except OSError:
            continue
    return found - {os.getpid()}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, mark: str) -> Plan:
    folder = tmp_path_factory.mktemp("rude")
    write(folder / "rude.py", RUDE)
    space = SMALL.replace("model: {", "model: {family: rude:net, options: {does: calm}, ")
    return prepare(write(folder / "rude.yaml", space), studies_dir=folder / "studies")


@pytest.fixture(scope="module")
def engine(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder, before = tmp_path_factory.mktemp("engine"), workers.GRACE
    workers.GRACE = 0.5
    engine = Processes(1, folder / "data", folder / "features")
    engine.take(plan.splits)
    yield engine
    engine.close()
    workers.GRACE = before


def task(plan: Plan, does: str, **budget: float) -> Task:
    values = {"model.options": {"does": does}, "training.epochs": 2, **{f"budget.{k}": v for k, v in budget.items()}}
    return Task(0, plan.space.config.replace(values), 7, plan.space.folder)


def outcome(engine: Processes, job: Task, save: Path | None = None) -> Event:
    """Train two epochs; return the event that the task ends with."""
    engine.start(job)
    while isinstance(event := engine.next(SECONDS), Trained):
        if event.epoch.number < 2:
            engine.go(job.number)
        else:
            engine.stop(job.number, save)
    assert event is not None, "it hangs"
    return event


def strays(engine: Processes, mark: str) -> set[int]:
    """Return the processes that are none of the engine's, once there is a worker again."""
    end = time.monotonic() + SECONDS
    while True:
        assert engine.parents.server is not None
        server = engine.parents.server.process.pid
        known = set(descendants(server))
        left = marked(mark) - {server}
        if len(known) == 2 * len(engine.workers) and left <= known:
            return set()
        if time.monotonic() > end:
            return left
        time.sleep(0.02)


def slow_but(names: tuple[str, ...], all_names: list[str]) -> list[object]:
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in all_names]


@pytest.fixture(scope="module")
def calm(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a trial in a process that nothing ran in before."""
    folder = tmp_path_factory.mktemp("calm")
    engine = Processes(1, folder / "data", folder / "features")
    engine.take(plan.splits)
    assert isinstance(outcome(engine, task(plan, "calm"), folder / "w"), Ended)
    engine.close()
    return (folder / "w").read_bytes()


@pytest.mark.parametrize("does", slow_but(FAST, [*FAILS, *GOES_ON]))
def test_whatever_code_of_the_users_does_costs_its_own_trial_and_nothing_else(
    does: str, plan: Plan, engine: Processes, mark: str, calm: bytes, tmp_path: Path
) -> None:
    limits = {"trial_timeout": 2.0} if FAILS.get(does) == TOOK else {}
    limits |= {"trial_memory": 600_000_000} if FAILS.get(does) == HELD else {}
    event = outcome(engine, task(plan, does, **limits), tmp_path / "rude")
    if does in FAILS:
        assert isinstance(event, Failed)
        assert event.error.startswith(FAILS[does])
        assert "\n" not in event.error
        assert event.error.isprintable()
        assert event.died == FAILS[does].startswith(DIES)
        assert ("rude.py:" in event.error) == (does in PLACED)
    else:
        assert isinstance(event, Ended)
        assert (tmp_path / "rude").exists()
    assert not strays(engine, mark)
    assert isinstance(outcome(engine, task(plan, "calm"), tmp_path / "after"), Ended)
    assert (tmp_path / "after").read_bytes() == calm


def test_a_fork_server_that_dies_costs_the_trial_that_it_had_and_nothing_else(
    plan: Plan, engine: Processes, mark: str, calm: bytes, tmp_path: Path
) -> None:
    engine.start(task(plan, "asleep"))
    assert engine.parents.server is not None
    before = engine.parents.server.process
    before.kill()
    event = engine.next(SECONDS)
    assert isinstance(event, Failed)
    assert (event.died, event.error) == (True, DIES + "signal SIGKILL; out of memory?)")
    assert isinstance(outcome(engine, task(plan, "calm"), tmp_path / "after"), Ended)
    assert (tmp_path / "after").read_bytes() == calm
    assert not strays(engine, mark)
    assert engine.parents.server.process is not before


@pytest.fixture
def pair(plan: Plan, tmp_path: Path) -> Iterator[Processes]:
    """An engine with two workers, which may be ended in a test."""
    engine = Processes(2, tmp_path / "data", tmp_path / "features")
    engine.take(plan.splits)
    yield engine
    engine.close()


def ends(engine: Processes) -> Failed | Ended:
    """Train whatever is under way until a task ends."""
    while isinstance(event := engine.next(SECONDS), Trained):
        if event.epoch.number < 2:
            engine.go(event.number)
        else:
            engine.stop(event.number, None)
    assert isinstance(event, Failed | Ended)
    return event


def test_an_idle_worker_that_died_with_the_server_costs_no_trial_anything(plan: Plan, pair: Processes) -> None:
    pair.start(task(plan, "calm"))
    pair.start(replace(task(plan, "asleep"), number=1))
    assert isinstance(ends(pair), Ended)
    assert pair.parents.server is not None
    pair.parents.server.process.kill()
    event = ends(pair)
    assert isinstance(event, Failed)
    assert (event.number, event.died, event.together) == (1, True, True)
    pair.start(replace(task(plan, "calm"), number=1))
    assert isinstance(ends(pair), Ended)


@pytest.mark.parametrize("does", ["parent", "grouped"])
def test_a_trial_that_kills_its_workers_parent_leaves_other_trials_alone(
    does: str, plan: Plan, pair: Processes
) -> None:
    pair.start(task(plan, "calm"))
    pair.start(replace(task(plan, does), number=1))
    events = {event.number: event for event in (ends(pair), ends(pair))}
    assert isinstance(events[0], Ended)
    assert isinstance(failed := events[1], Failed)
    assert (failed.died, failed.together) == (True, False)
    assert pair.parents.server is not None
    assert pair.parents.server.alive


@pytest.mark.slow
def test_a_trial_that_stops_its_workers_parent_ends_with_the_engine(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_TEST_MARK", word := f"mark-{os.getpid()}-halted")
    engine = Processes(1, tmp_path / "data", tmp_path / "features")
    engine.take(plan.splits)
    engine.start(task(plan, "halted"))
    end = time.monotonic() + SECONDS
    while not any(is_stopped(process) for process in marked(word)):
        assert time.monotonic() < end
        time.sleep(0.02)
    engine.close()
    assert not marked(word)


def is_stopped(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def alive(mark: str) -> set[int]:
    """Return what is left of the processes with a mark; it has a while to end."""
    end = time.monotonic() + SECONDS
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


@pytest.mark.slow
def test_no_process_stays_however_a_run_ends(tmp_path: Path) -> None:
    away = "subprocess.Popen(['sleep', '1000'], start_new_session=True)\nif os.fork() == 0: time.sleep(1000)"
    rude = RUDE.replace('"calm": lambda: None', f'"calm": lambda: exec({away!r})').replace("self.done = True", "pass")
    runs = {}
    for which in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        word, folder = f"mark-{os.getpid()}-{which}", tmp_path / which.name
        write(folder / "rude.py", rude)
        space = SMALL.replace("model: {", "model: {family: rude:net, options: {does: calm}, ")
        write(folder / "rude.yaml", space.replace("{low: 2, high: 4}", "1000"))
        runs[which] = word, spawn("run", "rude.yaml", cwd=folder, env={"TUNER_TEST_MARK": word})
    for which, (word, process) in runs.items():
        end = time.monotonic() + SECONDS
        while len(marked(word)) < 7:  # the command, a worker, its parent, and whose child that is, and others of theirs
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(which)
        process.wait(SECONDS)
        assert not alive(word), which.name
        process.communicate()


@pytest.mark.slow
def test_a_study_of_trials_that_hang_ends_with_their_reason(tmp_path: Path) -> None:
    write(tmp_path / "rude.py", RUDE)
    space = SMALL.replace("model: {", "model: {family: rude:net, options: {does: asleep}, ")
    said = command("run", write(tmp_path / "rude.yaml", space), "--trial-timeout", "1s", cwd=tmp_path)
    assert (said.code, said.out) == (5, "")
    reason = "the first 3 trials all failed with: took longer than 1 s (--trial-timeout)"
    assert said.err.splitlines()[-1] == f"tuner: {reason}"
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("key", "value", "bytes_or_seconds"), [
    ("trial_memory", "4GB", 4e9), ("trial_memory", "1.5 GiB", 1.5 * 2**30), ("trial_memory", "500MB", 5e8),
    ("trial_memory", 2_000_000, 2e6), ("trial_timeout", "10m", 600), ("trial_timeout", 0.5, 0.5),
])  # fmt: skip
def test_limits_of_a_trial_are_sizes_and_durations(key: str, value: object, bytes_or_seconds: float) -> None:
    config = RunConfig.model_validate({"data": {"source": "sklearn:wine"}, "budget": {key: value}})
    assert config[f"budget.{key}"] == bytes_or_seconds


@pytest.mark.parametrize("value", ["4", "4gb", "lots", "-4GB", "1e3MB", "4GB\n", "0.1KB", "12", "-1", "true", "1TiBB"])
def test_a_size_that_is_none_is_refused_in_one_line(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write(tmp_path / "s.yaml", SMALL.replace("budget: {", f'budget: {{trial_memory: "{value}", '))
    said = call(capsys, "check", space)
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert "budget.trial_memory" in said.err


@pytest.mark.parametrize("limit", [{"trial_timeout": 60.0}, {"trial_memory": 4_000_000_000}])
def test_what_has_a_limit_trains_where_it_can_be_interrupted(limit: dict[str, float], tmp_path: Path) -> None:
    space = read_space(write(tmp_path / "s.yaml"))
    budget = {f"budget.{key}": value for key, value in limit.items()}
    assert processes(space, 3) == 0
    assert processes(replace(space, config=space.config.replace(budget)), 3) == 1


def test_limits_are_no_part_of_what_a_study_is(tmp_path: Path) -> None:
    limits = "budget: {trial_timeout: 60, trial_memory: 4GB, "
    one = read_space(write(tmp_path / "one.yaml"))
    other = read_space(write(tmp_path / "other.yaml", SMALL.replace("budget: {", limits)))
    assert not differences(one.identity(), other.identity())


class Folded(InProcess):
    """Keeps what each task has spent."""

    spent: ClassVar[list[float]] = []

    def start(self, task: Task) -> None:
        self.spent.append(task.spent)
        super().start(task)


@pytest.mark.slow
def test_the_time_of_a_trial_is_that_of_all_its_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner.opening, "InProcess", Folded)
    Folded.spent.clear()
    space = SMALL.replace("{source: sklearn:wine}", "{source: sklearn:wine, split: {folds: 3}}")
    space = space.replace("trials: 3", "trials: 1")
    for _ in conduct(prepare(write(tmp_path / "s.yaml", space + "stopping: none\n"), studies_dir=tmp_path / "s")):
        pass
    first = Folded.spent[:3]
    assert first[0] == 0.0
    assert first == sorted(set(first))


@pytest.mark.slow
@pytest.mark.parametrize(("faults", "state"), [
    ("before_epoch:2:kill9,before_epoch:3:kill9", "complete"), ("before_epoch:2:kill9", "failed"),
])  # fmt: skip
def test_a_trial_whose_worker_died_is_to_blame_only_if_it_got_no_further_since(
    faults: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_FAULT", faults)
    if state == "complete":
        monkeypatch.setenv("TUNER_FAULT_MARKS", str(tmp_path))
    space = SMALL.replace("{low: 2, high: 4}", "4").replace("trials: 3", "trials: 1, trial_timeout: 600")
    run = conduct(prepare(write(tmp_path / "s.yaml", space), studies_dir=tmp_path / "studies"))
    ended = []
    with suppress(tuner.UserCodeError):
        ended += [record for record in run if record.ended]
    run.close()
    record = open_study("small", studies_dir=tmp_path / "studies").trials[0]
    assert record.state == state
    assert state == "complete" or record.reason == "the worker process died (signal SIGKILL; out of memory?)"


DATA = """\
import os, sys
import numpy as np
{first}
def load():
    {trouble}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype(int)
"""


@pytest.mark.parametrize(("trouble", "code", "said"), [
    ("sys.exit(0)", 5, "SystemExit: 0"), ("raise BaseException('base')", 5, "BaseException: base"),
    ("raise GeneratorExit", 5, "GeneratorExit"), ("raise ValueError('a\x1b[31m')", 5, "ValueError: a?[31m"),
    ("return 10**400", 3, "returned int"), ("return None", 3, "returned NoneType"),
])  # fmt: skip
def test_data_of_ones_own_that_fail_are_one_line(
    trouble: str, code: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / f"bad_data_{code}_{len(trouble)}.py", DATA.format(first="", trouble=trouble))
    space = write(tmp_path / "d.yaml", SMALL.replace("sklearn:wine", f"bad_data_{code}_{len(trouble)}:load"))
    found = call(capfd, "run", space, "--studies-dir", tmp_path / "studies")
    assert (found.code, found.out) == (code, "")
    assert len(found.err.splitlines()) == 1
    assert said in found.err
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
def test_data_of_ones_own_that_fork_make_no_second_study(tmp_path: Path) -> None:
    write(tmp_path / "twin.py", DATA.format(first="os.fork()", trouble="os.fork(); print('loading')"))
    space = write(tmp_path / "d.yaml", SMALL.replace("sklearn:wine", "twin:load"))
    said = command("run", space, "--json", cwd=tmp_path)
    assert said.code == 0, said.err
    assert said.document["trials"]["complete"] == 3
    assert said.err.count("study small") == 1


FACTORY = """\
import ctypes, faulthandler, os, subprocess, sys, time
faulthandler.disable()
{first}
def net(config, shape):
    {trouble}
"""
HARM = {
    "os._exit(0)": "died (exit code 0)",
    "os.abort()": "died (signal SIGABRT)",
    "ctypes.string_at(0)": "died (signal SIGSEGV)",
    "time.sleep(1000)": "took longer than 1 s (--trial-timeout)",
    "subprocess.Popen(['sleep', '1000'], start_new_session=True); os._exit(3)": "died (exit code 3)",
    "os.fork(); raise KeyError('twice')": "KeyError: 'twice'",
    "os.closerange(3, 4096)": "died (exit code 1)",
}


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize("trouble", HARM)
def test_a_model_that_does_harm_as_it_is_tried_is_told_before_anything_is_written(
    trouble: str, imported: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_TEST_MARK", word := f"mark-{tmp_path}")
    text = FACTORY.format(first=trouble if imported else "", trouble=trouble)
    write(tmp_path / "harm.py", text)
    space = SMALL.replace("model: {", "model: {family: harm:net, ").replace("budget: {", "budget: {trial_timeout: 1, ")
    capfd.readouterr()
    said = call(capfd, "check", write(tmp_path / "s.yaml", space))
    assert (said.code, said.out) == (5, "")
    assert HARM[trouble] in said.err
    assert said.err.startswith("tuner: model.family harm:net: ")
    assert len(said.err.splitlines()) == 1
    assert not alive(word)
