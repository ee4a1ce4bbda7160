"""Routes of the dashboard: pages, sign-in, and the figures as JSON. Each shows what its reader's key may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import cast
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from agentcascade.errors import InvalidKey
from agentcascade.ledger.dashboard import DashboardQueries
from agentcascade.ledger.spending_series import Bucket
from agentcascade.server.auth import Gate
from agentcascade.server.browsers import PAGES
from agentcascade.server.dashboard.answers import AnswerCache
from agentcascade.server.dashboard.pages import Pages
from agentcascade.server.dashboard.query import hours_of
from agentcascade.server.dashboard.rendering import Templates
from agentcascade.server.dashboard.report import LATEST, dashboard_data
from agentcascade.server.errors import explain
from agentcascade.storage import Database
from agentcascade.types import now

COOKIE = "agentcascade_session"
HOST_COOKIE = f"__Host-{COOKIE}"
"""Its name over https: browsers take it from this very host alone, so that no other host of the domain plants one."""
MAX_HOURS = 24 * 366
LONGEST_FORM = 8192
PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

Question = Mapping[str, str]


def router(database: Database, gate: Gate) -> APIRouter:
    """Pages under ``/`` and ``/dashboard``, and the figures as JSON, for whom `gate` lets in."""
    queries = DashboardQueries(database)
    templates = Templates()
    pages = Pages(database, templates)
    answers = AnswerCache()
    routes = APIRouter(include_in_schema=False)

    async def namespace_of(request: Request) -> str | None:
        """What the reader may see; None for everything."""
        tenant = await gate.viewer(request.headers, _session_of(request))
        return None if tenant.admin else tenant.namespace

    async def figures(request: Request, ask: Callable[[str | None, Question], bytes]) -> Response:
        try:
            namespace, question = await namespace_of(request), request.query_params
            body = await answers.get(namespace, (ask.__name__, str(question)), lambda: ask(namespace, question))
        except Exception as error:
            problem = explain(error)
            return JSONResponse(problem.body(), problem.status, problem.headers() | PRIVATE)
        return Response(body, media_type="application/json", headers=PRIVATE)

    async def page(request: Request, make: Callable[[str | None, Question, bool], bytes]) -> Response:
        signed_in = _session_of(request) is not None
        try:
            namespace, question = await namespace_of(request), request.query_params
            key = (make.__name__, signed_in, str(question))
            body = await answers.get(namespace, key, lambda: make(namespace, question, signed_in))
            return HTMLResponse(body, headers=PRIVATE | templates.headers)
        except InvalidKey as error:
            return sign_in_page(request, str(error) if signed_in or "authorization" in request.headers else "")
        except Exception as error:
            return problem_page(error)

    def problem_page(error: Exception) -> Response:
        problem = explain(error)
        body = templates.render("problem.html", message=problem.message, status=problem.status)
        return HTMLResponse(body, problem.status, headers=problem.headers() | PRIVATE | templates.headers)

    def sign_in_page(request: Request, refused: str, to: str = "", status: int = 401) -> Response:
        wanted = to or request.url.path + (f"?{request.url.query}" if request.url.query else "")
        body = templates.render("sign_in.html", refused=refused, to=wanted if _is_page(wanted) else "/")
        return HTMLResponse(body, status, headers=PRIVATE | templates.headers)

    def data(namespace: str | None, question: Question) -> bytes:
        hours, bucket = hours_of(question, MAX_HOURS), cast(Bucket, question.get("bucket", "hour"))
        return to_json(dashboard_data(queries, namespace, hours, bucket))

    def older(namespace: str | None, question: Question) -> bytes:
        since = now() - timedelta(hours=hours_of(question, MAX_HOURS))
        before = question.get("before")
        return to_json(queries.decisions(namespace=namespace, since=since, limit=LATEST, before=before))

    @routes.get("/")
    async def overview_route(request: Request) -> Response:
        return await page(request, pages.overview)

    @routes.get("/dashboard/steps")
    async def steps_route(request: Request) -> Response:
        return await page(request, pages.steps)

    @routes.get("/dashboard/episodes")
    async def episodes_route(request: Request) -> Response:
        return await page(request, pages.episodes)

    @routes.get("/dashboard/episode")
    async def episode_route(request: Request) -> Response:
        return await page(request, pages.episode)

    @routes.get("/dashboard/data")
    async def figures_route(request: Request) -> Response:
        return await figures(request, data)

    @routes.get("/dashboard/decisions")
    async def decisions_route(request: Request) -> Response:
        return await figures(request, older)

    @routes.post("/dashboard/sign-in")
    async def sign_in_route(request: Request) -> Response:
        form = _form(await request.body())
        to = form.get("to", ["/"])[0]
        try:
            session = await gate.sign_in(form.get("key", [""])[0].strip())
        except InvalidKey as error:
            return sign_in_page(request, str(error), to)
        except Exception as error:
            return sign_in_page(request, explain(error).message, to, explain(error).status)
        response = RedirectResponse(to if _is_page(to) else "/", 303, headers=PRIVATE)
        secure = _is_https(request)
        name = HOST_COOKIE if secure else COOKIE
        response.set_cookie(name, session, httponly=True, samesite="lax", secure=secure, path="/")
        return response

    @routes.post("/dashboard/sign-out")
    async def sign_out_route(request: Request) -> Response:
        try:
            for name in (HOST_COOKIE, COOKIE):  # both are deleted: what was opened over http before ends, too
                await gate.sign_out(request.cookies.get(name, ""))
        except Exception as error:  # the session goes on, and so the browser keeps it: to be signed out of again
            return problem_page(error)
        response = RedirectResponse("/", 303, headers=PRIVATE | {"clear-site-data": '"cache"'})
        response.delete_cookie(COOKIE, httponly=True, samesite="lax", path="/")
        response.delete_cookie(HOST_COOKIE, httponly=True, samesite="lax", secure=True, path="/")
        return response

    return routes


def _form(body: bytes) -> dict[str, list[str]]:
    """The fields of a form, empty where it is none of ours."""
    try:
        return parse_qs(body[:LONGEST_FORM].decode("latin-1"), max_num_fields=4)
    except ValueError:  # more fields
        return {}


def _is_page(address: str) -> bool:
    """Whether it is one of our pages, and so no other site: what one signs in for."""
    return address.isascii() and address.isprintable() and address.partition("?")[0] in PAGES


def _is_https(request: Request) -> bool:
    """Whether the browser speaks https, to this server or to a proxy before it.

    A client that makes it up is shown fewer cookies, and that is all: an origin is this host's, which was checked.
    """
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or forwarded == "https" or origin.startswith("https://")


def _session_of(request: Request) -> str | None:
    """The session that the browser sends: over https the host's own alone, which others cannot have planted."""
    own = request.cookies.get(HOST_COOKIE)
    return own if own or _is_https(request) else request.cookies.get(COOKIE)
