"""Clients by event loop: connections belong to one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Client = TypeVar("Client")


class ClientsByLoop(Generic[Client]):
    """A client for each event loop; those of closed loops are forgotten.

    Args:
        make: Makes a new one, inside its loop.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    def current(self) -> Client:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            for closed in [other for other in self._clients if other.is_closed()]:
                del self._clients[closed]  # an open connection refers to its loop, and would keep it for ever
            client = self._clients[loop] = self._make()
        return client

    def pop(self) -> Client | None:
        """That of the running loop, if there is one, to be closed."""
        return self._clients.pop(asyncio.get_running_loop(), None)
