"""The README's code blocks, executed in their order, in a folder that a newcomer would stand in."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TUNER = Path(sys.executable).with_name("tuner")


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((ROOT / "README.md").read_text())


def commands(text: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's search spaces, and the reader's own table and texts."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "search_spaces", path / "search_spaces")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=120), "b": rng.normal(size=120), "c": rng.choice(["x", "y", "z"], 120)})
    frame["y"] = np.where(frame.a + (frame.c == "x") > 0.3, "yes", "no")
    frame.to_csv(path / "my.csv", index=False)
    texts = [f"{word} is {'good' if n % 2 else 'bad'} {word}" for n, word in enumerate(rng.choice(list("abcdef"), 120))]
    rows = [json.dumps({"text": text, "target": "yes" if "good" in text else "no"}) for text in texts]
    (path / "my.jsonl").write_text("\n".join(rows))
    frame.drop(columns="y").head(7).to_csv(path / "new_rows.csv", index=False)
    return path


def call(line: str, folder: Path) -> None:
    if line.startswith("tuner dashboard"):
        return interrupt(line, folder)
    if "text" in line:  # half a minute more, and confirmed as every other study
        line += " --no-confirm"
    done = subprocess.run(line.replace("tuner", str(TUNER), 1), shell=True, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return None


def interrupt(line: str, folder: Path) -> None:
    """Start the dashboard, wait for its address, and end it with Ctrl-C."""
    words = [str(TUNER), *line.split()[1:], "--no-browser", "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "http://127.0.0.1:" in said


@pytest.mark.slow
def test_every_code_block_of_the_readme_runs(folder: Path) -> None:
    for kind, text in blocks():
        named = re.match(r"# file: (\S+)\n", text)
        if named:
            (folder / named[1]).write_text(text)
        elif kind == "bash":
            for line in commands(text):
                if not line.startswith("make "):
                    call(line, folder)
        elif kind == "python":
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", text], cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(folder / "predictions.csv")) == 7


def test_the_two_commands_stand_at_the_top_and_exist() -> None:
    first = next(text for kind, text in blocks() if kind == "bash")
    targets = [line.split()[1] for line in commands(first)]
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_continuous_integration_calls_the_readmes_own_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_names_every_command_and_every_key() -> None:
    from tuner.config import RunConfig

    text = (ROOT / "README.md").read_text()
    source = (ROOT / "tuner" / "cli.py").read_text()
    names = re.findall(r"@app\.command\((?:\"(\w+)\")?\)\ndef (\w+)", source)
    assert not [name for pair in names if f"tuner {(name := pair[0] or pair[1])}" not in text]
    for section, field in RunConfig.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {section: None})
        assert not [key for key in keys if f"`{key}`" not in text and key not in ("split",)], section
