"""A file is written whole or not at all: beside its place, onto the disk, then into place by a rename.

Whoever is killed meanwhile leaves what was there before, and a `.part` whose name nobody can foresee.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTS = ".*.part"


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: it isn't there, or can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole(path: Path, durable: bool = True, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a file to be written in place of another; it is there once the block ends without an error.

    What can be made again needs no waiting for the disk (`durable`). The file is its owner's alone, unless the `mode`
    (less the process's mask) says otherwise.

    Raises:
        OSError: it can't be written; then nothing has changed, or all is there but may not be on the disk.
    """
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(part, path)
        if durable:
            settle(path.parent)
    finally:
        part.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, too.

    Raises:
        OSError: that can't be done.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
