"""What the program itself costs per trial: propose, begin, finish and tell, in SQLite, without any training.

    python benchmarks/overhead.py [--trials 1000] [--epochs 30]

Fills a study with finished trials of a given curve and times the last 50: CPU milliseconds of this process (median,
and the spread), by station. The space is search_spaces/digits.yaml (9 values, two of them with `or: 0`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tuner.config import min_epochs
from tuner.curve import Curve, Epoch, Measure, Standing
from tuner.grammar import read_space
from tuner.proposing import Proposer, trial_seed
from tuner.record import StudyRecord, TrialRecord, shown
from tuner.scoring import score, score_at
from tuner.stopping import finished
from tuner.storage import open_storage
from tuner.store import Store

ROOT = Path(__file__).resolve().parent.parent


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    space = read_space(ROOT / "search_spaces" / "digits.yaml")
    rule = space.config.score
    with tempfile.TemporaryDirectory() as folder:
        rdb = open_storage(f"sqlite:///{folder}/tuner.db", create=True)
        study = StudyRecord("digits", "", "", space.identity(), "log_loss", 0, {}, "", "", {}, "")
        store, proposer = Store.create(rdb, study, {}), Proposer(space, 0)
        costs: dict[str, list[float]] = {name: [] for name in ("propose", "begin", "finish", "tell")}

        def timed(name: str, work, *arguments):
            started = time.process_time()
            result = work(*arguments)
            costs[name].append(1000 * (time.process_time() - started))
            return result

        for number in range(given.trials):
            proposal, suggested = timed("propose", proposer.propose, number)
            record = TrialRecord(number, "running", proposal.values, trial_seed(0, number), proposal.label)
            timed("begin", store.begin, record, suggested)
            run = curve(given.epochs, abs(proposal.values["regularization.dropout"] - 0.2) + 0.1)
            record = replace(
                record, state="complete", curve=run, score=score(run, rule, "log_loss"), verdict=finished(run)
            )
            values = {step: score_at(run, step, rule, "log_loss").value for step in range(1, given.epochs + 1)}
            timed("finish", store.finish, record, values, shown(record))
            timed("tell", proposer.tell, record)
    print(f"CPU ms per trial, the last 50 of {given.trials} trials of {given.epochs} epochs: median (min to max)")
    for name, values in costs.items():
        last = values[-50:]
        print(f"  {name:8} {statistics.median(last):6.1f} ({min(last):.1f} to {max(last):.1f})")
    total = [sum(parts) for parts in zip(*(values[-50:] for values in costs.values()), strict=True)]
    print(f"  {'in all':8} {statistics.median(total):6.1f} ({min(total):.1f} to {max(total):.1f})")


if __name__ == "__main__":
    main()
