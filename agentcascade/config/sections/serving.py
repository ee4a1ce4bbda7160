"""Sections of running it for others: budgets, telemetry, the server."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from pydantic import Field, SecretStr

from agentcascade.config.section import Section
from agentcascade.types import Account, Situation


class BudgetsConfig(Section):
    """Dollars. A call whose worst case does not fit into what is left is not made."""

    per_episode: Decimal | None = Field(default=None, ge=0, description="one run of the agent")
    per_namespace: Decimal | None = Field(default=None, ge=0, description="per `period`")
    period: Literal["total", "day", "month"] = "month"
    when_exceeded: Literal["error", "student"] = Field(
        default="error", description="student: where the teacher's call does not fit, the student's answer is taken"
    )
    when_unavailable: Literal["allow", "refuse"] = Field(
        default="allow",
        description="what happens to a call while the database cannot be asked; allow: it is made, and booked as soon "
        "as the database is back",
    )
    output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="limit that a call within a budget is sent with when it has no max_tokens; default: none, and the "
        "model's own limit is reserved; 4096 where that is not known",
    )

    def accounts(self, situation: Situation) -> tuple[Account, ...]:
        """Those that a step is paid from."""
        own = f"{len(situation.namespace)}:{situation.namespace}/{situation.episode}"
        found: list[Account] = []
        if self.per_episode is not None:
            found.append(Account(scope="episode", name=own, limit=self.per_episode))
        return (*found, *self.of_namespace(situation.namespace))

    def of_namespace(self, namespace: str) -> tuple[Account, ...]:
        """Those that what is no step is paid from: recalls, rewriting the bank."""
        if self.per_namespace is None:
            return ()
        return (Account(scope="namespace", name=namespace, limit=self.per_namespace, period=self.period),)


class TelemetryConfig(Section):
    """OpenTelemetry of the process itself; the server's metrics need no setting."""

    opentelemetry: bool = Field(default=False, description="traces and metrics by the process's own providers")
    contents: bool = Field(default=False, description="put messages into spans and logs")


class ServerConfig(Section):
    """The proxy of `agentcascade serve`."""

    host: str = Field(default="127.0.0.1", description="address to listen on; not on the loopback keys are needed")
    port: int = Field(default=8080, ge=0, le=65535, description="0: any that is free")
    open: bool = Field(default=False, description="serve without keys; else a key is needed as soon as one exists")
    hosts: tuple[str, ...] = Field(
        default=(),
        description="names it is reached by, beside addresses, localhost and names without a dot; '*.example.com' for "
        "all below, '*' for any. Without keys other names are refused (DNS rebinding), with keys only if this is set",
    )
    origins: tuple[str, ...] = Field(
        default=(), description="of pages of other sites that may use it in a browser, as https://app.example.com"
    )
    session_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="signs the dashboard's sessions; at least 32 random characters, the same for all servers over one "
        "database. Without it each start makes one, and who signed in before does so again",
    )
    max_body_bytes: int = Field(default=8_000_000, ge=1000, description="of one request; more: 413")
    max_incoming_bytes: int = Field(
        default=128_000_000, ge=1000, description="held of all bodies that are still coming in; more: 503"
    )
    max_requests: int = Field(
        default=256, ge=1, description="requests at work at once; more are told to come back (503)"
    )
    header_seconds: float = Field(default=10.0, gt=0, description="in which a client must have sent a request's head")
    body_seconds: float = Field(default=30.0, gt=0, description="in which its body must have come")
    feedback_seconds: float = Field(
        default=30.0, gt=0, description="a feedback's answer; one that takes longer goes on, and its client asks again"
    )
    keepalive_seconds: float = Field(
        default=20.0,
        ge=0,
        description="after which a silent stream is sent a keep-alive, so that no balancer cuts it off; 0: never. What "
        "goes wrong after the first is an event, since its status was sent",
    )
    store_responses: bool = Field(
        default=True, description="keep what a Responses request lets be stored, for retention.responses days"
    )
    shutdown_seconds: float = Field(default=30.0, ge=0, description="for requests under way when the server stops")
    passthrough: str = Field(
        default="",
        description="cascade that answers for models that no cascade is called by: the model that a client names is "
        "then the teacher, asked at its provider with the client's own key, which is not kept",
    )
    upstreams: Mapping[Literal["openai", "anthropic"], str] = Field(
        default_factory=dict, description="of passthrough: base URLs that clients' keys are sent to instead"
    )
    prices: Mapping[str, Mapping[str, Decimal]] = Field(
        default_factory=dict,
        description="dollars per million tokens by model, as a model's `price`, of those that have none: configured "
        "ones, models that clients name (passthrough), and those of a wrapped client's calls",
    )
