"""Recorded curves and their replay.

    python -m benchmarks.replay record DATA_FOLDER [--banks benchmarks/.banks] [--processes 2] [--only digits]

DATA_FOLDER holds image/fashion_mnist_8k.npz, image/cifar10_5k.npz, text/trec6.jsonl.gz, text/spamassassin.jsonl.gz,
sequence/italy_power_demand.npz, sequence/japanese_vowels.npz, tabular/credit_g.csv.gz and tabular/ames_housing.csv.gz;
MNIST-1D is made by its package (`pip install mnist1d`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.replay.record import record, record_refits

BANKS = Path(__file__).resolve().parent.parent / ".banks"


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="make the curves that aren't there")
    recording.add_argument("data", type=Path)
    recording.add_argument("--processes", type=int, default=2)
    recording.add_argument("--only", default="")
    recording.add_argument("--banks", type=Path, default=BANKS)
    given = parser.parse_args()
    record(given.data.resolve(), given.banks.resolve(), given.processes, given.only)
    record_refits(given.data.resolve(), given.banks.resolve(), given.processes, given.only)


if __name__ == "__main__":
    main()
