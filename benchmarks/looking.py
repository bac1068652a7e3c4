"""How long people wait before they see something: the first output, the commands, the report, the dashboard's page.

    python benchmarks/looking.py [--rounds 5]

Needs Chromium. A study of search_spaces/digits.yaml is run in a pseudo-terminal; then it is filled up with copies of
its trials to 200, 500 and 1,000, whose values are drawn at random. Seconds by the clock: median (min to max).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tuner import dashboard, posting
from tuner.grammar import Override
from tuner.proposing import Proposer
from tuner.record import shown
from tuner.space import Space
from tuner.storage import open_storage
from tuner.store import Store
from tuner.study import open_study, space_of
from tuner.tuning import tune

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "search_spaces" / "digits.yaml"
TUNER = [sys.executable, "-m", "tuner"]
FIGURES = re.compile(rb"\d+/\d+\s.*\d\.\d")  # an epoch of a trial and its losses
ENDED = re.compile(rb"(complete|pruned): ")


def until_seen(folder: Path) -> tuple[float, float, float]:
    """Return the seconds until a run says anything, until it shows a first trial's figures, until a trial has ended."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    words = [*TUNER, "run", str(SPACE), "--trials", "3", "--studies-dir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")}
    began = time.perf_counter()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    first = figures = ended = 0.0
    said = b""
    while not ended:
        said += os.read(ours, 65536)
        now, plain = time.perf_counter() - began, re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said)
        first = first or now
        figures = figures or (now if FIGURES.search(plain) else 0.0)
        ended = now if ENDED.search(plain) else 0.0
    process.kill()
    process.wait()
    os.close(ours)
    return first, figures or ended, ended


def fill(folder: Path, space: Space, count: int) -> None:
    """Fill a study up to so many trials with copies of those that it has, under values drawn at random."""
    rdb = open_storage(f"sqlite:///{folder / 'tuner.db'}")
    store = Store.load(rdb, "digits")
    assert store is not None
    there, proposer = list(store.records()), Proposer(space, 1)
    for number in range(len(there), count):
        like = there[number % len(there)]
        proposal, suggested = proposer.propose(max(number, len(proposer.first)))
        begun = replace(like, number=number, values=proposal.values, overrides={}, label="", state="running")
        ended = replace(begun, state=like.state)
        store.begin(begun, suggested)
        store.finish(ended, {1: 0.5}, shown(ended))
    found = open_study("digits", studies_dir=folder)
    posting.Board(store).post(lambda: found.document, found.trials, last=True)
    rdb.engine.dispose()


def timed(rounds: int, work: Callable[[], object]) -> str:
    """Return how long something takes."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return told(found)


def told(found: list[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def browsed(folder: Path, rounds: int) -> str:
    """Return how long Chromium takes from its start to a drawn page of the study, less its own start."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return "- (chromium is missing)"
    rdb = open_storage(f"sqlite:///{folder / 'tuner.db'}")
    server = dashboard.listen(rdb, port=0, allow_writes=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def page(url: str) -> float:
        with tempfile.TemporaryDirectory() as profile:
            began = time.perf_counter()
            done = subprocess.run(
                [chromium, "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu",
                 f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", url],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            took = time.perf_counter() - began
        assert "studies" not in url or done.stdout.count("main-svg") >= 6, "not drawn"
        return took

    try:
        url = f"http://127.0.0.1:{server.server_port}/dashboard/studies/1"
        return told([page(url) - page("about:blank") for _ in range(rounds)])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        rdb.engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        seen = [until_seen(Path(temporary) / str(n)) for n in range(rounds + 1)][1:]  # the first one warms the disk
        print("seconds by the clock: median (min to max)")
        for what, times in zip(("output", "trial's figures", "trial that ended"), zip(*seen, strict=True), strict=True):
            print(f"  tuner run, first {what:<25}{told(times)}")
        spent = [0.0]
        post = posting.Board.post

        def watched(*words: object, **more: object) -> None:
            began = time.perf_counter()
            post(*words, **more)  # type: ignore[arg-type]
            spent[0] += time.perf_counter() - began

        posting.Board.post = watched  # type: ignore[method-assign]
        folder, began = Path(temporary) / "studies", time.perf_counter()
        study = tune(SPACE, studies_dir=folder)
        took = time.perf_counter() - began
        posting.Board.post = post  # type: ignore[method-assign]
        print(f"  keeping the figures fresh, of a study's time   {spent[0] / took:.2%} of {took:.0f} s")
        space = space_of(study, [Override("search.sampler", "random", "here")])
        fill(folder, space, 200)
        words = [*TUNER, "report", "digits", "--studies-dir", str(folder)]
        print(f"  tuner report at 200 trials                {timed(rounds, lambda: quietly(words))}, "
              f"{(folder / 'digits' / 'report.html').stat().st_size / 1e6:.1f} MB")  # fmt: skip
        fill(folder, space, 500)
        print(f"  dashboard's page at 500 trials            {browsed(folder, rounds)}")
        fill(folder, space, 1000)
        for command in (["show", "digits"], ["best", "digits"], ["list"]):
            shown_again = partial(quietly, [*TUNER, *command, "--studies-dir", str(folder)])
            print(f"  tuner {command[0]:5} at 1,000 trials               {timed(rounds, shown_again)}")


def quietly(words: list[str]) -> None:
    """Run a command, and see to it that it succeeds."""
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    main()
