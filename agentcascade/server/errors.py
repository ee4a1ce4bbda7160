"""Errors as HTTP statuses in OpenAI's error shape. Nothing of our insides reaches the client."""

from __future__ import annotations

import logging
import socket
import ssl
import sys

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
)
from agentcascade.server import upstream
from agentcascade.server.problem import Problem as Problem
from agentcascade.wire.unusable import UnusableField

log = logging.getLogger("agentcascade.server")


class Refused(Exception):
    """Raised by the server's own checks."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Told(Refused):
    """Raised at the end of a stream by what has told its client of the problem already."""


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
        case UnusableField():
            return Problem(400, str(error), "invalid_request_error", error.code, error.param)
        case InvalidRequest():
            return Problem(400, str(error), "invalid_request_error")
        case EmptyCompletion():
            return Problem(502, describe(error), "upstream_error", "empty_completion", retry=False)
        case ProviderError():
            return upstream.upstream_problem(error, error.status_code)
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
        return upstream.upstream_problem(error, status)
    if _is_of(error, "openai:APITimeoutError", "httpx:TimeoutException"):
        return Problem(504, "the model's provider took too long", "timeout_error", "upstream_timeout")
    if isinstance(error, ConnectionError | socket.gaierror | ssl.SSLError) or _is_of(
        error, "openai:APIConnectionError", "httpx:RequestError"
    ):
        log.error("the provider cannot be reached: %s", describe(error))
        return Problem(502, "the model's provider cannot be reached", "upstream_error", "connection")
    log.error("unforeseen: %s", describe(error), exc_info=error)
    return Problem(500, "internal error", "server_error", "internal")


def _is_of(error: BaseException, *classes: str) -> bool:
    """Whether the error is of one of these ``module:Class``, which are not imported for the question."""
    for path in classes:
        module, _, name = path.partition(":")
        loaded_class = getattr(sys.modules.get(module), name, None)
        if loaded_class is not None and isinstance(error, loaded_class):
            return True
    return False
