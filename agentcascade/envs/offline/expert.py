"""`offline/expert`: a world that knows the way to its own goal, dressed as a chat model.

It is not a language model. In ALFWorld it is the engine's planner, which knows the rules of the game, but of each game
only what a player has seen; in generated AppWorld tasks it is the solution that was written with the task. Its tokens
are counted and billed like a model's, at prices that the user names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from agentcascade.envs.offline.stand_in import StandIn
from agentcascade.errors import ConfigError
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import rendered
from agentcascade.protocols import TokenCounter
from agentcascade.types import Completion, Message, Tool, Usage


class Oracle(Protocol):
    """A world that can tell the way to its goal."""

    def expert_outline(self) -> str:
        """The whole way in a few lines."""
        ...

    def expert_answer(self) -> str:
        """The next step as an agent writes it: a thought and an action."""
        ...


class Expert(StandIn):
    """Answers with the next step on the way, and a thought that says what it is for."""

    name = "offline/expert"

    def __init__(self, count: TokenCounter, dollars: Callable[[Usage], Decimal | None]) -> None:
        super().__init__(count, dollars)
        self._world: Oracle | None = None

    def bind(self, world: Oracle) -> None:
        """Play in this world from now on."""
        self._world = world

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """The same answer `n` times. Raises `ConfigError` outside a bound world."""
        if self._world is None:
            raise ConfigError(
                "offline/expert asks the world that it plays in: it works only in `agentcascade bench alfworld` and "
                "`agentcascade bench appworld`"
            )
        started = time.perf_counter()
        if rendered(messages[-1], "plan") is not None:
            text = self._world.expert_outline()
        else:
            text = self._world.expert_answer()
        answer: Message = {"role": "assistant", "content": text}
        usage = Usage(input=count_messages(messages, self._count), output=n * self._count(text_of(answer)))
        return Completion(
            model=self.name,
            messages=(answer,) * n,
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
            seconds=time.perf_counter() - started,
        )
