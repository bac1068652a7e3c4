"""How long tuner and its peers take to a given quality on rows that none of them sees.

    python -m benchmarks.time_to_quality DATA_FOLDER [--seconds 240] [--seeds 1] [--tasks …] [--only …] [--out FILE]

DATA_FOLDER holds the sources that `tasks.py` names. Each tool searches each set of data for so many seconds on two
cores, one after the other; the clock runs from the start of its command, imports and all. Whenever its best changes,
what the best reaches on the test rows is written down by the benchmark; no tool sees that. Each peer has an environment
of its own in .benchmarks (see benchmarks/environments.py). Prints a Markdown section; needs two free cores and 80
minutes a seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import OWN, ROOT, Way, python_of, say, variables
from benchmarks.time_to_quality.tasks import TASKS, Task, rows, write

GRACE = 60.0  # seconds beyond its time that a way may take to end; tuner's best are trained again within it, or longer


WAYS = {
    OWN: Way("tuner", "with_tuner", OWN),
    "median": Way("Optuna, median pruner", "with_optuna", "optuna", ("--pruner=median",)),
    "hyperband": Way("Optuna, Hyperband", "with_optuna", "optuna", ("--pruner=hyperband",)),
    "ray": Way("Ray Tune, ASHA", "with_ray", "ray"),
    "keras": Way("Keras Tuner, Hyperband", "with_keras_tuner", "keras-tuner"),
}


@dataclass(frozen=True, slots=True)
class Best:
    """A tool's best from `at` on, in seconds from its start: what it reaches on validation and on test rows."""

    at: float
    val: float
    test: float


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


def until(found: Sequence[Best], wanted: float) -> float:
    """Return the seconds until a tool's best first reached a test value; infinite if none did."""
    return min((each.at for each in found if each.test >= wanted), default=math.inf)


def for_good(found: Sequence[Best], wanted: float) -> float:
    """Return the seconds from which on a tool's best had a test value and didn't fall below it again."""
    at = math.inf
    for each in reversed(found):
        if each.test < wanted:
            break
        at = each.at
    return at


HEAD = """\
## Time to quality

    {command}

{date}; {cores} cores, each tool alone on them for {seconds:.0f} seconds from the start of its command, {seeds}. Every
tool searches the same kinds of networks in the same ranges (those of the space file that comes with `tuner`) for the
same metric on the same training and validation rows. Test values are of each tool's best at that time, read by the
benchmark and seen by no tool. "Wanted" is what the best peer's best has when its time is over; then come the seconds
until the best of `tuner` first has it, the seconds until that peer's own best first had it (of several, the first one),
and how many times as fast `tuner` was; in brackets, from when on `tuner`'s best never fell below it again. The last
columns are what each tool's best has when its time is over.

"""
TAIL = """
`tuner` is the product with its defaults: its space files, two workers, its score with the gap penalty, its stopping
rules, and of its {seconds:.0f} seconds up to a fifth go to the confirmation, whose choice is its last best. The peers
are as their tutorials have them, with what helps them: Optuna in two processes on one SQLite file with TPE, Ray with
two processes that serve trial after trial, Keras with two threads; the best epoch of a trial counts, not the last; rows
are standardized and texts tokenized for them beforehand; they have weight decay, dropout, label smoothing and
augmentation to choose from, but no L1. Networks are of the same kinds, but not the same: `tuner` makes embeddings of a
table's words, has more kinds of augmentation, and averages weights. Optuna's pruned trials can't be its best; of Ray
and Keras Tuner any epoch can.
"""


def section(found: dict[tuple[str, str, int], list[Best]], command: str, seconds: float) -> str:
    """Return the Markdown that tells all of it."""
    seeds = sorted({seed for _, _, seed in found})
    titles = ["data", "metric", *(["seed"] if len(seeds) > 1 else []), "wanted"]
    peers = [name for name in WAYS if name != OWN and any(way == name for _, way, _ in found)]
    titles += ["seconds of `tuner`", "of the best peer", "times as fast", "`tuner`"]
    titles += [WAYS[name].title for name in peers]
    lines, ratios, kept = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"], list[float](), list[float]()
    for task in TASKS.values():
        for seed in seeds:
            own = found.get((task.name, OWN, seed))
            others = {name: bests for name in peers if (bests := found.get((task.name, name, seed)))}
            if not own or not others:
                continue
            wanted = max(bests[-1].test for bests in others.values())
            best = [name for name, bests in others.items() if bests[-1].test == wanted]
            winner = min(best, key=lambda name: until(others[name], wanted))
            first, peer, good = until(own, wanted), until(others[winner], wanted), for_good(own, wanted)
            ratios.append(peer / first)
            kept.append(peer / good)
            cells = [
                task.name,
                task.said,
                *([str(seed)] if len(seeds) > 1 else []),
            ]
            cells += [_value(task, wanted), f"{_seconds(first)} ({_seconds(good)})"]
            cells += [
                f"{_seconds(peer)} ({WAYS[winner].title})",
                f"{peer / first:.1f} ({peer / good:.1f})",
                _value(task, own[-1].test),
            ]
            cells += [_value(task, others[name][-1].test) if name in others else "nothing" for name in peers]
            lines.append(f"| {' | '.join(cells)} |")
    head = HEAD.format(
        command=command, date=time.strftime("%Y-%m-%d"), cores=os.cpu_count(), seconds=seconds,
        seeds=f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed",
    )  # fmt: skip
    told = f"\nGeometric mean: {_mean(ratios)} to it, {_mean(kept)} for good.\n" if ratios else ""
    return head + "\n".join(lines) + "\n" + told + TAIL.format(seconds=seconds)


def _mean(ratios: Sequence[float]) -> str:
    """Return the geometric mean; there is none if a value was never reached."""
    return f"{statistics.geometric_mean(ratios):.1f} times as fast" if min(ratios) > 0 else "not always"


def _value(task: Task, value: float) -> str:
    return f"{100 * value:.1f} %" if task.classes else f"{-value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, help="write the section there, too")
    given = parser.parse_args()
    for name in given.only:
        python_of(WAYS[name].environment)
    for name in given.tasks:
        write(TASKS[name], given.data)
        data = rows(TASKS[name])
        say(f"{name}: {len(data.train.y)} + {len(data.val.y)} + {len(data.test.y)} rows, batches of {data.batch}")
    words = ["python -m benchmarks.time_to_quality DATA", f"--seconds {given.seconds:.0f}", f"--seeds {given.seeds}"]
    words += ["--tasks", *given.tasks] if given.tasks != list(TASKS) else []
    words += ["--only", *given.only] if given.only != list(WAYS) else []
    found: dict[tuple[str, str, int], list[Best]] = {}
    try:
        for seed in range(given.seeds):
            for name in given.tasks:
                for way in given.only:
                    found[name, way, seed] = run(way, TASKS[name], given.seconds, seed)
    finally:  # also of what was stopped
        text = section(found, " ".join(words), given.seconds)
        print(text)
        if given.out:
            given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
