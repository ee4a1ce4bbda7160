"""The deadline and the dollars of one question, and its bill."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from agentcascade._util.threads import apart
from agentcascade.billing.door import Door, Tab
from agentcascade.billing.worst_case import Asked
from agentcascade.errors import BudgetExceeded, ConfigError, UnknownPrice, bill_of
from agentcascade.memory.llm import Size
from agentcascade.memory.result_cache import Answers, digest
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.types import Account as Paid
from agentcascade.types import Call, Completion, Message

SIZES: tuple[Size, ...] = ("small", "medium", "large")


class Caller(Protocol):
    """Makes one model call; an agent's step makes it within its own budgets and on its own bill."""

    async def __call__(
        self, model: ChatModel, messages: Sequence[Message], *, max_tokens: int, timeout: float
    ) -> Completion: ...


class Directly:
    """Calls that are no part of an agent's step: through the door, within `accounts`."""

    def __init__(self, door: Door | None = None, accounts: Sequence[Paid] = ()) -> None:
        self._door, self._accounts = door or Door(), accounts

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
        )


def key_of(model: str, messages: Sequence[Message]) -> str:
    """All that an answer hangs on."""
    return digest(json.dumps([model, list(messages)], sort_keys=True, ensure_ascii=True))


class Purse:
    """Pays for one question. `dollars` None: no cap."""

    def __init__(
        self,
        models: Mapping[Size, ChatModel],
        answers: Answers,
        count: TokenCounter,
        *,
        seconds: float,
        dollars: Decimal | None,
        caller: Caller | None = None,
    ) -> None:
        self._models, self._answers, self._count = models, answers, count
        self._caller = caller or Directly()
        self._ends = time.monotonic() + seconds
        self._left = dollars

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._ends - time.monotonic()

    def account(self) -> Account:
        """For one module: what it asks is paid from this purse and listed on its own."""
        return Account(self)

    async def pay(self, size: Size, messages: Sequence[Message], max_tokens: int, account: Account) -> str:
        model = model_of(self._models, size)
        key = key_of(model.name, messages)
        known = await apart(self._answers.get, key)
        if known is not None:
            account.cached = True
            return known
        timeout = self.remaining
        if timeout <= 0:
            raise TimeoutError("the deadline of the memory has passed")
        ceiling = self._reserve(model, messages, max_tokens)
        spent = Decimal(0)
        try:
            async with asyncio.timeout(timeout):
                completion = await self._caller(model, messages, max_tokens=max_tokens, timeout=timeout)
            spent = _dollars(completion, ceiling)
        except BaseException as error:
            bill = bill_of(error)
            if bill is not None:
                account.calls.append(Call.of("student", "memory", bill))
                spent = _dollars(bill, ceiling)
            raise
        finally:
            if self._left is not None:
                self._left += ceiling - spent
        account.calls.append(Call.of("student", "memory", completion))
        text = text_of(completion.messages[0])
        await apart(self._answers.put, key, text)
        return text

    def _reserve(self, model: ChatModel, messages: Sequence[Message], max_tokens: int) -> Decimal:
        """Set the worst case aside; raises `BudgetExceeded` or `UnknownPrice`."""
        if self._left is None:
            return Decimal(0)
        worst = Asked(model, messages, {"max_tokens": max_tokens}, 1, self._count).one
        if worst is None:
            raise UnknownPrice(
                f"the price of {model.name} is not known, so memory.max_dollars cannot hold: set its price, or "
                "take the cap away"
            )
        if worst > self._left:
            raise BudgetExceeded(f"the call may cost ${worst:.6f}, of the memory's cap ${self._left:.6f} is left")
        self._left -= worst
        return worst


def _dollars(completion: Completion, worst: Decimal) -> Decimal:
    """In doubt the whole reservation."""
    return worst if completion.dollars is None else completion.dollars


class Account:
    """What one module asked."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self.calls: list[Call] = []
        self.cached = False
        """Whether some answer came from an earlier identical question."""

    async def ask(self, size: Size, messages: Sequence[Message], max_tokens: int) -> str:
        return await self._purse.pay(size, messages, max_tokens, self)


def model_of(models: Mapping[Size, ChatModel], size: Size) -> ChatModel:
    """The model of this size, or the nearest there is; raises `ConfigError` where there is none."""
    if not models:
        raise ConfigError("these tiers ask a chat model: set memory.models, e.g. {large: {name: openai/gpt-4.1-mini}}")
    place = SIZES.index(size)
    return models[min(models, key=lambda s: abs(SIZES.index(s) - place))]
