"""What the five modules have in common: three tiers, each answered by one method."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Generic, Literal, TypeVar

from agentcascade.memory.llm import Ask, Language
from agentcascade.memory.question import Work
from agentcascade.types import ModuleName, Tier

T = TypeVar("T")

Kind = Literal["rules", "models", "deep"]
"""Without a chat model: patterns and word counts; vectors made beforehand; vectors of tokens made for the question."""


class Module(Generic[T]):
    """A module of the pipeline. `methods` says what answers each tier.

    A subclass has the methods ``rules``, ``models``, ``deep`` (plain functions of the work at hand) and ``llm``.
    """

    name: ModuleName
    description: str
    """One sentence, which tells the router which module it decides for."""

    def __init__(self, methods: Mapping[Tier, Kind | Language]) -> None:
        self.methods = dict(methods)

    def low(self, work: Work, ask: Ask) -> T | Awaitable[T]:
        return self.run("low", work, ask)

    def mid(self, work: Work, ask: Ask) -> T | Awaitable[T]:
        return self.run("mid", work, ask)

    def high(self, work: Work, ask: Ask) -> T | Awaitable[T]:
        return self.run("high", work, ask)

    def run(self, tier: Tier, work: Work, ask: Ask) -> T | Awaitable[T]:
        """The tier's result; to be awaited where a chat model makes it."""
        method = self.methods[tier]
        if isinstance(method, Language):
            return self.llm(work, method, ask)
        plain: Any = getattr(self, method)
        result: T = plain(work)
        return result

    def rules(self, work: Work) -> T:
        raise NotImplementedError

    def models(self, work: Work) -> T:
        raise NotImplementedError

    def deep(self, work: Work) -> T:
        raise NotImplementedError

    async def llm(self, work: Work, method: Language, ask: Ask) -> T:
        raise NotImplementedError
