"""Code of the user's own: it may fail in every way, and the search goes on or ends with one line."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL, Said, call, write

HEAD = """\
import os, sys, math
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.width = config.model.width
        self.layer = nn.Linear(shape.input[0], shape.outputs)

    def forward(self, x):
        if self.training:
            self.trouble(x)
        return self.layer(x)

    def trouble(self, x):
        {trouble}

def net(config, shape):
    return Net(config, shape)
"""
MODULES = count()


@pytest.fixture
def run(tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a study whose model has some trouble while it trains."""
    monkeypatch.chdir(tmp_path)

    def run(trouble: str, *words: str, head: str = HEAD) -> Said:
        module = f"own_net_{next(MODULES)}"  # a module of a test's own: Python remembers what it has imported
        write(tmp_path / f"{module}.py", head.replace("{trouble}", trouble))
        space = SMALL.replace("model: {", f"model: {{family: {module}:net, ")
        return call(capfd, "run", write(tmp_path / "own.yaml", space), "--json", *words)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_of_ones_own_is_searched_like_any(run: Any, workers: str) -> None:
    said = run("pass", "--workers", workers)
    assert said.code == 0, said.err
    assert said.document["trials"]["complete"] == 3
    assert said.document["best"]["parameters"] == 14 * 3


@pytest.mark.slow
def test_the_same_error_in_the_first_three_trials_ends_the_search(run: Any) -> None:
    said = run("raise ValueError('too\\nwide')", "--trials", "30")
    assert (said.code, said.out) == (5, "")
    last = said.err.splitlines()[-1]
    assert last.startswith("tuner: the first 3 trials all failed with: ValueError: too wide (")
    assert last.endswith(".py:17)")
    assert "Traceback" not in said.err


@pytest.mark.slow
def test_trials_that_fail_leave_the_others_alone(run: Any, capfd: Any) -> None:
    said = run("if self.width != 8: sys.exit(3)", "--trials", "6", "--quiet")
    counts = said.document["trials"]
    assert said.code == 0
    assert counts["failed"] >= 1
    assert counts["complete"] >= 1
    failed = [call(capfd, "show", "small", "--trial", str(i), "--json").document for i in range(6)]
    assert {document["error"].split(" (")[0] for document in failed} == {"", "SystemExit: 3"}


@pytest.mark.slow
def test_a_process_that_ends_with_the_users_code_takes_nothing_along(run: Any, capfd: Any) -> None:
    said = run("os._exit(9)", "--trials", "1")
    assert (said.code, said.out) == (5, "")
    reason = "every trial failed (1 of 1), the first with: the worker process died (exit code 9)"
    assert said.err.splitlines()[-1] == f"tuner: {reason}"
    shown = call(capfd, "show", "small").out
    assert f"The study came to nothing: {reason}." in " ".join(shown.split())
    assert "was stopped" not in shown
    assert "No trial is complete, so there is no best configuration." in shown


@pytest.mark.slow
def test_a_model_that_returns_nan_is_told_to_diverge(run: Any) -> None:
    said = run("x.fill_(math.nan)", "--trials", "2")
    assert (said.code, said.out) == (5, "")
    assert "every trial diverged (2 of 2)" in said.err


RUDE = """\
if os.path.exists(__file__ + '.was'): return  # once: each trial has a process of its own
        open(__file__ + '.was', 'w').close()
        print('x' * 3_000_000)
        os.write(1, b'y' * 1_000_000)
        print('seen', file=sys.stderr)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        os.chdir('/')
        sys.stdout.close()
        os.close(1)"""


@pytest.mark.slow
def test_rude_code_disturbs_neither_the_document_nor_the_trials_after_it(run: Any, capfd: Any) -> None:
    calm = run("pass", "--study-name", "calm", "--quiet")
    rude = run(RUDE, "--study-name", "rude", "--quiet")
    assert calm.code == rude.code == 0, rude.err[-2000:]
    assert len(rude.out) < 20_000
    assert "seen" in rude.err
    for trial in ("1", "2"):
        one, other = (call(capfd, "show", name, "--trial", trial, "--json").document for name in ("calm", "rude"))
        assert one["score"] == other["score"]
        assert one["curve"]["series"]["val.loss"] == other["curve"]["series"]["val.loss"]


NOISY = "import sys, os\nprint('hello')\nos.write(1, b'hello')\nos.chdir('/')\n" + HEAD


@pytest.mark.slow
def test_code_that_prints_when_it_is_imported_prints_to_stderr(run: Any) -> None:
    said = run("pass", "--trials", "1", head=NOISY)
    assert said.code == 0, said.err
    assert said.document["study"] == "small"
    assert "hello" in said.err


BAD_FACTORIES = {
    "def net(config, shape): raise KeyError('lost')": "KeyError: 'lost'",
    "def net(config): pass": "takes (config)",
    "def net(config, shape): return 3": "returned a int",
    "net = 3": "TypeError: net is a int",
    "import missing_module": "ModuleNotFoundError",
    "def other(config, shape): pass": "has no net",
    "def net(config, shape) return": "SyntaxError",
    "import sys\nsys.exit(0)": "SystemExit: 0",
    "from torch import nn\ndef net(config, shape): return nn.Linear(13, 99)": "to (2, 99), not to (2, 3)",
}


@pytest.mark.parametrize(("code", "said"), BAD_FACTORIES.items(), ids=list(BAD_FACTORIES.values()))
def test_a_factory_that_is_wrong_is_told_before_anything_is_written(
    run: Any, tmp_path: Path, code: str, said: str
) -> None:
    found = run("", head=code)
    assert (found.code, found.out) == (5, "")
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert "own_net_" in found.err
    assert not (tmp_path / "studies").exists()


DATA = """\
import os, sys
import numpy as np

def load():
    print("loading")
    sys.stdout.close()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype("float32")
    return x, np.where(x[:, 0] > 0, "<script>alert(1)</script>", "=cmd()|\\x1b[31m")
"""


def test_data_of_ones_own_with_hostile_class_names_stay_harmless(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"own_data_{next(MODULES)}"
    write(tmp_path / f"{module}.py", DATA)
    space = write(tmp_path / "d.yaml", SMALL.replace("sklearn:wine", f"{module}:load"))
    said = call(capfd, "run", space, "--trials", "1")
    assert said.code == 0, said.err
    assert "loading" not in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x1b" not in call(capfd, "show", "small").out + call(capfd, "show", "small", "--json").out
    np.savez(tmp_path / "new.npz", X=np.eye(3, dtype=np.float32))
    predicted = call(capfd, "predict", "small", "new.npz")
    assert all(not line.startswith("=") for line in predicted.out.splitlines())
