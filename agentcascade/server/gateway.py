"""ASGI middleware before every route: foreign pages, limits of bodies, request ids, metrics, access logs."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request

from agentcascade._util import known_secrets
from agentcascade.server.auth import KEY_HEADER
from agentcascade.server.bodies import BodyLimits
from agentcascade.server.browsers import BrowserGuard
from agentcascade.server.errors import Problem, explain
from agentcascade.server.event_stream import FAILED
from agentcascade.server.metrics import RequestMetrics
from agentcascade.server.problem import ANTHROPIC_PATHS, error_body
from agentcascade.server.routes import Handler
from agentcascade.types import new_id

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("agentcascade.access")
SENT_KEYS = b"authorization", b"x-api-key", b"api-key", KEY_HEADER.encode()
REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,80}")
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Gateway:
    """Wraps the application: foreign pages are refused, and bodies are read only when a route asks for them.

    Posts to the paths of `steps` go to their handlers at once: FastAPI's way to a route costs a tenth of a request.
    """

    def __init__(
        self,
        app: App,
        meter: RequestMetrics,
        bodies: BodyLimits,
        browsers: BrowserGuard,
        steps: Mapping[str, Handler] | None = None,
    ) -> None:
        self._app, self._steps = app, steps or {}
        self._meter = meter
        self._bodies = bodies
        self._browsers = browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        sent = (headers.get(name, b"").decode("latin-1") for name in SENT_KEYS)
        known_secrets.register_for_request(*(value.rpartition(" ")[2] for value in sent))
        client_id = headers.get(b"x-request-id", b"")
        request_id = client_id if REQUEST_ID.fullmatch(client_id) else new_id("req").encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        status, direct = 0, ""

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ids = [(b"x-request-id", request_id)]
                if scope["path"].startswith(ANTHROPIC_PATHS):
                    ids.append((b"request-id", request_id))
                message["headers"] = [*message.get("headers", ()), *ids, *SECURITY]
            await send(message)

        # The server itself leaves the body of an answer to HEAD away.
        routed_scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        body = self._bodies.bounded(headers.get(b"content-length", b""), receive)
        try:
            names = [name for name, _ in scope["headers"]]
            await self._browsers.check(scope["method"], scope["path"], headers, names)
            handler = self._steps.get(scope["path"])
            if handler is None or scope["method"] != "POST" or scope.get("root_path"):
                await self._app(routed_scope, body.receive, sending)
            else:
                direct = scope["path"]
                response = await handler(Request(routed_scope, body.receive))
                await response(routed_scope, body.receive, sending)
        except ClientDisconnect:  # nobody is there to be told
            status = status or 499
        except Exception as error:
            if status:  # the answer has begun: all that is left is to break it off
                raise
            await send_problem(sending, explain(error), scope["path"])
        finally:
            body.end()
            status = scope["state"].get(FAILED, status)
            seconds = time.perf_counter() - started
            route = direct or getattr(routed_scope.get("route"), "path", None) or "unmatched"
            self._meter.record(scope["method"], route, status, seconds)
            if log.isEnabledFor(logging.INFO):
                log.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "ms": round(seconds * 1000, 1),
                        "request_id": request_id.decode(),
                        **scope["state"].get("log_fields", {}),
                    },
                )


async def send_problem(send: Send, problem: Problem, path: str) -> None:
    """The problem as a whole response, as the API of `path` says it."""
    body = to_json(error_body(problem, path))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.encode(), v.encode()) for k, v in problem.headers().items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
