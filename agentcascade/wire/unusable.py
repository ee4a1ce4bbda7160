"""Fields of a request that cannot be translated, as an error that names them."""

from __future__ import annotations

from agentcascade.errors import InvalidRequest


class UnusableField(InvalidRequest):
    """A field of a request cannot be used; `param` is its path, `code` what programs act on."""

    def __init__(self, message: str, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code
