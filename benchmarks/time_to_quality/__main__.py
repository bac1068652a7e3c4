"""How long tuner and its peers take to a given quality on rows that none of them sees.

    python -m benchmarks.time_to_quality DATA_FOLDER [--seconds 240] [--seeds 0 1] [--tasks …] [--only …] [--kept FILE]

DATA_FOLDER holds the sources that `tasks.py` names. Each tool searches each set of data for so many seconds on two
cores, one after the other; the clock runs from the start of its command, imports and all. Whenever its best changes,
what the best reaches on the test rows is written down by the benchmark; no tool sees that. Each peer has an environment
of its own in .benchmarks (see benchmarks/environments.py). Prints a Markdown section; needs two free cores and 80
minutes a seed. In the file of `--kept` is a line for each search as it ends; what is there already isn't run again, so
that it can be stopped, and seeds can be added.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import OWN, ROOT, python_of, say, variables
from benchmarks.time_to_quality.tasks import TASKS, Task, rows, write
from benchmarks.time_to_quality.telling import WAYS, Best, Found, section

GRACE = 60.0  # seconds beyond its time that a way may take to end; tuner's best are trained again within it, or longer


def read_kept(path: Path, seconds: float) -> Found:
    """Return what an earlier command with as much time has kept."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        (each["task"], each["way"], each["seed"]): [Best(*best) for best in each["bests"]]
        for each in lines
        if each["seconds"] == seconds
    }


def keep(path: Path, where: tuple[str, str, int], seconds: float, bests: Sequence[Best]) -> None:
    """Add what a search came to, with the day and the processor."""
    task, way, seed = where
    said = {
        "task": task, "way": way, "seed": seed, "seconds": seconds, "date": time.strftime("%Y-%m-%d"),
        "processor": processor(), "bests": [[round(each.at, 1), each.val, each.test] for each in bests],
    }  # fmt: skip
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(said) + "\n")


def processor() -> str:
    """Return what the kernel calls the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def run(name: str, task: Task, seconds: float, seed: int) -> list[Best]:
    """Let a tool search; return each best that it had, in order."""
    way = WAYS[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seen = Path(folder) / "seen.jsonl"
        began = time.time()
        words = [python_of(way.environment), "-m", f"benchmarks.time_to_quality.{way.module}", task.name, *way.options]
        words += [f"--began={began}", f"--seconds={seconds}", f"--seed={seed}", f"--seen={seen}"]
        with open(Path(folder) / "log", "w+") as log:
            process = subprocess.Popen(
                words, cwd=ROOT, env=variables(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(seconds + GRACE if name != OWN else None)
            except subprocess.TimeoutExpired:
                code = 0
            finally:
                _end(process)
            if code:
                log.seek(0)
                raise SystemExit(f"{name}, {task.name}: exit code {code}\n{log.read()[-4000:]}")
        lines = map(json.loads, seen.read_text(encoding="utf-8").splitlines()) if seen.exists() else ()
        found = [Best(each["at"] - began, each["val"], each["test"]) for each in lines]
    # of several processes only what is better than all before is a new best; of tuner the last word is its own
    ordered = found if name == OWN else _improving(found)
    say(f"{name}, {task.name}, seed {seed}: " + ", ".join(f"{each.at:.0f} s {each.test:.4f}" for each in ordered))
    return [each for each in ordered if each.at <= seconds + (GRACE if name == OWN else 0)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all that a way started and that still runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _improving(found: Sequence[Best]) -> list[Best]:
    better: list[Best] = []
    for each in sorted(found, key=lambda best: best.at):
        if not better or each.val > better[-1].val:
            better.append(each)
    return better


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, help="write the section there, too")
    parser.add_argument("--kept", type=Path, help="where each search's line is, also those of earlier commands")
    given = parser.parse_args()
    for name in given.only:
        python_of(WAYS[name].environment)
    for name in given.tasks:
        write(TASKS[name], given.data)
        data = rows(TASKS[name])
        say(f"{name}: {len(data.train.y)} + {len(data.val.y)} + {len(data.test.y)} rows, batches of {data.batch}")
    words = [
        "python -m benchmarks.time_to_quality DATA",
        f"--seconds {given.seconds:.0f}",
        "--seeds",
        *map(str, given.seeds),
    ]
    words += ["--tasks", *given.tasks] if given.tasks != list(TASKS) else []
    words += ["--only", *given.only] if given.only != list(WAYS) else []
    found = read_kept(given.kept, given.seconds) if given.kept else {}
    todo = [(name, way, seed) for seed in given.seeds for name in given.tasks for way in given.only]
    try:
        for name, way, seed in (where for where in todo if where not in found):
            found[name, way, seed] = run(way, TASKS[name], given.seconds, seed)
            if given.kept:
                keep(given.kept, (name, way, seed), given.seconds, found[name, way, seed])
    finally:  # also of what was stopped
        text = section(found, " ".join(words), given.seconds)
        print(text)
        if given.out:
            given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
