"""The recipes of `deploy/`, run as they stand: by ssh, by a Slurm of one node, and what Kubernetes would run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command import SECONDS, SMALL, tuner, wait_for, write
from postgres import Server
from ruamel.yaml import YAML

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deploy")]
ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SPACE = SMALL.replace("trials: 3", "trials: 6").replace("study: small", "study: my-study")
COMMAND = Path(sys.executable).with_name("tuner")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def check_study(url: str, folder: Path) -> None:
    """Make sure that the study is whole."""
    done = tuner("show", "my-study", "--json", "--storage", url, cwd=folder)
    assert done.code == 0, done.err
    trials = done.document["trials"]
    assert (trials["total"], trials["running"], trials["failed"]) == (6, 0, 0)
    assert done.document["progress"]["state"] == "over"


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """Yield an ssh command that reaches this machine by a server of its own."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(server).exists() or not shutil.which("ssh") or os.getuid() != 0:
        pytest.skip("needs an ssh server, and to be root for it: apt-get install openssh-server")
    keys, port = tmp_path / "keys", free_port()
    keys.mkdir(0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": keys / "host", "PidFile": "none", "UsePAM": "no",
        "AuthorizedKeysFile": keys / "user.pub", "StrictModes": "no", "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
    }  # fmt: skip
    write(keys / "sshd_config", "".join(f"{name} {value}\n" for name, value in options.items()))
    with open(tmp_path / "sshd.log", "w") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", keys / "sshd_config"], stdout=log, stderr=log)
    try:
        wait_for(lambda: "listening" in (tmp_path / "sshd.log").read_text().lower())
        known = f"-o UserKnownHostsFile={keys / 'known'} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
        yield f"ssh -p {port} -i {keys / 'user'} -o BatchMode=yes {known}"
    finally:
        end(process)


def test_the_recipe_for_ssh(ssh: str, postgres: Server, tmp_path: Path) -> None:
    url = postgres.new()
    write(tmp_path / "study" / "my_space.yaml", SPACE)
    env = {
        **os.environ, "OPTUNA_STORAGE": url, "SSH": ssh, "WORKERS": "2", "PORT": str(free_port()),
        "TUNER": f"env PYTHONPATH={ROOT} {COMMAND}", "FOLDER": str(tmp_path),
    }  # fmt: skip
    words = [DEPLOY / "ssh.sh", "my-study", "my_space.yaml", "127.0.0.1", "localhost"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(words, cwd=tmp_path / "study", env=env, text=True, timeout=SECONDS, check=False, **quiet)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training for study my-study, with 2 workers") == 2, done.stderr
    assert done.stderr.count("study my-study is over") == 2, done.stderr
    check_study(url, tmp_path / "study")


def test_ctrl_c_ends_the_study_of_the_recipe_for_ssh_and_its_workers(
    ssh: str, postgres: Server, tmp_path: Path
) -> None:
    url = postgres.new()
    write(tmp_path / "study" / "my_space.yaml", SPACE.replace("{low: 2, high: 4}", "{low: 3000, high: 4000}"))
    env = {
        **os.environ, "OPTUNA_STORAGE": url, "SSH": ssh, "WORKERS": "1", "PORT": str(free_port()),
        "TUNER": f"env PYTHONPATH={ROOT} {COMMAND}", "FOLDER": str(tmp_path),
    }  # fmt: skip
    words = [DEPLOY / "ssh.sh", "my-study", "my_space.yaml", "127.0.0.1"]
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(
            words, cwd=tmp_path / "study", env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: "training for study" in (tmp_path / "said").read_text())
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)

    def left() -> list[str]:
        lines = [
            path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
        ]
        return [line for line in lines if "worker\0my-study" in line and str(tmp_path) in line]

    wait_for(lambda: not left(), 30)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which a Slurm of one node, started for this test, is used."""
    there = [shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("munged", "slurmctld", "slurmd", "sbatch")]
    if not all(there) or os.getuid() != 0:
        pytest.skip("needs Slurm, and to be root for it: apt-get install slurm-wlm munge")
    place = tmp_path / "slurm"
    for name in ("state", "spool", "munge"):
        (place / name).mkdir(0o755, parents=True)
    (place / "munge" / "key").write_bytes(os.urandom(128))
    (place / "munge" / "key").chmod(0o400)
    key, sock = place / "munge" / "key", place / "munge" / "socket"
    options = ["--force", f"--key-file={key}", f"--socket={sock}", f"--pid-file={place}/munge/pid", "--syslog"]
    options += [f"--seed-file={place}/munge/seed", "--foreground"]
    name = socket.gethostname().split(".")[0]
    settings = {
        "ClusterName": "test", "SlurmctldHost": f"{name}(127.0.0.1)", "SlurmUser": "root", "SlurmdUser": "root",
        "AuthType": "auth/munge", "AuthInfo": f"socket={sock}", "CryptoType": "crypto/munge",
        "SlurmctldPort": free_port(), "SlurmdPort": free_port(), "StateSaveLocation": place / "state",
        "SlurmdSpoolDir": place / "spool", "SlurmctldPidFile": place / "ctld.pid", "SlurmdPidFile": place / "d.pid",
        "SlurmctldLogFile": place / "ctld.log", "SlurmdLogFile": place / "d.log", "ProctrackType": "proctrack/pgid",
        "TaskPlugin": "task/none", "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core",
        "ReturnToService": 2, "SchedulerParameters": "sched_interval=1,batch_sched_delay=0", "MpiDefault": "none",
        "SlurmdParameters": "config_overrides", "KillWait": 5, "JobAcctGatherType": "jobacct_gather/none",
    }  # fmt: skip
    lines = [f"{name}={value}" for name, value in settings.items() if name != "CryptoType"]
    lines += [f"NodeName={name} NodeAddr=127.0.0.1 CPUs=16 RealMemory=8000 State=UNKNOWN"]
    lines += [f"PartitionName=main Nodes={name} Default=YES State=UP"]
    conf = write(place / "slurm.conf", "\n".join(lines) + "\n")
    write(place / "cgroup.conf", "CgroupPlugin=cgroup/v1\nIgnoreSystemd=yes\n")
    env = {**os.environ, "SLURM_CONF": str(conf)}
    running = []
    try:
        with open(place / "out.log", "w") as log:
            for words in (
                ["munged", *options], ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf, "-N", name],
            ):  # fmt: skip
                running.append(subprocess.Popen([f"/usr/sbin/{words[0]}", *words[1:]], env=env, stdout=log, stderr=log))
                time.sleep(0.5)
        ask = ["sinfo", "-h", "-o", "%T"]
        try:
            wait_for(lambda: "idle" in subprocess.run(ask, env=env, capture_output=True, text=True).stdout)
        except AssertionError:
            said = "\n".join(path.read_text()[-3000:] for path in place.glob("*.log"))
            pytest.skip(f"Slurm doesn't start here:\n{said}")
        yield env
    finally:
        for process in reversed(running):
            end(process)


def test_the_recipe_for_slurm(slurm: dict[str, str], postgres: Server, tmp_path: Path) -> None:
    url, study = postgres.new(), tmp_path / "study"
    write(study / "my_space.yaml", SPACE)
    env = {**slurm, "OPTUNA_STORAGE": url, "TUNER": str(COMMAND)}

    def submit(*words: str | Path) -> None:
        done = subprocess.run(["sbatch", *words], cwd=study, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    submit("--array=1-2", "--cpus-per-task=2", DEPLOY / "slurm_workers.sbatch", "my-study")
    submit(DEPLOY / "slurm_study.sbatch", "my-study", "my_space.yaml")

    def queue() -> str:
        return subprocess.run(["squeue", "-h"], env=env, capture_output=True, text=True, timeout=60).stdout

    try:
        wait_for(lambda: not queue(), SECONDS)
    except AssertionError:
        said = [queue(), *(path.read_text() for path in study.glob("slurm-*.out"))]
        raise AssertionError("\n".join(said)) from None
    finally:
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=env, check=False, timeout=60)
    said = "\n".join(path.read_text() for path in study.glob("slurm-*.out"))
    assert said.count("training for study my-study, with 2 workers") == 2, said
    assert said.count("study my-study is over") == 2, said
    check_study(url, study)


def test_what_the_recipe_for_kubernetes_runs(postgres: Server, tmp_path: Path) -> None:
    """Its two commands, started at once with the environment that they would have, its volume being a folder."""
    import kubernetes_validate

    url = postgres.new()
    documents = [json.loads(json.dumps(each)) for each in YAML(typ="safe").load_all(DEPLOY / "kubernetes.yaml")]
    for document in documents:
        kubernetes_validate.validate(document, "1.31", strict=True)
    jobs = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Job"}
    secret = next(each for each in documents if each["kind"] == "Secret")
    policy = next(each for each in documents if each["kind"] == "NetworkPolicy")
    assert list(secret["stringData"]) == ["OPTUNA_STORAGE"]
    port = str(policy["spec"]["ingress"][0]["ports"][0]["port"])
    assert f"0.0.0.0:{port}" in jobs["tuner-study"]["containers"][0]["command"]
    write(tmp_path / "work" / "my_space.yaml", SPACE)
    (tmp_path / "studies").mkdir()
    places = {"/work": str(tmp_path / "work"), "/studies": str(tmp_path / "studies"), "tuner": str(COMMAND)}
    env, running = {**os.environ, "OPTUNA_STORAGE": url}, []
    for job in ("tuner-workers", "tuner-study"):
        (container,) = jobs[job]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
        words = [places.get(word, word.replace(f":{port}", f":{free_port()}")) for word in container["command"]]
        words = ["2" if before == "--workers" else word for before, word in zip(["", *words], words, strict=False)]
        running.append(
            subprocess.Popen(
                words, cwd=places[container["workingDir"]], env=env, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    try:
        for process in running:
            _, said = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, said
    finally:
        for process in running:
            end(process)
    check_study(url, tmp_path / "studies" / "..")
