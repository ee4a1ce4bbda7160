"""A provider's errors as its own client would show them: status, message, type, code, param, retry-after, request id.

Agents act on codes such as ``context_length_exceeded`` or ``content_filter``. That the provider refuses the server's
credentials, or does not know the server's model, is no fault of the client's, and only logged.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from agentcascade._util.control_characters import one_line
from agentcascade.errors import ProviderError, describe, without_secrets
from agentcascade.models.callers import is_callers_own
from agentcascade.server.problem import Problem

log = logging.getLogger("agentcascade.server")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,79}")
PARAM = re.compile(r"[A-Za-z0-9_.\[\]\-]{1,200}")
REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,100}")
MOST_CHARACTERS, MOST_JSON = 1000, 100_000
MOST_WAIT = 3600.0
CONTEXT = "context_length_exceeded"
CLASSES = {"ContextWindowExceededError": CONTEXT, "ContentPolicyViolationError": "content_policy_violation"}
"""litellm's words for what some providers say in prose alone."""
TOO_LONG = re.compile(r"(?i)maximum context length|context[ _-](?:length|window)|prompt is too long|too many tokens")


class ProviderMessage(NamedTuple):
    """The provider's own error object; empty where it has none."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None


def upstream_problem(error: BaseException, status: int) -> Problem:
    """What the client is told of a provider's error with this HTTP status."""
    sent = read_provider_message(error)
    name = type(error).__name__
    code = CLASSES.get(name) or sent.code
    if code is None and status in (400, 413, 422) and TOO_LONG.search(sent.message):
        code = CONTEXT
    wait, id = _headers(error)
    if code in CLASSES.values() and status >= 500:  # litellm knows better than the status it was given
        status = 400
    kind = sent.type or "invalid_request_error"
    if status == 429:
        words = sent.message or "the model's provider is rate limited"
        kind = sent.type or "rate_limit_error"
        problem = Problem(429, words, kind, code or "upstream_rate_limit", sent.param, wait)
    elif status in (400, 413, 422):
        words = sent.message or describe(error)
        problem = Problem(status, words, kind, code or "upstream_refused", sent.param)
    elif status in (401, 402, 403, 404) and is_callers_own(error):
        kind = sent.type or ("authentication_error" if status == 401 else "invalid_request_error")
        problem = Problem(status, sent.message or describe(error), kind, code or "upstream_refused", sent.param)
    elif status in (401, 402, 403):
        log.error("the provider refuses our credentials: %s", describe(error))
        words = "the model's provider refuses the server's credentials"
        problem = Problem(502, words, "upstream_error", "upstream_auth", retry=False)
    elif status == 404:
        log.error("the provider does not know the model: %s", describe(error))
        words = "the model's provider does not know the model"
        problem = Problem(502, words, "upstream_error", "upstream_model", retry=False)
    elif status in (408, 504):
        problem = Problem(504, "the model's provider took too long", "timeout_error", "upstream_timeout", None, wait)
    elif isinstance(error, ProviderError):
        own = "upstream_529" if status == 529 else "upstream_answer"  # Anthropic's: it is overloaded
        problem = Problem(502, describe(error), "upstream_error", code or own, sent.param, wait)
    else:
        log.warning("the provider failed: %s", describe(error))
        words = f"the model's provider failed ({name}, status {status})"
        problem = Problem(502, words, "upstream_error", code or f"upstream_{status}", sent.param, wait)
    return problem._replace(upstream_id=id)


def read_provider_message(error: BaseException) -> ProviderMessage:
    """The error object that the provider sent: of the client's exception, or else out of its message."""
    sent = _object(getattr(error, "body", None)) or _object(_json_in(str(error)))
    if sent is None:
        return ProviderMessage()
    message = sent.get("message")
    return ProviderMessage(
        clean(message) if isinstance(message, str) else "",
        _matching(WORD, sent.get("type")),
        _matching(WORD, sent.get("code")),
        _matching(PARAM, sent.get("param")),
    )


def clean(text: str) -> str:
    """A provider's words without what looks like a secret, in one line, bounded."""
    return one_line(without_secrets(" ".join(text[: 4 * MOST_CHARACTERS].split())))[:MOST_CHARACTERS]


def _object(body: object) -> Mapping[str, Any] | None:
    """The inner error of ``{"error": {…}}``, which openai's client has unwrapped already; prose as its message."""
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error", body)
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, Mapping) and "message" in inner else None


def _json_in(text: str) -> object:
    start = text.find("{")
    if start < 0 or len(text) > MOST_JSON:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _headers(error: BaseException) -> tuple[float | None, str | None]:
    """Seconds to wait, and the provider's id of the request."""
    from agentcascade.models.retries import retry_after

    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    wait = retry_after(error) if isinstance(error, Exception) else None
    id = headers.get("x-request-id") or headers.get("request-id") or getattr(error, "request_id", None)
    return None if wait is None else min(wait, MOST_WAIT), _matching(REQUEST_ID, id)
