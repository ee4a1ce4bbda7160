"""Base class of memory modules: three tiers, each answered by one method."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Generic, Literal, TypeVar

from agentcascade.memory.llm import Ask, ChatMethod
from agentcascade.memory.question import QuestionContext
from agentcascade.types import ModuleName, Tier

T = TypeVar("T")

MethodName = Literal["rules", "models", "deep"]
"""Methods without a chat model: patterns and word counts; precomputed vectors; token vectors made for the question"""


class Module(Generic[T]):
    """Memory module; `methods` maps each tier to the method that answers it.

    A subclass implements ``rules``, ``models``, ``deep`` (functions of the question's context) and ``llm``.
    """

    name: ModuleName
    description: str
    """One sentence, which the policy router embeds to know the module that it decides for"""

    def __init__(self, methods: Mapping[Tier, MethodName | ChatMethod]) -> None:
        self.methods: dict[Tier, MethodName | ChatMethod] = dict(methods)

    def low(self, context: QuestionContext, ask: Ask) -> T | Awaitable[T]:
        return self.run("low", context, ask)

    def mid(self, context: QuestionContext, ask: Ask) -> T | Awaitable[T]:
        return self.run("mid", context, ask)

    def high(self, context: QuestionContext, ask: Ask) -> T | Awaitable[T]:
        return self.run("high", context, ask)

    def run(self, tier: Tier, context: QuestionContext, ask: Ask) -> T | Awaitable[T]:
        """The tier's result, or an awaitable of it where a chat model makes it."""
        method = self.methods[tier]
        if isinstance(method, ChatMethod):
            return self.llm(context, method, ask)
        plain: Any = getattr(self, method)
        result: T = plain(context)
        return result

    def rules(self, context: QuestionContext) -> T:
        raise NotImplementedError

    def models(self, context: QuestionContext) -> T:
        raise NotImplementedError

    def deep(self, context: QuestionContext) -> T:
        raise NotImplementedError

    async def llm(self, context: QuestionContext, method: ChatMethod, ask: Ask) -> T:
        raise NotImplementedError
