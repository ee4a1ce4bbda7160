"""Connections that wait are all accepted at once, and those that come when the server stops by nobody."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentcascade.server import accepting, workers

CLIENTS = 60
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")


class Greeter(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: Any) -> None:
        Greeter.made += 1
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.write(b"hello")


def with_waiting(work: Callable[[socket.socket, list[socket.socket]], Awaitable[None]]) -> None:
    """`work(listener, clients)` in the server's loop, with clients that are in the backlog before it listens."""
    Greeter.made = 0
    loop = accepting.new_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(CLIENTS)]
        listener.setblocking(False)
        try:
            loop.run_until_complete(work(listener, clients))
        finally:
            for client in clients:
                client.close()
            loop.close()


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def test_all_that_wait_are_accepted_within_a_few_turns() -> None:
    async def work(listener: socket.socket, clients: list[socket.socket]) -> None:
        server = await asyncio.get_running_loop().create_server(Greeter, sock=listener)
        await turns(CLIENTS // 4)
        assert Greeter.made == CLIENTS
        clients.append(socket.create_connection(listener.getsockname()[:2]))  # the loop goes on listening
        for client in clients:
            client.setblocking(False)
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(client, 5) == b"hello"
        server.close()
        await server.wait_closed()

    with_waiting(work)


def test_a_server_that_has_stopped_accepts_nobody() -> None:
    async def work(listener: socket.socket, clients: list[socket.socket]) -> None:
        server = await asyncio.get_running_loop().create_server(Greeter, sock=listener)
        server.close()
        before = Greeter.made
        await turns(CLIENTS)
        assert Greeter.made <= before + 1 < CLIENTS

    with_waiting(work)


def test_several_workers_take_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(workers.FOLDER, "/nowhere")

    async def work(listener: socket.socket, clients: list[socket.socket]) -> None:
        server = await asyncio.get_running_loop().create_server(Greeter, sock=listener)
        await turns(CLIENTS // 4)
        assert 0 < Greeter.made < CLIENTS
        server.close()

    with_waiting(work)
