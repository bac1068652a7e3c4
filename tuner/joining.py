"""A study is found in its storage, and trained for as a host, for as long as it lasts: whichever process holds it.

Decides how long a study is waited for that isn't being run now. Writes nothing into the storage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.doors import Address
from tuner.errors import StorageError, UsageError
from tuner.hosting import connect, serve
from tuner.opening import LISTENS
from tuner.storage import opened
from tuner.store import Store
from tuner.study import PROGRESS

EVERY = 2.0  # seconds between two looks
AGAIN = 20.0  # seconds in which a study that is over may be given more trials, by who starts it as this starts


@dataclass(frozen=True, slots=True)
class Seen:
    """What the storage says of a study: whether it is over, and where it listens, if it is being run."""

    there: bool
    over: bool = False
    address: Address | None = None


def join(
    study: str, url: str, workers: int, folder: Path, patience: float, place: tuple[str, int] | None = None
) -> Iterator[str]:
    """Train for a study until it is over; yield a sentence when something changes. While no process that listens runs
    it, it is waited for, up to `patience` seconds. `place` is where it is reached, if not where it says.

    Raises:
        UsageError: nobody runs it and listens, in that time; or it would come out otherwise here.
        StorageError: the storage can't be used, in that time.
    """
    began = since = time.monotonic()
    told, problem, served = "", "", None
    while True:
        try:
            seen, problem = look(url, study), ""
        except StorageError as error:
            seen, problem = Seen(there=False), str(error)
        if seen.over and (served is not None or time.monotonic() - began >= min(AGAIN, patience)):
            yield f"study {study} is over"
            return
        if seen.address is not None:
            address = seen.address if place is None else replace(seen.address, hosts=(place[0],), port=place[1])
            try:
                link = connect(address)
            except OSError as error:
                problem = f"can't reach study {study} at {' or '.join(address.hosts)}, port {address.port} ({error})"
            else:
                yield f"training for study {study}, with {workers} worker{'s' * (workers != 1)}"
                served = serve(link, workers, folder)
                yield "the study ended, or was stopped" if served.over else "the study's process is gone"
                since, told = time.monotonic(), ""
                time.sleep(1.0)
                continue
        if time.monotonic() - since >= patience:
            raise UsageError(problem or f"study {study} isn't being run with --listen (waited for {patience:.0f} s)")
        waits = problem or f"study {study} isn't being run with --listen"
        if waits != told:
            told = waits
            yield f"{waits}: waiting"
        time.sleep(EVERY)


def look(url: str, study: str) -> Seen:
    """Return what the storage says of a study.

    Raises:
        StorageError: it can't be read.
    """
    with opened(url, read_only=True) as rdb:
        store = Store.load(rdb, study)
        if store is None:
            return Seen(there=False)
        progress, listens = store.get(PROGRESS) or {}, store.get(LISTENS)
        if progress.get("state") == "over":
            return Seen(there=True, over=True)
        runs = listens is not None and store.holder() is not None
        return Seen(True, False, Address.from_json(listens) if runs else None)
