"""litellm as we import it: without its price-list download and chatter, its HTTP clients within `http_limits`."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

log = logging.getLogger("agentcascade.models")
_is_limited = False


def import_litellm() -> Any:
    """litellm, without its price-list download and chatter."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    _limit_clients(litellm)
    return litellm


def _limit_clients(litellm: Any) -> None:
    """Limit every HTTP client that litellm makes from now on, and those that it made at import. Acts in our calls only.

    A litellm that makes them otherwise is said in the log: its redirects and bodies are then not bounded.
    """
    global _is_limited
    if _is_limited:
        return
    _is_limited = True
    try:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
        from litellm.llms.openai.common_utils import BaseOpenAILLM

        from agentcascade.models import http_limits

        for handler in (AsyncHTTPHandler, HTTPHandler):
            handler.create_client = _limiting(handler.create_client)
        for name in ("_get_async_http_client", "_get_sync_http_client"):
            setattr(BaseOpenAILLM, name, staticmethod(_limiting(getattr(BaseOpenAILLM, name))))
        for module_level in (litellm.module_level_aclient, litellm.module_level_client):
            http_limits.limit(module_level.client)
        litellm.in_memory_llm_clients_cache.flush_cache()  # clients from before are made anew
    except (ImportError, AttributeError) as error:
        log.warning("this litellm's HTTP clients cannot be guarded against redirects and endless answers: %s", error)


def _limiting(make_client: Callable[..., Any]) -> Callable[..., Any]:
    from agentcascade.models import http_limits

    @functools.wraps(make_client)
    def make_limited(*args: Any, **options: Any) -> Any:
        client = make_client(*args, **options)
        if client is not None:
            http_limits.limit(client)
        return client

    return make_limited
