"""`python -m tests.chaos --seed 1`: every scenario in its release form.

Decides how often a release is hit, and what docs/RELIABILITY.md says of it. Each scenario's figures are kept as it
ends, so that a run that is cut off isn't lost, and one scenario can be run again by itself. Ends with 1 if anything
went wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "docs" / "reliability.json", ROOT / "docs" / "RELIABILITY.md"
_PLACE = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+")  # the folder of a file: of the machine, not of what went wrong
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A promise, the function `module:name` that tries to break it, and how often it does in a release.

    `counted` names the figure that says in how many trials nothing went wrong, `done` says what was done in words.
    """

    promise: str
    function: str
    often: Mapping[str, int]
    counted: str
    done: str
    fixed: Mapping[str, Any]

    def call(self) -> Callable[..., Figures] | None:
        """Return the function, or None where the harness doesn't have it."""
        module, _, name = self.function.partition(":")
        try:
            return getattr(importlib.import_module(module, __package__), name)
        except ModuleNotFoundError as error:
            if error.name and not error.name.endswith(module.strip(".")):
                raise
            return None


def _scenario(promise: str, function: str, often: Mapping[str, int], counted: str, done: str, **fixed: Any) -> Scenario:
    return Scenario(promise, function, often, counted, done, fixed)


SCENARIOS = {
    "workers": _scenario(
        "no acknowledged trial lost or doubled", ".kills:kill_workers", {"kills": 500}, "kills",
        "{kills} SIGKILLs of workers as they start, train and end a trial, in {studies} studies",
    ),
    "runs": _scenario(
        "a run that is killed goes on", ".kills:kill_runs", {"kills": 100}, "kills",
        "{kills} SIGKILLs of the main process, its group, or every process",
    ),
    "queue": _scenario(
        "trials that were given back are run once", ".kills:queue", {"rounds": 20}, "rounds",
        "{rounds} studies of {trials} trials, {workers} workers, stopped once; {given_back} were given back",
    ),
    "recover": _scenario(
        "a trial goes on where its worker died", ".kills:recover", {"kills": 40}, "kills",
        "{kills} kills, one at a time, of trials with epochs of a second: the next one ends after {p95} s (95 %), at "
        "most {slowest}; at most {repeated} repeated",
    ),
    "pause": _scenario(
        "who is paused lives on", ".kills:pause", {"rounds": 10}, "paused",
        "{paused} pauses of {seconds_paused} s, of a worker or of the whole run, with leases of half that",
        seconds=4.0, env={"TUNER_LEASE_SECONDS": "2"},
    ),
    "stops": _scenario(
        "Ctrl-C and SIGTERM end a run cleanly", ".kills:stop_runs", {"once": 20, "twice": 20}, "stops",
        "{stops} at random moments, {twice} of them twice; the slowest took {slowest} s",
    ),
    "points": _scenario(
        "no moment is a bad one", ".points:fault_points", {"rounds": 2}, "fired",
        "{fired} of {planned} faults at named points: killed, paused, disk full, disk broken, lock held for {hold} s",
    ),
    "disk": _scenario(
        "a full disk loses nothing", ".disk:fill_disk", {"levels": 20}, "levels",
        "{levels} levels of a disk in memory, of which {full} were too full; {paused} runs waited for room",
    ),
    "reproduce": _scenario(
        "the same weights, byte for byte", ".reproduce:reproduce", {"trials": 20}, "studies",
        "{studies} studies of {trials} trials with {workers} workers, half of them killed twice",
    ),
    "damage": _scenario(
        "a damaged database never gives a wrong answer", ".damage:damage", {"flips": 1000, "truncations": 200}, "tried",
        "{tried} ways: {right} read right, {refused} refused, {repaired} repaired, {resumed} run on",
    ),
    "cold_start": _scenario(
        "many may start at once on nothing", ".concurrency:cold_start", {"rounds": 20}, "rounds",
        "{rounds} times {processes} processes that make the database, all asking for one study",
    ),
    "crowd": _scenario(
        "many may work in one storage", ".concurrency:crowd", {"rounds": 1}, "trials",
        "SQLite: {sqlite}; PostgreSQL: {postgresql}",
    ),
    "inputs": _scenario(
        "wrong input is refused in one line", "tests.fuzz.generated:run", {"count": 100_000}, "count",
        "{count} generated files",
    ),
}  # fmt: skip


def main() -> int:
    """Run the scenarios that were asked for; tell of each as it ends."""
    ask = argparse.ArgumentParser(prog="python -m tests.chaos")
    ask.add_argument("--seed", type=int, default=int(time.time()))
    ask.add_argument("--only", action="append", choices=SCENARIOS, help="may be given several times")
    ask.add_argument("--scale", type=float, default=1.0, help="of how often each is done in a release")
    ask.add_argument("--folder", type=Path, help="where studies lie; those that went wrong stay there")
    given = ask.parse_args()
    sys.path.append(str(ROOT / "tests"))
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tuner-chaos-"))
    print(f"seed {given.seed}, studies in {folder}", flush=True)
    wrong = 0
    for name in given.only or SCENARIOS:
        wrong += _run(name, SCENARIOS[name], given.seed, given.scale, folder / name)
    return 1 if wrong else 0


def _run(name: str, scenario: Scenario, seed: int, scale: float, folder: Path) -> int:
    """Run one scenario and keep its figures; return how much went wrong."""
    function = scenario.call()
    if function is None:
        print(f"{name}: {scenario.function} isn't there", flush=True)
        return 0
    often = {key: max(1, round(scale * count)) for key, count in scenario.often.items()}
    print(f"{name}: seed {seed}, {often} ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        figures = function(seed=seed, folder=folder, **often, **scenario.fixed)
    except Exception as error:
        figures = {"violations": {"harness": 1}, "examples": [f"{type(error).__name__}: {error}"]}
    figures = {**often, **figures, "seconds": round(time.monotonic() - started, 1)}
    figures["examples"] = [_PLACE.sub("", example) for example in figures.get("examples", ())]
    _keep(name, {"figures": figures, "seed": seed, "scale": scale, **_where()})
    wrong = _wrong(figures)
    print(f"{name}: {wrong or 'nothing'} went wrong; {json.dumps(figures)}", flush=True)
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return wrong


def _wrong(figures: Figures) -> int:
    """Return how often something went wrong, by whichever name a scenario counts it."""
    found = figures.get("violations", figures.get("wrong", figures.get("faults", 0)))
    if isinstance(found, Mapping):
        return sum(found.values())
    return found if isinstance(found, int) else len(found)


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()


def _where() -> dict[str, Any]:
    """Return when and on what a scenario was run."""
    names = ("overfit-tuner", "optuna", "torch", "sqlalchemy")
    revision = _git("describe", "--always")
    if _git("status", "--porcelain", "--", ".", *(f":!{each.relative_to(ROOT)}" for each in (RESULTS, PAGE))):
        revision += "-dirty"  # but for what is written here itself
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "revision": revision,
        "versions": {**{name: version(name) for name in names}, "Python": platform.python_version(),
                     "SQLite": sqlite3.sqlite_version},
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {memory} GiB",
    }  # fmt: skip


def _keep(name: str, result: Mapping[str, Any]) -> None:
    """Keep a scenario's figures beside those of the others, and write the page anew."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[name] = result
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


def page(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Return docs/RELIABILITY.md with the figures that there are."""
    template = Path(__file__).with_name("RELIABILITY.template.md").read_text()
    rows = [_row(name, scenario, kept.get(name)) for name, scenario in SCENARIOS.items()]
    newest = max(kept.values(), key=lambda each: each["date"])
    versions = ", ".join(f"{name} {number}" for name, number in newest["versions"].items())
    titles = ("promise", "what was done", "went wrong", "so the rate is below", "seed, seconds, date, revision")
    head = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"
    table = "\n".join([head, *rows])
    return template.format(table=table, versions=versions, machine=newest["machine"], notes=_notes(kept))


def _row(name: str, scenario: Scenario, result: Mapping[str, Any] | None) -> str:
    if result is None:
        return f"| {scenario.promise} | not run (`{name}`) | | | |"
    figures, wrong = result["figures"], _wrong(result["figures"])
    times = figures.get(scenario.counted, 0)
    try:
        done = scenario.done.format(**figures)
    except KeyError:  # it came to an end before it had its figures
        done = f"`{name}` broke off"
    bound = f"{3 / times:.2g}" if times and not wrong else ""
    kinds = figures.get("violations")
    said = (
        ", ".join(f"{kind} {count}" for kind, count in kinds.items()) if isinstance(kinds, Mapping) and kinds else wrong
    )
    when = f"{result['seed']}, {figures['seconds']}, {result['date']}, {result['revision']}"
    return f"| {scenario.promise} | {done} | {said} | {bound} | {when} |"


def _notes(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the figures must not hide: faults that never happened, and what went wrong."""
    lines = []
    for name, result in kept.items():
        figures = result["figures"]
        if never := figures.get("never_fired"):
            lines.append(f"- `{name}`: {len(never)} planned faults never happened: {', '.join(never)}.")
        if unlocked := figures.get("not_locked"):
            what = "the lock couldn't be held at"
            lines.append(f"- `{name}`: {what} {', '.join(unlocked)}, where the process itself holds it.")
        if gave_up := figures.get("gave_up"):
            lines.append(
                f"- `{name}`: trials that failed, as they may, as their workers were killed more than once: {gave_up}."
            )
        examples = [" ".join(example.split())[:300] for example in figures.get("examples", ())[:5]]
        lines += [f"- `{name}` went wrong: `{example}`" for example in examples]
    if "points" in kept and not kept["points"]["figures"].get("never_fired"):
        lines.append("- Every fault that was planned at a named point happened.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
