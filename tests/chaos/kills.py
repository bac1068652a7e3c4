"""Scenarios of kills, signals and pauses. Each takes a seed, a folder and how often, and returns its figures.

Decides when whom what hits, by the seed alone as far as a clock allows; the oracle says what became of it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from .oracle import Oracle, Told, Violation, account, counted, stored
from .runs import EPOCHS, SEED, SPACE, Place, Run, cleaned, no_orphans, start, until

PAUSE = 0.08  # seconds of an epoch, so that a kill hits a trial in its middle and costs no one a processor
PHASES = ("start", "training", "training", "end")  # of a worker's life; "training" is where it is most of the time
IN_TIME = 10.0  # seconds in which a run ends that was told to
Figures = dict[str, Any]


@lru_cache(maxsize=8)
def reference(folder: Path, trials: int, space: str = SPACE) -> Mapping[int, Mapping[str, Any]]:
    """Return what the first trials of the study come out as when nothing disturbs it."""
    with cleaned(Place(folder / f"reference-{trials}-{abs(hash(space))}", space)) as place:
        run = start(place, trials)
        code = run.wait()
        assert code == 0, f"the undisturbed study failed ({code}): {run.text()}"
        return {number: kept.essence() for number, kept in stored(place.database).items()}


def figures(found: list[Violation], started: float, **counts: Any) -> Figures:
    """Return a scenario's figures: what was done, how often what went wrong, and the first examples of it."""
    examples = [f"{each.kind}: {each.text}" for each in found[:20]]
    seconds = round(time.monotonic() - started, 1)
    return {**counts, "violations": counted(found), "examples": examples, "seconds": seconds}


def last_lines(place: Place, since: int) -> dict[int, Told]:
    """Return the newest line of each process since a place in the account."""
    return {line.pid: line for line in account(place.account, since)}


def kill_workers(seed: int, folder: Path, kills: int, per_study: int = 25, workers: int = 4) -> Figures:
    """Kill workers where chance wants it: while they start, train, or have just ended a trial."""
    chance, started, made, studies, found = random.Random(seed), time.monotonic(), 0, 0, list[Violation]()
    phases: dict[str, int] = {}
    while made < kills:
        trials = 10 + 3 * min(per_study, kills - made)
        with cleaned(Place(folder / f"workers-{studies:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, trials, workers, PAUSE))
            for _ in range(min(per_study, kills - made)):
                phase = chance.choice(PHASES)
                if not _kill_one(oracle, run, phase, chance):
                    break
                phases[phase] = phases.get(phase, 0) + 1
                made += 1
            found += oracle.finish(run, trials, reference(folder, 10 + 3 * per_study))
        studies += 1
        if studies > 4 * (1 + kills // per_study):
            break  # studies end before they can be hit: the figures tell
    return figures(found, started, kills=made, wanted=kills, studies=studies, phases=phases)


def _kill_one(oracle: Oracle, run: Run, phase: str, chance: random.Random) -> int:
    """Kill a worker in some phase of its life; return its process, or 0 if the run ended before."""
    delay = {"start": 2.5, "training": 2 * PAUSE, "end": 0.02}[phase] * chance.random()
    target = [0]

    def hit() -> bool:
        if not run.alive:
            return True
        lines, there = last_lines(oracle.place, run.account), oracle.place.workers()
        young = [pid for pid in there if pid not in lines]
        training = [pid for pid in there if pid in lines and lines[pid].epoch < EPOCHS]
        ending = [pid for pid in there if pid in lines and lines[pid].epoch == EPOCHS]
        those = {"start": young, "training": training, "end": ending}[phase]
        target[0] = chance.choice(those) if those else 0
        return bool(those)

    if not until(hit, 6.0, 0.003) and (there := oracle.place.workers()):
        target[0] = chance.choice(there)
    time.sleep(delay)
    oracle.look()
    if not target[0] or not run.alive:
        return 0
    oracle.killed.add(target[0])
    with suppress(ProcessLookupError):
        os.kill(target[0], signal.SIGKILL)
    return target[0]


def kill_runs(seed: int, folder: Path, kills: int, per_study: int = 10, workers: int = 2) -> Figures:
    """Kill runs at random times, their main process, its group or every process; and run the same command again."""
    chance, started, found, made = random.Random(seed), time.monotonic(), list[Violation](), 0
    whom = {"main": lambda run: run.process.kill(), "group": Run.kill_group, "all": Run.kill_all}
    phases: dict[str, int] = {}
    for study in range(-(-kills // per_study)):
        trials = 4 * min(per_study, kills - made) + 2
        with cleaned(Place(folder / f"runs-{study:03d}")) as place:
            oracle = Oracle(place, SEED)
            for _ in range(min(per_study, kills - made)):
                run = oracle.began(start(place, trials, workers, PAUSE))
                phase, victim = chance.choice(("start", "training", "training", "writing")), chance.choice([*whom])
                _await_phase(oracle, run, phase, chance)
                made += run.alive
                whom[victim](run)
                run.process.wait()
                phases[phase] = phases.get(phase, 0) + 1
                oracle.after(run)
            run = oracle.began(start(place, trials, workers))
            found += oracle.finish(run, trials, reference(folder, 4 * per_study + 2))
    return figures(found, started, kills=made, wanted=kills, phases=phases)


def _await_phase(oracle: Oracle, run: Run, phase: str, chance: random.Random) -> None:
    """Wait for a random moment of a run: while it starts, while it trains, or while it writes how a trial ended."""
    if phase == "start":
        until(lambda: not run.alive, 5.0 * chance.random())
        return
    until(lambda: not run.alive or last_lines(oracle.place, run.account))
    if phase == "training":
        until(lambda: not run.alive, 2.5 * chance.random())
    else:
        until(lambda: not run.alive or _ended(oracle.place, run))
        time.sleep(0.03 * chance.random())
    oracle.look()


def _ended(place: Place, run: Run) -> bool:
    return any(line.epoch == EPOCHS for line in last_lines(place, run.account).values())


def stop_runs(seed: int, folder: Path, once: int, twice: int, per_study: int = 10, workers: int = 2) -> Figures:
    """Send Ctrl-C or SIGTERM at random moments, once or twice: the run ends in time, and the same command goes on."""
    chance, started, found, slowest, made = random.Random(seed), time.monotonic(), list[Violation](), 0.0, 0
    times = [1] * once + [2] * twice
    chance.shuffle(times)
    for study in range(0, len(times), per_study):
        part = times[study : study + per_study]
        trials = 4 * len(part) + 2
        with cleaned(Place(folder / f"stops-{study:03d}")) as place:
            oracle = Oracle(place, SEED)
            for count in part:
                run = oracle.began(start(place, trials, workers, PAUSE))
                phase = chance.choice(("start", "training", "training", "writing"))
                _await_phase(oracle, run, phase, chance)
                sign = chance.choice((signal.SIGINT, signal.SIGTERM))
                made += run.alive
                began = time.monotonic()
                for which in range(count):
                    run.signal(sign)
                    if which + 1 < count:
                        until(lambda run=run: not run.alive, chance.random() ** 2)
                code = run.wait(3 * IN_TIME)
                took = time.monotonic() - began
                slowest = max(slowest, took)
                where = f"{sign.name} x{count} in {phase} of run {len(oracle.runs)}"
                if took > IN_TIME:
                    found.append(Violation("slow", f"{where}: ended after {took:.1f} s"))
                if code not in (128 + sign, 0):
                    found.append(Violation("code", f"{where}: exit code {code}: {run.text()[-500:]}"))
                oracle.after(run)
                if phase != "start" and any(kept.state == "RUNNING" for kept in oracle.look().values()):
                    found.append(Violation("left", f"{where}: a trial is left RUNNING"))
            run = oracle.began(start(place, trials, workers))
            found += oracle.finish(run, trials, reference(folder, 4 * per_study + 2))
    return figures(found, started, stops=made, wanted=once + twice, twice=twice, slowest=round(slowest, 2))


def queue(seed: int, folder: Path, rounds: int, trials: int = 200, workers: int = 8) -> Figures:
    """Give trials back to be run again, and have many workers take them: each is trained to its end once."""
    chance, started, found, given = random.Random(seed), time.monotonic(), list[Violation](), 0
    for each in range(rounds):
        with cleaned(Place(folder / f"queue-{each:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, trials, workers))
            most = chance.randrange(trials // 8, 1 + trials // 2)
            until(lambda run=run, place=place, most=most: not run.alive or _begun(place) >= most)
            run.signal(signal.SIGINT)
            run.wait()
            oracle.after(run)
            given += sum(kept.state == "WAITING" for kept in oracle.look().values())
            again = oracle.began(start(place, trials, workers))
            found += oracle.finish(again, trials, reference(folder, trials))
    return figures(found, started, rounds=rounds, trials=trials, workers=workers, given_back=given)


def _begun(place: Place) -> int:
    return len({line.seed for line in account(place.account)})


def recover(seed: int, folder: Path, kills: int, per_study: int = 10) -> Figures:
    """Kill one worker at a time in a trial's middle; measure how long until its next epoch, and what is repeated."""
    chance, started, found = random.Random(seed), time.monotonic(), list[Violation]()
    delays, repeats = list[float](), list[int]()
    for study in range(-(-kills // per_study)):
        part = min(per_study, kills - study * per_study)
        trials = 10 * part + 10
        with cleaned(Place(folder / f"recover-{study:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, trials, 2, PAUSE))
            for _ in range(part):
                pid = _kill_one(oracle, run, "training", chance)
                at = time.monotonic()
                lines = [line for line in account(place.account) if line.pid == pid]
                if not lines or lines[-1].epoch == EPOCHS:
                    continue
                before = max(line.epoch for line in lines if line.seed == lines[-1].seed)
                after = _await_next(oracle, run, lines[-1])
                if not after:
                    found.append(Violation("lost", f"the trial of {lines[-1]} wasn't run again"))
                    continue
                delays.append(after[-1].time - at)
                repeats.append(before - after[0].epoch + (1 if after[0].begun else 0) - 1)
            found += oracle.finish(run, trials, reference(folder, 10 * per_study + 10))
    return figures(
        found, started, kills=len(delays), wanted=kills, p95=_p95(delays), slowest=round(max(delays, default=0.0), 2),
        repeated=max(repeats, default=0),
    )  # fmt: skip


def _await_next(oracle: Oracle, run: Run, dead: Told) -> list[Told]:
    """Return what a killed worker's trial tells until its first epoch is over, in whoever trains it then."""

    def told() -> list[Told]:
        lines = account(oracle.place.account, dead.place)
        return [line for line in lines if line.seed == dead.seed and line.pid != dead.pid]

    until(lambda: not run.alive or any(not line.begun for line in told()), 60.0)
    lines = told()
    ends = [index for index, line in enumerate(lines) if not line.begun]
    return lines[: ends[0] + 1] if ends else []


def _p95(values: list[float]) -> float | None:
    return round(sorted(values)[max(0, -(-95 * len(values) // 100) - 1)], 2) if values else None


def pause(seed: int, folder: Path, rounds: int, seconds: float = 4.0, env: Mapping[str, str] | None = None) -> Figures:
    """Stop a worker, or the whole run, for two leases, and let it go on: it lives, and no trial has two ends."""
    chance, started, found, paused = random.Random(seed), time.monotonic(), list[Violation](), 0
    for each in range(rounds):
        with cleaned(Place(folder / f"pause-{each:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, 8, 2, PAUSE, env))
            until(lambda run=run, place=place: not run.alive or last_lines(place, run.account))
            time.sleep(2 * PAUSE * chance.random())
            workers = place.workers()
            whom = chance.choice(([chance.choice(workers)], [*place.processes()])) if workers else []
            for pid in whom:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            gone = [pid for pid in whom if pid not in place.processes()]
            for pid in set(whom) - set(gone):
                os.kill(pid, signal.SIGCONT)
            paused += bool(whom)
            if gone:
                found.append(Violation("died", f"{gone} of {whom} didn't live through a pause of {seconds} s"))
            found += oracle.finish(run, 8, reference(folder, 8))
    return figures(found, started, rounds=rounds, paused=paused, seconds_paused=seconds)


__all__ = ["Figures", "figures", "kill_runs", "kill_workers", "no_orphans", "pause", "queue", "recover", "stop_runs"]
