"""The same fixed work by tuner and by four peers: what it costs, and that it comes to the same accuracy.

    python -m benchmarks.peers [--rounds 3] [--work W1 W2 W3] [--only tuner optuna] [--out FILE]

Trains the same configurations for the same epochs through Optuna with a plain PyTorch loop, PyTorch Lightning in
Optuna, Keras Tuner, Ray Tune and `tuner.tune`, in turn, one at a time and with one thread each; nothing is proposed and
nothing is stopped. Each peer has an environment of its own in .benchmarks, made when it is missing (5 GB and some
minutes in all); tuner runs in that of the command. Prints a Markdown section: median (min to max) over the rounds.
Linux only.

Each way also runs alone, like `.benchmarks/optuna/bin/python -m benchmarks.peers.with_optuna W1`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import OWN, ROOT, Way, python_of, say, variables
from benchmarks.peers.work import HOME, WORKS

BASE, HALVED = "tuner", "tuner-bfloat16"


@dataclass(frozen=True, slots=True)
class WorkWay(Way):
    """A way to do the works, or some of them."""

    works: tuple[str, ...] = tuple(WORKS)


WAYS = {
    BASE: WorkWay("tuner", "with_tuner", OWN),
    HALVED: WorkWay("tuner, `training.precision: bfloat16`", "with_tuner", OWN, ("--bfloat16",), ("W2",)),
    "optuna": WorkWay("Optuna, a plain PyTorch loop", "with_optuna", "optuna"),
    "lightning": WorkWay("PyTorch Lightning in Optuna", "with_lightning", "lightning"),
    "keras-tuner": WorkWay("Keras Tuner on torch", "with_keras_tuner", "keras-tuner"),
    "ray": WorkWay("Ray Tune, two at a time", "with_ray", "ray"),
}
MAKES_DATA = "optuna"  # the environment that has what the data come from

HEAD = """\
## The same work by others

    {command}

{date}; {cores} cores, one thread for every library, one way after the other, {rounds}. Every way trains the same
configurations (width and depth, or channels; dropout, learning rate, L1, L2, strength of the augmentation) of the same
networks for the same epochs on the same rows; nothing is stopped, nothing is proposed.

{works}

CPU seconds are user and system of the process and of all that it starts, after one configuration for one epoch, so that
imports and data are outside; memory is the most of all its processes together. Accuracy is that of the validation rows
after the last epoch, the mean over the configurations; each round has another seed. Median (min to max).
"""
TAIL = """\
Not equal: after each epoch `tuner` measures loss and five metrics on the validation rows and on as many training rows,
the others validation accuracy alone. Inside the clock it reads and checks the data, keeps trials and weights, and
writes a report (all its trials are complete, else the command fails); of its defaults the warm-up, the running average
of the weights and the confirmation are off. It leaves constant columns out and limits outliers. Its L1 is decoupled, of
about the same strength; its L1 and L2 spare biases. Its augmentation is of the same kind, but not the same: a shift of
whole pixels for every picture, and one change of seven for some; Keras turns and shifts batches in the model, and draws
first weights otherwise. For a network of one's own `tuner` starts a worker process, whose start and imports are inside,
and so are those of Ray and its two processes, which serve trial after trial (by default each trial has its own, which
costs far more). Progress bars, loggers and checkpoints are off where they can be.
"""


def run(name: str, work: str, seed: int, options: Sequence[str]) -> dict[str, Any]:
    """Do a work in one way; return what it tells."""
    way = WAYS[name]
    words = [
        python_of(way.environment),
        "-m",
        f"benchmarks.peers.{way.module}",
        work,
        f"--seed={seed}",
        *way.options,
        *options,
    ]
    done = subprocess.run(words, cwd=ROOT, env=variables(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {work}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    told = done.stdout.strip().splitlines()[-1]
    say(f"{name} {told}")
    result: dict[str, Any] = json.loads(told)
    return result


Found = dict[tuple[str, str], list[dict[str, Any]]]  # (work, way) -> what each round told


def section(found: Found, command: str) -> str:
    """Return the Markdown that tells all of it."""
    rounds = max(map(len, found.values()))
    works = "\n".join(_described(name, found) for name in WORKS if any(work == name for work, _ in found))
    head = HEAD.format(
        command=command, date=time.strftime("%Y-%m-%d"), cores=os.cpu_count(),
        rounds=f"{rounds} rounds" if rounds > 1 else "one round", works=works,
    )  # fmt: skip
    versions = {name: number for results in found.values() for name, number in results[-1]["versions"].items()}
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n".join((head, *table(found), "", TAIL, f"Versions: {told}."))


def _described(name: str, found: Found) -> str:
    work = WORKS[name]
    count = next(results[0]["configurations"] for (other, _), results in found.items() if other == name)
    return f"- {name}: {count} {work.what}; {work.epochs} epochs, batches of {work.batch}"


def table(found: Found) -> list[str]:
    """Return a row for each work and way."""
    halved = any(way == HALVED for _, way in found)
    titles = [
        "work",
        "way",
        "CPU seconds",
        "CPU, times `tuner`'s",
        *(["CPU, times `tuner`'s in bfloat16"] if halved else []),
    ]
    titles += ["wall seconds", "validation accuracy, %", "memory, MB"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for (work, way), results in found.items():
        cells = [work, WAYS[way].title, told([each["cpu"] for each in results], _seconds)]
        for base in (BASE, HALVED) if halved else (BASE,):
            against = found.get((work, base), []) if way != base else []
            ratios = [each["cpu"] / other["cpu"] for each, other in zip(results, against, strict=False)]
            cells.append(told(ratios, "{:.2f}".format) if ratios else "")
        cells.append(told([each["wall"] for each in results], _seconds))
        cells.append(told([100 * each["accuracy"] for each in results], "{:.2f}".format))
        cells.append(told([each["memory"] for each in results], "{:.0f}".format))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def told(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Return a median, and between which values it lies if there are several."""
    middle = form(statistics.median(values))
    return f"{middle} ({form(min(values))} to {form(max(values))})" if len(values) > 1 else middle


def command_of(given: argparse.Namespace) -> str:
    """Return the command, without what changes no figure."""
    words = ["python -m benchmarks.peers", f"--rounds {given.rounds}"]
    words += ["--work", *given.work] if given.work != list(WORKS) else []
    words += ["--only", *given.only] if given.only != list(WAYS) else []
    words += [f"--configurations {given.configurations}"] if given.configurations else []
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--configurations", type=int, help="fewer or more than each work has, to try it out")
    parser.add_argument("--out", type=Path, help="write the section there, too")
    given = parser.parse_args()
    for name in given.only:
        python_of(WAYS[name].environment)
    if not all((HOME / f"{work}.npz").exists() for work in WORKS):
        words = [python_of(MAKES_DATA), "-m", "benchmarks.peers.work"]
        subprocess.run(words, cwd=ROOT, check=True, stdout=sys.stderr)
    options = [f"--configurations={given.configurations}"] if given.configurations else []
    found: Found = {
        (work, name): [] for work in WORKS if work in given.work for name in WAYS
        if name in given.only and work in WAYS[name].works
    }  # fmt: skip
    try:
        for seed in range(given.rounds):
            for (work, name), results in found.items():
                results.append(run(name, work, seed, options))
    finally:  # also of what was stopped
        there = {key: results for key, results in found.items() if results}
        if there:
            text = section(there, command_of(given))
            print(text)
            if given.out:
                given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
