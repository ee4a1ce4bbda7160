"""What stands before every route: size limits, time limits, request ids, headers, metrics, the log line. Plain ASGI."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from pydantic_core import to_json

from agentcascade.server.errors import Problem, explain
from agentcascade.server.metrics import Meter
from agentcascade.types import new_id

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("agentcascade.access")
REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,80}")
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Gateway:
    """Wraps the application. A body must come whole within `seconds` and `max_bytes`."""

    def __init__(self, app: App, meter: Meter, *, max_bytes: int, seconds: float) -> None:
        self._app, self._meter, self._max_bytes, self._seconds = app, meter, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id("req").encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        status = 0

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id), *SECURITY]
            await send(message)

        try:
            body = await self._body(scope, headers, receive)
            if isinstance(body, Problem):
                await answer(sending, body, close=True)
            else:
                await self._app(scope, _replay(body, receive), sending)
        except Exception as error:
            if status:  # the answer has begun: all that is left is to break it off
                raise
            await answer(sending, explain(error))
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            self._meter.request(scope["method"], route, status, seconds)
            if log.isEnabledFor(logging.INFO):
                log.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "ms": round(seconds * 1000, 1),
                        "request_id": request_id.decode(),
                        **scope["state"].get("said", {}),
                    },
                )

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes | Problem:
        too_long = Problem(
            413, f"the body has more than {self._max_bytes} bytes (server.max_body_bytes)", "invalid_request_error",
            "body_too_large",
        )  # fmt: skip
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max_bytes:
            return too_long
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Problem(400, "the client went away", "invalid_request_error")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_bytes:
                        return too_long
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            return Problem(408, "the request's body did not come in time", "invalid_request_error", "request_timeout")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever the connection says (that the client is gone)."""
    waiting = True

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


async def answer(send: Send, problem: Problem, *, close: bool = False) -> None:
    """The problem as a whole response; `close` the connection when its request was not read to its end."""
    body = to_json(problem.body())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.encode(), v.encode()) for k, v in problem.headers().items()]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
