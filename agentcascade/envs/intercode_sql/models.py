"""`recorded/NAME` of InterCode-SQL: one answer to a question with the schema, or a run turn by turn, as its world asks.

Large models have one answer (`recorded/gpt-4`: its last query of up to ten turns, for which it paid), our own
Qwen2.5-Coder has ten samples: `recorded/qwen2.5-coder-1.5b`, and `recorded/qwen2.5-coder-1.5b*7` for what most of
seven say. One's own answers are files in $INTERCODE_DATA/answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agentcascade.envs.intercode_sql import runs
from agentcascade.envs.intercode_sql.answers import LIBRARY
from agentcascade.envs.intercode_sql.one_query import OneQueryEnvironment
from agentcascade.envs.intercode_sql.runs import RunModel
from agentcascade.envs.recorded import models
from agentcascade.errors import ConfigError
from agentcascade.models.pricing import price_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Usage

if TYPE_CHECKING:
    from typing import Self

    from agentcascade.config.sections import ModelConfig


class AnswerModel(models.RecordedModel):
    """A recorded model that gives one query."""

    library = LIBRARY


class RecordedModel:
    """Implements `ChatModel` in the world that it is bound to. Raises `ConfigError` for a name without recordings."""

    supports_n = True

    def __init__(self, config: ModelConfig, count: TokenCounter) -> None:
        self.name = config.name
        self._config, self._count = config, count
        self._played: AnswerModel | RunModel | None = None
        self._dollars: Callable[[Usage], Decimal | None] = price_of(config, config.name.removeprefix(runs.PREFIX))
        models.split(config.name, LIBRARY)

    @classmethod
    def from_config(cls, config: ModelConfig, count: TokenCounter) -> Self:
        """As the entry-point group ``agentcascade.models`` makes it."""
        return cls(config, count)

    def bind(self, world: Any) -> None:
        """Play in this world from now on.

        Raises:
            ConfigError: for a model that has no runs, in a world of turns.
            UnknownPrice: for one that has no price of its time, and was given none.
        """
        if isinstance(world, OneQueryEnvironment):
            self._played = AnswerModel.from_config(self._config, self._count)
        else:
            self._played = RunModel(self.name, self._count, self._dollars)
        self._played.bind(world)

    def dollars(self, usage: Usage) -> Decimal | None:
        return self._dollars(usage) if self._played is None else self._played.dollars(usage)

    async def complete(self, messages: Sequence[Message], *, n: int = 1, **options: Any) -> Completion:
        """Raises what `AnswerModel` and `RunModel` raise, and `ConfigError` outside a bound world."""
        if self._played is None:
            raise ConfigError(
                f"{self.name} plays recorded answers: it works only in `agentcascade bench intercode-sql`"
            )
        return await self._played.complete(messages, n=n, **options)
