"""A price for a chat model of the user's own class: dollars where the model itself knows none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.models.pricing import Price
from agentcascade.protocols import ChatModel, StreamingModel
from agentcascade.types import Completion, Delta, Message, Usage


class Priced:
    """`model`, whose completions and estimates cost what `price` says."""

    def __init__(self, model: ChatModel, price: Price) -> None:
        self._model, self._price = model, price
        self.name, self.supports_n = model.name, model.supports_n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._price.dollars(usage)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        return self._billed(await self._model.complete(messages, **options))

    def _billed(self, completion: Completion) -> Completion:
        return completion.model_copy(update={"dollars": self._price.dollars(completion.usage)})


class PricedStreaming(Priced):
    """The same for a model that streams."""

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        model: Any = self._model
        return self._billed(await model.stream(messages, on_delta, **options))


def priced(model: ChatModel, price: Price | None) -> ChatModel:
    """`model` itself where no price is given."""
    if price is None:
        return model
    return (PricedStreaming if isinstance(model, StreamingModel) else Priced)(model, price)
