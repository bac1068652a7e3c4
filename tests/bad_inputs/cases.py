"""What a case of bad input is: files, a command line, and the exit code that it must end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Content = str | bytes | Callable[[Path], object]  # the last one makes what it wants at that path


@dataclass(frozen=True, slots=True)
class Case:
    """Files below an empty folder, and a command that is given there; `code` 0 where the input is only noted."""

    code: int
    words: Sequence[str]
    files: Mapping[str, Content]

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Return a text with some parts replaced, each of which must be in it."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text
