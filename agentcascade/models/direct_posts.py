"""Direct HTTP posts of configured models: what httpx's client would send, return and raise, for half of its work.

httpx's client looks for credentials, cookies and redirects at each request, and reads an answer through four
generators. Limits on what is read are those of `http_limits`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from agentcascade.models.aiohttp_transport import AiohttpTransport, ClientResponse, PostHead, as_httpx, translated
from agentcascade.models.http_exchange import HttpExchange, current_exchange
from agentcascade.models.http_limits import ACCEPTED, EVENT_PIECE, body_reader, watch_response


class WholeAnswer:
    """A successful answer that was read to its end, as far as it is asked for what an `httpx.Response` has."""

    is_success = True

    def __init__(self, answer: ClientResponse, content: bytes) -> None:
        self.status_code, self.headers, self.content = answer.status, answer.headers, content
        self._kind = [(name, value) for name, value in answer.raw_headers if name.lower() == b"content-type"]

    def json(self) -> Any:
        """The answer as plain data."""
        return json.loads(self.content)

    @property
    def text(self) -> str:
        """The answer in the charset that it names."""
        return httpx.Response(self.status_code, headers=self._kind, content=self.content).text


class DirectPosts:
    """Posts to one address by the transport that httpx's client would send them by.

    Args:
        client: Of `http_client.model_client`; follows redirects within the same origin.
        transport: Its own, for that address.
        url: The address.
        headers: Of every request; its length and what a request adds itself are left out.
        extensions: Those of an `httpx.Request`.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        transport: AiohttpTransport,
        url: httpx.URL,
        headers: Iterable[tuple[str, str]],
        extensions: Mapping[str, Any],
    ) -> None:
        asked = [(name, value) for name, value in headers if name.lower() != "accept-encoding"]
        self._client, self._transport = client, transport
        self._head: PostHead = transport.post_head(url, [*asked, ("Accept-Encoding", ACCEPTED)], extensions)

    async def send(
        self, added: tuple[str, str], content: bytes, request: Callable[[], httpx.Request], *, stream: bool
    ) -> WholeAnswer | httpx.Response | None:
        """What ``client.send(request(), stream=stream)`` returns and raises; None outside `watch_http`.

        Args:
            added: One more header.
            content: The body.
            request: Makes the request for whom something has to be said of it.
            stream: Whether the body of a successful answer is left to be read.
        """
        exchange = current_exchange()
        if exchange is None:
            return None
        exchange.state = "sent"
        headers = self._head.headers.copy()
        headers.add(*added)
        with translated(request):
            answer = await self._transport.post(self._head, headers, content)
            if 200 <= answer.status < 300 and not stream:
                try:
                    return WholeAnswer(answer, await _read(answer, exchange))
                finally:
                    answer.close()
        response = as_httpx(answer, request())
        try:
            watch_response(response, exchange)
            if response.has_redirect_location:
                following = self._client._build_redirect_request(response.request, response)
                await response.aclose()
                return await self._client.send(following, stream=stream)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


async def _read(answer: ClientResponse, exchange: HttpExchange) -> bytes:
    """The body of aiohttp's response, as far as it keeps to the limits."""
    exchange.state, exchange.done, exchange.broken = "answering", False, ""
    reader = body_reader(answer.headers, exchange)
    pieces: list[bytes] = []
    if reader is not None:
        async for data in answer.content.iter_any():
            for piece in reader.read(data):
                pieces.append(piece)
                if len(piece) > EVENT_PIECE:  # more is there already: deadlines and others shall come to pass
                    await asyncio.sleep(0)
            if exchange.broken:
                break
    return b"".join(pieces)
