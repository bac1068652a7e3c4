"""Faults that a test plans: at a named point the process is killed, paused, or told that its disk doesn't work.

    TUNER_FAULT=before_tell:3:kill9     the third time that a process passes `before_tell`, it gets SIGKILL
    TUNER_FAULT_MARKS=FOLDER            each fault happens once, whichever process comes first; it leaves a file there

Several are separated by commas. Without the variable a point costs a look at an empty mapping. The points:

    after_ask         a trial was proposed, and nothing of it is written
    before_write      a transaction of the study begins;  in_write  it is about to be committed;  after_write  it was
    before_ledger     a trial's end is about to be written down;  after_ledger  it was
    before_tell       a trial has ended and its end isn't stored;  after_tell  it is
    before_checkpoint, in_checkpoint, after_checkpoint    in whoever trains; the middle one before the file is in place
    before_epoch      whoever trains begins an epoch
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

POINTS = (
    "after_ask", "before_write", "in_write", "after_write", "before_ledger", "after_ledger", "before_tell",
    "after_tell", "before_checkpoint", "in_checkpoint", "after_checkpoint", "before_epoch",
)  # fmt: skip
ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
SIGNALS = {"kill9": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
WAIT, GO = "wait", ".go"  # for a file of the fault's name with this ending: whoever plans it does something meanwhile
ACTIONS = (*ERRORS, *SIGNALS, WAIT)


def planned(text: str) -> dict[str, dict[int, str]]:
    """Return the faults of a plan: for each point, at which time what happens.

    Raises:
        ValueError: it isn't a plan.
    """
    found: dict[str, dict[int, str]] = {}
    for fault in filter(None, text.split(",")):
        place, times, action = fault.split(":")
        if place not in POINTS or action not in ACTIONS:
            raise ValueError(f"{fault}: the points are {', '.join(POINTS)}, the actions {', '.join(ACTIONS)}")
        found.setdefault(place, {})[int(times)] = action
    return found


_PLAN: Mapping[str, dict[int, str]] = planned(os.environ.get("TUNER_FAULT", ""))
_passed: dict[str, int] = {}


def point(place: str) -> None:
    """Have what is planned for this place happen.

    Raises:
        OSError: that is what is planned.
    """
    if place not in _PLAN:
        return
    _passed[place] = times = _passed.get(place, 0) + 1
    action = _PLAN[place].get(times)
    if action is not None and _is_first(f"{place}:{times}:{action}"):
        _happen(f"{place}:{times}:{action}", action)


def _is_first(fault: str) -> bool:
    marks = os.environ.get("TUNER_FAULT_MARKS")
    if marks is None:
        return True
    try:
        (Path(marks) / fault).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _happen(fault: str, action: str) -> None:
    if action in ERRORS:
        raise OSError(ERRORS[action], f"{os.strerror(ERRORS[action])} ({fault}, as planned)")
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
        return
    while not (Path(os.environ["TUNER_FAULT_MARKS"]) / f"{fault}{GO}").exists():
        time.sleep(0.01)
