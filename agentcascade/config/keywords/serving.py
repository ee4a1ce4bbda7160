"""Keywords of running it for others: budgets, telemetry, the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal, TypedDict

from pydantic import SecretStr


class BudgetsKeywords(TypedDict, total=False):
    """Fields of `BudgetsConfig`."""

    per_episode: Decimal | float | str | None
    per_namespace: Decimal | float | str | None
    period: Literal["total", "day", "month"]
    when_exceeded: Literal["error", "student"]
    when_unavailable: Literal["allow", "refuse"]
    output_tokens: int | None


class TelemetryKeywords(TypedDict, total=False):
    """Fields of `TelemetryConfig`."""

    opentelemetry: bool
    contents: bool


class ServerKeywords(TypedDict, total=False):
    """Fields of `ServerConfig`."""

    host: str
    port: int
    open: bool
    hosts: Sequence[str]
    origins: Sequence[str]
    session_secret: SecretStr | str | None
    max_body_bytes: int
    max_incoming_bytes: int
    max_requests: int
    header_seconds: float
    body_seconds: float
    feedback_seconds: float
    keepalive_seconds: float
    store_responses: bool
    shutdown_seconds: float
    passthrough: str
    upstreams: Mapping[Literal["openai", "anthropic"], str]
    prices: Mapping[str, Mapping[str, Decimal | float | str]]
