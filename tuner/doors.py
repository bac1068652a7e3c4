"""Where a study listens: a place as people write it, a socket there, and by which names others reach it.

Knows nothing of what is said there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import UsageError

LOOPBACK = "127.0.0.1"
Door = socket.socket


@dataclass(frozen=True, slots=True)
class Address:
    """Where a study listens: `port` of any of the `hosts`, and the secret that who connects has to know."""

    hosts: tuple[str, ...]
    port: int
    secret: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"hosts": list(self.hosts), "port": self.port, "secret": self.secret}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Address:
        """Read what `to_json` returned."""
        return cls(tuple(told["hosts"]), int(told["port"]), str(told["secret"]))


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return what HOST, HOST:PORT or :PORT names, an empty host where none is named and port 0 where none is; None if
    it is none of these. An address of IPv6 stands in brackets where a port follows.
    """
    bare = text.count(":") > 1 and "]:" not in text
    host, colon, port = (text, "", "") if bare else text.rpartition(":")
    host, port = (host, port) if colon else (text, "0")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        return None
    return host.strip("[]"), int(port)


@contextmanager
def door(text: str) -> Iterator[Door]:
    """Hold a socket that hosts may connect to, at HOST, HOST:PORT or :PORT; a port of 0, or none, is any.

    Raises:
        UsageError: that is no place, or nothing can listen there.
    """
    if (place := host_and_port(text)) is None:
        raise UsageError(f"--listen {text!r}: is no HOST:PORT, such as 0.0.0.0:7400; a port is 0 (any) to 65535")
    host, port = place[0] or "0.0.0.0", place[1]
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        found = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(f"--listen {text}: nothing can listen there ({error.strerror or error})") from None
    with found:
        yield found


def names_of(host: str) -> tuple[str, ...]:
    """Return the names by which hosts may reach this machine, the surest first."""
    if host not in ("0.0.0.0", "::"):
        return (host,)
    found = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent; the system says by which of its addresses it would be
        found.append(probe.getsockname()[0])
    with suppress(OSError):
        found += [each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return tuple(dict.fromkeys([*map(str, found), socket.gethostname(), LOOPBACK]))
