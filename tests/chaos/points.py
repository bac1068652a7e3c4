"""Faults at the points that the product names, each with each action: killed, paused, a disk that fails, a lock held.

Decides how often a point is passed before its fault happens. A fault that was planned and never happened is told.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.faults import GO, POINTS, WAIT

from .kills import PAUSE, Figures, figures, reference
from .oracle import OVER, Oracle, Violation
from .runs import EPOCHS, SEED, Place, Run, cleaned, start, until

ACTIONS = ("kill9", "stop", "enospc", "eio", WAIT)
IN_WORKERS = ("before_epoch", "before_checkpoint", "in_checkpoint", "after_checkpoint")
OFTEN = {"before_write": 10, "in_write": 10, "after_write": 10, "before_epoch": EPOCHS}  # passed many times in a trial
STOPPED = 1.5  # seconds from SIGSTOP to SIGCONT
SLOW = 0.2  # seconds of an epoch: a trial takes more than two, so that it has checkpoints, one a second
GIVE_UP = 40.0  # seconds in which a fault has shown what it does


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens where, the how manieth time a process comes by."""

    point: str
    times: int
    action: str

    def __str__(self) -> str:
        return f"{self.point}:{self.times}:{self.action}"

    @property
    def ends(self) -> bool:
        """Whether it may end the run. An error of the disk may also make it wait, and go on."""
        return self.point not in IN_WORKERS and self.action not in ("stop", WAIT)


@dataclass
class Marks:
    """The folder in which each fault leaves a file as it happens."""

    folder: Path
    met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def env(self, faults: Sequence[Fault]) -> dict[str, str]:
        return {"TUNER_FAULT": ",".join(map(str, faults)), "TUNER_FAULT_MARKS": str(self.folder)}

    def there(self, fault: Fault) -> bool:
        return (self.folder / str(fault)).exists()

    def new(self, faults: Sequence[Fault]) -> Iterator[Fault]:
        """Yield the faults that have happened and weren't told yet."""
        for fault in faults:
            if str(fault) not in self.met and self.there(fault):
                self.met.add(str(fault))
                yield fault


def fault_points(
    seed: int, folder: Path, rounds: int, hold: float = 10.0, points: Sequence[str] = POINTS,
    actions: Sequence[str] = ACTIONS, per_study: int = 8,
) -> Figures:  # fmt: skip
    """Have every action happen at every point, once a round; those that end a run one a run, the others together."""
    chance, started, found = random.Random(seed), time.monotonic(), list[Violation]()
    planned, never, failed, gave_up, unlocked = list[Fault](), list[str](), 0, 0, list[str]()
    for each in range(rounds):
        faults = list(_planned(points, actions, chance))
        chance.shuffle(faults)
        # what no code passes would only be waited for
        never += [str(fault) for fault in faults if not _is_placed(fault.point)]
        planned += [fault for fault in faults if not _is_placed(fault.point)]
        placed = [fault for fault in faults if _is_placed(fault.point)]
        ending, passing = [f for f in placed if f.ends], [f for f in placed if not f.ends]
        for part in range(0, max(len(ending), len(passing)), per_study):
            plan = (ending[part : part + per_study], _early(passing[part : part + per_study]))
            planned += [*plan[0], *plan[1]]
            trials = 4 * (len(plan[0]) + len(plan[1]) + 1)
            with cleaned(Place(folder / f"points-{each:02d}-{part:02d}")) as place:
                oracle, marks = Oracle(place, SEED), Marks(place.folder / "marks")
                for fault in plan[0]:
                    _end(oracle, marks, fault, trials)
                run = oracle.began(start(place, trials, 2, SLOW, marks.env(plan[1])))
                unlocked += _pass(oracle, marks, run, plan[1], hold)
                if plan[1] and run.wait() not in (0,):
                    oracle.found.append(Violation("code", f"{[*map(str, plan[1])]}: {run.text()[-800:]}"))
                    oracle.after(run)
                    run = oracle.began(start(place, trials))
                told = oracle.finish(run, trials, reference(folder, 8 * per_study + 4))
                # whoever trains can do nothing when its own epoch fails but say so
                wanted = [v for v in told if v.kind == "failed" and "before_epoch" in v.text and "as planned" in v.text]
                failed, gave_up = failed + len(wanted), gave_up + len(oracle.gave_up)
                found += [violation for violation in told if violation not in wanted]
                never += [str(fault) for fault in (*plan[0], *plan[1]) if not marks.there(fault)]
    return figures(
        found, started, planned=len(planned), fired=len(planned) - len(never), never_fired=sorted(never),
        trials_failed_as_planned=failed, gave_up=gave_up, not_locked=sorted(unlocked), hold=hold,
    )  # fmt: skip


def _planned(points: Sequence[str], actions: Sequence[str], chance: random.Random) -> Iterator[Fault]:
    """Yield a fault for each point and action; at one point no two at the same time that it is passed."""
    for point in points:
        times = chance.sample(range(1, 1 + max(OFTEN.get(point, 0), len(actions))), len(actions))
        yield from (Fault(point, *each) for each in zip(times, actions, strict=True))


def _early(faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults of one study, those in checkpoints at the first times: workers that are killed have few."""
    seen, found = Counter[str](), list[Fault]()
    for fault in faults:
        seen[fault.point] += 1
        found.append(replace(fault, times=seen[fault.point]) if "checkpoint" in fault.point else fault)
    return found


def _is_placed(point: str) -> bool:
    """Tell whether the product passes a point anywhere."""
    import tuner

    source = Path(tuner.__file__).parent.rglob("*.py")
    return any(f'point("{point}")' in path.read_text() for path in source)


def _end(oracle: Oracle, marks: Marks, fault: Fault, trials: int) -> None:
    """Run until a fault has ended the run, or it has gone on after the fault and is stopped."""
    run = oracle.began(start(oracle.place, trials, 2, PAUSE / 2, marks.env([fault])))
    until(lambda: not run.alive or marks.there(fault), step=0.02)
    before = _ended(oracle)
    if not until(lambda: not run.alive or _ended(oracle) > before + 2, GIVE_UP, 0.05):
        oracle.found.append(
            Violation("hangs", f"{fault}: neither ended nor went on in {GIVE_UP} s: {run.text()[-500:]}")
        )
    went_on = run.alive
    run.signal(signal.SIGINT)
    code = run.wait()
    expected = {137} if fault.action == "kill9" else {4, 130} if went_on else {4}
    if marks.there(fault) and code not in expected:
        oracle.found.append(Violation("code", f"{fault}: exit code {code}: {run.text()[-800:]}"))
    oracle.after(run)


def _ended(oracle: Oracle) -> int:
    return sum(kept.state in OVER for kept in oracle.look().values())


def _pass(oracle: Oracle, marks: Marks, run: Run, faults: Sequence[Fault], hold: float) -> list[str]:
    """Do what each fault needs done to it until the run ends; return those at which the lock couldn't be held."""
    unlocked = list[str]()
    while run.alive and len(marks.met) < len(faults):
        for fault in marks.new(faults):
            if fault.action == "stop":
                time.sleep(STOPPED)
                _go_on(oracle.place)
            elif fault.action == "kill9":
                until(oracle.died, 5.0)
            elif fault.action == WAIT and not _hold(oracle.place.database, marks.folder / f"{fault}{GO}", hold):
                unlocked.append(str(fault))
        time.sleep(0.01)
    return unlocked


def _go_on(place: Place) -> None:
    for pid in place.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _hold(database: Path, go: Path, seconds: float) -> bool:
    """Hold the database's lock while whoever waits goes on; False if who waits holds it itself."""
    with closing(sqlite3.connect(database, timeout=1.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        finally:
            go.touch()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        return True
