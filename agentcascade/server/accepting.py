"""Event loop of the server: accepts all connections that wait, where uvloop accepts one in each turn of its loop.

A turn takes as long as all that is ready, with 64 requests under way 20 ms: the last of 256 new connections would wait
for seconds before anybody looks at it, while others are answered again and again. Of several workers each goes on
taking one at a time, so that connections spread over them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from agentcascade.server import workers

BACKLOG = 2048
"""The most that are accepted in one turn: as many as uvicorn lets wait."""

try:
    from uvloop import Loop
except ImportError:  # Windows, whose own loop accepts all
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:

    class AcceptingLoop(Loop):
        """uvloop's, whose servers on a given socket accept all that waits as soon as one connection is there."""

        async def create_server(
            self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
        ) -> Any:
            if sock is None or options.get("ssl") or workers.FOLDER in os.environ:
                return await super().create_server(protocol_factory, host, port, sock=sock, **options)
            further = _Further(self, protocol_factory, sock)
            further.server = await super().create_server(further.first, sock=sock, **options)
            return further.server

    new_loop = AcceptingLoop


class _Further:
    """Accepts those that wait behind a first connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: Callable[[], Any], listener: socket.socket) -> None:
        self._loop, self._factory, self._listener = loop, factory, listener
        self.server: Any = None
        self._due = False
        self._starting: set[asyncio.Task[Any]] = set()

    def first(self) -> Any:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._accept)
        return self._factory()

    def _accept(self) -> None:
        self._due = False
        for _ in range(BACKLOG if self._serving else 0):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # none waits, no descriptor is left, or the server has stopped
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._start(connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, connection: socket.socket) -> None:
        try:
            if self._serving:
                await self._loop.connect_accepted_socket(self._factory, connection)
            else:
                connection.close()
        except OSError:  # the client is gone
            connection.close()

    @property
    def _serving(self) -> bool:
        return self.server is not None and bool(self.server.is_serving())
