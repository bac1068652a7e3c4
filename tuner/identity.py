"""Which tuner this is: its version, and its code, since two codes of one version may compute other numbers.

Decides what counts as the same program when a trial is to be the same byte for byte. Knows nothing of what is computed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent


def this_version() -> str:
    """Return the version that is installed."""
    return version("overfit-tuner")


@cache
def this_code() -> str:
    """Return the SHA-256 over all modules of tuner, by their names, as they were when this was first asked."""
    found = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        found.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return f"SHA-256 {found.hexdigest()}"
