"""What the program itself costs per trial as a study grows, and how much two workers do of what one does.

    python benchmarks/scale.py [--trials 10 100 1000 10000] [--epochs 30] [--rounds 3] [--bare]

The cost: a study in SQLite is filled with finished trials of a given curve, without any training, by the calls that a
study makes: propose, begin, finish, tell; with its ledger, and held by a process (not so with --bare). Printed are CPU
milliseconds of this process for the last trials before each size (median, and the spread), by station; the database
lies on the disk that holds temporary files. The space is search_spaces/digits.yaml (9 values, two of them with
`or: 0`).

The workers: the same 24 trials of search_spaces/digits.yaml, each with 20 epochs, by one worker and by two, in turn;
printed is how many times the throughput two have, from the first epoch that ends to the last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuner.config import min_epochs
from tuner.curve import Curve, Epoch, Measure, Standing
from tuner.grammar import Override, read_space
from tuner.lease import this_process
from tuner.ledger import LEDGER
from tuner.planning import plan_of
from tuner.proposing import Proposer, trial_seed
from tuner.record import StudyRecord, TrialRecord, shown
from tuner.scoring import score, score_at
from tuner.stopping import finished
from tuner.storage import open_storage
from tuner.store import Store
from tuner.tuning import conduct

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "search_spaces" / "digits.yaml"
LAST = 50  # trials before each size that are looked at
STATIONS = ("propose", "begin", "finish", "tell")
WHOLE = {
    "budget.trials": "24", "budget.confirm": "false", "stopping": "none", "search.sampler": "random",
    "search.first_trials": "false", "training.epochs": "20", "model.family": "mlp",
}  # fmt: skip


def curve(epochs: int, level: float) -> Curve:
    """Return a curve that falls to `level`."""
    found, standing = Curve(epochs, min_epochs(epochs), 2.3, 360, 360), None
    for number in range(1, epochs + 1):
        loss = level + 2.0 * 0.8**number
        standing = Standing.after(standing, number, loss, found.first)
        names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
        measures = (Measure(value, dict.fromkeys(names, 0.9123456)) for value in (0.7 * loss, loss))
        found = found.then(Epoch(number, *measures, 0.01, 0.02, 0.0, 0.0, 0.05, standing))
    return found


def costs(trials: int, epochs: int, bare: bool, url: str | None = None) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each station for each trial, in a storage or a file of SQLite."""
    space = read_space(SPACE)
    rule = space.config.score
    found: dict[str, list[float]] = {name: [] for name in STATIONS}

    def timed(name: str, work, *arguments):
        started = time.process_time()
        result = work(*arguments)
        found[name].append(1000 * (time.process_time() - started))
        return result

    with tempfile.TemporaryDirectory() as folder:
        rdb = open_storage(url or f"sqlite:///{folder}/tuner.db", create=True)
        study = StudyRecord("digits", "", "", space.identity(), "log_loss", 0, {}, "", "", {}, "")
        book = None if bare else Path(folder) / LEDGER
        store, proposer = Store.create(rdb, study, {}, book), Proposer(space, 0)
        if not bare:
            store.take(this_process())
        for number in range(trials):
            proposal, suggested = timed("propose", proposer.propose, number)
            record = TrialRecord(number, "running", proposal.values, trial_seed(0, number), proposal.label)
            timed("begin", store.begin, record, suggested)
            run = curve(epochs, abs(proposal.values["regularization.dropout"] - 0.2) + 0.1)
            record = replace(
                record, state="complete", curve=run, score=score(run, rule, "log_loss"), verdict=finished(run)
            )
            values = {step: score_at(run, step, rule, "log_loss").value for step in range(1, epochs + 1)}
            timed("finish", store.finish, record, values, shown(record))
            timed("tell", proposer.tell, record)
    return found


def told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def seconds(workers: int) -> float:
    """Return how long the trials take with so many worker processes, without what comes before and after them."""
    given = WHOLE | {"budget.workers": str(workers)}
    space = read_space(SPACE, [Override(name, value, "scale.py") for name, value in given.items()])
    with tempfile.TemporaryDirectory() as folder:
        times = [  # of epochs that end, when the workers have started
            time.perf_counter()
            for news in conduct(plan_of(space, studies_dir=Path(folder)))
            if isinstance(news, TrialRecord) and news.curve is not None and len(news.curve)
        ]
    return times[-1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="without a ledger, a lease and the workers")
    given = parser.parse_args()
    found = costs(max(given.trials), given.epochs, given.bare)
    print(f"CPU ms per trial of {given.epochs} epochs, the last {LAST} of so many: median (min to max)\n")
    print(f"| trials | {' | '.join(STATIONS)} | in all |\n|---|{'---|' * (len(STATIONS) + 1)}")
    for count in given.trials:
        rows = slice(max(0, count - LAST), count)
        parts = [found[name][rows] for name in STATIONS]
        print(
            f"| {count} | {' | '.join(map(told, parts))} | {told([sum(each) for each in zip(*parts, strict=True)])} |"
        )
    if given.bare:
        return
    pairs = [(seconds(1), seconds(2)) for _ in range(given.rounds)]
    ratios = [one / two for one, two in pairs]
    alone, both = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"\n24 trials: {alone:.1f} s with one worker, {both:.1f} s with two; throughput x "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
