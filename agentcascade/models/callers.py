"""CallersModel: a model asked with the credentials that a request brought (bring your own key), which stay in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentcascade.errors import ConfigError
from agentcascade.protocols import StreamingModel
from agentcascade.types import Completion, Delta, Message, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator


class CallersModel:
    """A model asked with one caller's headers: those of `model`, which several callers share, hold no credentials.

    What the provider refuses of them is marked (`is_callers_own`): it is for the caller to know, not a fault of ours.

    Args:
        model: Takes the option ``extra_headers``.
        headers: Go with every call; never stored, and not among `defaults`.
    """

    bills_failures = True
    asked_with = None
    """Of no caller's answers another one may hear: they are not cached."""

    def __init__(self, model: StreamingModel, headers: Mapping[str, str]) -> None:
        self._model, self._headers = model, dict(headers)
        self.name: str = model.name
        self.supports_n: bool = model.supports_n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __repr__(self) -> str:
        return f"CallersModel({self.name!r})"

    def dollars(self, usage: Usage) -> Decimal | None:
        """What such usage of one request costs; None where the price is not known."""
        return self._model.dollars(usage)

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        """As the model's own."""
        with _marked():
            return await self._model.complete(messages, **self._with_headers(options))

    async def stream(
        self, messages: Sequence[Message], on_delta: Callable[[Delta], None], **options: Any
    ) -> Completion:
        """As the model's own."""
        with _marked():
            return await self._model.stream(messages, on_delta, **self._with_headers(options))

    async def count_tokens(self, messages: Sequence[Message], tools: Any, options: Mapping[str, Any]) -> int:
        """As the model's own, where it can."""
        with _marked():
            model: Any = self._model
            tokens: int = await model.count_tokens(messages, tools, self._with_headers(options))
            return tokens

    def _with_headers(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "extra_headers": {**(options.get("extra_headers") or {}), **self._headers}}


class NamelessModel:
    """Stands for the model that each caller names, where a configuration has none: asked itself, it is an error."""

    name = "(the model that a caller names)"
    supports_n = True

    def prepare(self) -> None:
        """Load now what the models that callers name are asked by, which else the first call of each API does."""
        from agentcascade.models import aiohttp_transport, anthropic, openai_client, responses_calls  # noqa: F401

    def dollars(self, usage: Usage) -> Decimal | None:
        """Not known."""
        return None

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        """Raises `ConfigError`: nobody named a model."""
        raise ConfigError("there is no teacher: set teacher.name, or name a model in the request (server.passthrough)")


def is_callers_own(error: BaseException) -> bool:
    """Whether a provider refused what the caller brought itself: its key, its model, its account."""
    return getattr(error, "agentcascade_callers_own", False) is True


@contextmanager
def _marked() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.agentcascade_callers_own = True  # type: ignore[attr-defined]
        raise
