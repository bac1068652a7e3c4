"""repair(): says what is wrong with a study's database and its ledger, and mends what can be proven.

Decides what is believed: of the database what its checksums prove, of the ledger the lines that are whole. What neither
proves is not made up: a trial at the end is left to be found again, one between others is told to have failed. Nothing
is thrown away: what is damaged is moved aside, and before rows are written anew there is a backup. Trains nothing.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner import ledger, reporting
from tuner.best import STUDIES
from tuner.errors import StorageError, UsageError
from tuner.holding import shut
from tuner.keeping import is_of, keep, place_of
from tuner.ledger import LEDGER, Told
from tuner.mending import Left, back_up, beside, inconsistency, migrate, replacing, salvaged
from tuner.planning import storage_url
from tuner.proposing import trial_seed
from tuner.record import StudyRecord, TrialRecord
from tuner.restoring import Restored
from tuner.rows import OtherValueError
from tuner.speaking import DamagedError, MissingError, OlderError
from tuner.storage import open_storage, opened
from tuner.store import study_names
from tuner.study import named
from tuner.telling import counted
from tuner.urls import file_of

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

LOST = "its record was damaged, and no copy of it was whole"


@dataclass(slots=True)
class _Wrong:
    """What is wrong with a study's rows, in words, and how it is mended: trials to be written, ids of those in whose
    place, all facts, and how many trials there are then.
    """

    said: list[str] = field(default_factory=list)
    trials: dict[int, ledger.Entry] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    posted: bool = True  # what the dashboard shows of it is whole


def repair(study: str, *, storage: str | None = None, studies_dir: str | Path = STUDIES) -> list[str]:
    """Mend what can be proven of a study, by its name or the path of its folder; return what was wrong and was done.

    Raises:
        UsageError: there is no such study, or it is being run.
        StorageError: it can't be mended.
    """
    study, studies = named(study, studies_dir)
    url = storage_url(storage, studies)
    path = file_of(url)
    if not (studies / study).is_dir():
        raise UsageError(f"no study {study!r} in {studies}: without its folder nothing proves what it was")
    with shut(studies / study):
        _refuse_running(url, study)
        done, cause = _file(url, path)
        if path is not None and not cause:
            try:
                done += _rows(url, path, study, studies / study)
            except DamagedError as error:  # rows that can't even be read
                cause = _short(error)
        elif path is None:
            done += _rows(url, path, study, studies / study)
        if path is not None and cause:
            done += _rebuild(url, path, study, studies, cause)
    return done or [f"study {study}: there is nothing to repair"]


def _refuse_running(url: str, study: str) -> None:
    """Refuse a study that a process runs from another folder, as far as its database can say so."""
    with suppress(StorageError), opened(url, read_only=True) as rdb:
        store = Restored.load(rdb, study)
        found = store.holder() if store is not None else None
        if found is not None:
            raise UsageError(f"study {study!r} is being run by {found.process}; wait until it has ended")


def _short(error: StorageError) -> str:
    return str(error).split("; ", maxsplit=1)[0]


def _file(url: str, path: Path | None) -> tuple[list[str], str]:
    """Look at a database and bring its tables up to date; return what was done, and why its file is beyond use."""
    done: list[str] = []
    try:
        try:
            open_storage(url, read_only=True).engine.dispose()
        except OlderError:
            if path is None:
                raise
            done.append(f"{path}: its tables were of an older Optuna, and are up to date now; backup: {back_up(path)}")
            migrate(path)
            open_storage(url, read_only=True).engine.dispose()
        broken = "" if path is None else inconsistency(path)
        return done, f"{path}: is damaged ({broken})" if broken else ""
    except (MissingError, DamagedError) as error:
        if path is None:
            raise
        return done, f"{path}: is gone" if isinstance(error, MissingError) else _short(error)


def _rebuild(url: str, path: Path, study: str, studies: Path, cause: str) -> list[str]:
    """Put a database in a damaged one's place, of all that the ledgers and what is left of it prove."""
    left = salvaged(path) if path.exists() else {}
    books = {book.parent.name: ledger.read(book) for book in sorted(studies.glob(f"*/{LEDGER}"))}
    places = {name: place_of(url, studies / name) for name in {*books, *left}}
    mine = {name for name in books if name == study or books[name].place == places[name]} | set(left)
    found = {name: proof for name in sorted(mine) if (proof := _proof(books.get(name), left.get(name))) is not None}
    if study not in found:
        raise StorageError(f"{cause}; nothing proves what study {study} was: restore a copy of the database")
    aside, done = beside(path, "damaged"), list[str]()
    with ExitStack() as locks:
        for name in found:
            if name != study:
                locks.enter_context(shut(studies / name))
        with replacing(path, aside) as rdb:
            for name, proof in found.items():
                done += _gaps(name, proof)
                _create(rdb, proof)
                done.append(f"study {name}: written anew, with {counted(len(proof.trials), 'trial')}")
        with opened(url, create=True) as rdb:
            for name in found:
                done += _complete(rdb, name, studies / name, books.get(name, Told()))
    others = sorted({each.parent.name for each in studies.glob("*/space.yaml")} - set(found) - set(books))
    done += [f"study {name}: has no ledger, so it isn't in the new database" for name in others]
    return [f"{cause}; moved to {aside}" if aside.exists() else cause, *done]


def _proof(told: Told | None, left: Left | None) -> Left | None:
    """Return what a ledger and a database together prove of a study, where they know what it was."""
    if told is None or told.study is None:
        if left is None:
            return None
        found = left
    else:
        found = Left(StudyRecord.from_json(told.study))
    trials, facts = (told.trials, told.facts) if told is not None else ({}, {})
    if left is not None and is_of(found.study, left.study.to_json()):
        ended = {number for number, entry in trials.items() if ledger.ended(entry)}
        trials = trials | {number: entry for number, entry in left.trials.items() if number not in ended}
        facts = facts | left.facts
    return Left(found.study, dict(sorted(trials.items())), facts)


def _gaps(name: str, proof: Left) -> list[str]:
    """Have trials that nothing proves, between others, told to have failed; return that."""
    gaps = sorted(set(range(max(proof.trials, default=-1))) - set(proof.trials))
    proof.trials |= {number: _lost(proof.study, number) for number in gaps}
    return [f"study {name}: trial {number} can't be restored, so it counts as failed" for number in gaps]


def _lost(study: StudyRecord, number: int) -> ledger.Entry:
    record = TrialRecord(number, "failed", {}, trial_seed(study.seed, number), error=LOST)
    now = datetime.now().isoformat()
    rows: dict[str, Any] = {"params": {}, "steps": [], "record": record.to_json()}
    return {"trial": number, "state": record.state, "id": None, "begun": now, "ended": now, **rows}


def _create(rdb: RDBStorage, proof: Left) -> None:
    Restored.create(rdb, proof.study, _about(proof.study)).mend(
        [], proof.trials.values(), proof.facts, len(proof.trials)
    )


def _about(study: StudyRecord) -> dict[str, str]:
    return {"metric": study.metric, "score": reporting.formula(study.metric, study.identity)}


def _rows(url: str, path: Path | None, study: str, folder: Path) -> list[str]:
    """Write anew what of a study's rows isn't as it was, in a database that is whole; return what was done."""
    told = ledger.read(folder / LEDGER)
    with opened(url, read_only=True) as rdb:
        store, said = _found(rdb, study, told)
        if store is None:
            proof = _proof(told, None)
            if proof is None:
                raise UsageError(f"no study {study!r}: neither is it in the database, nor does a ledger prove it")
            said = ["it isn't in the database", *_gaps(study, proof)]
        else:
            if told.study is not None and not is_of(store.study, told.study):
                raise StorageError(f"{folder / LEDGER}: is the ledger of another study of this name; move it away")
            wrong = _wrong(store, told)
            said += wrong.said
    done = [f"study {study}: {line}" for line in said]
    if said and path is not None:
        done.append(f"{path}: a backup is {back_up(path)}")
    if not said and not told.damaged:
        return []
    with opened(url, create=True) as rdb:
        if said and store is None and proof is not None:
            _create(rdb, proof)
        elif said and store is not None:
            mended = Restored(rdb, store.study, store.study_id)
            mended.mend(wrong.gone, wrong.trials.values(), wrong.facts, wrong.count)
            if not wrong.posted:
                mended.unpost(_about(store.study))
        return done + _complete(rdb, study, folder, told)


def _found(rdb: RDBStorage, study: str, told: Told) -> tuple[Restored | None, list[str]]:
    """Return a study as it lies in the database, be its record or its name damaged, and what is wrong with these."""
    try:
        store = Restored.load(rdb, study)
    except DamagedError:
        study_id = Restored.id_of(rdb, study)
        if told.study is None or study_id is None:
            raise StorageError(f"study {study}: its record is damaged, and its ledger has none") from None
        return Restored(rdb, StudyRecord.from_json(told.study), study_id), ["its record was damaged"]
    if store is not None or told.study is None:
        return store, []
    for name in study_names(rdb):
        try:
            other = Restored.load(rdb, name)
        except StorageError:
            continue
        if other is not None and is_of(other.study, told.study):
            return other, [f"its name was {name!r} in the database"]
    return None, []


def _wrong(store: Restored, told: Told) -> _Wrong:
    """Find what of a study's rows isn't as it was written, and what is to be in its place."""
    wrong, count = _Wrong(), None
    try:
        count = store.count()
    except DamagedError:
        wrong.said.append("the number of its trials was damaged")
    healthy = _trials(store, told, wrong, count)
    wrong.count = max({*healthy, *wrong.trials}, default=-1) + 1
    gaps = sorted(set(range(wrong.count)) - set(healthy) - set(wrong.trials))
    wrong.trials |= {number: _lost(store.study, number) for number in gaps}
    wrong.said += [f"trial {number} can't be restored, so it counts as failed" for number in gaps]
    ends = range(wrong.count, count or 0)
    wrong.said += [f"trial {number} can't be restored; a run finds one in its place" for number in ends]
    _facts(store, told, wrong)
    if not store.is_posted(_about(store.study)):
        wrong.said.append("what the dashboard shows of it was damaged; a run posts it again")
        wrong.posted = False
    ids = [entry["id"] for entry in wrong.trials.values()]
    if wrong.said and (not store.sealed or None in ids or store.taken(ids) - set(wrong.gone)):
        # then all are written anew, in their order, which is what Optuna lists them by
        wrong.trials |= {number: store.entries([record])[0] for number, (_, record) in healthy.items()}
        wrong.trials = {number: {**entry, "id": None} for number, entry in sorted(wrong.trials.items())}
        wrong.gone += [trial_id for trial_id, _ in healthy.values()]
    return wrong


def _trials(store: Restored, told: Told, wrong: _Wrong, count: int | None) -> dict[int, tuple[int, TrialRecord]]:
    """Find the trials that are to be written anew; return those that stay as they are, with their ids."""
    healthy: dict[int, tuple[int, TrialRecord]] = {}
    for number, trial_id, found in store.examined():
        entry = told.trials.get(number)
        stray = number in healthy or (entry is None and count is not None and number >= count)
        if isinstance(found, TrialRecord) and not stray and _agrees(store, found, entry):
            healthy[number] = (trial_id, found)
            continue
        if found is None and entry is None and (count is None or number >= count):
            raise StorageError(f"study {store.study.name} has a trial that tuner didn't write ({number}); delete it")
        if entry is None and isinstance(found, OtherValueError):
            entry = store.entries([found.record])[0]
        wrong.gone.append(trial_id)
        wrong.trials |= {number: entry} if entry is not None else {}
        wrong.said.append(f"trial {number} was damaged" + " and is as its ledger has it" * (entry is not None))
    for number in set(told.trials) - set(healthy) - set(wrong.trials):
        wrong.trials[number] = told.trials[number]
        wrong.said.append(f"trial {number} was lost and is as its ledger has it")
    return healthy


def _agrees(store: Restored, record: TrialRecord, entry: ledger.Entry | None) -> bool:
    """Tell whether the rows of a trial whose own record is whole are those that its ledger has."""
    if entry is None or (record.ended and not ledger.ended(entry)):
        return True
    if ledger.ended(entry) and not record.ended:
        return False
    try:
        (mine,) = store.entries([record])
    except (StorageError, ValueError):
        return False
    rows = ("params", "steps", "begun", "ended") if record.ended else ("params",)
    return all(json.dumps(mine[name]) == json.dumps(entry[name]) for name in rows) and store.is_shown(record)


def _facts(store: Restored, told: Told, wrong: _Wrong) -> None:
    """Find what the study's facts are to be: those of the database that are whole, else those of the ledger."""
    there = store.examined_facts()
    for key in [*told.facts, *(key for key in there if key not in told.facts)]:
        whole = key in there and not isinstance(there[key], StorageError)
        if whole or key in told.facts:
            wrong.facts[key] = there[key] if whole else told.facts[key]
        if not whole:
            mend = "is as its ledger has it" if key in told.facts else "can't be restored"
            wrong.said.append(f"its {key} was damaged and {mend}")


def _complete(rdb: RDBStorage, study: str, folder: Path, told: Told) -> list[str]:
    """Have a study's ledger hold what its database holds, anew where lines of it are damaged; return what was done."""
    done, path = list[str](), folder / LEDGER
    if told.damaged:
        aside, lines = beside(path, "damaged"), ", ".join(map(str, told.damaged[:10]))
        shutil.copy2(path, aside)
        done.append(f"study {study}: line {lines} of its ledger wasn't as it was written; a copy of it is {aside}")
        facts = [ledger.fact(key, value) for key, value in told.facts.items()]
        head = [] if told.study is None else [ledger.head(told.study, told.place)]
        ledger.begin(path, [*head, *told.trials.values(), *facts])
    store = Restored.load(rdb, study)
    assert store is not None
    keep(store, folder)
    return done
