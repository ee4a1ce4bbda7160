"""Chat requests of an OpenAI client that is our own: what its `post` sends and raises, for a fraction of the work.

The SDK makes several pydantic models, headers and an address for each request, which costs more than HTTP itself.
Here the SDK builds the head once, and decides over retries and errors as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, OpenAIError
from openai._models import FinalRequestOptions
from openai._utils._json import openapi_dumps

MOST_HEADS = 64
RETRY_COUNT = "x-stainless-retry-count"


class _Head(NamedTuple):
    """All of a request that no message changes."""

    url: httpx.URL
    headers: list[tuple[str, str]]
    extensions: dict[str, Any]


class OpenAIRequests:
    """Sends requests by a client that nobody else knows, over httpx.

    Args:
        client: Its key, address, retries and HTTP client apply.
    """

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._heads: dict[tuple[str, str, object], _Head] = {}

    async def post(self, path: str, body: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """What ``client.post(path, cast_to=object, body=body, options=options)`` returns and raises.

        Args:
            path: Below the client's base URL.
            body: Becomes JSON.
            options: Those of the SDK; with more than a ``timeout`` the SDK sends the request itself.
        """
        client: Any = self._client
        if options.keys() - {"timeout"} or type(client) is not AsyncOpenAI:
            return await client.post(path, cast_to=object, body=body, options=dict(options))
        head = self._head(path, options)
        content = openapi_dumps(body)
        for taken in range(client.max_retries + 1):
            headers = [*head.headers, (RETRY_COUNT, str(taken))]
            request = httpx.Request("POST", head.url, headers=headers, content=content, extensions=head.extensions)
            response = None
            is_last = taken == client.max_retries
            try:
                response = await client._client.send(request)
            except httpx.TimeoutException as error:
                if is_last:
                    raise APITimeoutError(request=request) from error
            except OpenAIError:
                raise
            except Exception as error:
                if is_last:
                    raise APIConnectionError(request=request) from error
            else:
                if response.is_success:
                    return _read(response)
                if is_last or not client._should_retry(response):
                    raise client._make_status_error_from_response(response) from None
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
            head = _Head(built.url, headers, built.extensions)
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head


def _read(response: httpx.Response) -> Any:
    """What the SDK makes of an answer: JSON as it is, anything else as a text."""
    media = response.headers.get("content-type", "*").split(";")[0]
    return response.json() if media.endswith("json") else response.text
