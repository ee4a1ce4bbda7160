"""Chat requests of an OpenAI client that is our own: what its `post` sends and raises, for a fraction of the work.

The SDK makes several pydantic models, headers and an address for each request, which costs more than HTTP itself.
Here the SDK builds the head once, and decides over retries and errors as ever. A version that lacks what is used of it
sends the request itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, AsyncStream, OpenAIError

try:
    from openai._models import FinalRequestOptions
    from openai._utils._json import openapi_dumps
except ImportError:  # an SDK that keeps them elsewhere sends its requests itself
    HAS_PARTS = False
else:
    HAS_PARTS = True

from agentcascade.models.http_client import AiohttpClient
from agentcascade.models.openai_create import AsSent
from agentcascade.models.openai_events import ChunkStream

if TYPE_CHECKING:
    from agentcascade.models.direct_posts import DirectPosts, WholeAnswer

MOST_HEADS = 64
PRIVATE = ("_build_request", "_make_status_error_from_response", "_should_retry", "_sleep_for_retry")
"""Methods of the SDK's client that are used here."""
RETRY_COUNT = "x-stainless-retry-count"


class _Head(NamedTuple):
    """All of a request that no message changes."""

    url: httpx.URL
    headers: list[tuple[str, str]]
    extensions: dict[str, Any]
    direct: DirectPosts | None
    """Sends the requests of our own clients."""

    def request(self, content: bytes, retries: str) -> httpx.Request:
        headers = [*self.headers, (RETRY_COUNT, retries)]
        return httpx.Request("POST", self.url, headers=headers, content=content, extensions=self.extensions)


class OpenAIRequests:
    """Sends requests by a client that nobody else knows, over httpx.

    Args:
        client: Its key, address, retries and HTTP client apply.
    """

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._is_known = can_send_for(client)
        self._heads: dict[tuple[str, str, object], _Head] = {}

    def takes(self, options: Mapping[str, Any]) -> bool:
        """Whether requests with these options can be made here; else the SDK has to."""
        return self._is_known and not options.keys() - {"timeout"}

    async def post(self, path: str, body: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """What ``client.post(path, cast_to=object, body=body, options=options)`` returns and raises.

        Args:
            path: Below the client's base URL.
            body: Becomes JSON.
            options: Those of the SDK; with more than a ``timeout`` the SDK sends the request itself.
        """
        if not self.takes(options):
            sdk: Any = self._client
            return await sdk.post(path, cast_to=object, body=body, options=dict(options))
        return _read(await self._send(path, body, options, stream=False))

    async def stream(
        self, path: str, body: Mapping[str, Any], options: Mapping[str, Any]
    ) -> ChunkStream | AsyncStream[Any]:
        """The chunks of a streamed answer as plain data; args as of `post`.

        Raises what the SDK raises, for a chunk that is none as well as for a refusal.
        """
        if not self.takes(options):
            sdk: Any = self._client
            read: dict[str, Any] = {"cast_to": AsSent, "stream": True, "stream_cls": AsyncStream[AsSent]}
            return await sdk.post(path, body=body, options=dict(options), **read)  # type: ignore[no-any-return]
        response: Any = await self._send(path, body, options, stream=True)
        return ChunkStream(response)

    async def _send(
        self, path: str, body: Mapping[str, Any], options: Mapping[str, Any], *, stream: bool
    ) -> httpx.Response | WholeAnswer:
        """The successful response to one request, which is tried again as the SDK does."""
        client: Any = self._client
        head = self._head(path, options)
        content = openapi_dumps(body)
        for taken in range(client.max_retries + 1):
            request = partial(head.request, content, str(taken))
            response: Any = None
            is_last = taken == client.max_retries
            try:
                if head.direct is not None:
                    response = await head.direct.send((RETRY_COUNT, str(taken)), content, request, stream=stream)
                if response is None:
                    response = await client._client.send(request(), stream=stream)
            except httpx.TimeoutException as error:
                if is_last:
                    raise APITimeoutError(request=request()) from error
            except OpenAIError:
                raise
            except Exception as error:
                if is_last:
                    raise APIConnectionError(request=request()) from error
            else:
                if response.is_success:
                    return response  # type: ignore[no-any-return]
                if is_last or not client._should_retry(response):
                    await response.aread()
                    raise client._make_status_error_from_response(response) from None
                await response.aclose()
            await client._sleep_for_retry(
                retries_taken=taken,
                max_retries=client.max_retries,
                options=FinalRequestOptions.construct(method="post", url=path),
                response=response,
            )
        raise AssertionError("the last try returns or raises")

    def _head(self, path: str, options: Mapping[str, Any]) -> _Head:
        client: Any = self._client
        key = path, client.api_key, options.get("timeout")
        head = self._heads.get(key)
        if head is None:
            built = client._build_request(
                FinalRequestOptions.construct(method="post", url=path, json_data={}, **options)
            )  # fmt: skip
            varying = ("content-length", RETRY_COUNT)
            headers = [(name, value) for name, value in built.headers.multi_items() if name.lower() not in varying]
            head = _Head(built.url, headers, built.extensions, _direct(client._client, built, headers))
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head


def _direct(http: Any, built: httpx.Request, headers: list[tuple[str, str]]) -> DirectPosts | None:
    """None where something else than our own transport has a say in a client's requests."""
    if not isinstance(http, AiohttpClient) or built.url.userinfo or built.extensions.keys() - {"timeout"}:
        return None
    from agentcascade.models.aiohttp_transport import AiohttpTransport
    from agentcascade.models.direct_posts import DirectPosts

    transport = http._transport_for_url(built.url)
    if not isinstance(transport, AiohttpTransport):  # a proxy of the environment is asked by httpx's own
        return None
    return DirectPosts(http, transport, built.url, headers, built.extensions)


def can_send_for(client: AsyncOpenAI) -> bool:
    """Whether the SDK has what is used of it, and sends by httpx: by itself, since its version 3, it does by httpx2."""
    own: Any = client
    has_methods = all(callable(getattr(own, name, None)) for name in PRIVATE)
    return HAS_PARTS and has_methods and type(own) is AsyncOpenAI and isinstance(own._client, httpx.AsyncClient)


def _read(response: httpx.Response | WholeAnswer) -> Any:
    """What the SDK makes of an answer: JSON as it is, anything else as a text."""
    media = response.headers.get("content-type", "*").split(";")[0]
    return response.json() if media.endswith("json") else response.text
