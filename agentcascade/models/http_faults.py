"""Faults of HTTP answers: what an adapter's exception means, once reading an answer had begun.

Told by the names of classes, so that httpx and httpx2 are alike and neither is imported.
"""

from __future__ import annotations

from agentcascade.errors import BrokenStream, ProviderError
from agentcascade.models.http_exchange import HttpExchange

UNREADABLE = (ValueError, TypeError, AttributeError, RecursionError, UnicodeError)


def what_happened(
    error: BaseException, exchange: HttpExchange, what: str, cause: BaseException | None = None
) -> BaseException:
    """The error that says what happened: reading was given up, the answer could not be parsed, or it broke off.

    Args:
        error: What was raised.
        exchange: Of the call.
        what: The answer would have been, in words.
        cause: What the client's library wrapped in `error`.

    Returns:
        A `ProviderError` or `BrokenStream`; `error` itself where it says what happened.
    """
    if not isinstance(error, Exception) or isinstance(error, ProviderError):
        return error
    if exchange.broken:
        try:
            exchange.check()
        except ProviderError as stopped:
            return stopped
    if exchange.state != "answering":
        return error
    cause = error if cause is None else cause
    if isinstance(cause, UNREADABLE):
        return ProviderError(f"the provider answered with no {what}: {type(cause).__name__}")
    if _is_of_http(cause, "HTTPError") and not _is_of_http(cause, "TimeoutException"):
        kind = BrokenStream if exchange.streamed else ProviderError
        return kind(f"the provider's answer broke off before its end: {type(cause).__name__}")
    return error


def _is_of_http(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.startswith("httpx") for kind in type(error).__mro__)
