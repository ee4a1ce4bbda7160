"""HTTP clients of configured models: httpx's, over aiohttp, within `http_limits`.

What goes to a proxy of the environment (``HTTPS_PROXY`` …) goes by httpx's own transport. ``SSL_CERT_FILE`` and
``SSL_CERT_DIR`` hold for both.
"""

from __future__ import annotations

import os
from typing import Any

import httpx

from agentcascade.models.http_limits import limit

VARIABLE = "AGENTCASCADE_HTTP"
"""``httpx``: its own transport for everything."""
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
"""Those of OpenAI's SDK."""


def model_client(timeout: float) -> httpx.AsyncClient:
    """A new client, for the event loop that runs.

    Args:
        timeout: Seconds to connect, to send, to wait for more of an answer: of each.
    """
    own = os.environ.get(VARIABLE, "").strip().lower() == "httpx"
    kind = ModelClient if own else AiohttpClient
    client = kind(timeout=timeout, follow_redirects=True, limits=LIMITS)
    limit(client)
    return client


class NoCookies(httpx.Cookies):
    """A jar that keeps nothing: one caller's cookies do not go with another's request, nor are they looked for."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class ModelClient(httpx.AsyncClient):
    """httpx's client without a jar for cookies."""

    _no_cookies = NoCookies()

    @property
    def cookies(self) -> httpx.Cookies:
        return self._no_cookies

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        pass


class AiohttpClient(ModelClient):
    """The same over aiohttp, but for what goes to a proxy."""

    def _init_transport(
        self, *args: Any, verify: Any = True, cert: Any = None, trust_env: bool = True, **more: Any
    ) -> Any:
        from agentcascade.models.aiohttp_transport import AiohttpTransport

        context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
        context.set_alpn_protocols(["http/1.1"])
        return AiohttpTransport(context)
