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
from pathlib import Path
from typing import Any

from .oracle import Oracle, Told, Violation, account, counted, stored
from .runs import EPOCHS, SEED, Place, Run, cleaned, start, until

PAUSE = 0.08  # seconds of an epoch, so that a kill hits a trial in its middle and costs no one a processor
LONG = 0.12  # where half of the kills are to hit a trial that has a checkpoint: it has one after a second
EPOCH = 1.05  # where each epoch is to have a checkpoint
PHASES = ("start", "training", "training", "end")  # of a worker's life; "training" is where it is most of the time
IN_TIME = 10.0  # seconds in which a run ends that was told to
Figures = dict[str, Any]


_REFERENCES: dict[Path, dict[int, dict[str, Any]]] = {}


def reference(folder: Path, trials: int) -> Mapping[int, Mapping[str, Any]]:
    """Return what at least the first trials of the study come out as when nothing disturbs it."""
    if len(_REFERENCES.get(folder, ())) < trials:
        with cleaned(Place(folder / f"reference-{trials}")) as place:
            run = start(place, trials)
            code = run.wait()
            assert code == 0, f"the undisturbed study failed ({code}): {run.text()}"
            _REFERENCES[folder] = {number: kept.essence() for number, kept in stored(place.database).items()}
    return _REFERENCES[folder]


def figures(found: list[Violation], started: float, **counts: Any) -> Figures:
    """Return a scenario's figures: what was done, how often what went wrong, and the first examples of it."""
    examples = [f"{each.kind}: {each.text}" for each in found[:20]]
    seconds = round(time.monotonic() - started, 1)
    return {**counts, "violations": counted(found), "examples": examples, "seconds": seconds}


def kill_workers(seed: int, folder: Path, kills: int, per_study: int = 25, workers: int = 4) -> Figures:
    """Kill workers where chance wants it: while they start, train, or have just ended a trial."""
    chance, started, made, studies, found = random.Random(seed), time.monotonic(), 0, 0, list[Violation]()
    phases, gave_up = dict[str, int](), 0
    while made < kills:
        trials = 10 + 3 * min(per_study, kills - made)
        with cleaned(Place(folder / f"workers-{studies:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, trials, workers, LONG))
            for _ in range(min(per_study, kills - made)):
                phase = chance.choice(PHASES)
                if not _kill_one(oracle, run, phase, chance):
                    break
                phases[phase] = phases.get(phase, 0) + 1
                made += 1
            found += oracle.finish(run, trials, reference(folder, 10 + 3 * per_study))
            gave_up += len(oracle.gave_up)
        studies += 1
        if studies > 4 * (1 + kills // per_study):
            break  # studies end before they can be hit: the figures tell
    return figures(found, started, kills=made, wanted=kills, studies=studies, phases=phases, gave_up=gave_up)


def _kill_one(oracle: Oracle, run: Run, phase: str, chance: random.Random, spare: bool = False) -> int:
    """Kill a worker in some phase of its life; return its process, or 0 if the run ended before.

    With `spare`, none of a trial that was hit already.
    """
    delay = {"start": 2.5, "training": 8 * LONG, "end": 0.02}[phase] * chance.random()
    target = [0]

    def hit() -> bool:
        if not run.alive:
            return True
        lines, there = oracle.newest(), oracle.place.workers()
        if spare:
            lines = {pid: line for pid, line in lines.items() if line.seed not in oracle.deaths}
        young = [pid for pid in there if pid not in lines]
        training = [pid for pid in there if pid in lines and lines[pid].epoch < EPOCHS]
        ending = [pid for pid in there if pid in lines and lines[pid].epoch == EPOCHS]
        those = {"start": young, "training": training, "end": ending}[phase]
        target[0] = chance.choice(those) if those else 0
        return bool(those)

    if not until(hit, 6.0, 0.003) and not spare and (there := oracle.place.workers()):
        target[0] = chance.choice(there)
    time.sleep(delay)
    oracle.look()
    if not target[0] or not run.alive:
        return 0
    oracle.kills(target[0])
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
        until(lambda: not run.alive, 0.3 + 4.7 * chance.random())  # before that it is Python itself that starts
        return
    until(lambda: not run.alive or oracle.newest())
    if phase == "training":
        until(lambda: not run.alive, 2.5 * chance.random())
    else:
        until(lambda: not run.alive or _ended(oracle))
        time.sleep(0.03 * chance.random())
    oracle.look()


def _ended(oracle: Oracle) -> bool:
    return any(line.epoch == EPOCHS for line in oracle.newest().values())


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
    """Kill one worker at a time in a trial's middle, whose epochs take a second; measure how long until the end of its
    next one, and how many are repeated.
    """
    chance, started, found = random.Random(seed), time.monotonic(), list[Violation]()
    delays, repeats, gave_up = list[float](), list[int](), 0
    for study in range(-(-kills // per_study)):
        part = min(per_study, kills - study * per_study)
        trials = 2 * part + 4
        with cleaned(Place(folder / f"recover-{study:03d}")) as place:
            oracle = Oracle(place, SEED)
            run = oracle.began(start(place, trials, 2, EPOCH))
            for _ in range(2 * part):  # some come too late for their trial
                if len(delays) == study * per_study + part:
                    break
                pid = _kill_one(oracle, run, "training", chance, spare=True)
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
                repeats.append(before - after[0].epoch)
            run.signal(signal.SIGINT)  # what is left needn't take as long
            run.wait()
            oracle.after(run)
            found += oracle.finish(oracle.began(start(place, trials, 2)), trials, reference(folder, 2 * per_study + 4))
            gave_up += len(oracle.gave_up)
    return figures(
        found, started, kills=len(delays), wanted=kills, p95=_p95(delays), slowest=round(max(delays, default=0.0), 2),
        repeated=max(repeats, default=0), gave_up=gave_up,
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
            until(lambda run=run, oracle=oracle: not run.alive or oracle.newest())
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
