"""Ctrl-C and SIGTERM end a command cleanly, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from tuner import guard
from tuner.guard import SOON, StoppedError, stoppable, undivided

# a signal that comes as torch's C++ imports a module of its own: an exception would abort the process there
IMPORTED = """
import os, signal, sys
from tuner.guard import StoppedError, stoppable

class Looking:
    def find_spec(self, name, *_):
        if name == "torch.distributed":
            os.kill(os.getpid(), signal.{sign})

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Looking())
try:
    with stoppable():
        import torch
        signal.pause()
except StoppedError as stopped:
    print("whole" if "torch" in sys.modules else "cut off")
    sys.exit(stopped.code)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_torch_is_imported(sign: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.replace("{sign}", sign.name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + sign, "whole\n"), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_cuts_short_nothing_of_what_the_first_one_began(second: signal.Signals) -> None:
    done = []

    def run() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(4 * SOON)
                done.append("missed")
            finally:
                os.kill(os.getpid(), second)
                time.sleep(4 * SOON)
                done.append("given back")

    with pytest.raises(StoppedError) as stopped:
        run()
    assert (stopped.value.code, done) == (128 + signal.SIGINT, ["given back"])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_drops_in_a_finalizer_is_heeded_after_it(
    sign: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    done = []

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), sign)
            time.sleep(SOON)

    def run() -> None:
        with stoppable():
            Dying()
            done.append("dropped")
            time.sleep(8 * SOON)
            done.append("missed")

    with pytest.raises(StoppedError) as stopped:
        run()
    assert (stopped.value.code, done) == (128 + sign, ["dropped"])
    assert capfd.readouterr().err == ""


def test_ctrl_c_that_python_drops_while_the_program_is_loaded_ends_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tuner.__main__ import main

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(SOON)

    class Loading(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name != "main":
                raise AttributeError(name)
            Dying()
            time.sleep(8 * SOON)
            return lambda: None

    monkeypatch.setitem(sys.modules, "tuner.cli", Loading("tuner.cli"))
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert capfd.readouterr().err == "tuner: stopped before it had begun\n"


def test_code_that_swallows_the_first_signal_can_be_stopped_by_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "IN_TIME", 0.1)
    done = []

    def run() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(4 * SOON)
            except KeyboardInterrupt:
                done.append("swallowed")
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(4 * SOON)
            done.append("missed")

    with pytest.raises(StoppedError):
        run()
    assert done == ["swallowed"]


# Ctrl-C that comes while the command is still being loaded
LOADED = """
import os, signal, sys

class Looking:
    def find_spec(self, name, *_):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Looking())
sys.argv = ["tuner", "list"]
from tuner.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "typer.params", "tuner.errors"])
def test_a_signal_while_the_command_is_loaded_ends_it_in_one_line(module: str) -> None:
    code = LOADED.replace("{module}", module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "tuner: stopped before it had begun\n"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("bad", [True, False])
def test_a_signal_waits_until_a_transaction_is_over_but_not_while_that_waits(sign: signal.Signals, bad: bool) -> None:
    done = []

    def write() -> None:
        with stoppable():
            with undivided(), undivided(bad):
                os.kill(os.getpid(), sign)
                time.sleep(4 * SOON)
                done.append("whole")
            time.sleep(4 * SOON)
            done.append("missed")

    with pytest.raises(StoppedError) as stopped:
        write()
    assert (stopped.value.code, done) == (128 + sign, ["whole"] if bad else [])
