"""What a study looks like while it runs: on a real terminal, and where there is none."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyte
import pytest
from command import COMMAND, SECONDS, SMALL, write
from rich.console import Console

from tuner.curve import Curve
from tuner.live import Screen, _sparks, wanted
from tuner.planning import prepare
from tuner.record import TrialRecord
from tuner.tuning import conduct

ROWS, COLUMNS = 40, 120
LEFT_OUT = ("NO_COLOR", "CI", "COLUMNS", "LINES")  # the last two stand for a terminal's own size
SLOW = SMALL.replace("{low: 2, high: 4}", "300").replace("trials: 3", "trials: 4") + "stopping: none\n"


def on_a_terminal(folder: Path, *words: str, env: dict[str, str] | None = None) -> tuple[list[list[str]], str, int]:
    """Run the command in a pseudo-terminal; return what its screen showed over time, every byte, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env={**environment, "TERM": "xterm-256color", **(env or {})}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream, shown, raw, end = pyte.ByteStream(screen), [], b"", time.monotonic() + SECONDS
    while time.monotonic() < end:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            got = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not got:
            break
        raw += got
        stream.feed(got)
        shown.append([line.rstrip() for line in screen.display])
    os.close(ours)
    return shown, raw.decode(errors="replace"), process.wait(SECONDS)


def test_a_terminal_shows_who_trains_what_and_how_the_study_stands(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml", SLOW)
    shown, raw, code = on_a_terminal(tmp_path, "run", "small.yaml", "--workers", "2")
    assert code == 0, raw[-2000:]
    going = ["\n".join(each) for each in shown]
    assert any("reading the data" in each for each in going), "something is said at once"
    assert any("train, val loss: last" in each and "/300" in each for each in going), "trials under way"
    assert any("best so far trial" in each and "/4 trials" in each for each in going)
    assert any("epochs saved" in each for each in going)
    last = "\n".join(shown[-1])
    assert "train, val loss: last" not in last, "what changes is gone in the end"
    assert "configuration  studies/small/best.yaml" in last
    assert "Traceback" not in raw


def test_a_narrow_terminal_leaves_the_curves_out(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml", SLOW)
    shown, raw, code = on_a_terminal(tmp_path, "run", "small.yaml", "--trials", "1", env={"COLUMNS": "80"})
    assert code == 0, raw[-2000:]
    going = ["\n".join(each) for each in shown]
    assert any("/300" in each for each in going)
    assert not any("val loss: last" in each or "…" in each.split("epochs saved")[0] for each in going)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_where_plain_text_is_asked_for_there_is_a_line_a_trial_and_no_control_character(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write(tmp_path / "small.yaml")
    _, raw, code = on_a_terminal(tmp_path, "run", "small.yaml", env=env)
    assert code == 0, raw[-2000:]
    assert "\x1b" not in raw
    assert sum("complete: " in line or "pruned: " in line for line in raw.splitlines()) == 3


@pytest.mark.parametrize(
    ("terminal", "environment", "drawn"),
    [(True, {}, True), (True, {"TERM": "xterm"}, True), (False, {}, False), (True, {"TERM": "dumb"}, False),
     (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True)],
)  # fmt: skip
def test_progress_is_drawn_only_where_it_can_be_and_is_wanted(
    terminal: bool, environment: dict[str, str], drawn: bool
) -> None:
    assert wanted(environment, terminal) is drawn


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120])
def test_no_figure_of_a_trial_under_way_is_cut(make_curve: Callable[..., Curve], tmp_path: Path, columns: int) -> None:
    plan = prepare(write(tmp_path / "small.yaml"), studies_dir=tmp_path / "studies")
    console = Console(record=True, width=columns, force_terminal=True)
    screen = Screen(console)
    screen.begin(plan.study, plan.space, plan.trials)
    curve = make_curve([1.2345678] * 20, [0.00123456] * 20)
    screen.tell(TrialRecord(1000, "running", {}, 0, label="double size", curve=curve), 3.0)
    console.print(screen.drawn())
    (row,) = (line for line in console.export_text().splitlines() if "1000" in line)
    assert all(said in row for said in ("20/", "1.235")), row
    assert "…" not in row
    assert ("▁" in row, "0.001235" in row, "double size" in row) == (columns >= 80, columns >= 60, columns >= 80)


def test_every_event_of_a_study_can_be_drawn_and_a_name_steers_no_terminal(tmp_path: Path) -> None:
    text = SMALL.replace("confirm: false", "confirm: true").replace("training: {", "training: {refit: true, ")
    plan = prepare(write(tmp_path / "small.yaml", text), studies_dir=tmp_path / "studies")
    console = Console(record=True, width=COLUMNS, force_terminal=True)
    screen = Screen(console)
    console.print(screen.drawn())
    screen.begin(plan.study, plan.space, plan.trials)
    for news in conduct(plan):
        evil = replace(news, label="\x1b]0;evil\x07") if hasattr(news, "label") else news
        screen.tell(evil, 3.0)
        console.print(screen.drawn())
    said = console.export_text()
    counts = [line for line in said.splitlines() if " confirmations, " in line]
    assert f"0/{3 * 3} confirmations" in counts[0]
    assert f"{3 * 3}/{3 * 3} confirmations" in counts[-1]
    assert not screen.repeating, "what has ended is no longer under way"
    under_way = [line for line in said.splitlines() if "▁" in line or "/4 " in line]
    assert any("confirm 3/3" in line for line in under_way), "what the confirmation trains is seen as it goes"
    assert any("on all rows" in line for line in under_way), "and what is trained in the end"
    assert "confirm 3/3" in said
    assert "about 3 s left" in said
    assert "\x1b]0;" not in said, "a name steers no terminal"


def test_small_curves_show_their_own_course_and_bear_what_is_no_number(make_curve: Callable[..., Curve]) -> None:
    train, val = _sparks(make_curve([1.0, 0.9, 0.95], [1.0, 0.1, 0.01])).plain.split(" ")
    assert (train[0], train[-1]) == ("█", "▁")
    assert val[0] == "█"
    assert val[1] == "▁", "seen beside a training loss that is a hundred times smaller"
    assert _sparks(make_curve([float("nan"), float("inf")], [float("nan"), float("nan")])).plain == " "
    flat: Any = _sparks(make_curve([0.5, 0.5], [0.5, 0.5])).plain
    assert set(flat) == {"▁", " "}
