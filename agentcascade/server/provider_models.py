"""Lists of models in pass-through: what the provider lists for its caller's own key, beside the cascades that are here.

OpenAI's and Anthropic's clients, Codex and Claude Code ask for it, each in its own shape, which is handed on as it is.
Nobody is billed for a list, so no budget is asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentcascade._util import known_secrets
from agentcascade.errors import InvalidKey, ProviderError
from agentcascade.server.passthrough import Passthrough, forwarded

if TYPE_CHECKING:
    import httpx

    from agentcascade.server.passthrough import Api

SECONDS = 30.0
MOST_BYTES = 8 * 2**20
"""Of a list; OpenRouter's has half a megabyte."""
DOTS = frozenset({".", ".."})
"""Parts of a path that lead elsewhere in it."""
PARAMETERS = ("limit", "after_id", "before_id", "after", "client_version", "beta")
"""Of a query, that is handed on."""


class ModelsRefused(ProviderError):
    """The provider's own error, with its ``body``."""

    agentcascade_callers_own = True

    def __init__(self, message: str, status_code: int, body: Any = None) -> None:
        super().__init__(message, status_code)
        self.body = body


class ProviderModels:
    """Asks providers for their models, with callers' own keys.

    Args:
        callers: Knows where each API's provider is.
    """

    def __init__(self, callers: Passthrough) -> None:
        self._callers = callers

    async def models(self, headers: Mapping[str, str], query: Mapping[str, str], own: Sequence[str]) -> Any:
        """The provider's list, with the names in `own` before it where it is a list that we know; None without a key.

        Raises:
            ModelsRefused: What the provider answered in place of a list.
        """
        api = api_of(headers)
        listed = await self._get(api, "/models", headers, query)
        if isinstance(listed, dict) and isinstance(listed.get("data"), list) and "after_id" not in query:
            listed["data"][:0] = [described(name, api) for name in own]
            if own and "first_id" in listed:
                listed["first_id"] = own[0]
        return listed

    async def model(self, headers: Mapping[str, str], name: str) -> Any:
        """What the provider says of one model; None without a key, or for a name that would lead out of the models.

        Raises `ModelsRefused`.
        """
        if not DOTS.isdisjoint(name.split("/")):
            return None
        return await self._get(api_of(headers), f"/models/{quote(name, safe='/:@')}", headers, {})

    async def _get(self, api: Api, path: str, headers: Mapping[str, str], query: Mapping[str, str]) -> Any:
        import httpx

        try:
            sent = forwarded(headers, api)
        except InvalidKey:
            return None
        base = self._callers.upstream(api, headers).rstrip("/")
        if api == "messages":
            base = f"{base.removesuffix('/v1')}/v1"
        known = {name: query[name] for name in PARAMETERS if name in query}
        try:
            async with httpx.AsyncClient(timeout=SECONDS, follow_redirects=False) as client:
                request = client.build_request("GET", f"{base}{path}", params=known, headers=sent)
                response = await client.send(request, stream=True)
                try:
                    return _read(response, await _content(response))
                finally:
                    await response.aclose()
        except httpx.HTTPError as error:
            raise ProviderError(f"the provider's models cannot be read: {type(error).__name__}") from None


async def _content(response: httpx.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise ProviderError(f"the provider's list of models has more than {MOST_BYTES:,} bytes")
    return bytes(content)


def _read(response: httpx.Response, content: bytes) -> Any:
    text = known_secrets.hide(content.decode("utf-8", "replace"))
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    if response.is_success or response.is_redirect:
        raise ProviderError("the provider answered with no list of models")
    raise ModelsRefused(f"the provider refused (status {response.status_code})", response.status_code, body)


def api_of(headers: Mapping[str, str]) -> Api:
    """Whose list a client wants: Anthropic's clients say their API's version, or send their key in its header."""
    return "messages" if "anthropic-version" in headers or "x-api-key" in headers else "chat"


def described(name: str, api: Api, created: float | None = None) -> dict[str, Any]:
    """A cascade as a model of that API's list."""
    at = int(time.time() if created is None else created)
    if api != "messages":
        return {"id": name, "object": "model", "created": at, "owned_by": "agentcascade"}
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": day}
