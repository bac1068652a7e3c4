"""What something costs: CPU seconds, wall seconds and memory of this process and of all that it starts. Linux only.

The CPU seconds of this process are the kernel's own, and so are those of processes that it started and waited for.
Nobody waits for Ray's workers before the clock stops, so a watcher, a process of its own whose costs count nowhere,
looks at the whole tree below this one ten times a second: a process that ends in between loses a tenth of a second at
most. Memory is the sum over the tree, shared pages counted once (PSS).
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOOK, WEIGH = 0.1, 0.5  # seconds between two looks at the processes, and at their memory, which takes longer
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """CPU seconds (user and system), wall seconds, and the most memory in MB."""

    cpu: float
    wall: float
    memory: float


class Clock:
    """Runs from its making to `stop`."""

    def __init__(self) -> None:
        words = [sys.executable, __file__, str(os.getpid())]
        self.watcher = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.watcher.stdout is not None
        self.watcher.stdout.readline()  # it has looked once
        self.own, self.waited_for = _spent(resource.RUSAGE_SELF), _spent(resource.RUSAGE_CHILDREN)
        self.began = time.perf_counter()

    def stop(self) -> Cost:
        wall = time.perf_counter() - self.began
        own = _spent(resource.RUSAGE_SELF) - self.own
        waited_for = _spent(resource.RUSAGE_CHILDREN) - self.waited_for
        below, memory = json.loads(self.watcher.communicate("\n")[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of this process it is known exactly
        # a process that ended is in both; the kernel's figure is the exact one and so the larger
        return Cost(own + max(waited_for, below), wall, max(peak, memory) / 1e6)


def _spent(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def watch(root: int) -> tuple[float, float]:
    """Look at the processes below one until a line comes; return their CPU seconds, and the most memory with it."""
    first: dict[tuple[int, int], float] = _below(root)
    last, memory, weighed = dict(first), _memory(root, first), time.monotonic()
    print("ready", flush=True)
    over = False
    while not over:
        over = bool(select.select([sys.stdin], [], [], LOOK)[0])
        found = _below(root)
        last |= found
        if time.monotonic() - weighed >= WEIGH:
            memory, weighed = max(memory, _memory(root, found)), time.monotonic()
    return sum(spent - first.get(process, 0.0) for process, spent in last.items()), memory


def _below(root: int) -> dict[tuple[int, int], float]:
    """Return the CPU seconds of the processes below one, this one left out, by their number and start."""
    parents, spent = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            words = path.read_text().rpartition(")")[2].split()  # after the name, which may hold anything
            pid = int(path.parent.name)
            parents[pid] = int(words[1])
            spent[pid] = (pid, int(words[19])), (int(words[11]) + int(words[12])) * TICK
    return dict(spent[pid] for pid in parents if pid != os.getpid() and _is_below(pid, root, parents))


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == root:
            return True
    return False


def _memory(root: int, below: dict[tuple[int, int], float]) -> float:
    total = 0.0
    for pid in (root, *(pid for pid, _ in below)):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]))))
