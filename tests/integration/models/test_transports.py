"""HTTP of configured models over aiohttp and over httpx: the same answers, the same errors, the same bills."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import ssl
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentcascade._util.ports import free_port
from agentcascade.errors import ProviderError, bill_of
from agentcascade.models import http_client, http_limits
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.openai import OpenAIModel
from tests.provider import Out, Provider, whole
from tests.provider_cases import ASK, Got, ask, says

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CLOSED = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection."""


@pytest.fixture(params=["aiohttp", "httpx"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(http_client.VARIABLE, request.param)
    name: str = request.param
    return name


class RawServer:
    """Answers each connection by `answer(connection)`, of which it has read one request."""

    def __init__(self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self._answer, self._context = answer, context
        self.requests: list[bytes] = []
        self.reached = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self.requests.append(read_request(connection))
                self.reached.set()
                self._answer(connection)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(value) for name, _, value in (line.partition(b":") for line in head.lower().split(b"\r\n"))
               if name == b"content-length"]  # fmt: skip
    while len(body) < sum(lengths):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(answer, context)
    try:
        yield server
    finally:
        server.close()


def sends(data: bytes, reset: bool = False) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSED)

    return answer


MODELS: dict[str, Callable[..., Any]] = {
    "chat": lambda url, **more: OpenAIModel("openai/gpt-4.1-mini", api_base=url, api_key="k", **{"retries": 0, **more}),
    "messages": lambda url, **more: AnthropicModel(
        "anthropic/claude-sonnet-4-5", api_base=url, api_key="k", **{"retries": 0, **more}
    ),
}
BROKEN = {
    "nothing is answered": sends(b""),
    "reset before the answer": sends(b"", reset=True),
    "no HTTP": sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "the head breaks off": sends(HEAD),
    "the body breaks off": sends(HEAD + b'content-length: 400\r\n\r\n{"id": "chatcmpl-1"'),
    "reset in mid-body": sends(HEAD + b'content-length: 400\r\n\r\n{"id": "chatcmpl-1"', reset=True),
    "a chunk of no size": sends(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "chunks break off": sends(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{}"),
}


async def asked(kind: str, url: str, form: str = "whole", **more: Any) -> Got:
    model = MODELS[kind](url, **more)
    try:
        return await ask(model, form)
    finally:
        await model.aclose()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_connection_that_breaks_after_the_request_may_be_billed(fault: str, kind: str) -> None:
    with serving(BROKEN[fault]) as server:
        got = await asked(kind, f"http://127.0.0.1:{server.port}/v1", "streamed" if "chunk" in fault else "whole")
    assert isinstance(got.error, Exception)
    assert type(got.error).__module__.partition(".")[0] in ("agentcascade", "openai", "httpx"), repr(got.error)
    bill = bill_of(got.error)
    assert bill is not None, repr(got.error)
    assert bill.lost == 1
    if "body" in fault or "break off" in fault:
        assert isinstance(got.error, ProviderError), repr(got.error)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("fault", ["refused", "no such host", "a certificate of nobody's"])
async def test_what_precedes_the_request_is_not_billed(fault: str, kind: str, tmp_path: Path) -> None:
    with serving(sends(b""), server_context(tmp_path)) as server:
        port = server.port if fault.startswith("a cert") else free_port()
        host = "nowhere.invalid" if fault == "no such host" else "127.0.0.1"
        got = await asked(kind, f"http{'s' if fault.startswith('a cert') else ''}://{host}:{port}/v1")
    assert not server.requests
    assert isinstance(got.error, Exception)
    assert bill_of(got.error) is None
    assert not isinstance(got.error, TimeoutError)
    assert "Timeout" not in type(got.error).__name__, "nothing took long"


@pytest.mark.parametrize("kind", MODELS)
async def test_a_head_that_comes_slowly_meets_the_deadline(kind: str) -> None:
    stopped = threading.Event()

    def dribble(connection: socket.socket) -> None:
        for byte in HEAD:
            connection.sendall(bytes([byte]))
            if stopped.wait(0.05):
                return

    with serving(dribble) as server:
        got = await asked(kind, f"http://127.0.0.1:{server.port}/v1", timeout=0.4)
        stopped.set()
    assert isinstance(got.error, TimeoutError)
    bill = bill_of(got.error)
    assert bill is not None
    assert bill.lost == 1


async def test_certificates_of_the_environment_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = httpx.Response(200, json=whole({"content": "hello"})).content
    context = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with serving(sends(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body), context) as server:
        got = await asked("chat", f"https://127.0.0.1:{server.port}/v1")
    assert got.answer.messages[0]["content"] == "hello"


@pytest.mark.parametrize("excluded", [False, True])
async def test_proxies_of_the_environment_are_asked(excluded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Provider(says({"content": "by the proxy"})) as proxy, Provider(says({"content": "direct"})) as provider:
        monkeypatch.setenv("HTTP_PROXY", proxy.root)
        if excluded:
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        got = await asked("chat", provider.url)
    assert got.answer.messages[0]["content"] == ("direct" if excluded else "by the proxy")


async def test_a_path_is_sent_as_it_is_and_credentials_of_an_address_as_a_header() -> None:
    client = http_client.model_client(5)
    with serving(sends(HEAD + b"content-length: 2\r\n\r\n{}")) as server:
        await client.post(f"http://me:secret@127.0.0.1:{server.port}/v1/models/a%2F..%2Fb%20c?x=%7E+1", content=b"{}")
    await client.aclose()
    head = server.requests[0].decode().lower()
    assert head.startswith("post /v1/models/a%2f..%2fb%20c?x=%7e+1 http/1.1\r\n")
    assert "authorization: basic bwu6c2vjcmv0" in head
    assert "octet-stream" not in head, "no header that nobody gave"


async def test_no_cookie_of_one_answer_goes_with_another_request() -> None:
    def answer(body: dict[str, Any], out: Out) -> None:
        out.json(whole({"content": "hello"}), headers={"set-cookie": "session=of-one-caller; Path=/"})

    with Provider(answer) as provider:
        model = MODELS["chat"](provider.url)
        for _ in range(2):
            await model.complete(ASK)
        await model.aclose()
    assert len(provider.headers) == 2
    assert not any("cookie" in headers for headers in provider.headers)


async def test_a_long_header_is_read() -> None:
    def answer(body: dict[str, Any], out: Out) -> None:
        out.json(whole({"content": "hello"}), headers={"content-security-policy": "x" * 20_000})

    with Provider(answer) as provider:
        got = await asked("chat", provider.url)
    assert got.answer.messages[0]["content"] == "hello"


async def test_a_cancelled_call_closes_its_connection() -> None:
    gone = threading.Event()

    def wait(connection: socket.socket) -> None:
        connection.settimeout(15)
        if connection.recv(1) == b"":
            gone.set()

    with serving(wait) as server:
        model = MODELS["chat"](f"http://127.0.0.1:{server.port}/v1")
        asking = asyncio.ensure_future(model.complete(ASK))
        assert await asyncio.to_thread(server.reached.wait, 15)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(gone.wait, 15)
        await model.aclose()


async def test_a_connection_that_was_idle_for_longer_than_a_read_may_take_is_used_again() -> None:
    """aiohttp 3.14.0 and 3.14.1 went on with the time limit of an answer that was read: the next request "timed out"
    in a millisecond, and was booked as one that may have been billed (aio-libs/aiohttp 12953)."""
    with Provider(says({"content": "x" * 60_000})) as provider:
        client = http_client.model_client(1.0)
        for pause in (1.3, 0):
            answer = await client.post(f"{provider.url}/chat/completions", json={"model": "m", "messages": ASK})
            assert len(answer.text) > 60_000
            await asyncio.sleep(pause)
        await client.aclose()
    assert len(provider.headers) == 2


async def test_connections_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Provider(says({"content": "hello"})) as provider:
        model = MODELS["chat"](provider.url)
        ports = set()
        original = provider._server.finish_request

        def finish(request: Any, address: Any) -> None:
            ports.add(address)
            original(request, address)

        monkeypatch.setattr(provider._server, "finish_request", finish)
        for _ in range(5):
            await model.complete(ASK)
        await model.aclose()
    assert len(ports) == 1


def said(body: bytes, status: str = "200 OK", kind: str = "application/json", **more: str) -> bytes:
    fields = {"content-type": kind, "content-length": str(len(body)), "connection": "close", **more}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


ANSWER = json.dumps(whole({"content": "hällo"}), ensure_ascii=False).encode()
EVENTS = b"".join(b"data: " + line + b"\n\n" for line in (
    b'{"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}', b"[DONE]",
))  # fmt: skip
REFUSAL = b'{"error": {"message": "no", "type": "t", "code": "c"}}'
RAW_DEFLATE = zlib.compressobj(wbits=-15)
ANSWERS: dict[str, list[bytes]] = {
    "whole": [said(ANSWER)],
    "events": [said(EVENTS, kind="text/event-stream")],
    "gzip": [said(gzip.compress(ANSWER), content_encoding="gzip")],
    "events by gzip": [said(gzip.compress(EVENTS), kind="text/event-stream", content_encoding="GZIP")],
    "deflate": [said(zlib.compress(ANSWER), content_encoding="deflate")],
    "deflate without its head": [said(RAW_DEFLATE.compress(ANSWER) + RAW_DEFLATE.flush(), content_encoding="deflate")],
    "no gzip": [said(ANSWER, content_encoding="gzip")],
    "a coding that nobody asked for": [said(ANSWER, content_encoding="br")],
    "too long": [said(ANSWER + b" " * 5000)],
    "too long when unpacked": [said(gzip.compress(ANSWER + b" " * 100_000), content_encoding="gzip")],
    "one line that is too long": [said(b"data: " + b"x" * 3000, kind="text/event-stream")],
    "no content": [said(b"", "204 No Content")],
    "a text": [said("hällo".encode("latin-1"), kind="text/plain; charset=latin-1")],
    "a text of an odd kind": [said(ANSWER, kind="text/plain; charset=ü")],
    "no JSON": [said(b"{")],
    "refused": [said(REFUSAL, "400 Bad Request")],
    "refused, compressed": [said(gzip.compress(REFUSAL), "400 Bad Request", content_encoding="gzip")],
    "too many, then an answer": [said(REFUSAL, "429 Too Many Requests", retry_after_ms="1"), said(ANSWER)],
    "a fault, not to be tried again": [said(REFUSAL, "500 Oh", x_should_retry="false")],
    "moved, here": [said(b"", "307 Moved", location="/elsewhere"), said(ANSWER)],
    "moved, elsewhere": [said(b"", "307 Moved", location="http://somewhere.test/")],
    "moved, to nowhere": [said(b"", "302 Moved")],
    "not modified": [said(b"", "304 Not Modified")],
}


@pytest.mark.parametrize("transport", ["both"], indirect=True)
@pytest.mark.parametrize("form", ["whole", "streamed"])
@pytest.mark.parametrize("case", ANSWERS)
async def test_answers_errors_and_bills_are_those_over_httpx(
    case: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp's answers are read past httpx's client: `direct_posts`."""
    monkeypatch.setattr(http_limits, "MAX_BODY", 4096)
    monkeypatch.setattr(http_limits, "MAX_EVENT", 2048)
    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", lambda *_, **__: 0.0)
    came = []
    for by in ("aiohttp", "httpx"):
        monkeypatch.setenv(http_client.VARIABLE, by)
        with serving(one_by_one(ANSWERS[case])) as server:
            got = await asked("chat", f"http://127.0.0.1:{server.port}/v1", form, retries=1)
            came.append((*outcome(got), [asked_for(request, server.port) for request in server.requests]))
    assert came[0] == came[1]


@pytest.mark.parametrize("transport", ["aiohttp"], indirect=True)
@pytest.mark.parametrize("form", ["whole", "streamed"])
async def test_requests_of_our_own_client_pass_httpxs_and_the_sdks(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("it costs several times what the request does")

    monkeypatch.setattr(httpx.AsyncClient, "send", never)
    monkeypatch.setattr(openai.AsyncOpenAI, "_request", never, raising=False)
    monkeypatch.setattr(openai.AsyncOpenAI, "request", never)
    with Provider(says({"content": "hello"})) as provider:
        got = await asked("chat", provider.url, form)
    assert got.answer.messages[0]["content"] == "hello"


def one_by_one(answers: list[bytes]) -> Callable[[socket.socket], None]:
    """The last of them again and again."""
    left = list(answers)
    return lambda connection: connection.sendall(left.pop(0) if len(left) > 1 else left[0])


def outcome(got: Got) -> tuple[Any, ...]:
    bill = got.completion if got.error is None else bill_of(got.error)
    error = got.error and (type(got.error), str(got.error), getattr(got.error, "body", None))
    return got.deltas, bill and bill.model_copy(update={"seconds": 0.0}), error


def asked_for(request: bytes, port: int) -> tuple[bytes, list[bytes], bytes]:
    """(request line, headers, body); the port is another each time."""
    head, _, body = request.replace(str(port).encode(), b"PORT").partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, sorted(field.lower() for field in fields), body


def test_a_model_that_nobody_closes_says_nothing_and_keeps_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    with Provider(says({"content": "hello"})) as provider, warnings.catch_warnings(record=True):
        model = MODELS["chat"](provider.url)
        for _ in range(3):
            asyncio.run(model.complete(ASK))
        assert len(model._clients._clients) == 1
        del model
        gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"], caplog.text


def server_context(folder: Path) -> ssl.SSLContext:
    """Of a server whose certificate nobody else has signed."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context
