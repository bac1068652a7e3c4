"""Recorded curves and their replay.

    python -m benchmarks.replay record DATA_FOLDER [--processes 2] [--only digits]
    python -m benchmarks.replay show [--half report] [--orders 100]
    python -m benchmarks.replay race [--half report]
    python -m benchmarks.replay alternatives [--half report]

DATA_FOLDER holds image/fashion_mnist_8k.npz, image/cifar10_5k.npz, text/trec6.jsonl.gz, text/spamassassin.jsonl.gz,
sequence/italy_power_demand.npz, sequence/japanese_vowels.npz, tabular/credit_g.csv.gz and tabular/ames_housing.csv.gz;
MNIST-1D is made by its package (`pip install mnist1d`). The curves are kept in benchmarks/.banks (about 33 MB; two
hours on two cores); what is there is not made again. The other commands read them alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna

BANKS = Path(__file__).resolve().parent.parent / ".banks"
HALVES, REGIMES = ("choose", "report"), ("overfitting", "underfitting")


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="make the curves that aren't there")
    recording.add_argument("data", type=Path)
    recording.add_argument("--processes", type=int, default=2)
    recording.add_argument("--only", default="")
    showing = commands.add_parser("show", help="print the tables of one half of the data sets")
    racing = commands.add_parser("race", help="print what a budget of epochs comes to, spent in different ways")
    others = commands.add_parser("alternatives", help="print what was thought of and isn't done")
    for each in (showing, racing, others):
        each.add_argument("--half", choices=HALVES, default="report")
    showing.add_argument("--orders", type=int, default=100)
    for each in (recording, showing, racing, others):
        each.add_argument("--banks", type=Path, default=BANKS)
    given = parser.parse_args()
    folder = given.banks.resolve()
    if given.command == "record":
        from benchmarks.replay.record import record, record_refits

        record(given.data.resolve(), folder, given.processes, given.only)
        record_refits(given.data.resolve(), folder, given.processes, given.only)
    elif given.command == "race":
        run_race(folder, given.half)
    elif given.command == "alternatives":
        run_alternatives(folder, given.half)
    else:
        show(folder, given.half, given.orders)


def run_race(folder: Path, half: str) -> None:
    """Print what the same budget of epochs comes to, spent in different ways."""
    from benchmarks.replay.curves import read
    from benchmarks.replay.race import race_table

    banks = [bank for bank in read(folder) if bank.bank.source.half == half]
    for regime in REGIMES:
        if some := [bank for bank in banks if bank.bank.source.regime == regime]:
            print("\n".join([f"## {half}, {regime}: the same budget", "", *race_table(some), ""]), flush=True)


def run_alternatives(folder: Path, half: str) -> None:
    """Print what ways to choose that aren't the program's come to."""
    from benchmarks.replay.alternatives import sparing_table, weighing_table
    from benchmarks.replay.curves import read

    banks = [bank for bank in read(folder) if bank.bank.source.half == half]
    for head, table in (("weighing", weighing_table), ("sparing", sparing_table)):
        for regime in REGIMES:
            if some := [bank for bank in banks if bank.bank.source.regime == regime]:
                print("\n".join([f"## {half}, {regime}: {head}", "", *table(some), ""]), flush=True)


def show(folder: Path, half: str, orders: int) -> None:
    """Print what the replays of one half of the data sets come to."""
    from benchmarks.replay.confirming import confirmation_table, coverage_table
    from benchmarks.replay.curves import read
    from benchmarks.replay.report import alarms, regimes, score_table, stopping_table, verify

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    banks = [bank for bank in read(folder) if bank.bank.source.half == half]
    if not banks:
        raise SystemExit(f"{folder}: there are no curves of this half; record them first")
    verify(banks)
    parts = [(f"## {half}: what the banks are", regimes(banks))]
    for regime in REGIMES:
        some = [bank for bank in banks if bank.bank.source.regime == regime]
        if some:
            parts += [(f"## {half}, {regime}: stopping", stopping_table(some, orders))]
            parts += [(f"## {half}, {regime}: scores, everything trained in full", score_table(some, orders))]
            parts += [(f"## {half}, {regime}: the overfit rule", alarms(some))]
    parts += [(f"## {half}: confirmation", confirmation_table(banks, orders))]
    parts += [(f"## {half}: intervals", coverage_table(banks))]
    for head, lines in parts:
        print("\n".join([head, "", *lines, ""]), flush=True)


if __name__ == "__main__":
    main()
