"""What a page in a browser may do with the proxy, by raw headers and in a real Chromium; what programs still may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chromium import chromium
from tests.fake_openai import FakeOpenAI

pytest.importorskip("fastapi", reason="needs the extra `server`")
from agentcascade.config.load import CascadeConfig
from agentcascade.server.browsers import BrowserGuard, host_name
from tests.proxy import Proxy, serving, settings

ASK = json.dumps({"model": "default", "messages": [{"role": "user", "content": "pay"}]})
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(fake: FakeOpenAI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server without keys that two names and one foreign page may use."""
    named = {"hosts": ["ai.example.com", "*.corp.example"], "origins": ["https://app.example.com"]}
    config = settings(fake, tmp_path_factory.mktemp("browsers"), mode="teacher", server=named)
    with serving(CascadeConfig(**config)) as running:
        yield running


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "none", "origin": "null"},
    {"sec-fetch-site": "none", "origin": "https://evil.example"},
    {"host": "evil.example"},
    {"host": "evil.example:8080", "origin": "http://evil.example:8080", "sec-fetch-site": "same-origin"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "localhost@evil.example"},
    {"host": "corp.example.evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("path", [CHAT, "/v1/episodes/x/feedback", "/dashboard/data", "/metrics", "/v1/models"])
def test_a_foreign_page_gets_nothing(proxy: Proxy, fake: FakeOpenAI, headers: dict[str, str], path: str) -> None:
    before = len(fake.requests)
    method = "POST" if path in (CHAT, "/v1/episodes/x/feedback") else "GET"
    response = proxy.http.request(method, path, content=ASK if method == "POST" else None, headers=JSON | headers)
    assert response.status_code == 403, response.text
    assert response.json()["error"]["code"] in ("host_not_allowed", "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert len(fake.requests) == before


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site", "Content-Type"])
def test_a_header_that_decides_is_there_once(proxy: Proxy, fake: FakeOpenAI, name: str) -> None:
    before = len(fake.requests)
    own = {
        "Host": "localhost",
        "Origin": "http://localhost",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
    }
    twice = [(name, "evil.example"), *own.items()]
    response = proxy.http.post(CHAT, content=ASK, headers=twice)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_header")
    assert name in response.json()["error"]["message"]
    assert len(fake.requests) == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_only_json_is_a_body(proxy: Proxy, fake: FakeOpenAI, kind: str) -> None:
    before = len(fake.requests)
    response = proxy.http.post(CHAT, content=ASK, headers={"content-type": kind})
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]["message"]
    assert len(fake.requests) == before
    packed = proxy.http.post(CHAT, content=ASK, headers=JSON | {"content-encoding": "gzip"})
    assert (packed.status_code, packed.json()["error"]["code"]) == (415, "compressed_body")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json; charset=utf-8"},
        {"host": "ai.example.com"},
        {"host": "a.corp.example:443"},
        {"host": "10.1.2.3:8080"},
        {"host": "[::1]:8080"},
        {"host": "agentcascade:8080"},
        {"host": "ui.localhost"},
        {"origin": "https://app.example.com", "sec-fetch-site": "cross-site"},
        {"host": "ai.example.com", "origin": "https://ai.example.com"},
        {"sec-fetch-site": "same-origin", "origin": "https://outside.example.com"},
        {"sec-fetch-site": "none"},
    ],
)
def test_programs_and_own_pages_are_served(proxy: Proxy, headers: dict[str, str]) -> None:
    response = proxy.http.post(CHAT, content=ASK, headers=JSON | headers)
    assert response.status_code == 200, response.text


def test_a_listed_page_may_ask_and_read(proxy: Proxy) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    page = {"origin": "https://app.example.com"}
    allowed = proxy.http.options(CHAT, headers=page | asks)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == page["origin"]
    told = proxy.http.post(CHAT, content=ASK, headers=JSON | page)
    assert told.headers["access-control-allow-origin"] == page["origin"]
    assert "x-agentcascade-episode" in told.headers["access-control-expose-headers"]
    refused = proxy.http.options(CHAT, headers={"origin": "http://evil.example"} | asks)
    assert "access-control-allow-origin" not in refused.headers


def test_probes_and_links_come_from_anywhere(proxy: Proxy) -> None:
    assert proxy.http.get("/healthz", headers={"host": "kube-probe.example"}).status_code == 200
    assert proxy.http.head("/readyz").status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert proxy.http.get("/", headers=link).status_code == 200


def test_with_keys_any_name_does_unless_names_are_listed(fake: FakeOpenAI, tmp_path: Path) -> None:
    public = {"host": "llm.example.org"}
    with serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as running:
        assert running.chat(headers=public).status_code == 403
        key = running.key("k")
        assert running.chat(headers=public).status_code == 401
        assert running.chat(key=key, headers=public).status_code == 200
        assert running.chat(key=key, headers=public | {"origin": "http://evil.example"}).status_code == 403
    with serving(CascadeConfig(**settings(fake, tmp_path, server={"hosts": ["ai.example.com"]}))) as running:
        assert running.chat(key=key, headers=public).status_code == 403


@given(st.text(alphabet="abc.:[]@%/-_*é\0 127", max_size=20))
def test_no_host_of_any_shape_breaks_the_check(host: str) -> None:
    browsers = BrowserGuard(["*.good.example"], [], _unguarded)
    raw = host.encode("latin-1")
    if browsers.knows(raw) and raw:
        name = host_name(raw)
        assert name is not None
        assert "." not in name or name.replace(".", "").isdigit() or ":" in name


async def _unguarded() -> bool:
    return False


@contextmanager
def site(page: str) -> Iterator[str]:
    """A foreign page; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = page.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


ATTACK = """
const [base, done] = arguments
const body = JSON.stringify({model: 'default', messages: [{role: 'user', content: 'pay'}]})
const tries = {
  form: {method: 'POST', mode: 'no-cors', headers: {'content-type': 'text/plain'}, body},
  untyped: {method: 'POST', mode: 'no-cors', body: new Blob([body])},
  json: {method: 'POST', headers: {'content-type': 'application/json'}, body},
}
Promise.all([
  ...Object.entries(tries).map(([name, options]) => [name, '/v1/chat/completions', options]),
  ['figures', '/dashboard/data?hours=24', {}], ['metrics', '/metrics', {}],
].map(async ([name, path, options]) => {
  try {
    const response = await fetch(base + path, options)
    return [name, response.type, response.type === 'opaque' ? '' : await response.text()]
  } catch (error) { return [name, 'failed', ''] }
})).then(done)
"""


def test_a_real_browser_on_a_foreign_page(fake: FakeOpenAI, tmp_path: Path) -> None:
    """The page is of another port of this machine, and by DNS rebinding of the server's own."""
    with (
        chromium() as driver,
        serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as proxy,
        site("<!doctype html><title>foreign</title>") as foreign,
    ):
        before = len(fake.requests)
        driver.set_script_timeout(20)
        driver.get(foreign)
        for name, kind, text in driver.execute_async_script(ATTACK, proxy.base):
            assert kind in ("opaque", "failed"), name
            assert not text, name
        assert len(fake.requests) == before, "nothing was spent"
        driver.get(proxy.base)
        asked = driver.execute_async_script(ATTACK, proxy.base)
        assert {kind for _, kind, _ in asked} == {"failed"}, "the dashboard's policy lets its pages ask for nothing"
        driver.get(f"{proxy.base}/healthz")
        own = driver.execute_async_script(ATTACK, proxy.base)
        assert {name: bool(text) for name, kind, text in own}["figures"], "a page of the server's own reads its figures"
        assert len(fake.requests) == before + 2, "and may ask, in JSON: not as a form"
