"""Holds a study's ledger against its database: neither may lack what the other has.

Decides which ledger is a study's own, and what follows where one of the two lacks something: a ledger is completed, a
database isn't, but `tuner repair` is named. Writes no rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tuner import ledger
from tuner.errors import StorageError
from tuner.ledger import LEDGER
from tuner.record import StudyRecord, TrialRecord
from tuner.speaking import DamagedError
from tuner.store import Store
from tuner.urls import file_of, masked


def place_of(url: str, folder: Path) -> str:
    """Return where a database is as seen from a study's folder, so that both may be moved together."""
    path = file_of(url)
    return masked(url) if path is None else os.path.relpath(path.resolve(), folder.resolve())


def is_of(study: StudyRecord, told: Mapping[str, Any] | None) -> bool:
    """Tell whether a ledger's record of a study is of this one: another may have had its name."""
    mine = study.to_json()
    return told is not None and all(told.get(name) == mine[name] for name in ("name", "created", "fingerprint", "seed"))


def refuse_lost(study: StudyRecord, numbers: Collection[int], folder: Path) -> None:
    """Refuse a study of which the database lacks trials that its ledger proves.

    Raises:
        DamagedError: it does.
    """
    told, trials = ledger.proven(folder / LEDGER)
    lost = sorted(trials - set(numbers))
    if lost and is_of(study, told):
        named = f"trial{'s' * (len(lost) > 1)} {', '.join(map(str, lost[:5]))}{', ...' * (len(lost) > 5)}"
        mend = f"`tuner repair {study.name}` brings back what its ledger proves"
        raise DamagedError(f"study {study.name}: the database has lost {named}; {mend}")


def is_begun(folder: Path) -> bool:
    """Tell whether a folder has a ledger that proves anything."""
    told = ledger.read(folder / LEDGER)
    return bool(told.trials or told.facts)


def keep(store: Store, folder: Path) -> None:
    """Have a store write its study's ledger from now on, completed by what the database alone has: an older version
    kept none, and lines may be damaged.

    Raises:
        StorageError: the ledger is another study's, can't be written, or proves trials that the database has lost.
    """
    path, records = folder / LEDGER, store.records()
    told = ledger.read(path)
    if told.study is not None and not is_of(store.study, told.study):
        raise StorageError(f"{path}: is the ledger of another study of this name; move it away, and run this again")
    refuse_lost(store.study, [record.number for record in records], folder)
    facts = store.told()
    lacking = [ledger.fact(key, value) for key, value in facts.items() if _lacks(told.facts, key, value)]
    entries = [*store.entries(record for record in records if not _has(told.trials, record)), *lacking]
    if told.study is None:  # it lacks all, or its first line is damaged
        kept = [*told.trials.values(), *(ledger.fact(key, value) for key, value in told.facts.items())]
        head = ledger.head(store.study.to_json(), place_of(store.rdb.url, folder))
        ledger.begin(path, [head, *kept, *entries])
    elif entries:
        ledger.append(path, *entries)
    store.ledger = path


def _lacks(facts: Mapping[str, Any], key: str, value: Any) -> bool:
    return key not in facts or json.dumps(facts[key]) != json.dumps(value)


def _has(trials: Mapping[int, ledger.Entry], record: TrialRecord) -> bool:
    """Tell whether a ledger has a trial; of one that was killed it may know the end, which the database doesn't."""
    entry = trials.get(record.number)
    return entry is not None and (not record.ended or json.dumps(entry["record"]) == json.dumps(record.to_json()))
