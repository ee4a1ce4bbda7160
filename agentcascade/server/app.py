"""The proxy's application (FastAPI): its routes. Stateless: all that outlives a request is in the database."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response

from agentcascade._util.garbage import GC_THRESHOLD
from agentcascade._util.threads import apart
from agentcascade._version import __version__
from agentcascade.episodes.identity import ID
from agentcascade.errors import StorageError
from agentcascade.server import wire
from agentcascade.server.auth import Gate
from agentcascade.server.bodies import BodyLimits
from agentcascade.server.browsers import BrowserGuard
from agentcascade.server.chat import ChatProtocol
from agentcascade.server.dashboard.routes import router as dashboard_router
from agentcascade.server.errors import invalid
from agentcascade.server.feedback import FeedbackRoute
from agentcascade.server.first_requests import prepare
from agentcascade.server.gateway import Gateway
from agentcascade.server.interrupts import short_grace
from agentcascade.server.messages_routes import add_messages_routes
from agentcascade.server.metrics import RequestMetrics
from agentcascade.server.outlook_log import log_outlooks
from agentcascade.server.passthrough import callers_cascade, nameable, with_passthrough
from agentcascade.server.provider_models import ProviderModels, described
from agentcascade.server.readiness import Readiness
from agentcascade.server.responses import ResponsesProtocol
from agentcascade.server.responses_routes import add_responses_routes
from agentcascade.server.routes import as_json, documented, guarded, respond
from agentcascade.server.session_secret import session_secret
from agentcascade.server.step_route import StepRoutes
from agentcascade.storage.responses import ResponseStore

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.config.load import CascadeConfig
    from agentcascade.config.sections import ServerConfig
    from agentcascade.storage import Database

__all__ = ["create_app"]

log = logging.getLogger("agentcascade.server")
EpisodeId = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{ID.pattern}$"})]
"""Only documented: the route checks it."""
THREADS = 64
"""Most of them wait for a database or a provider: a few that hang shall not keep all others waiting."""
CLOSING_SECONDS = 3.0
STEP_PATHS = {"/v1/chat/completions", "/v1/messages", "/v1/responses"}
"""Of the routes that take steps: guarded, answered by POST alone."""


def create_app(config: CascadeConfig) -> FastAPI:
    """The proxy for every cascade of a configuration, as an ASGI application.

    Args:
        config: Databases and models of all its cascades are opened now, and closed when the application's lifespan
            ends.

    Returns:
        An application for any ASGI server; `agentcascade serve` runs it under uvicorn.

    Raises:
        ConfigError: For a configuration that cannot be built.
        MissingExtra: Without the packages of the extra ``server``, or those of a configured part.
        StorageError: For a database that cannot be opened.

    >>> from agentcascade import CascadeConfig
    >>> parts = {"teacher": {"name": "gpt-4.1"}, "retrieval": {"k": 0}, "bank": {"url": "sqlite:///:memory:"}}
    >>> app = create_app(CascadeConfig.load(None, mode="teacher", **parts))
    >>> [path for path in app.openapi()["paths"] if path.startswith("/v1/")]
    ['/v1/chat/completions', '/v1/episodes/{episode}/feedback', '/v1/messages', '/v1/messages/count_tokens', \
'/v1/responses', '/v1/responses/{id}', '/v1/responses/{id}/input_items', '/v1/models', '/v1/models/{model}']
    """
    from agentcascade.assembly.cascade import build_all
    from agentcascade.storage.keys import Keys
    from agentcascade.storage.rate_limiter import RateLimiter
    from agentcascade.storage.sessions import Sessions
    from agentcascade.telemetry.prometheus import prometheus

    telemetry, render = prometheus(record_content=config.telemetry.contents)
    config, teachers = with_passthrough(config)
    cascades, shared = build_all(config, observer=telemetry, teachers=teachers)
    try:
        database = shared.database(config)
        keys = Keys(database)
        sessions = Sessions(keys, session_secret(config.server, replicated=not database.is_sqlite))
        gate = Gate(keys, RateLimiter(database), sessions, open=config.server.open)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            asyncio.get_running_loop().set_default_executor(
                ThreadPoolExecutor(THREADS, thread_name_prefix="agentcascade")
            )
            await asyncio.gather(*(c.bank.refresh() for c in cascades.values() if c.bank is not None))
            prepare(cascades.values())
            with suppress(StorageError):  # whoever comes then asks again
                await apart(keys.exist)
            gc.collect()
            gc.freeze()  # what was loaded stays: walking through all of it again takes a tenth of a second each time
            before = gc.get_threshold()
            gc.set_threshold(max(before[0], GC_THRESHOLD), *before[1:])
            told = asyncio.create_task(apart(log_outlooks, list(nameable(cascades).values())))
            async with app.state.meter.worker_metrics.listening():
                with short_grace(app.state.steps.cancel):
                    yield
                await app.state.steps.idle()
                await app.state.feedback.settle(CLOSING_SECONDS)
            await _settle(cascades.values(), config.server.shutdown_seconds)
            await asyncio.wait([told], timeout=CLOSING_SECONDS)
            await asyncio.to_thread(shared.close)
            gc.set_threshold(*before)

        app = FastAPI(
            title="agentcascade", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
            description="An OpenAI-compatible proxy: demonstrations for a cheap student, a teacher where it disagrees.",
        )  # fmt: skip
        _routes(app, cascades, gate, database, RequestMetrics(telemetry, render), config.server)
        app.add_exception_handler(HTTPException, _unrouted)
        app.include_router(dashboard_router(database, gate))
    except BaseException:
        shared.close()
        raise
    settings = config.server
    app.add_middleware(
        Gateway,
        meter=app.state.meter,
        bodies=BodyLimits(
            max_bytes=settings.max_body_bytes, seconds=settings.body_seconds, max_incoming=settings.max_incoming_bytes
        ),
        browsers=BrowserGuard(settings.hosts, settings.origins, gate.guarded, settings.host),
        steps={r.path: r.endpoint for r in app.routes if isinstance(r, APIRoute) and r.path in STEP_PATHS},
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after", "x-agentcascade-episode", "x-agentcascade-answered-by"],
        )
    return app


async def _settle(cascades: Iterable[Cascade], seconds: float) -> None:
    """Wait for the shadows and audits under way; what is not over then is left behind."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(cascade.settle() for cascade in cascades))
    except TimeoutError:
        log.warning("shadows or audits were still under way after %g seconds (server.shutdown_seconds)", seconds)


def _routes(
    app: FastAPI,
    cascades: dict[str, Cascade],
    gate: Gate,
    database: Database,
    meter: RequestMetrics,
    settings: ServerConfig,
) -> None:
    app.state.meter = meter
    callers = callers_cascade(cascades, settings)
    app.state.feedback = feedback = FeedbackRoute(cascades, gate, settings.feedback_seconds)
    cascades = nameable(cascades)
    app.state.steps = steps = StepRoutes(cascades, gate, settings.max_requests, settings.keepalive_seconds, callers)
    ready, chat = Readiness(database), ChatProtocol()
    started = int(time.time())

    @app.post("/v1/chat/completions", **documented("Chat", wire.ChatAnswer, wire.ChatRequest, stream=True))
    @guarded
    async def completions(request: Request) -> Response:
        return await steps.answer(request, chat)

    @app.post(
        "/v1/episodes/{episode:path}/feedback", **documented("Episodes", wire.FeedbackAnswer, wire.Feedback)
    )  # fmt: skip
    @guarded
    async def feedback_route(request: Request, episode: EpisodeId) -> Response:
        return as_json(await feedback(request, episode))

    stores = settings.store_responses
    add_messages_routes(app, steps)
    add_responses_routes(app, steps, gate, ResponsesProtocol(ResponseStore(database), stores=stores))

    @app.get("/v1/models", **documented("Chat", wire.Models))
    @guarded
    async def models(request: Request) -> Response:
        tenant = await gate.enter(request.headers, counted=False)
        names = [name for name in cascades if tenant.may_use(name)]
        if callers is not None and tenant.may_use(callers.cascade.name):
            with steps.place():
                listed = await ProviderModels(callers.models).models(request.headers, request.query_params, names)
            if listed is not None:
                return as_json(listed)
        return as_json({"object": "list", "data": [described(name, "chat", started) for name in names]})

    @app.get("/v1/models/{model:path}", **documented("Chat", wire.Model))
    @guarded
    async def retrieved(request: Request, model: str) -> Response:
        tenant = await gate.enter(request.headers, counted=False)
        if callers is not None and model not in cascades and tenant.may_use(callers.cascade.name):
            with steps.place():
                told = await ProviderModels(callers.models).model(request.headers, model)
            if told is not None:
                return as_json(told)
        steps.find(model, tenant)
        return as_json(described(model, "chat", started))

    @app.get("/healthz", tags=["Health"])
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", **documented("Health", None))
    @guarded
    async def readyz(request: Request) -> Response:
        await ready.check()
        return as_json({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse, **documented("Health", None))
    @guarded
    async def metrics(request: Request) -> Response:
        await gate.scrape(request.headers)
        body, media_type = await meter.worker_metrics.page()
        return Response(body, media_type=media_type)


async def _unrouted(request: Request, error: Exception) -> Response:
    """There is no such path, or not with that method."""
    assert isinstance(error, HTTPException)
    what = f"{request.method[:20]} {request.url.path[:80]}: {error.detail}"
    if error.status_code in (404, 405) and request.url.path.startswith("/v1/"):
        what += (
            ". Here are POST /v1/chat/completions, /v1/responses, /v1/messages and /v1/episodes/ID/feedback, "
            "and GET /v1/models. Nothing else is forwarded, since no model may be called past records and budgets: for "
            "embeddings, files, images, audio or batches point that client at its provider's own base URL"
        )
    response = respond(invalid(what, status=error.status_code).problem, request.url.path)
    response.headers.update(error.headers or {})
    return response
