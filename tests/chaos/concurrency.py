"""Many processes in one storage: started at once on nothing, and writing at once.

Each speaks to the store itself, as a run does, without training anything: what is tried is who makes the tables, who
gets a study that several want, and whether what many write at once is all there. Read afterwards by plain SQL.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from postgres import running

Figures = dict[str, Any]
STEPS = 10  # intermediate values of a trial, written half while it runs and half at its end
PROCESS = """
import json, sys
from optuna.distributions import FloatDistribution
from tuner.errors import StorageError
from tuner.lease import this_process
from tuner.record import StudyRecord, TrialRecord
from tuner.storage import open_storage
from tuner.store import Store

def study(rdb, name):
    record = StudyRecord(name, "", "/", {}, "log_loss", 0, {}, "f", "t", {}, "2026-01-01")
    try:
        return Store.load(rdb, name) or Store.create(rdb, record, {})
    except StorageError:
        found = Store.load(rdb, name)
        if found is None:
            raise
        return found

def work(url, own, shared, trials):
    rdb = open_storage(url, create=True)
    got = bool(shared) and study(rdb, shared).take(this_process()) is None
    store = study(rdb, own)
    assert store.take(this_process()) is None
    for number in range(trials):
        store.begin(TrialRecord(number, "running", {"x": 0.5}, 0), {"x": (0.5, FloatDistribution(0, 1))})
        store.progress(number, dict.fromkeys(range(STEPS // 2), 0.5))
        ended = TrialRecord(number, "complete", {"x": 0.5}, 0)
        assert store.finish(ended, dict.fromkeys(range(STEPS // 2, STEPS), 0.5), {"seen": 1})
    store.leave()
    rdb.scoped_session.remove()
    rdb.engine.dispose()
    return got

print("ready", flush=True)
for line in sys.stdin:
    try:
        told = {"got": work(*json.loads(line))}
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), flush=True)
""".replace("STEPS", str(STEPS))


@contextmanager
def _processes(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Hold processes that have loaded what they need and wait for work."""
    command = [sys.executable, "-c", PROCESS]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    found = [subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes) for _ in range(count)]
    try:
        for process in found:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a process of the harness didn't start")
        yield found
    finally:
        for process in found:
            process.kill()
            process.communicate()


def _at_once(processes: Sequence[subprocess.Popen[str]], url: str, shared: str, trials: int) -> list[dict[str, Any]]:
    """Let all work at the same moment, each in a study of its own; return what they say."""
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(json.dumps([url, f"own-{number}", shared, trials]) + "\n")
        process.stdin.flush()
    lines = [process.stdout.readline() for process in processes if process.stdout is not None]
    return [json.loads(line) if line else {"error": "it died"} for line in lines]


def _lost(url: str, processes: int, trials: int) -> int:
    """Return how many trials aren't there whole, once and under the next number of their study."""
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    values = "SELECT COUNT(*) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id"
    query = (
        f"SELECT s.study_name, t.number FROM trials t JOIN studies s ON s.study_id = t.study_id "
        f"WHERE t.state = 'COMPLETE' AND ({values}) = {STEPS}"
    )
    with engine.connect() as connection:
        whole = Counter(tuple(row) for row in connection.execute(sqlalchemy.text(query)))
        (there,) = connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM trials")).one()
    engine.dispose()
    wanted = {(f"own-{process}", number) for process in range(processes) for number in range(trials)}
    right = sum(whole[each] == 1 for each in wanted)
    return len(wanted) - right + abs(int(there) - len(wanted))


def _told(errors: Sequence[str], **counts: int) -> Figures:
    found = Counter({name: count for name, count in counts.items() if count})
    found.update("locked" if "locked" in error or "lock timeout" in error else "died" for error in errors)
    return {"violations": dict(found), "examples": sorted(set(errors))[:5]}


def cold_start(seed: int, folder: Path, rounds: int, processes: int = 16) -> Figures:
    """Let processes open a database that isn't there at the same moment, and all ask for one study: each makes a study
    of its own and a trial in it, and one of them gets the study that all want.
    """
    errors, torn, lost, began = list[str](), 0, 0, time.monotonic()
    with _processes(processes) as there:
        for number in range(rounds):
            place = folder / f"round-{number}"
            place.mkdir(parents=True)
            url = f"sqlite:///{place / 'tuner.db'}"
            said = _at_once(there, url, "shared", 1)
            errors += [each["error"] for each in said if "error" in each]
            torn += sum(each.get("got", False) for each in said) != 1
            lost += _lost(url, processes, 1)
    told = _told(errors, lost=lost, not_held_by_one=torn)
    return {"rounds": rounds, "processes": processes, "seconds": round(time.monotonic() - began, 1), **told}


def crowd(
    seed: int, folder: Path, rounds: int = 1, sqlite: tuple[int, int] = (8, 100), server: tuple[int, int] = (32, 50)
) -> Figures:
    """Let processes write trials at once, so many and so many trials each: in a SQLite file, and on a PostgreSQL server
    where one can be started.
    """
    done, errors, lost = dict[str, Any](), list[str](), 0
    for number in range(rounds):
        folder.mkdir(parents=True, exist_ok=True)
        found = write_at_once(f"sqlite:///{folder / f'crowd-{number}.db'}", *sqlite)
        done["sqlite"], lost, errors = found[0], lost + found[1], errors + found[2]
        try:
            with running() as postgres:
                found = write_at_once(postgres.new(), *server)
        except LookupError as error:
            done["postgresql"] = f"not run: {error}"
            continue
        done["postgresql"], lost, errors = found[0], lost + found[1], errors + found[2]
    written = rounds * (math.prod(sqlite) + ("not run" not in done["postgresql"]) * math.prod(server))
    return {"rounds": rounds, "trials": written, **done, **_told(errors, lost=lost)}


def write_at_once(url: str, processes: int, trials: int) -> tuple[str, int, list[str]]:
    """Let processes write trials at once; return what was done, how many trials are lost, and the errors."""
    with _processes(processes) as there:
        began = time.monotonic()
        said = _at_once(there, url, "", trials)
        seconds = time.monotonic() - began
    lost = _lost(url, processes, trials)
    done = f"{processes} processes x {trials} trials in {seconds:.1f} s"
    return done, lost, [each["error"] for each in said if "error" in each]
