"""Calls of models: usage in disjoint classes of tokens, completions, lines of a bill, budgets' accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from pydantic import Field

from agentcascade.types.base import Frozen, Message, Purpose, Role


class Usage(Frozen):
    """Usage of a model call: its tokens in disjoint classes, so that a bill is a dot product.

    >>> from agentcascade import Usage
    >>> usage = Usage(input=100, cached_input=900, output=20) + Usage(input=50, output=5, reasoning=30)
    >>> usage.prompt, usage.completion
    (1050, 55)
    """

    input: int = Field(default=0, ge=0, description="prompt tokens billed at the full input price")
    cached_input: int = Field(default=0, ge=0, description="prompt tokens read from the provider's cache")
    cache_write: int = Field(default=0, ge=0, description="prompt tokens written to the provider's cache")
    cache_write_1h: int = Field(default=0, ge=0, description="likewise, into Anthropic's one-hour cache")
    output: int = Field(default=0, ge=0, description="visible completion tokens")
    reasoning: int = Field(default=0, ge=0, description="hidden reasoning tokens")

    @property
    def prompt(self) -> int:
        """All prompt tokens, however billed."""
        return self.input + self.cached_input + self.cache_write + self.cache_write_1h

    @property
    def completion(self) -> int:
        """All generated tokens, visible or not."""
        return self.output + self.reasoning

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cached_input=self.cached_input + other.cached_input,
            cache_write=self.cache_write + other.cache_write,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


class Completion(Frozen):
    """Completion of a chat model: the `n` assistant messages of one call, and its bill.

    >>> from agentcascade import Completion, Usage
    >>> message = {"role": "assistant", "content": "look"}
    >>> Completion(model="mine", messages=(message,), usage=Usage(input=12, output=1)).usage.completion
    1
    """

    model: str = Field(description="name of the model that was asked; `fields` may hold what its provider calls it")
    messages: tuple[Message, ...]
    finish_reasons: tuple[str, ...] = Field(default=(), description="of each message, as OpenAI calls them")
    usage: Usage = Usage()
    dollars: Decimal | None = Field(default=None, description="None: the price is unknown")
    seconds: float = Field(default=0.0, description="wall time")
    calls: int = Field(
        default=1, ge=0, description="provider requests behind it (n parallel calls count n; 0: it shared another's)"
    )
    logprobs: tuple[float | None, ...] = Field(
        default=(), description="mean log-probability of each message's tokens, where it was asked for and told"
    )
    tokens: tuple[int | None, ...] = Field(default=(), description="generated tokens of each message, likewise")
    estimated: bool = Field(
        default=False,
        description="whether tokens were counted here, all or some, since the server reported none or nonsense",
    )
    lost: int = Field(
        default=0,
        ge=0,
        description="requests that were sent and whose answers never came: they may be billed, and `usage` lacks them",
    )
    fields: Mapping[str, Any] = Field(
        default_factory=dict, description="what the provider's answer says beside its choices, such as service_tier"
    )
    choice_fields: tuple[Mapping[str, Any], ...] = Field(
        default=(), description="of each message, what its choice says beside it, such as logprobs"
    )
    cached_response: bool = Field(
        default=False, description="whether it was kept from an earlier identical request: `dollars` is 0"
    )
    avoided_dollars: Decimal | None = Field(default=None, description="what such an answer cost when it was bought")


class Call(Frozen):
    """One line of the ledger: who was called, what for, and what it cost."""

    role: Role
    purpose: Purpose = "act"
    model: str
    usage: Usage
    dollars: Decimal | None
    seconds: float = 0.0
    requests: int = Field(
        default=1,
        ge=0,
        description="provider requests behind it, each of which paid for its prompt; 0: a part of another line's",
    )
    estimated: bool = Field(
        default=False, description="whether tokens were counted here, all or some: the provider did not say"
    )
    cached_response: bool = Field(
        default=False,
        description="whether the response cache answered: nobody was asked, `dollars` is 0, and `usage` was not bought",
    )
    avoided_dollars: Decimal | None = Field(default=None, description="what such an answer cost when it was bought")

    @classmethod
    def of(cls, role: Role, purpose: Purpose, completion: Completion) -> Call:
        """The ledger line of a completion."""
        return cls(
            role=role,
            purpose=purpose,
            model=completion.model,
            usage=completion.usage,
            dollars=completion.dollars,
            seconds=completion.seconds,
            requests=completion.calls,
            estimated=completion.estimated,
            cached_response=completion.cached_response,
            avoided_dollars=completion.avoided_dollars,
        )


class Judgement(NamedTuple):
    """Whether an episode succeeded, and what it cost to know."""

    success: bool
    calls: tuple[Call, ...] = ()


Scope = Literal["key", "namespace", "episode", "collection"]
"""Scope of a budget: whose spending is limited."""


class Account(Frozen):
    """Something that may spend no more than its limit in one period."""

    scope: Scope
    name: str
    limit: Decimal = Field(ge=0, description="dollars")
    period: Literal["total", "day", "month"] = "total"


def total(calls: Sequence[Call]) -> Decimal | None:
    """The sum; None as soon as one price is unknown."""
    prices = [c.dollars for c in calls]
    return None if any(p is None for p in prices) else sum((p for p in prices if p is not None), Decimal(0))
