"""Every failure as an HTTP status in OpenAI's error shape. Nothing of our insides reaches the client."""

from __future__ import annotations

import logging
import math
import socket
import ssl
import sys
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect

from agentcascade.errors import (
    AgentCascadeError,
    BudgetExceeded,
    ConfigError,
    EmptyCompletion,
    InvalidKey,
    InvalidRequest,
    ProviderError,
    RateLimited,
    StorageError,
    UnknownEpisode,
    UnknownPrice,
    describe,
    without_secrets,
)

log = logging.getLogger("agentcascade.server")


class Problem(NamedTuple):
    """What the client is told."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None

    def body(self) -> dict[str, Any]:
        error = {"message": without_secrets(self.message), "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"retry-after": str(math.ceil(self.retry_after))}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.status == 408:  # what is left of the request would be taken for the next one
            found["connection"] = "close"
        return found


class Refused(Exception):
    """Raised by the server's own checks."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> Refused:
    return Refused(Problem(status, message, "invalid_request_error", code, param))


def explain(error: BaseException) -> Problem:
    """The problem that `error` is; an error nobody foresaw is logged, not told."""
    match error:
        case Refused():
            return error.problem
        case ClientDisconnect():
            return Problem(499, "the client went away", "client_disconnected")
        case InvalidKey():
            return Problem(401, str(error), "authentication_error", "invalid_api_key")
        case RateLimited():
            return Problem(429, str(error), "rate_limit_error", "rate_limit_exceeded", retry_after=error.retry_after)
        case BudgetExceeded():
            return Problem(402, str(error), "insufficient_quota", "budget_exceeded", error.scope or None)
        case UnknownPrice():
            return Problem(402, str(error), "insufficient_quota", "unknown_price")
        case UnknownEpisode():
            return Problem(404, str(error), "invalid_request_error", "episode_not_found")
        case InvalidRequest():
            return Problem(400, str(error), "invalid_request_error")
        case EmptyCompletion():
            return Problem(502, describe(error), "upstream_error", "empty_completion")
        case ProviderError():
            return _upstream(error, error.status_code)
        case TimeoutError():
            return Problem(504, "the step took longer than its deadline", "timeout_error", "deadline_exceeded")
        case StorageError():
            log.error("the database failed: %s", describe(error))
            return Problem(503, "the database does not answer", "server_error", "storage", retry_after=5)
        case ConfigError() | AgentCascadeError():
            log.error("%s", describe(error))
            return Problem(500, "the server is not set up for this request", "server_error", type(error).__name__)
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _upstream(error, status)
    if _is_of(error, "openai:APITimeoutError", "httpx:TimeoutException"):
        return Problem(504, "the model's provider took too long", "timeout_error", "upstream_timeout")
    if isinstance(error, ConnectionError | socket.gaierror | ssl.SSLError) or _is_of(
        error, "openai:APIConnectionError", "httpx:TransportError"
    ):
        log.error("the provider cannot be reached: %s", describe(error))
        return Problem(502, "the model's provider cannot be reached", "upstream_error", "connection")
    log.error("unforeseen: %s", describe(error), exc_info=error)
    return Problem(500, "internal error", "server_error", "internal")


def _is_of(error: BaseException, *classes: str) -> bool:
    """Whether the error is of one of these ``module:Class``, which are not imported for the question."""
    for path in classes:
        module, _, name = path.partition(":")
        found = getattr(sys.modules.get(module), name, None)
        if found is not None and isinstance(error, found):
            return True
    return False


def _upstream(error: BaseException, status: int) -> Problem:
    """What the teacher's provider said. That it refuses our key is not the client's fault."""
    from agentcascade.models import retry_after

    if status == 429:
        wait = retry_after(error) if isinstance(error, Exception) else None
        return Problem(
            429, "the model's provider is rate limited", "rate_limit_error", "upstream_rate_limit", None, wait
        )
    if status in (400, 413, 422):
        return Problem(400, describe(error), "invalid_request_error", "upstream_refused")
    if status in (401, 403):
        log.error("the provider refuses our credentials: %s", describe(error))
        return Problem(502, "the model's provider refuses the server's credentials", "upstream_error", "upstream_auth")
    if status == 404:
        log.error("the provider does not know the model: %s", describe(error))
        return Problem(502, "the model's provider does not know the model", "upstream_error", "upstream_model")
    if status in (408, 504):
        return Problem(504, "the model's provider took too long", "timeout_error", "upstream_timeout")
    if isinstance(error, ProviderError):
        return Problem(502, describe(error), "upstream_error", "upstream_answer")
    return Problem(502, f"the model's provider failed ({type(error).__name__})", "upstream_error", f"upstream_{status}")
