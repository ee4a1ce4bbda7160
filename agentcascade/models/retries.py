"""Retries of requests that failed in passing, within a deadline, and no sooner than the provider asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any


def attempts(is_passing: Callable[[Exception], bool], retries: int, deadline: float) -> AsyncIterator[Any]:
    """stamina's attempts: after an error that is passing another one, unless its wait would end past the deadline.

    `deadline` is on the running loop's clock. Where the provider names no wait, waits grow up to 20 seconds.
    """
    import stamina

    def retry(error: Exception) -> bool | float:
        if not is_passing(error):
            return False
        wait = retry_after(error)
        if wait is None:
            return True
        return wait if asyncio.get_running_loop().time() + wait < deadline else False

    context = stamina.retry_context(
        on=retry, attempts=retries + 1, timeout=None, wait_initial=0.25, wait_max=20.0, wait_jitter=0.5
    )
    return aiter(context)


def retry_after(error: Exception) -> float | None:
    """Seconds that the provider's Retry-After header asks for."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    value = str(headers.get("retry-after"))
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None
