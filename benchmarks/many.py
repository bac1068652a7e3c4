"""Many workers: whether every trial is there once, what the storage is asked, and what it costs a PostgreSQL server.

    python -m benchmarks.many [--only postgresql ray told limit grown] [--trials 200]

postgresql: 200 trials of search_spaces/digits.yaml by 8 workers, one host with one of them and one with seven, on a
server that is started for it. ray: the same by 8 workers that a local Ray places. told: 32 simulated workers, each of
which only reports an epoch every half a second, for 320 trials. limit: the same, each as fast as it is answered. grown:
what a trial costs at 100 and at 10,000 trials in the study. Printed: trials in all and numbers that are there twice,
milliseconds of the study's transactions (median, 95th percentile, most), and which share of a core the server's
processes took meanwhile.

The server is of this machine's own programs (initdb, pg_ctl), on loopback, with fsync on, in the temporary folder.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.scale import SPACE, STATIONS, costs, curve
from tuner.access import Access
from tuner.doors import door
from tuner.engine import Ended
from tuner.grammar import Override, read_space
from tuner.hosting import at_door, connect
from tuner.listening import Listening
from tuner.placing import Place, placed
from tuner.planning import plan_of
from tuner.record import TrialRecord
from tuner.storage import opened
from tuner.store import Store
from tuner.tuning import conduct
from tuner.wire import Order, told_event

EVERY = 0.5  # seconds between two epochs of a simulated worker
SIMULATED = 32
WAYS = ("postgresql", "ray", "told", "limit", "grown")
WHOLE = {"budget.confirm": "false", "model.family": "mlp", "training.epochs": "12", "budget.workers": "1"}
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def server() -> Iterator[tuple[str, Callable[[], float]]]:
    """Start a PostgreSQL server; yield the URL of a database and what tells its processes' CPU seconds so far."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = places[-1] if places else Path("/usr/bin")
    account = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as probe:
        folder, port = Path(name), probe.getsockname()[1]
        folder.chmod(0o777)
        probe.close()
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([*account, programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "bench"], **quiet)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        start = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options]
        subprocess.run([*account, *start, "start"], **quiet)
        main = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        try:
            yield f"postgresql://bench@127.0.0.1:{port}/postgres", lambda: cpu_seconds(main)
        finally:
            subprocess.run([*account, *start, "-m", "immediate", "stop"], **quiet)


def cpu_seconds(main: int) -> float:
    """Return the CPU seconds of a process and of its children, those that have ended too."""
    found = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == main:
                found += sum(map(int, fields[11:15]))
            elif int(fields[1]) == main:
                found += sum(map(int, fields[11:13]))
    return found / TICKS


class Timed:
    """Times each transaction of a study in this process."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.before = Access.session

    def __enter__(self) -> Timed:
        ms, before = self.ms, self.before

        @contextmanager
        def session(access: Access) -> Iterator[Any]:
            began = time.perf_counter()
            with before(access) as found:
                yield found
            ms.append(1000 * (time.perf_counter() - began))

        Access.session = session  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Access.session = self.before  # type: ignore[method-assign]

    def told(self) -> str:
        ordered = sorted(self.ms)
        return f"{statistics.median(ordered):.1f} / {ordered[int(0.95 * len(ordered))]:.1f} / {ordered[-1]:.0f}"


def study(url: str, folder: Path, trials: int, **changes: str) -> Any:
    given = WHOLE | {"budget.trials": str(trials)} | changes
    space = read_space(SPACE, [Override(name, value, "many.py") for name, value in given.items()])
    return space, plan_of(space, url, folder)


def ended(run: Iterator[Any]) -> tuple[Counter[int], float]:
    """Run a study; return how often each trial was told to have ended, and the seconds."""
    began, found = time.perf_counter(), Counter[int]()
    for news in run:
        if isinstance(news, TrialRecord) and news.ended:
            found[news.number] += 1
    return found, time.perf_counter() - began


def row(what: str, found: Counter[int], seconds: float, timed: Timed, cpu: float, url: str, name: str) -> str:
    with opened(url, read_only=True) as rdb:
        store = Store.load(rdb, name)
        assert store is not None
        records = list(store.records())
    states = Counter(record.state for record in records)
    doubled = sum(count - 1 for count in found.values())
    said = (what, len(records), doubled, states["failed"], f"{seconds:.0f}", len(timed.ms), timed.told())
    return f"| {' | '.join(map(str, said))} | {100 * cpu / seconds:.1f} % |"


HEAD = (
    "| workers | trials | twice | failed | seconds | transactions | ms: median / 95 % / most | server, of a core |\n"
    "|---|---|---|---|---|---|---|---|"
)


def by_hosts(trials: int) -> str:
    """Run a study by 8 workers on two hosts."""
    with server() as (url, cpu), tempfile.TemporaryDirectory() as folder, door("127.0.0.1") as opening:
        _, plan = study(url, Path(folder), trials)
        # it stands for another machine, which would take no time from the study's process
        words = ["nice", "-n", "10", sys.executable, "-m", "tuner", "worker", "digits", "--workers", "7", "-q"]
        other = subprocess.Popen(words, cwd=folder, env={**os.environ, "OPTUNA_STORAGE": url})
        with Timed() as timed:
            before = cpu()
            found, seconds = ended(conduct(plan, hosts=at_door(opening)))
            used = cpu() - before
        other.wait(60)
        return row("8 on two hosts, PostgreSQL", found, seconds, timed, used, url, "digits")


def by_ray(trials: int) -> str:
    """Run a study by 8 workers that Ray places."""
    with server() as (url, cpu), tempfile.TemporaryDirectory() as folder:
        _, plan = study(url, Path(folder), trials, **{"budget.workers": "8"})
        with placed(Place(engine="ray"), plan.space.config) as hosts, Timed() as timed:
            before = cpu()
            found, seconds = ended(conduct(plan, hosts=hosts))
            used = cpu() - before
        return row("8 on a local Ray, PostgreSQL", found, seconds, timed, used, url, "digits")


class Simulated:
    """Stands for the study's own host: workers that report the epochs of a made curve, each on its own connection."""

    every = EVERY

    def __init__(self, address: Any) -> None:
        self.threads = [
            threading.Thread(target=self._work, args=(address, number), daemon=True) for number in range(SIMULATED)
        ]
        for thread in self.threads:
            thread.start()

    def check(self, here: bool, needed: bool) -> None: ...

    def close(self) -> None:
        for thread in self.threads:
            thread.join(5)

    def _work(self, address: Any, number: int) -> None:
        with suppress(OSError):
            link = connect(address)
            link.wait()
            link.send({"what": "join", "name": f"worker {number}", "slots": 1, "own": True})
            link.sock.settimeout(None)
            epochs: Any = ()
            while True:
                told, _ = link.wait()
                if told["do"] == "end":
                    return
                if told["do"] == "start":
                    order = Order.from_json(told)
                    level = 0.1 + abs(order.config.regularization.dropout - 0.2)
                    epochs = iter(curve(order.config.training.epochs, level).epochs)
                if told["do"] in ("start", "go"):
                    time.sleep(self.every)
                    link.send({"what": "trained", "id": told["id"], "epochs": [asdict(next(epochs))]})
                if told["do"] == "stop":
                    link.send(*told_event(Ended(told["id"], {"parameters": 1}, EXAMPLES, "")))


class Hurried(Simulated):
    """The same, without a pause: what the study's process is then busy with is itself."""

    every = 0.0


EXAMPLES = b""


def told_only(trials: int, workers: type[Simulated], what: str) -> str:
    """Run a study whose workers only report."""
    with server() as (url, cpu), tempfile.TemporaryDirectory() as folder, door("127.0.0.1") as opening:
        _, plan = study(url, Path(folder), trials)
        with Timed() as timed:
            before = cpu()
            run = conduct(plan, hosts=lambda data, terms, _workers, _folder: Listening(opening, data, terms, workers))
            found, began = Counter[int](), time.perf_counter()
            for news in run:
                if isinstance(news, TrialRecord) and news.ended:
                    found[news.number] += 1
                    if len(found) == trials:  # no network is there to be trained in the end
                        seconds, used = time.perf_counter() - began, cpu() - before
                        break
            run.close()
        return row(f"{SIMULATED} that only report, {what}, PostgreSQL", found, seconds, timed, used, url, "digits")


def grown(most: int) -> str:
    """Return what trials cost in a small and in a large study on a server."""
    with server() as (url, _):
        found = costs(most, 30, bare=True, url=url)
    lines = ["| trials in the study | CPU ms of a trial, median of 50 |", "|---|---|"]
    medians = []
    for count in (100, most):
        rows = slice(count - 50, count)
        medians.append(
            statistics.median(sum(each) for each in zip(*(found[name][rows] for name in STATIONS), strict=True))
        )
        lines.append(f"| {count:,} | {medians[-1]:.1f} |")
    return "\n".join([*lines, "", f"{medians[1] / medians[0]:.2f} x"])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=None)
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args(words)
    ways = given.only or WAYS
    print(HEAD, flush=True)
    for way, run in (("postgresql", by_hosts), ("ray", by_ray)):
        if way in ways:
            print(run(given.trials), flush=True)
    if "told" in ways:
        print(told_only(10 * SIMULATED, Simulated, "an epoch in half a second"), flush=True)
    if "limit" in ways:
        print(told_only(10 * SIMULATED, Hurried, "at once"), flush=True)
    if "grown" in ways:
        print(f"\n{grown(10_000)}", flush=True)


if __name__ == "__main__":
    main()
