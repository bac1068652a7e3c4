"""Every kind of bad input, what is said of it, word for word, and what holds for all that is said.

The words are in `messages.txt` beside this file, to be read. `UPDATE_SNAPSHOTS=1 python -m pytest tests/bad_inputs`
writes them anew: read the difference before it is kept.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_cases
import data_cases
import pytest
import space_cases
from cases import Case
from command import Said, call, files

CASES: dict[str, Case] = {**space_cases.CASES, **data_cases.CASES, **command_cases.CASES}
MESSAGES = Path(__file__).with_name("messages.txt")
UPDATE = bool(os.environ.get("UPDATE_SNAPSHOTS"))
LONGEST = 300
SECONDS = 1.0


def read() -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", MESSAGES.read_text() if MESSAGES.exists() else "", flags=re.MULTILINE)[1:]
    return {name: text.strip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def messages() -> Iterator[dict[str, str]]:
    """Return what is to be said of each case; what the tests put into it is kept if that is asked for."""
    found = read()
    yield found
    if UPDATE:
        MESSAGES.write_text(
            "".join(f"## {name}\n{found[name]}\n\n" for name in CASES if name in found).rstrip("\n") + "\n"
        )


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Load what reads data, so that a case's seconds are its own."""
    import tuner.data.loading
    import tuner.models
    import tuner.planning
    import tuner.training  # noqa: F401


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_of_bad_input(name: str, here: Path, messages: dict[str, str], capsys: Any) -> None:
    case = CASES[name]
    case.write(here)
    before, started = files(here), time.process_time()
    said = call(capsys, *case.words)
    seconds = time.process_time() - started
    assert files(here) == before, "something was written"
    check_form(case, said)
    assert seconds < SECONDS
    text = shown(case, said).replace(str(here), "HERE")
    if UPDATE:
        messages[name] = text
    assert text == messages[name]


def check_form(case: Case, said: Said) -> None:
    """Check what holds for all that is said."""
    assert said.code == case.code, said.err
    if case.code:
        assert said.out == ""
        assert all(line.startswith("tuner: ") for line in said.err.splitlines()), said.err
    lines = told(case, said)
    assert lines or not case.code
    assert all(line.isprintable() and len(line) <= LONGEST for line in lines), said.err
    assert len(set(lines)) == len(lines), "something is said twice"
    assert "Traceback" not in said.err
    assert "a fault of the program" not in said.err


def told(case: Case, said: Said) -> list[str]:
    """Return the lines of an error, or the notes of what is taken."""
    return said.err.splitlines() if case.code else [x for x in said.out.splitlines() if x.startswith("note: ")]


def shown(case: Case, said: Said) -> str:
    return "\n".join([f"exit {said.code}", *told(case, said)])


def test_there_is_no_message_without_its_case() -> None:
    assert list(read()) == list(CASES)
