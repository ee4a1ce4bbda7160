"""Limits on HTTP to model providers, by httpx's event hooks: no redirect to another origin, no endless body.

The hooks act only inside `http_exchange.watch_http`: a client that a program shares with us does all else as before.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import httpx

from agentcascade.models.http_exchange import HttpExchange, current_exchange
from agentcascade.models.quirks import MAY_BE_BILLED

MAX_BODY = 32 * 2**20
"""Bytes of one answer after decompression: 128,000 tokens as the chunks of a stream are about 40 MB."""
MAX_EVENT = 16 * 2**20
"""Bytes of one event of a stream, which may be a picture. Clients gather a line in quadratic time."""
MAX_EVENT_LINES = 1000
"""Lines of one event. OpenAI's client copies all of it at each."""
PIECE, EVENT_PIECE = 2**16, 2**12
"""Bytes handed on before the event loop has its turn, of a body and of events: litellm takes 0.1 ms a line."""
CODINGS = ("gzip", "deflate")
ACCEPTED = ", ".join(CODINGS)
REDIRECTS = {301, 302, 303, 307, 308}
DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
Client = TypeVar("Client", httpx.Client, httpx.AsyncClient)


def limit(client: httpx.Client | httpx.AsyncClient) -> None:
    """Put the hooks on `client`, which must be ours alone. A second time does nothing."""
    if is_limited(client):
        return
    is_async = hasattr(client, "aclose")  # httpx2's clients, of newer Anthropic SDKs, have the same hooks
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks.get("request", ()), _on_request_async if is_async else _on_request],
        "response": [*hooks.get("response", ()), _on_response_async if is_async else _on_response],
    }


def is_limited(client: httpx.Client | httpx.AsyncClient) -> bool:
    return any(hook in (_on_response, _on_response_async) for hook in client.event_hooks.get("response", ()))


def limited_twin(client: Client) -> Client:
    """A twin of somebody's httpx client that shares its connections and settings, and has the hooks; theirs has not."""
    if is_limited(client):
        return client
    # OpenAI's own classes close their connections when they are deleted, which would be the original's too.
    kind: Any = next(k for k in type(client).__mro__ if not hasattr(k, "__del__"))
    twin: Client = kind.__new__(kind)
    twin.__dict__.update(client.__dict__)
    twin.__dict__["_agentcascade_original"] = client  # which must live as long as its connections are used
    limit(twin)
    return twin


def _on_request(request: httpx.Request) -> None:
    exchange = current_exchange()
    if exchange is not None:
        exchange.state = "sent"
        request.headers["accept-encoding"] = ACCEPTED


async def _on_request_async(request: httpx.Request) -> None:
    _on_request(request)


def _on_response(response: httpx.Response) -> None:
    exchange = current_exchange()
    if exchange is not None:
        watch_response(response, exchange)


def watch_response(response: httpx.Response, exchange: HttpExchange) -> None:
    """Note what a response says, and limit what is read of it; a redirect to another origin becomes an error."""
    if response.status_code in REDIRECTS and (target := response.headers.get("location")) is not None:
        exchange.state = "refused"
        if not _same_origin(response.request.url, target):
            _replace_redirect(response, target)
            return
    elif response.status_code >= 400:
        exchange.state = "sent" if response.status_code in MAY_BE_BILLED else "refused"
    else:
        exchange.state, exchange.done, exchange.broken = "answering", False, ""
    _limit_body(response, exchange)


async def _on_response_async(response: httpx.Response) -> None:
    _on_response(response)


def _same_origin(url: httpx.URL, location: str) -> bool:
    try:
        target = url.join(location)
    except Exception:  # InvalidURL, of httpx or httpx2
        return False
    return (target.scheme, target.host, _port(target)) == (url.scheme, url.host, _port(url))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _replace_redirect(response: httpx.Response, target: str) -> None:
    """Make the redirect an error that says what to do: nothing is sent on."""
    origin = re.match(r"[a-z]+://[^/?#\s@]{1,200}", target) if isinstance(target, str) else None
    where = origin[0] if origin else "another address"
    message = f"the server redirects to {where}, where neither key nor content is sent: set that address if it is right"
    data = json.dumps({"error": {"message": message, "type": "redirect", "code": None, "param": None}}).encode()
    for name in ("location", "content-encoding", "transfer-encoding"):
        response.headers.pop(name, None)
    response.headers["content-type"], response.headers["content-length"] = "application/json", str(len(data))
    response.stream = _stream(response.stream, [data])


def _limit_body(response: httpx.Response, exchange: HttpExchange) -> None:
    reader = body_reader(response.headers, exchange)
    encoded = response.headers.pop("content-encoding", None)
    if reader is None:
        response.stream = _stream(response.stream, [])
        return
    if encoded is not None:
        response.headers.pop("content-length", None)
    response.stream = _stream(response.stream, reader)


def body_reader(headers: Mapping[str, str], exchange: HttpExchange) -> BodyReader | None:
    """Reads the body of a response with these headers; None, and `exchange.broken`, for one that cannot be read."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*CODINGS, "identity", ""):
        exchange.broken = f"it is encoded as {coding[:40]!r}, which nobody asked for"
        return None
    events = exchange.streamed or "text/event-stream" in headers.get("content-type", "")
    return BodyReader(exchange, coding, events)


class BodyReader:
    """Decompresses and counts."""

    def __init__(self, exchange: HttpExchange, coding: str, events: bool) -> None:
        self._exchange, self._events = exchange, events
        self.turn = EVENT_PIECE if events else PIECE
        self._zip = zlib.decompressobj(47 if coding == "gzip" else 15) if coding in CODINGS else None
        self._deflate = coding == "deflate"
        self._total = self._line = self._lines = 0
        self._tail = b""

    @property
    def broken(self) -> bool:
        return bool(self._exchange.broken)

    def read(self, data: bytes) -> Iterator[bytes]:
        """What `data` holds; ends early, with `exchange.broken` set, where it is too much."""
        for piece in self._unzipped(data) if self._zip else (data,):
            self._total += len(piece)
            if self._total > MAX_BODY:
                self._exchange.broken = f"it is longer than {MAX_BODY // 2**20} MiB"
                return
            if self._events and not self._is_event(piece):
                self._exchange.broken = (
                    f"one event of it is longer than {MAX_EVENT // 2**20} MiB or {MAX_EVENT_LINES:,} lines"
                )
                return
            yield piece

    def _is_event(self, piece: bytes) -> bool:
        end = max(piece.rfind(b"\n"), piece.rfind(b"\r"))
        self._line = self._line + len(piece) if end < 0 else len(piece) - end
        joined = self._tail[-3:] + piece
        blank = max(joined.rfind(b"\n\n"), joined.rfind(b"\r\r"), joined.rfind(b"\r\n\r\n"))
        ends = max(joined.count(b"\n", max(blank, 0)), joined.count(b"\r", max(blank, 0)))
        self._lines = ends if blank >= 0 else self._lines + ends
        if b"DONE]" in piece or b"DONE]" in self._tail + piece[:8]:
            self._exchange.done = self._exchange.done or DONE.search(self._tail + piece) is not None
        self._tail = (self._tail + piece)[-16:] if len(piece) < 16 else piece[-16:]
        return self._line <= MAX_EVENT and self._lines <= MAX_EVENT_LINES

    def _unzipped(self, data: bytes) -> Iterator[bytes]:
        assert self._zip is not None
        try:
            while data and not self._zip.eof:
                try:
                    piece = self._zip.decompress(data, PIECE)
                except zlib.error:
                    if not self._deflate:
                        raise
                    self._zip, self._deflate = zlib.decompressobj(-15), False  # some servers leave the header out
                    continue
                data, self._deflate = self._zip.unconsumed_tail, False
                if piece:
                    yield piece
        except zlib.error as error:
            raise httpx.DecodingError(f"the answer is not what its content-encoding says: {error}") from error


class _AsyncStream(httpx.AsyncByteStream):
    """The bytes of `source`; closes the original."""

    def __init__(self, original: httpx.AsyncByteStream, source: BodyReader | list[bytes]) -> None:
        self._original, self._source = original, source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        source = self._source
        if isinstance(source, list):
            for data in source:
                yield data
            return
        async for data in self._original:
            for piece in source.read(data):
                for start in range(0, len(piece), source.turn):
                    yield piece[start : start + source.turn]
                    if len(piece) > EVENT_PIECE:  # more is there already: deadlines and others shall come to pass
                        await asyncio.sleep(0)
            if source.broken:
                return

    async def aclose(self) -> None:
        await self._original.aclose()


class _SyncStream(httpx.SyncByteStream):
    """The same for clients without an event loop."""

    def __init__(self, original: httpx.SyncByteStream, source: BodyReader | list[bytes]) -> None:
        self._original, self._source = original, source

    def __iter__(self) -> Iterator[bytes]:
        source = self._source
        if isinstance(source, list):
            yield from source
            return
        for data in self._original:
            yield from source.read(data)
            if source.broken:
                return

    def close(self) -> None:
        self._original.close()


def _stream(original: Any, source: BodyReader | list[bytes]) -> Any:
    is_async = hasattr(original, "__aiter__")
    kind: Any = type(original)
    return _stream_class(kind, is_async)(original, source)


@lru_cache(maxsize=32)
def _stream_class(kind: Any, is_async: bool) -> Any:
    """Ours, of the library whose stream it replaces: clients ask for their own base class."""
    own, name = (_AsyncStream, "AsyncByteStream") if is_async else (_SyncStream, "SyncByteStream")
    base = next((k for k in kind.__mro__ if k.__name__ == name), None)
    if base is None or issubclass(own, base):
        return own
    return type(own.__name__, (own, base), {"__module__": own.__module__})
