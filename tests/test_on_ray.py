"""A study whose workers Ray places is the study that it is without; its workers, and it itself, may be killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from command import SECONDS, SMALL, lives, spawn, tuner, wait_for, write

from tuner.machine import gpu

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
OF_RAY = "raylet|gcs_server|ray::|ray/dashboard|ray/_private"
LONG = SMALL.replace("trials: 3", "trials: 6").replace("{low: 2, high: 4}", "{low: 12, high: 20}")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    before = set(processes(OF_RAY))  # somebody else's
    yield
    for process in set(processes(OF_RAY)) - before:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def processes(pattern: str) -> list[int]:
    """Return the processes whose command line has a pattern."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if re.search(pattern, path.read_bytes().decode(errors="replace").replace("\0", " ")):
                found.append(int(path.parent.name))
    return found


def test_a_share_of_a_gpu_that_isnt_there_is_refused_in_a_line(tmp_path: Path) -> None:
    if gpu() is not None:
        pytest.skip("here is a GPU")
    write(tmp_path / "small.yaml")
    said = tuner("run", "small.yaml", "--engine", "ray", "--gpus-per-worker", "0.5", cwd=tmp_path)
    assert said.code == 2, said.err
    assert said.err == "tuner: --gpus-per-worker 0.5: Ray finds 0 GPUs on this machine\n"
    assert not (tmp_path / "studies").exists()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster that asks for a token, and is told of a GPU that isn't there."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray looks for the token
    write(tmp_path / ".ray" / "auth_token", "0" * 64)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray, env = Path(sys.executable).with_name("ray"), {**os.environ, "RAY_AUTH_MODE": "token"}
    words = ["start", "--head", f"--port={port}", "--num-cpus=4", "--num-gpus=1", "--include-dashboard=false"]
    subprocess.run([ray, *words], check=True, capture_output=True, timeout=SECONDS, env=env)
    return f"127.0.0.1:{port}"  # `ray stop` would end everybody's; what is left is ended after each test


def test_a_cluster_that_asks_for_a_token_places_workers_with_their_share_of_its_gpus(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "small.yaml")
    words = ("run", "small.yaml", "--engine", "ray", "--ray-address", cluster, "--json")
    said = tuner(*words, "--workers", "3", "--gpus-per-worker", "0.5", cwd=tmp_path)
    assert said.code == 0, said.err
    assert said.document["trials"]["complete"] == 3
    assert "Ray has GPUs for 2 of 3 workers now" in said.err
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    said = tuner(*words, cwd=tmp_path)
    assert said.code == 2, said.err
    assert "RAY_AUTH_TOKEN" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


def listeners() -> set[str]:
    """Return where Ray's processes listen, for others than this machine."""
    said = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=False).stdout
    lines = [line.split() for line in said.splitlines() if "ray" in line or "gcs" in line]
    return {line[3] for line in lines if not line[3].startswith(("127.", "[::1]", "[::ffff:127."))}


def test_a_study_on_ray_is_the_study_that_it_is_here(tmp_path: Path) -> None:
    documents = []
    for name, words in (("here", ()), ("ray", ("--engine", "ray"))):
        write(tmp_path / name / "small.yaml", SMALL.replace("confirm: false", "confirm: true"))
        done = tuner("run", "small.yaml", "--json", *words, cwd=tmp_path / name)
        assert done.code == 0, done.err
        documents.append(done.document)
    assert lives(documents[0]) == lives(documents[1])
    assert documents[0]["confirmed"]["val"] == documents[1]["confirmed"]["val"]
    one, other = (tmp_path / name / "studies" / "small" / "model.safetensors" for name in ("here", "ray"))
    assert one.read_bytes() == other.read_bytes()
    wait_for(lambda: not processes("raylet|gcs_server"))


def test_a_worker_of_ray_and_the_run_itself_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml", LONG)
    words = ("run", "small.yaml", "--engine", "ray", "--workers", "2")
    process = spawn(*words, cwd=tmp_path)
    assert process.stderr is not None
    killed = 0
    for line in process.stderr:
        if re.search(r"complete|pruned", line):
            if not killed:
                assert not listeners()
                os.kill(processes(r"ray::_Worker")[0], signal.SIGKILL)
            killed += 1
        if killed == 2:
            break
    process.kill()
    process.communicate(timeout=SECONDS)
    done = tuner(*words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    trials = done.document["trials"]
    assert (trials["total"], trials["running"], trials["failed"]) == (6, 0, 0)
    checked = tuner("replay", "small", "--trial", "4", cwd=tmp_path)
    assert checked.code == 0, checked.out


def test_no_two_tests_of_ray_run_side_by_side(request: pytest.FixtureRequest) -> None:
    """Each kills what it finds of Ray: pytest-xdist has to see their group."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@ray")


def test_what_ray_cant_be_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "small.yaml")
    for words, said in (
        (("--engine", "rey"), "--engine rey"),
        (("--gpus-per-worker", "0.5"), "--engine ray"),
        (("--engine", "ray", "--ray-address", "127.0.0.1:1"), "can't be reached"),
    ):
        done = tuner("run", "small.yaml", *words, cwd=tmp_path)
        assert (done.code, done.out) == (2, ""), done.err
        assert said in done.err
    assert not (tmp_path / "studies").exists()
