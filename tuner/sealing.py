"""A JSON document with a checksum of its own text as its last key, so that a flipped bit in it is found.

Decides how the checksum is written and checked. Knows nothing of what the documents say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

BYTES = 16
TAIL = re.compile(rb', "checksum": "([0-9a-f]{32})"\}')
LENGTH = len(', "checksum": ""}') + 2 * BYTES


def seal(document: Mapping[str, Any], about: str) -> str:
    """Return a document that isn't empty as JSON with its checksum, which also covers what it is `about`."""
    body = json.dumps(document)[:-1]
    return f'{body}, "checksum": "{_checksum(body.encode(), about)}"}}'


def unseal(text: str | bytes, about: str) -> tuple[Any, bool]:
    """Return a document without its checksum, and whether it has one.

    Raises:
        ValueError: it isn't as it was written, or is about something else.
    """
    data = text.encode() if isinstance(text, str) else text
    body = sealed(data, about)
    return (json.loads(data), False) if body is None else (json.loads(body + b"}"), True)


def sealed(data: bytes, about: str) -> bytes | None:
    """Return what of a document comes before its checksum, unread; None if it has none.

    Raises:
        ValueError: it isn't as it was written, or is about something else.
    """
    tail = TAIL.fullmatch(data, max(0, len(data) - LENGTH))
    if tail is None:
        return None
    body = data[: tail.start()]
    if _checksum(body, about).encode() != tail[1]:
        raise ValueError("its checksum doesn't hold")
    return body


def _checksum(body: bytes, about: str) -> str:
    found = blake2b(body, digest_size=BYTES)
    found.update(f"\0{about}".encode())
    return found.hexdigest()
