"""Sessions of the dashboard: who reads the database can sign none, and signing out ends every copy on every replica."""

from __future__ import annotations

import hmac
import time
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event, select

from agentcascade import CascadeConfig
from agentcascade.config.sections import ServerConfig
from agentcascade.errors import ConfigError
from agentcascade.storage import Database
from agentcascade.storage import keys as module
from agentcascade.storage import sessions as sessions_module
from agentcascade.storage.keys import Keys
from agentcascade.storage.rate_limiter import RateLimiter
from agentcascade.storage.sessions import Sessions
from agentcascade.storage.tables import keys as key_rows

fastapi = pytest.importorskip("fastapi", reason="needs fastapi: pip install 'agentcascade[server]'")
pytest.importorskip("jinja2", reason="needs jinja2: pip install 'agentcascade[server]'")
SECRET = "the same text at every replica, " * 2
PAGE = "/dashboard/steps"
COOKIE = "agentcascade_session"


@asynccontextmanager
async def replica(database: Database, secret: str = SECRET) -> Any:
    """A client of the dashboard's routes over the database, which keeps no cookies."""
    from agentcascade.server.auth import Gate
    from agentcascade.server.dashboard.routes import router

    keys, app = Keys(database), fastapi.FastAPI()
    app.include_router(router(database, Gate(keys, RateLimiter(database), Sessions(keys, secret), open=False)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        yield client


async def signed_in(client: httpx.AsyncClient, token: str) -> str:
    answer = await client.post("/dashboard/sign-in", data={"key": token})
    client.cookies.clear()
    return str(answer.cookies[COOKIE])


async def looks(client: httpx.AsyncClient, session: str) -> int:
    return (await client.get(PAGE, headers={"cookie": f"{COOKIE}={session}"})).status_code


async def signs_out(client: httpx.AsyncClient, session: str) -> httpx.Response:
    return await client.post("/dashboard/sign-out", headers={"cookie": f"{COOKIE}={session}"})


async def test_who_reads_the_database_can_sign_no_session(database: Database) -> None:
    key, token = Keys(database).create("boss", admin=True)
    with database.begin() as connection:
        row = connection.execute(select(key_rows)).mappings().one()
    async with replica(database) as client:
        good = await signed_in(client, token)
        assert await looks(client, good) == 200
        expires, ended = int(time.time()) + 3600, row["sessions_ended"]
        for known in (row["hash"], key.id, "", "0" * 64):
            for said in (f"dashboard session {key.id} {expires}",
                         f"agentcascade dashboard session {key.id} {row['hash']} {expires} {ended}"):  # fmt: skip
                signature = hmac.new(known.encode(), said.encode(), "sha256").hexdigest()
                for forged in (f"{key.id}.{expires}.{signature}", f"{key.id}.{expires}.{ended}.{signature}"):
                    assert await looks(client, forged) == 401
        own = Sessions(Keys(database), "what a reader of the database makes up")
        assert await looks(client, await own.open(token, 60)) == 401
        signature = good.rpartition(".")[2]
        assert await looks(client, f"{key.id}.{expires}.{ended}.{signature}") == 401, "a longer one"


@pytest.mark.parametrize("how", [{"x-forwarded-proto": "https"}, {"x-forwarded-proto": "https, http"}, {}])
async def test_over_https_the_session_is_a_cookie_of_this_host_alone(database: Database, how: dict[str, str]) -> None:
    _, token = Keys(database).create("boss", admin=True)
    async with replica(database) as client:
        if not how:
            client.base_url = "https://here"
        signed = await client.post("/dashboard/sign-in", data={"key": token}, headers=how)
        said = signed.headers["set-cookie"]
        name, _, session = said.partition(";")[0].partition("=")
        assert name == f"__Host-{COOKIE}"
        assert {"Secure", "HttpOnly", "Path=/"} <= set(said.split("; "))
        assert "domain" not in said.lower(), "browsers refuse such a cookie with a domain"
        client.cookies.clear()
        good, planted = f"{name}={session}", f"{COOKIE}={session}"
        statuses = [(await client.get(PAGE, headers={**how, "cookie": c})).status_code for c in (good, planted)]
        assert statuses == [200, 401], "what another host of the domain can plant is not looked at"
        left = await client.post("/dashboard/sign-out", headers={**how, "cookie": good})
        assert [c.partition("=")[0] for c in left.headers.get_list("set-cookie")] == [COOKIE, name]
        assert (await client.get(PAGE, headers={**how, "cookie": good})).status_code == 401


async def test_a_planted_cookie_stands_behind_the_hosts_own(database: Database) -> None:
    """Also where no proxy says that the browser speaks https."""
    _, token = Keys(database).create("boss", admin=True)
    async with replica(database) as client:
        session = await signed_in(client, token)
        both = f"{COOKIE}=made-up; __Host-{COOKIE}={session}"
        assert (await client.get(PAGE, headers={"cookie": both})).status_code == 200
        other = f"{COOKIE}={session}; __Host-{COOKIE}=made-up"
        assert (await client.get(PAGE, headers={"cookie": other})).status_code == 401


async def test_signing_out_ends_every_copy_on_every_replica_and_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = Keys(database).create("boss", admin=True)
    _, other_token = Keys(database).create("viewer")
    async with replica(database) as here, replica(database) as there:
        session, other = await signed_in(here, token), await signed_in(here, other_token)
        copy = await signed_in(there, token)
        assert [await looks(c, s) for c in (here, there) for s in (session, copy, other)] == [200] * 6
        left = await signs_out(there, session)
        assert (left.status_code, left.cookies.get(COOKIE)) == (303, None)
        assert [await looks(there, s) for s in (session, copy, other)] == [401, 401, 200], (
            "at once where one signed out"
        )
        with monkeypatch.context() as patched:
            patched.setattr(module, "REMEMBERED_SECONDS", 0.0)
            assert [await looks(here, s) for s in (session, copy, other)] == [401, 401, 200]
        assert (await here.get(PAGE, headers={"authorization": f"Bearer {token}"})).status_code == 200
        monkeypatch.setattr(sessions_module, "NEW_SECONDS", 0.0)
        again = await signed_in(here, token)
        for ended in (session, copy, "nonsense", ""):  # a button that is pressed again, or by somebody else
            assert (await signs_out(there, ended)).status_code == 303
        assert [await looks(c, again) for c in (here, there)] == [200, 200]


async def test_who_signs_in_where_signing_out_was_not_heard_of_stays_in(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = Keys(database).create("boss", admin=True)
    monkeypatch.setattr(sessions_module, "NEW_SECONDS", 0.0)
    async with replica(database) as here, replica(database) as there:
        first = await signed_in(here, token)
        assert await looks(there, first) == 200
        await signs_out(here, first)
        second = await signed_in(there, token)
        with monkeypatch.context() as patched:
            patched.setattr(module, "REMEMBERED_SECONDS", 0.0)
            assert [await looks(c, second) for c in (here, there)] == [200, 200]


async def test_a_sign_out_that_the_database_does_not_take_is_told_and_the_browser_keeps_its_session(
    database: Database,
) -> None:
    _, token = Keys(database).create("boss", admin=True)
    async with replica(database) as client:
        session = await signed_in(client, token)

        @event.listens_for(database.engine, "before_cursor_execute")
        def refuse(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
            if statement.startswith("UPDATE"):
                raise OSError("the disk is full")

        answer = None
        try:
            answer = await signs_out(client, session)
        finally:
            event.remove(database.engine, "before_cursor_execute", refuse)
        assert answer.status_code >= 500
        assert "set-cookie" not in answer.headers
        assert await looks(client, session) == 200
        assert (await signs_out(client, session)).status_code == 303
        assert await looks(client, session) == 401


async def test_signing_out_over_https_ends_what_was_opened_over_http_by_another_key(database: Database) -> None:
    """The cookies of both are deleted, and whoever read the one on its way is left without it."""
    tokens = [Keys(database).create(name, admin=True)[1] for name in ("plain", "boss")]
    https = {"x-forwarded-proto": "https"}
    async with replica(database) as client:
        plain = await signed_in(client, tokens[0])
        answer = await client.post("/dashboard/sign-in", data={"key": tokens[1]}, headers=https)
        own = answer.headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        both = {**https, "cookie": f"{own}; {COOKIE}={plain}"}
        assert (await client.post("/dashboard/sign-out", headers=both)).status_code == 303
        assert (await client.get(PAGE, headers=both)).status_code == 401
        assert await looks(client, plain) == 401


async def test_a_session_costs_the_database_nothing_of_its_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_SECONDS", 60.0)
    keys = Keys(database)
    _, token = keys.create("boss", admin=True)
    sessions, seen = Sessions(keys, SECRET), []
    session = await sessions.open(token, 60)
    event.listen(database.engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    for _ in range(100):
        assert (await sessions.check(session)).admin
    assert seen == []


def test_a_short_secret_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTCASCADE_SERVER__SESSION_SECRET", "too-short-4711")
    with pytest.raises(ConfigError, match="session_secret") as told:
        CascadeConfig.load(None, teacher="openai/m")
    assert "4711" not in str(told.value)
    monkeypatch.setenv("AGENTCASCADE_SERVER__SESSION_SECRET", SECRET)
    config = CascadeConfig.load(None, teacher="openai/m")
    assert SECRET not in repr(config) + config.model_dump_json()


def test_servers_without_a_configured_secret_say_what_that_means(caplog: pytest.LogCaptureFixture) -> None:
    from agentcascade._util.known_secrets import hide
    from agentcascade.server.session_secret import session_secret

    made = session_secret(ServerConfig())
    assert caplog.text == ""
    assert session_secret(ServerConfig(), replicated=True) == made, "a reload keeps it"
    assert "server.session_secret is not set" in caplog.text
    caplog.clear()
    assert session_secret(ServerConfig(session_secret=SecretStr(SECRET)), replicated=True) == SECRET
    assert caplog.text == ""
    assert made not in hide(f"{made} {SECRET}")
    assert SECRET not in hide(f"{made} {SECRET}")
