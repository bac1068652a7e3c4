"""The command `tuner` as tests call it: in this process where that is enough, else in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuner.cli import main

COMMAND = [sys.executable, "-m", "tuner"]
SECONDS = 120  # nothing here takes that long; a test that hangs ends

SMALL = """\
study: small
seed: 3
data: {source: sklearn:wine}
model: {width: {low: 4, high: 12}, depth: {low: 1, high: 2}}
regularization:
  dropout: {low: 0.0, high: 0.5}
  l1: {low: 1e-3, high: 0.1, log: true, or: 0}
  l2: {low: 1e-4, high: 0.1, log: true, or: 0}
augmentation: {strength: {low: 0.0, high: 0.5}}
training: {epochs: {low: 2, high: 4}, learning_rate: {low: 3e-3, high: 3e-2, log: true}}
budget: {trials: 3, confirm: false}
"""


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Said:
    """Run the command in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    code = stop.value.code
    assert isinstance(code, int)
    return Said(code, out, err)


def spawn(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def tuner(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Said:
    """Run the command in a process of its own."""
    process = spawn(*words, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return Said(process.returncode, out, err)


def write(path: Path, text: str = SMALL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Return every file and folder below a folder, with what is in it."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/" for path in found}


def lives(document: dict[str, Any], keys: Sequence[str] = ("best", "trials", "verdicts", "epochs")) -> dict[str, Any]:
    """Return what must not differ between two studies that are the same."""
    return {key: document[key] for key in keys}


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
