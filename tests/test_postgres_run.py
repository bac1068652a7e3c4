"""A study on a PostgreSQL server, from the command: killed, resumed, read, the server restarted, the password kept."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from command import SECONDS, SMALL, files, spawn, tuner, write
from postgres import Server

pytestmark = pytest.mark.slow

LONG = SMALL.replace("{low: 2, high: 4}", "{low: 20, high: 30}")


def command_lines() -> str:
    """Return what every process of this machine was started with."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def has_tables(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return bool(connection.execute("SELECT to_regclass('version_info') IS NOT NULL").fetchone()[0])  # type: ignore[index]


def states(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT number, state::text FROM trials ORDER BY number").fetchall()


def test_a_study_on_a_server_is_killed_resumed_and_read_and_its_password_is_nowhere(
    postgres: Server, tmp_path: Path
) -> None:
    url, said = postgres.new(), []
    env = {"OPTUNA_STORAGE": url}
    write(tmp_path / "small.yaml", LONG)
    process = spawn("run", "small.yaml", "--workers", "2", cwd=tmp_path, env=env)
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if re.search(r"complete|pruned", line):
            break
    assert postgres.password not in command_lines()
    process.kill()
    said += process.communicate(timeout=SECONDS)
    assert len(states(url)) >= 1
    for words in (
        ("run", "small.yaml", "--workers", "2"), ("run", "small.yaml", "--storage", url), ("show", "small", "--json"),
        ("show", "small", "--trial", "0"), ("list",), ("best", "small"), ("report", "small"), ("rescore", "small"),
    ):  # fmt: skip
        done = tuner(*words, cwd=tmp_path, env=env)
        assert done.code == 0, done.err
        said += [done.out, done.err]
    assert states(url) == [(number, "COMPLETE") for number in range(3)]
    assert any("postgresql://tester:***@127.0.0.1" in text for text in said)
    left = b"".join(files(tmp_path).values()) + "".join(said).encode()
    assert postgres.password.encode() not in left
    refused = tuner("list", cwd=tmp_path, env={"OPTUNA_STORAGE": postgres.url("nowhere")})
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (4, "", 1)
    assert postgres.password not in refused.err
    traced = tuner("--debug", "list", cwd=tmp_path, env={"OPTUNA_STORAGE": postgres.url("nowhere")})
    assert postgres.password not in traced.err


def test_a_server_that_is_restarted_in_the_middle_of_a_run_is_waited_for(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new()
    write(tmp_path / "small.yaml", LONG)
    process = spawn("run", "small.yaml", "--trials", "4", cwd=tmp_path, env={"OPTUNA_STORAGE": url})
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.search(r"complete|pruned", line):
            postgres.stop("immediate")
        if "waiting for the server; Ctrl-C stops, nothing is lost" in line:
            postgres.start()
            break
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, "".join(lines) + err
    assert re.search(r"^tuner: going on, after \d+ s$", err, re.MULTILINE)
    assert {state for _, state in states(url)} <= {"COMPLETE", "PRUNED"}
    assert len(states(url)) == 4


def test_ctrl_c_ends_a_run_while_another_one_holds_the_studys_row(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new()
    space = SMALL.replace("{low: 2, high: 4}", "100000")
    env = {"OPTUNA_STORAGE": url, "TUNER_LEASE_SECONDS": "3"}
    process = spawn("run", write(tmp_path / "small.yaml", space), cwd=tmp_path, env=env)
    while not process.poll() and not (has_tables(url) and states(url)):
        time.sleep(0.1)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT * FROM studies FOR UPDATE")
        time.sleep(2.0)  # it writes once a second, and renews its lease as often
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("tuner: stopped"), err


def test_a_server_that_cannot_be_reached_is_told_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    before = files(tmp_path)
    began = time.monotonic()
    for url in ("postgresql://me:hunter2@127.0.0.1:1/x", "postgresql://me:hunter2@nowhere.invalid/x"):
        said = tuner("run", "small.yaml", "--storage", url, cwd=tmp_path)
        assert (said.code, said.out, len(said.err.splitlines())) == (4, "", 1), said.err
        assert "hunter2" not in said.err
    assert time.monotonic() - began < SECONDS
    assert files(tmp_path) == before
