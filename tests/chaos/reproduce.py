"""The same study with other numbers of workers, interrupted or not: the same trials and weights, byte for byte."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .kills import PAUSE, Figures, figures
from .oracle import OVER, Oracle, Violation, file_hashes
from .runs import SEED, SPACE, Place, Run, cleaned, start, until

# networks of the product's own: with one worker they train in the main process
OWN = SPACE.replace("family: witness:net", "family: mlp, depth: {low: 1, high: 2}").replace("epochs: 12", "epochs: 60")
SPACES = {"own model": SPACE, "mlp": OWN}


def reproduce(
    seed: int, folder: Path, trials: int, workers: Sequence[int] = (1, 2, 4), spaces: Sequence[str] = tuple(SPACES)
) -> Figures:
    """Run the same study in all these ways and compare what each leaves with what the first one left."""
    chance, started, found, runs, kills = random.Random(seed), time.monotonic(), list[Violation](), 0, 0
    for which in spaces:
        first: Mapping[str, Any] | None = None
        for count in workers:
            for interrupted in (False, True):
                where = f"{which.split()[0]}-{count}-{'killed' if interrupted else 'calm'}"
                with cleaned(Place(folder / where, SPACES[which])) as place:
                    oracle = Oracle(place, SEED)
                    if interrupted:
                        kills += _interrupt(oracle, trials, count, chance)
                    run = oracle.began(start(place, trials, count))
                    left = _left(oracle, run, where)
                runs += 1
                if first is None:
                    first = left
                oracle.found += [
                    Violation("differs", f"{where}: {key} isn't what it was with {workers[0]} worker(s)")
                    for key in sorted(first.keys() | left.keys())
                    if first.get(key) != left.get(key)
                ]
                found += oracle.found
    return figures(found, started, studies=runs, trials=trials, workers=list(workers), kills=kills)


def _interrupt(oracle: Oracle, trials: int, workers: int, chance: random.Random) -> int:
    """Kill the whole run twice, somewhere in its first two thirds; return how often that was."""
    made = 0
    for third in (1, 2):
        run = oracle.began(start(oracle.place, trials, workers, PAUSE / 2))
        until(lambda run=run, third=third: not run.alive or _ended(oracle) >= trials * third // 3 - 1, step=0.02)
        time.sleep(0.2 * chance.random())
        made += run.alive
        run.kill_group()
        oracle.after(run)
    return made


def _ended(oracle: Oracle) -> int:
    return sum(kept.state in OVER for kept in oracle.look().values())


def _left(oracle: Oracle, run: Run, where: str) -> dict[str, Any]:
    """Return what must be the same: each trial, and each file of weights."""
    if code := run.wait():
        oracle.found.append(Violation("code", f"{where}: exit code {code}: {run.text()[-500:]}"))
    oracle.after(run)
    trials = {f"trial {number}": kept.essence() for number, kept in oracle.look().items()}
    return {**trials, **file_hashes(oracle.place)}
