"""Free loopback ports for servers started as programs of their own, which bind only after they have loaded."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

_LOWEST, _USUAL = 20_000, 32_768  # IANA's dynamic ports begin at 49,152, Linux's at 32,768


def free_port() -> int:
    """A port of 127.0.0.1 that nobody holds and that the system gives to nobody by itself.

    Asking for port 0 names one that any outgoing connection or other listener may be given before the program binds it;
    these lie below that range. Each call of a process names another.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that a client has just left is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _highest() -> int:
    """The first port that the system hands out by itself."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        first = _USUAL
    return first if first > _LOWEST + 1000 else _USUAL


def _candidates() -> Iterator[int]:
    span = _highest() - _LOWEST
    first = random.SystemRandom().randrange(span)  # several programs of one machine begin far apart
    return (_LOWEST + (first + i) % span for i in count())


_ports = _candidates()
