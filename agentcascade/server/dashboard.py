"""The page at ``/`` and the figures behind it. The page holds no data; every figure is asked for with a key."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from importlib.resources import files
from typing import Any, cast

from fastapi import APIRouter, HTTPException, Request
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, Response

from agentcascade.errors import InvalidRequest
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.spending_series import Bucket
from agentcascade.server.errors import explain
from agentcascade.storage import Database
from agentcascade.types import now

LATEST = 25
"""Decisions on the page, and in each further portion."""
MAX_HOURS = 24 * 366
FRESH_SECONDS = 2.0
REST = 3
"""An answer is given again for so many times as long as it took, so that the database rests, however many look on."""

Authorize = Callable[[Request], Awaitable[str | None]]


def router(database: Database, authorize: Authorize) -> APIRouter:
    """``/``, ``/dashboard/data`` and ``/dashboard/decisions``.

    `authorize` gives the namespace that the caller may see, None for all; what it raises is the caller's answer.
    """
    insights = DashboardQueries(database)
    page, headers = load_page()
    answers = AnswerCache()
    routes = APIRouter(include_in_schema=False)

    async def answered(request: Request, ask: Callable[[str | None, Mapping[str, str]], bytes]) -> Response:
        try:
            namespace = await authorize(request)
            question = request.query_params
            body = await answers.get((ask.__name__, namespace, str(question)), lambda: ask(namespace, question))
        except HTTPException:
            raise
        except Exception as error:
            problem = explain(error)
            return JSONResponse(problem.body(), problem.status, problem.headers() | PRIVATE)
        return Response(body, media_type="application/json", headers=PRIVATE)

    def data(namespace: str | None, question: Mapping[str, str]) -> bytes:
        return to_json(
            dashboard_data(insights, namespace, _hours(question), cast(Bucket, question.get("bucket", "hour")))
        )

    def older(namespace: str | None, question: Mapping[str, str]) -> bytes:
        since = now() - timedelta(hours=_hours(question))
        before = question.get("before")
        return to_json(insights.decisions(namespace=namespace, since=since, limit=LATEST, before=before))

    @routes.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    @routes.get("/dashboard/data")
    async def figures_route(request: Request) -> Response:
        return await answered(request, data)

    @routes.get("/dashboard/decisions")
    async def decisions_route(request: Request) -> Response:
        return await answered(request, older)

    return routes


PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class AnswerCache:
    """Bodies that are fresh enough to be given again. One question at a time goes to the database."""

    def __init__(self) -> None:
        self._bodies: dict[Any, tuple[float, bytes]] = {}
        self._busy = asyncio.Lock()

    async def get(self, question: Any, answer: Callable[[], bytes]) -> bytes:
        async with self._busy:
            started = time.monotonic()
            self._bodies = {q: cached for q, cached in self._bodies.items() if cached[0] > started}
            if question not in self._bodies:
                body = await run_in_threadpool(answer)
                ended = time.monotonic()
                self._bodies[question] = ended + max(FRESH_SECONDS, REST * (ended - started)), body
            return self._bodies[question][1]


def dashboard_data(insights: DashboardQueries, namespace: str | None, hours: float, bucket: Bucket) -> dict[str, Any]:
    """Everything on the page, of the last `hours`. Dollars are decimal texts, or null where a price is unknown."""
    present = now()
    period: Any = {"namespace": namespace, "since": present - timedelta(hours=hours)}
    spending = insights.spending(bucket, **period)
    return {
        "time": present,
        "namespace": namespace,
        "hours": hours,
        "bucket": bucket,
        "totals": insights.totals(**period, spending=spending),
        "spending": spending,
        "agreement": insights.agreement_histogram(**period),
        "slowest": insights.goals("slowest", **period),
        "most_deferred": insights.goals("most_deferred", **period),
        "decisions": insights.decisions(**period, limit=LATEST),
        "more": LATEST,
        "bank": insights.bank(namespace=namespace),
        "shadow": insights.shadow(**period),
        "broken": insights.broken(**period),
    }


def load_page() -> tuple[str, dict[str, str]]:
    """The page, and headers under which nothing runs in it but its own script, and nothing leaves its origin."""
    page = files("agentcascade.server").joinpath("dashboard.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(page, 'script')}; style-src {_hashes(page, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return page, PRIVATE | {"content-security-policy": policy, "x-frame-options": "DENY"}


def _hashes(page: str, tag: str) -> str:
    """What a Content-Security-Policy calls the inline elements of this kind."""
    bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _hours(question: Mapping[str, str]) -> float:
    text = question.get("hours", "24")
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= MAX_HOURS:  # not a number fails too
        raise InvalidRequest(f"hours={text[:60]!r}: give a number above 0 and at most {MAX_HOURS}")
    return hours
