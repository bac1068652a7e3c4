"""The errors a user can meet, and the exit code each one ends the program with.

    TunerError            1   the program failed
    ├── UsageError        2   a command, an option or a space file is wrong
    │   └── SpaceError    2   every problem of one space file, each with its line and column
    ├── DataError         3   the data can't be used
    ├── StorageError      4   the study's storage can't be used
    └── UserCodeError     5   code that the space names failed in every trial

A message is written for the one who reads it: where, what, what is allowed, how to mend.
`Ctrl-C` is Python's own KeyboardInterrupt and ends with 130.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar


class TunerError(Exception):
    """The root: `except tuner.TunerError` catches whatever tuner raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(TunerError):
    """A command, an option, a study's name or a setting is wrong."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a space file; `line` and `column` count from 1, 0 means unknown."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f" {self.key}:" if self.key else "" if self.line else ":"
        return f"{where}{key} {self.message}"


class SpaceError(UsageError):
    """Everything that is wrong with a space file, found in one reading."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(TunerError):
    """The data can't be used as they are."""

    exit_code: ClassVar[int] = 3


class StorageError(TunerError):
    """The study's storage can't be read or written."""

    exit_code: ClassVar[int] = 4


class UserCodeError(TunerError):
    """Code that the space names could not be imported, or failed in every trial."""

    exit_code: ClassVar[int] = 5


def nearest(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)" for the known word nearest to `word`, or nothing if none is near."""
    alike = {name.casefold(): name for name in reversed(known)}
    matches = get_close_matches(word, known, n=1) or get_close_matches(word.casefold(), list(alike), n=1)
    return f" (did you mean '{alike.get(matches[0], matches[0])}'?)" if matches else ""


def show(value: Any) -> str:
    """Return a value in the words of a space file, short."""
    if isinstance(value, (Mapping, list, tuple)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
