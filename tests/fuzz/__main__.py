"""`python -m tests.fuzz --count 100000 --seed 1`: generated files in numbers; ends with 1 if anything but a refusal came."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .generated import run, try_one


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m tests.fuzz")
    ask.add_argument("--count", type=int, default=10_000)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--case", type=int, help="only this one")
    ask.add_argument("--folder", type=Path, help="where inputs lie; those of faults stay there, in faults/")
    given = ask.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tuner-fuzz-"))
    if given.case is not None:
        print(try_one(given.seed, given.case, folder), "inputs in", folder / "case")
        return 0
    found = run(given.seed, given.count, folder)
    print(json.dumps(found, indent=1))
    return 1 if found["faults"] else 0


sys.exit(main())
