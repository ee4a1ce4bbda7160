"""HTTP to model providers within bounds, by httpx's event hooks: no redirect to another origin, no endless body.

The hooks act only inside `watch.watched()`: a client that a program shares with us does everything else as before.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import httpx

from agentcascade.models.http_watch import Watch, current

BODY = 32 * 2**20
"""Bytes of one answer after decompression: 128,000 tokens as the chunks of a stream are about 40 MB."""
LINE = 16 * 2**20
"""Bytes of one event of a stream, which may be a picture. Clients gather a line in quadratic time."""
LINES = 1000
"""Lines of one event. OpenAI's client copies all of it at each."""
PIECE, SMALL = 2**16, 2**12
"""Bytes that are handed on before the event loop has its turn, of a body and of events: litellm takes 0.1 ms a line."""
CODINGS = ("gzip", "deflate")
REDIRECTS = {301, 302, 303, 307, 308}
GATEWAY_GAVE_UP = {408, 504, 524}
"""Statuses after which a model may still have worked on the request, and be paid for it."""
DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)


def guard(client: httpx.Client | httpx.AsyncClient) -> None:
    """Put the hooks on `client`, which must be ours alone. A second time does nothing."""
    hooks = client.event_hooks
    if not is_guarded(client):
        before, after = (
            (_sending_async, _answered_async) if isinstance(client, httpx.AsyncClient) else (_sending, _answered)
        )
        client.event_hooks = {
            "request": [*hooks.get("request", ()), before],
            "response": [*hooks.get("response", ()), after],
        }


def is_guarded(client: httpx.Client | httpx.AsyncClient) -> bool:
    return any(hook in (_answered, _answered_async) for hook in client.event_hooks.get("response", ()))


def guarded(client: H) -> H:
    """A twin of somebody's httpx client that shares its connections and settings, and has the hooks; theirs has not."""
    if is_guarded(client):
        return client
    # OpenAI's own classes close their connections when they are deleted, which would be the original's too.
    kind: Any = next(k for k in type(client).__mro__ if not hasattr(k, "__del__"))
    twin: H = kind.__new__(kind)
    twin.__dict__.update(client.__dict__)
    twin.__dict__["_agentcascade_original"] = client  # which must live as long as its connections are used
    guard(twin)
    return twin


def _sending(request: httpx.Request) -> None:
    watch = current()
    if watch is not None:
        watch.state = "sent"
        request.headers["accept-encoding"] = ", ".join(CODINGS)


async def _sending_async(request: httpx.Request) -> None:
    _sending(request)


def _answered(response: httpx.Response) -> None:
    watch = current()
    if watch is None:
        return
    if response.status_code in REDIRECTS and (target := response.headers.get("location")) is not None:
        watch.state = "refused"
        if not _same_origin(response.request.url, target):
            _instead(response, target)
            return
    elif response.status_code >= 400:
        watch.state = "sent" if response.status_code in GATEWAY_GAVE_UP else "refused"
    else:
        watch.state, watch.done, watch.broken = "answering", False, ""
    _bounded(response, watch)


async def _answered_async(response: httpx.Response) -> None:
    _answered(response)


def _same_origin(asked: httpx.URL, target: str) -> bool:
    try:
        found = asked.join(target)
    except (httpx.InvalidURL, ValueError):
        return False
    return (found.scheme, found.host, _port(found)) == (asked.scheme, asked.host, _port(asked))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _instead(response: httpx.Response, target: str) -> None:
    """Make the redirect an error that says what to do: nothing is sent on."""
    origin = re.match(r"[a-z]+://[^/?#\s@]{1,200}", target) if isinstance(target, str) else None
    where = origin[0] if origin else "another address"
    said = f"the server redirects to {where}, where neither key nor content is sent: set that address if it is right"
    data = json.dumps({"error": {"message": said, "type": "redirect", "code": None, "param": None}}).encode()
    for name in ("location", "content-encoding", "transfer-encoding"):
        response.headers.pop(name, None)
    response.headers["content-type"], response.headers["content-length"] = "application/json", str(len(data))
    response.stream = _stream(response.stream, [data])


def _bounded(response: httpx.Response, watch: Watch) -> None:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*CODINGS, "identity", ""):
        watch.broken = f"it is encoded as {coding[:40]!r}, which nobody asked for"
        response.headers.pop("content-encoding", None)
        response.stream = _stream(response.stream, [])
        return
    events = watch.streamed or "text/event-stream" in response.headers.get("content-type", "")
    reader = _Reader(watch, coding, events)
    if coding in CODINGS:
        response.headers.pop("content-encoding", None)
        response.headers.pop("content-length", None)
    response.stream = _stream(response.stream, reader)


class _Reader:
    """Decompresses and counts."""

    def __init__(self, watch: Watch, coding: str, events: bool) -> None:
        self._watch, self._events = watch, events
        self.turn = SMALL if events else PIECE
        self._zip = zlib.decompressobj(47 if coding == "gzip" else 15) if coding in CODINGS else None
        self._deflate = coding == "deflate"
        self._total = self._line = self._lines = 0
        self._tail = b""

    @property
    def broken(self) -> bool:
        return bool(self._watch.broken)

    def read(self, data: bytes) -> Iterator[bytes]:
        """What `data` holds; ends early, with `watch.broken` set, where it is too much."""
        for piece in self._unzipped(data) if self._zip else (data,):
            self._total += len(piece)
            if self._total > BODY:
                self._watch.broken = f"it is longer than {BODY // 2**20} MiB"
                return
            if self._events and not self._is_event(piece):
                self._watch.broken = f"one event of it is longer than {LINE // 2**20} MiB or {LINES:,} lines"
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
            self._watch.done = self._watch.done or DONE.search(self._tail + piece) is not None
        self._tail = (self._tail + piece)[-16:] if len(piece) < 16 else piece[-16:]
        return self._line <= LINE and self._lines <= LINES

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

    def __init__(self, original: httpx.AsyncByteStream, source: _Reader | list[bytes]) -> None:
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
                    if len(piece) > SMALL:  # more is there already: deadlines and others shall come to pass
                        await asyncio.sleep(0)
            if source.broken:
                return

    async def aclose(self) -> None:
        await self._original.aclose()


class _SyncStream(httpx.SyncByteStream):
    """The same for clients without an event loop."""

    def __init__(self, original: httpx.SyncByteStream, source: _Reader | list[bytes]) -> None:
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


def _stream(original: Any, source: _Reader | list[bytes]) -> _AsyncStream | _SyncStream:
    if isinstance(original, httpx.AsyncByteStream):
        return _AsyncStream(original, source)
    return _SyncStream(original, source)
