"""Generated files, mutated from sound ones: each is taken, or refused as the user's mistake within a second.

`run(seed, count, folder)` tries so many; case `number` of a seed is the same every time (`try_one`). About two thirds are
space files, the rest are small tables, JSON lines, arrays, Parquet files and folders of images.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tuner.config import Data
from tuner.data import load
from tuner.errors import TunerError
from tuner.grammar import dump_space, parse_space, read_space

from . import files, texts

SECONDS = 1.0
USERS = (2, 3)  # exit codes of what is the user's mistake


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a case; `fault` says what must not be, and is empty where all is well."""

    number: int
    kind: str
    code: int
    seconds: float
    fault: str = ""


def run(seed: int, count: int, folder: Path, seconds: float = float("inf")) -> dict[str, Any]:
    """Try `count` cases, or as many as go into so many seconds; return the figures.

    The inputs of faults are kept in `folder`/faults.
    """
    tried = []
    load(Data(source="sklearn:iris"), folder)  # what reads data is loaded, so that a case's seconds are its own
    end = time.monotonic() + seconds
    for case in _each(seed, count, folder):
        tried.append(case)
        if case.fault:
            shutil.copytree(folder / "case", folder / "faults" / str(case.number), dirs_exist_ok=True, symlinks=True)
        if time.monotonic() > end:
            break
    slowest = max(tried, key=lambda case: case.seconds)
    return {
        "seed": seed, "tried": len(tried), "accepted": sum(case.code == 0 for case in tried),
        "refused": dict(sorted(Counter(case.code for case in tried if case.code > 0).items())),
        "kinds": {kind: _of_kind(tried, kind) for kind in ("space", *files.KINDS)},
        "tracebacks": sum(case.code < 0 for case in tried),
        "slowest": {"seconds": round(slowest.seconds, 3), "case": slowest.number, "kind": slowest.kind},
        "faults": [f"case {case.number} ({case.kind}): {case.fault}" for case in tried if case.fault],
    }  # fmt: skip


def _of_kind(tried: list[Tried], kind: str) -> dict[str, int]:
    codes = [case.code for case in tried if case.kind == kind]
    return {"tried": len(codes), "accepted": codes.count(0)}


def _each(seed: int, count: int, folder: Path) -> Iterator[Tried]:
    for number in range(count):
        yield try_one(seed, number, folder)


def try_one(seed: int, number: int, folder: Path) -> Tried:
    """Try one case; its files are in `folder`/case then."""
    random, place = Random(f"{seed} {number}"), folder / "case"
    place.mkdir(parents=True, exist_ok=True)
    kind = random.choices(("space", *files.KINDS), (70, *(30 // len(files.KINDS) for _ in files.KINDS)))[0]
    if kind == "space":
        (place / "space.yaml").write_bytes(texts.space(random))
        return _judged(number, kind, lambda: _read(place / "space.yaml", again=random.random() < 0.1))
    data = files.KINDS[kind](random, place)
    return _judged(number, kind, lambda: load(data, place))


def _read(path: Path, again: bool) -> None:
    found = read_space(path)
    if again and parse_space(dump_space(found), path.parent).fingerprint != found.fingerprint:
        raise AssertionError("what was written reads as another space")


def _judged(number: int, kind: str, use: Any) -> Tried:
    start, code, fault = time.process_time(), 0, ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            use()
        except TunerError as error:
            code, fault = error.exit_code, _wrong(error)
        except Exception as error:
            code, fault = -1, f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    if warned and not fault:
        fault = f"a warning: {warned[0].message}"
    if seconds > SECONDS and not fault:
        fault = f"{seconds:.1f} s"
    return Tried(number, kind, code, seconds, fault)


def _wrong(error: TunerError) -> str:
    lines = str(error).split("\n")
    if error.exit_code not in USERS:
        return f"exit code {error.exit_code}: {lines[0]}"
    if not all(line.isprintable() and line.strip() for line in lines):
        return f"a line that can't be shown: {lines!r}"
    return "" if max(map(len, lines)) < 1200 else f"a line of {max(map(len, lines))} characters"
