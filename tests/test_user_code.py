"""Code of the user's own costs one trial, whatever it does: its reason is one line, the next trial is what it would be
in a fresh process, and no process stays.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import SECONDS, SMALL, call, spawn, tuner, write

from tuner import workers
from tuner.engine import Again, Done, Ended, Event, Failed, Task, Trained, again
from tuner.grammar import read_space
from tuner.planning import Plan, prepare
from tuner.supervising import descendants
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
    "parent": lambda: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(1000)),
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

DIES, TOOK, HELD = "the worker process died (", "took longer than 2 s (--trial-timeout)", "used more than 600 MB (--trial-memory)"  # fmt: skip
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
FAST = ("raises", "out3", "session", "twice", "changed", "asleep")
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
        parents = {worker.parent.pid for worker in engine.workers}
        known = parents | {child for parent in parents for child in descendants(parent)}
        left = marked(mark) - parents
        if len(known) == 2 * len(parents) and left <= known:
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
