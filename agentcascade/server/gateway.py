"""What stands before every route, in plain ASGI: foreign pages, limits of bodies, request ids, metrics, logs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from agentcascade._util import known_secrets
from agentcascade.server.bodies import Bodies
from agentcascade.server.browsers import Browsers
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
    """Wraps the application: foreign pages are refused, and bodies are read only when a route asks for them."""

    def __init__(self, app: App, meter: Meter, bodies: Bodies, browsers: Browsers) -> None:
        self._app, self._meter, self._bodies, self._browsers = app, meter, bodies, browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        sent = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key", b"api-key"))
        known_secrets.of_request(*(value.rpartition(" ")[2] for value in sent))
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

        # The server itself leaves the body of an answer to HEAD away.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        body = self._bodies.of(headers.get(b"content-length", b""), receive)
        try:
            names = [name for name, _ in scope["headers"]]
            await self._browsers.check(scope["method"], scope["path"], headers, names)
            await self._app(asked, body.receive, sending)
        except ClientDisconnect:  # nobody is there to be told
            status = status or 499
        except Exception as error:
            if status:  # the answer has begun: all that is left is to break it off
                raise
            await answer(sending, explain(error))
        finally:
            body.end()
            seconds = time.perf_counter() - started
            route = getattr(asked.get("route"), "path", None) or "unmatched"
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


async def answer(send: Send, problem: Problem) -> None:
    """The problem as a whole response."""
    body = to_json(problem.body())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.encode(), v.encode()) for k, v in problem.headers().items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
