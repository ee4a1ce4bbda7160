"""Errors as the client is told them: status, body and headers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from agentcascade._util import known_secrets
from agentcascade.errors import without_secrets


class Problem(NamedTuple):
    """What the client is told."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    retry: bool = True
    """False: the same again would fail again, or be paid for again. OpenAI's clients heed it."""
    upstream_id: str | None = None
    """The provider's id of the request, for its support."""

    def body(self) -> dict[str, Any]:
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": {name: without_secrets(text) if text else text for name, text in fields.items()}}

    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"retry-after": str(math.ceil(self.retry_after))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status == 408:  # what is left of the request would be taken for the next one
            headers["connection"] = "close"
        if not self.retry:
            headers["x-should-retry"] = "false"
        if self.upstream_id:
            headers["x-upstream-request-id"] = known_secrets.hide(self.upstream_id)
        return headers


ANTHROPIC_PATHS = ("/v1/messages",)
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's type of an error by its status; ``api_error`` for all others."""


def error_body(problem: Problem, path: str) -> dict[str, Any]:
    """The body of an error in the shape of the API that `path` belongs to: OpenAI's unless it has one of its own."""
    return anthropic_body(problem) if path.startswith(ANTHROPIC_PATHS) else problem.body()


def anthropic_body(problem: Problem) -> dict[str, Any]:
    """The body of an error in Anthropic's shape, our code and the field at fault among its details."""
    detail = problem.body()["error"]
    kind = ANTHROPIC_TYPES.get(problem.status, "api_error")
    if problem.code == "upstream_529":
        kind = "overloaded_error"
    details = {"error_code": detail["code"], "param": detail["param"]}
    error = {"type": kind, "message": detail["message"], "details": {k: v for k, v in details.items() if v}}
    return {"type": "error", "error": error if error["details"] else {k: error[k] for k in ("type", "message")}}
