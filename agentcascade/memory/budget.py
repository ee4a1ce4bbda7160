"""Budget of one question (deadline and dollars), and the model calls of each module."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from agentcascade._util.threads import apart
from agentcascade.billing.door import Door, Tab
from agentcascade.billing.worst_case import PlannedCall
from agentcascade.errors import BudgetExceeded, ConfigError, UnknownPrice, bill_of
from agentcascade.memory.llm import Size
from agentcascade.memory.result_cache import AnswerCache, text_digest
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Account as SpendAccount
from agentcascade.types import Call, Completion, Message

SIZES: tuple[Size, ...] = ("small", "medium", "large")


class ModelCaller(Protocol):
    """Makes one model call for a memory; an agent's step has its own, with its own budgets and bill."""

    async def __call__(
        self, model: ChatModel, messages: Sequence[Message], *, max_tokens: int, timeout: float
    ) -> Completion: ...


class DirectCaller:
    """Model calls outside of an agent's step: through the door, within the budgets of `accounts`."""

    def __init__(
        self, door: Door | None = None, accounts: Sequence[SpendAccount] = (), namespace: str | None = None
    ) -> None:
        self._door = door or Door()
        self._accounts, self._namespace = accounts, namespace

    async def __call__(
        self, model: ChatModel, messages: Sequence[Message], *, max_tokens: int, timeout: float
    ) -> Completion:
        options = {"temperature": 0.0, "max_tokens": max_tokens, "timeout": timeout}
        return await self._door.call(
            model,
            messages,
            options,
            role="student",
            purpose="memory",
            bill=Tab(),
            accounts=self._accounts,
            seconds=timeout,
            namespace=self._namespace,
        )


def answer_key(model: str, messages: Sequence[Message]) -> str:
    """Cache key of an answer: a digest of the model and its messages."""
    return text_digest(json.dumps([model, list(messages)], sort_keys=True, ensure_ascii=True))


class QuestionBudget:
    """Deadline and dollar cap of one question; `dollars` None is no cap."""

    def __init__(
        self,
        models: Mapping[Size, ChatModel],
        answers: AnswerCache,
        count: TokenCounter,
        *,
        seconds: float,
        dollars: Decimal | None,
        caller: ModelCaller | None = None,
    ) -> None:
        self._models = models
        self._answers = answers
        self._count = count
        self._caller = caller or DirectCaller()
        self._deadline = time.monotonic() + seconds
        self._dollars_left = dollars

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._deadline - time.monotonic()

    def module_calls(self) -> ModuleCalls:
        """List of the calls that one module makes within this budget."""
        return ModuleCalls(self)

    async def ask(self, size: Size, messages: Sequence[Message], max_tokens: int, calls: ModuleCalls) -> str:
        model = model_for_size(self._models, size)
        key = answer_key(model.name, messages)
        known = await apart(self._answers.get, key)
        if known is not None:
            calls.cached = True
            return known
        timeout = self.remaining_seconds
        if timeout <= 0:
            raise TimeoutError("the deadline of the memory has passed")
        ceiling = self._reserve(model, messages, max_tokens)
        spent = Decimal(0)
        try:
            async with asyncio.timeout(timeout):
                completion = await self._caller(model, messages, max_tokens=max_tokens, timeout=timeout)
            spent = _billed_dollars(completion, ceiling)
        except BaseException as error:
            bill = bill_of(error)
            if bill is not None:
                calls.calls.append(Call.of("student", "memory", bill))
                spent = _billed_dollars(bill, ceiling)
            raise
        finally:
            if self._dollars_left is not None:
                self._dollars_left += ceiling - spent
        calls.calls.append(Call.of("student", "memory", completion))
        text = text_of(completion.messages[0])
        await apart(self._answers.put, key, text)
        return text

    def _reserve(self, model: ChatModel, messages: Sequence[Message], max_tokens: int) -> Decimal:
        """Reserve the worst-case dollars of a call; raises `BudgetExceeded` or `UnknownPrice`."""
        if self._dollars_left is None:
            return Decimal(0)
        worst = PlannedCall(model, messages, {"max_tokens": max_tokens}, 1, self._count).request_dollars()
        if worst is None:
            raise UnknownPrice(
                f"the price of {model.name} is not known, so memory.max_dollars cannot hold: set its price, or "
                "take the cap away"
            )
        if worst > self._dollars_left:
            raise BudgetExceeded(
                f"the call may cost ${worst:.6f}, of the memory's cap ${self._dollars_left:.6f} is left"
            )
        self._dollars_left -= worst
        return worst


def _billed_dollars(completion: Completion, worst: Decimal) -> Decimal:
    """Dollars of a completion; the whole reservation where they are unknown."""
    return worst if completion.dollars is None else completion.dollars


class ModuleCalls:
    """Model calls of one module at one question."""

    def __init__(self, budget: QuestionBudget) -> None:
        self._budget = budget
        self.calls: list[Call] = []
        self.cached = False
        """Whether an answer came from the cache"""

    async def ask(self, size: Size, messages: Sequence[Message], max_tokens: int) -> str:
        return await self._budget.ask(size, messages, max_tokens, self)


def model_for_size(models: Mapping[Size, ChatModel], size: Size) -> ChatModel:
    """The model of this size, or of the nearest configured one; raises `ConfigError` where there is none."""
    if not models:
        raise ConfigError("these tiers ask a chat model: set memory.models, e.g. {large: {name: openai/gpt-4.1-mini}}")
    place = SIZES.index(size)
    return models[min(models, key=lambda s: abs(SIZES.index(s) - place))]
