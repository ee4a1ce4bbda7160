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


def error_body(problem: Problem, path: str) -> dict[str, Any]:
    """The body of an error in the shape of the API that `path` belongs to: OpenAI's unless it has one of its own."""
    return problem.body()
