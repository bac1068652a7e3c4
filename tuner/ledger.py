"""The ledger of a study, `ledger.jsonl`: its trials, as they begin and end, and facts that last, a line each, from
which the study's rows in a database can be written anew.

Decides how a line is written, so that it is on the disk before the database says so, and which lines are believed:
those whose checksum holds, the last one of each trial and of each fact. Knows no database, and not what a record means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import PassingError, StorageError, no_room
from tuner.faults import point
from tuner.sealing import seal, sealed, unseal
from tuner.whole import settle, whole

LEDGER = "ledger.jsonl"
ABOUT = "ledger"
Entry = Mapping[str, Any]
TRIAL, HEAD = re.compile(rb'\{"trial": (\d+), "state": "(?!running|waiting)'), re.compile(rb'\{"study": ')


@dataclass(slots=True)
class Told:
    """What a ledger says: the study's record and the place of its database as seen from its folder; the entries of its
    trials that have ended or begun, by number; its facts, by key; and the numbers of lines that aren't as they were
    written.
    """

    study: Mapping[str, Any] | None = None
    place: str = ""
    trials: dict[int, Entry] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)


def head(study: Mapping[str, Any], place: str) -> Entry:
    """Return the first entry of a ledger."""
    return {"study": study, "place": place}


def fact(key: str, value: Any) -> Entry:
    """Return the entry of a fact of the study."""
    return {"fact": key, "value": value}


def ended(entry: Entry) -> bool:
    """Tell whether an entry is that of a trial that has ended; of one that has begun, it says what it is to try."""
    return entry.get("state", "running") not in ("running", "waiting")


def begin(path: Path, entries: Iterable[Entry]) -> None:
    """Write a ledger anew, whole or not at all."""
    try:
        with whole(path) as file:
            file.writelines(_line(entry) for entry in entries)
    except OSError as error:
        raise _unwritten(path, error) from error


def _line(entry: Entry) -> bytes:
    return seal(entry, ABOUT).encode() + b"\n"


def append(path: Path, *entries: Entry, durable: bool = True) -> None:
    """Add entries to a ledger; if they are to be `durable`, they are on the disk when this returns.

    Raises:
        StorageError: they can't be written.
    """
    try:
        ends = durable and any(ended(entry) for entry in entries)
        if ends:
            point("before_ledger")
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # whoever wrote it was killed, or its disk full
            data = b"\n" * torn + b"".join(map(_line, entries))
            while data:
                data = data[os.write(file, data) :]
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        if durable and not size:  # it is new
            settle(path.parent)
        if ends:
            point("after_ledger")
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> StorageError:
    what = f"{path}: can't be written ({error.strerror or error})"
    return (
        PassingError(what, advice="make room and run the same command again") if no_room(error) else StorageError(what)
    )


def read(path: Path) -> Told:
    """Return what a ledger says; nothing, where there is none."""
    told = Told()
    for number, line in _lines(path):
        try:
            entry, whole = unseal(line, ABOUT)
        except ValueError:
            entry, whole = {}, False
        if not whole:
            told.damaged.append(number)
        elif "trial" in entry:
            # whoever was paused as it began a trial may say so late
            if ended(entry) or not ended(told.trials.get(entry["trial"], entry)):
                told.trials[entry["trial"]] = entry
        elif "fact" in entry:
            told.facts[entry["fact"]] = entry["value"]
        elif "study" in entry:
            told.study, told.place = entry["study"], entry["place"]
    return told


def proven(path: Path) -> tuple[Mapping[str, Any] | None, set[int]]:
    """Return the record of a ledger's study and the numbers of the trials that it says have ended; reads no more."""
    study, trials = None, set[int]()
    for _, line in _lines(path):
        trial, first = TRIAL.match(line), HEAD.match(line)
        try:
            if (trial or first) and sealed(line, ABOUT) is not None:
                if trial:
                    trials.add(int(trial[1]))
                else:
                    study = unseal(line, ABOUT)[0]["study"]
        except ValueError:
            continue
    return study, trials


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a ledger that aren't empty, with their numbers."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: can't be read ({error.strerror or error})") from error
