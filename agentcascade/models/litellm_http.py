"""litellm's HTTP clients within the bounds of `transport`: hooks on all of them, which act in our own calls only."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("agentcascade.models")
_installed = False


def install(litellm: Any) -> None:
    """Guard every HTTP client that litellm makes from now on, and those that it made at import.

    A litellm that makes them otherwise is said in the log: its redirects and bodies are then not bounded.
    """
    global _installed
    if _installed:
        return
    _installed = True
    try:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
        from litellm.llms.openai.common_utils import BaseOpenAILLM

        from agentcascade.models import http_transport

        for handler in (AsyncHTTPHandler, HTTPHandler):
            handler.create_client = _guarding(handler.create_client)
        for name in ("_get_async_http_client", "_get_sync_http_client"):
            setattr(BaseOpenAILLM, name, staticmethod(_guarding(getattr(BaseOpenAILLM, name))))
        for module_level in (litellm.module_level_aclient, litellm.module_level_client):
            http_transport.guard(module_level.client)
        litellm.in_memory_llm_clients_cache.flush_cache()  # clients from before are made anew
    except (ImportError, AttributeError) as error:
        log.warning("this litellm's HTTP clients cannot be guarded against redirects and endless answers: %s", error)


def _guarding(make: Callable[..., Any]) -> Callable[..., Any]:
    from agentcascade.models import http_transport

    @functools.wraps(make)
    def made(*args: Any, **options: Any) -> Any:
        client = make(*args, **options)
        if client is not None:
            http_transport.guard(client)
        return client

    return made
