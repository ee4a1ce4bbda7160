"""Keep-alive of streams: a balancer with little patience in between, and the unmodified SDKs behind it."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")
import anthropic
import openai
from sqlalchemy import select

from agentcascade._util.ports import free_port
from agentcascade.config.load import CascadeConfig
from agentcascade.server.keepalive import COMMENT, KeepAlive
from agentcascade.storage import open_database
from agentcascade.storage.tables import decisions
from tests.fake_openai import FakeOpenAI, Reply, Script
from tests.proxy import Proxy, serving, settings
from tests.waiting import until

ASK: list[Any] = [{"role": "user", "content": "hi"}]
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASK},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": ASK, "max_tokens": 100},
}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
SLOW = Reply(texts=("all is well here",), delay=1.0)


@contextmanager
def proxy(folder: Path, script: Script, seconds: float, mode: str = "teacher") -> Iterator[tuple[Proxy, FakeOpenAI]]:
    with FakeOpenAI(script) as fake:
        config = settings(fake, folder, mode=mode, server={"keepalive_seconds": seconds})
        with serving(CascadeConfig(**config)) as running:
            yield running, fake


def streamed(url: str, path: str) -> tuple[int, bytes]:
    body = {"model": "default", "stream": True, **DOORS[path]}
    answer = httpx.post(url + path, json=body, timeout=60)
    return answer.status_code, answer.content


def counted(path: str, status: int) -> str:
    labels = f'http_request_method="POST",http_response_status_code="{status}",http_route="{path}"'
    return f"agentcascade_http_requests_total{{{labels}}} 1.0"


def keepalive_of(path: str) -> bytes:
    return PING if path == "/v1/messages" else COMMENT


@pytest.mark.parametrize("mode", ["teacher", "cascade"])
@pytest.mark.parametrize("path", DOORS)
def test_a_silent_stream_is_kept_alive(path: str, mode: str, tmp_path: Path) -> None:
    with proxy(tmp_path, [SLOW], 0.2, mode) as (running, _):
        status, content = streamed(running.base, path)
    assert status == 200
    silence, _, _ = content.partition(b"well")
    assert silence.count(keepalive_of(path)) >= 2
    assert silence != content


@pytest.mark.parametrize("path", DOORS)
def test_one_that_is_not_silent_is_as_ever(path: str, tmp_path: Path) -> None:
    with proxy(tmp_path, [Reply(texts=("all is well here",), chunk_delay=0.05)], 20) as (running, _):
        status, content = streamed(running.base, path)
    assert status == 200
    assert COMMENT not in content
    assert b"well" in content


@pytest.mark.parametrize("path", DOORS)
def test_silence_amid_an_answer_is_filled_between_its_events(path: str, tmp_path: Path) -> None:
    with proxy(tmp_path, [Reply(texts=("a b",), chunk_delay=0.7)], 0.2) as (running, _):
        _, content = streamed(running.base, path)
    assert content.count(keepalive_of(path)) >= 3
    for event in content.split(b"\n\n"):
        assert event == b"" or event.startswith((b"data: ", b"event: ", b": ")), event


@pytest.mark.parametrize("path", DOORS)
def test_what_goes_wrong_has_a_status_until_the_first_and_is_an_event_from_then_on(path: str, tmp_path: Path) -> None:
    refused = Reply(status=400, body={"error": {"message": "no such thing", "type": "invalid_request_error"}}, delay=1)
    with proxy(tmp_path, [refused], 0.2) as (running, _):
        status, content = streamed(running.base, path)
        assert status == 200
        assert b"no such thing" in content.split(keepalive_of(path))[-1]
        until(lambda: counted(path, 400) in running.http.get("/metrics").text)
    with proxy(tmp_path, [refused], 0) as (running, _):
        status, content = streamed(running.base, path)
        assert status == 400
        assert b"no such thing" in content


def test_the_sdks_read_past_it(tmp_path: Path) -> None:
    with proxy(tmp_path, [SLOW], 0.2) as (running, _):
        client = openai.OpenAI(base_url=f"{running.base}/v1", api_key="none", max_retries=0)
        chunks = list(client.chat.completions.create(model="default", messages=ASK, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "all is well here"
        events = list(client.responses.create(model="default", input="hi", stream=True))
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        claude = anthropic.Anthropic(base_url=running.base, api_key="none", max_retries=0)
        with claude.messages.stream(model="default", max_tokens=100, messages=ASK) as stream:
            assert stream.get_final_text() == "all is well here"


def test_the_sdks_raise_what_comes_as_an_event(tmp_path: Path) -> None:
    with proxy(tmp_path, [Reply(status=500, delay=1)], 0.2) as (running, _):
        client = openai.OpenAI(base_url=f"{running.base}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError):
            list(client.chat.completions.create(model="default", messages=ASK, stream=True))
        claude = anthropic.Anthropic(base_url=running.base, api_key="none", max_retries=0)
        with (
            pytest.raises(anthropic.APIError),
            claude.messages.stream(model="default", max_tokens=100, messages=ASK) as stream,
        ):
            stream.get_final_text()


def test_a_client_that_leaves_in_silence_cancels_the_call(tmp_path: Path) -> None:
    with proxy(tmp_path, [Reply(delay=60)], 0.2) as (running, _):
        body = {"model": "default", "stream": True, "messages": ASK}
        with httpx.stream("POST", f"{running.base}/v1/chat/completions", json=body, timeout=60) as answer:
            assert next(answer.iter_raw()).startswith(COMMENT)
        deadline = time.monotonic() + 30
        with closing(open_database(running.config.bank.url)) as database:
            failures: list[Any] = []
            while not failures:
                assert time.monotonic() < deadline, "it waits for an answer that nobody wants"
                with database.begin() as connection:
                    failures = list(connection.execute(select(decisions.c.failures)).scalars())
    assert "Cancelled" in str(failures)


def test_nginx_cuts_a_silent_stream_off_and_keeps_one_that_is_kept_alive(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("needs nginx")
    slow = Reply(texts=("all is well here",), delay=3.0)
    for seconds, ends_well in ((0.0, False), (0.3, True)):
        folder = tmp_path / str(ends_well)
        folder.mkdir()
        with proxy(folder, [slow], seconds) as (running, _):
            port = free_port()
            (folder / "nginx.conf").write_text(
                f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
                f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
                f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
                f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {running.base};\n"
                "proxy_http_version 1.1; proxy_read_timeout 1s; } } }\n"
            )
            between = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
            try:
                deadline = time.monotonic() + 30
                while not answers(port):
                    assert time.monotonic() < deadline
                status, content = streamed(f"http://127.0.0.1:{port}", "/v1/chat/completions")
            finally:
                between.terminate()
                between.wait(30)
        assert (status, b"well" in content) == ((200, True) if ends_well else (504, False))


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        time.sleep(0.05)
        return False


async def test_who_does_not_read_is_sent_no_more() -> None:
    sent: list[bytes] = []
    reads, thrice = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message["body"])
        if sent.count(COMMENT) == 3:
            thrice.set()
        await reads.wait()

    async with KeepAlive(COMMENT, 0.01).sending(send) as send_event:
        await asyncio.sleep(0.1)
        assert sent == [COMMENT], "one, which is not taken"
        event = asyncio.ensure_future(send_event(b"data: 1\n\n"))
        await asyncio.sleep(0.1)
        assert sent == [COMMENT, b"data: 1\n\n"]
        reads.set()
        await event
        await thrice.wait()
    number = len(sent)
    await asyncio.sleep(0.05)
    assert len(sent) == number, "none after the end"


async def test_a_server_that_raises_for_a_client_that_is_gone_is_no_exception_that_nobody_retrieves() -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def send(message: Any) -> None:
        raise OSError("the client is gone")

    async with KeepAlive(COMMENT, 0.01).sending(send):
        await asyncio.sleep(0.1)
    gc.collect()
    assert not said
