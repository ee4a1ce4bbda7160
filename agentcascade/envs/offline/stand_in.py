"""Stand-in for a chat model: a program that answers at a price, counted in tokens like a model's."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from agentcascade.models.pricing import price_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Usage

if TYPE_CHECKING:
    from typing import Self

    from agentcascade.config.sections import ModelConfig


class StandIn:
    """What stand-ins have in common: name, tokens and dollars. They are not language models."""

    name: str
    supports_n = True

    def __init__(self, count: TokenCounter, dollars: Callable[[Usage], Decimal | None]) -> None:
        self._count, self._dollars = count, dollars

    @classmethod
    def from_config(cls, config: ModelConfig, count: TokenCounter) -> Self:
        """As the entry-point group ``agentcascade.models`` makes it."""
        return cls(count, price_of(config))

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._dollars(usage)
