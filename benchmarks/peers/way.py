"""What all ways have in common: their arguments, what comes before the clock, and the line that tells the result."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch

from benchmarks.peers.clock import Clock
from benchmarks.peers.work import WORKS, Configuration, Data, Work, configurations, data


@dataclass(frozen=True, slots=True)
class Job:
    """What a way is asked to do. The seed is that of weights, order and dropout; the configurations stay the same."""

    work: Work
    configurations: Sequence[Configuration]
    data: Data
    seed: int


Search = Callable[[Job], list[float]]  # to the validation accuracy of each configuration after its last epoch


def arguments(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--configurations", type=int, help="fewer or more than the work has")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def measure(
    given: argparse.Namespace, search: Search, packages: Sequence[str], after: Callable[[], object] = lambda: None
) -> None:
    """Do the work that the arguments name, and print what it cost as one line of JSON.

    One configuration is trained for one epoch before the clock runs, so that what a library imports when it is first
    used, and the data, count for none of the ways. `after` is what a way does when the clock has stopped.
    """
    torch.set_num_threads(1)
    work = WORKS[given.work]
    chosen = configurations(work, given.configurations or work.configurations)
    job = Job(work, chosen, data(work), given.seed)
    search(replace(job, work=replace(work, epochs=1), configurations=chosen[:1]))
    after()
    clock = Clock()
    found = search(job)
    cost = clock.stop()
    after()
    if len(found) != len(chosen):
        raise SystemExit(f"{len(found)} configurations were trained, not {len(chosen)}")
    result = {
        "work": work.name, "cpu": round(cost.cpu, 3), "wall": round(cost.wall, 3), "memory": round(cost.memory),
        "accuracy": round(statistics.mean(found), 5), "accuracies": [round(each, 4) for each in found],
        "configurations": len(found), "epochs": work.epochs,
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in ("torch", *packages)},
    }  # fmt: skip
    print(json.dumps(result), flush=True)
