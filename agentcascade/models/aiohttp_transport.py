"""aiohttp transport of httpx clients: httpx's own pool costs more than a request does where many are under way.

Errors are httpx's own, the narrowest that fits: by their names it is known whether anything of a request went out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ssl import SSLContext
from typing import Any, NamedTuple
from weakref import finalize

import aiohttp
import httpx
from aiohttp import ClientResponse as ClientResponse
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

CONNECTIONS = 1000
"""The most to all hosts: as many as OpenAI's SDK allows."""
IDLE_SECONDS = 4.0
"""After which an unused connection is closed: before uvicorn does, behind which servers of one's own stand."""
HEADER_BYTES = 2**16
"""The most of one header: gateways send longer ones than aiohttp's 8 kB."""
NOT_ADDED = ("accept", "accept-encoding", "content-type", "user-agent")
"""Headers that aiohttp would add by itself."""

ERRORS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (HttpProcessingError, httpx.RemoteProtocolError),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientError, httpx.ReadError),
    (OSError, httpx.ReadError),
)
"""What aiohttp raises, and what httpx calls it; the first that fits. Those of `http_exchange.NEVER_SENT`, after which
nothing is booked, stand for what precedes sending alone."""


class PostHead(NamedTuple):
    """What posts to one address have in common, in aiohttp's own types."""

    url: URL
    headers: CIMultiDict[str]
    timeout: ClientTimeout


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Transport of one event loop. Its session is opened by the first request, and closed by `aclose`.

    Args:
        context: Certificates that it trusts.
    """

    def __init__(self, context: SSLContext) -> None:
        self._context = context
        self._session: ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response to a request; its body is still to be read."""
        seconds = request.extensions.get("timeout", {})
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        body: Any
        try:
            body = request.content or None
        except httpx.RequestNotRead:
            body = request.stream
            headers = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
        url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url  # it is in a header by now
        with translated(lambda: request):
            response = await self._open_session().request(
                request.method,
                URL(str(url), encoded=True),  # as it is: an encoded ../ of a model's name stays one
                headers=headers,
                data=body,
                skip_auto_headers=NOT_ADDED,
                allow_redirects=False,
                timeout=client_timeout(seconds),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        return as_httpx(response, request)

    async def post(self, head: PostHead, headers: CIMultiDict[str], body: bytes) -> ClientResponse:
        """aiohttp's own response, for who makes no request of httpx's. Raises aiohttp's errors: see `translated`."""
        return await self._open_session().request(
            "POST",
            head.url,
            headers=headers,
            data=body,
            skip_auto_headers=NOT_ADDED,
            allow_redirects=False,
            timeout=head.timeout,
        )

    def post_head(self, url: httpx.URL, headers: Iterable[tuple[str, str]], extensions: Mapping[str, Any]) -> PostHead:
        """The head of posts to an address without credentials."""
        timeout = client_timeout(extensions.get("timeout", {}))
        return PostHead(URL(str(url), encoded=True), CIMultiDict(headers), timeout)

    def _open_session(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=CONNECTIONS, keepalive_timeout=IDLE_SECONDS, ssl=self._context),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                max_line_size=HEADER_BYTES,
                max_field_size=HEADER_BYTES,
            )
            self._finalizer = finalize(self, _abandon, self._session, asyncio.get_running_loop())
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            self._finalizer.detach()
            await session.close()


def _abandon(session: ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the session of a model that nobody closed, as quietly as httpx does: aiohttp would log an error."""
    connector = session.connector
    if connector is None:
        return
    session.detach()

    async def close() -> None:
        await connector.close()

    with suppress(RuntimeError, StopIteration):  # the loop has closed meanwhile; nothing is waited for in a closed one
        if loop.is_closed():
            close().send(None)
        else:
            loop.call_soon_threadsafe(lambda: loop.create_task(close()))


class _Body(httpx.AsyncByteStream):
    """The bytes of a response, as they come. A connection whose body was not read to its end is not used again."""

    def __init__(self, response: ClientResponse, request: httpx.Request) -> None:
        self._response, self._request = response, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with translated(lambda: self._request):
            async for piece in self._response.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        self._response.close()


def client_timeout(seconds: Mapping[str, float | None]) -> ClientTimeout:
    """aiohttp's form of the extension `timeout` of an httpx request."""
    return ClientTimeout(
        connect=seconds.get("pool"), sock_connect=seconds.get("connect"), sock_read=seconds.get("read")
    )  # fmt: skip


def as_httpx(response: ClientResponse, request: httpx.Request) -> httpx.Response:
    """httpx's response whose body is read from aiohttp's."""
    return httpx.Response(
        response.status,
        headers=response.raw_headers,
        stream=_Body(response, request),
        request=request,
        extensions={
            "http_version": b"HTTP/1.1",
            "reason_phrase": (response.reason or "").encode("utf-8", "replace"),
        },
    )


@contextmanager
def translated(request: Callable[[], httpx.Request]) -> Iterator[None]:
    """aiohttp's errors as httpx's, with the request that they are of."""
    try:
        yield
    except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
        kind = next(of_httpx for own, of_httpx in ERRORS if isinstance(error, own))
        raise kind(str(error) or type(error).__name__, request=request()) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise httpx.ConnectError("the connection was closed while it was opened", request=request()) from error
