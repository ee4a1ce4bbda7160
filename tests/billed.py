"""A provider that bills, budgets over it, and cancellation at every suspension point."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from agentcascade.billing import reservation
from agentcascade.models.pricing import Price
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Account, Completion, Usage

PRICE = Price(input=Decimal(1), output=Decimal(100))


KEY = Account(scope="key", name="k", limit=Decimal(1000))


ASK = [{"role": "user", "content": "please say a word"}]


def said(text: str = "word " * 100, **fields: Any) -> Completion:
    return Completion(**{"model": "m", "messages": ({"role": "assistant", "content": text},)} | fields)


class Provider:
    """A model that keeps its own bill: what it was sent is generated, and billed, whether or not somebody reads it."""

    name, supports_n = "openai/own", True

    def __init__(self, words: int = 30, reports: bool = True, fails: type[BaseException] | None = None) -> None:
        self.words, self.reports, self.fails, self.bill, self.sent = words, reports, fails, Decimal(0), 0

    def dollars(self, usage: Usage) -> Decimal | None:
        return PRICE.dollars(usage)

    def generate(self, messages: Any, words: int, n: int = 1) -> Usage:
        usage = Usage(input=4 * len(messages), output=words * n)
        self.bill += PRICE.dollars(usage)
        self.sent += 1
        return usage

    async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
        max_tokens = options["max_tokens"]  # no call is without
        await asyncio.sleep(0)
        usage = self.generate(messages, min(self.words, max_tokens), n)
        for _ in range(3):
            await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails("broken")
        text = "word " * min(self.words, max_tokens)
        return Completion(
            model=self.name,
            messages=({"role": "assistant", "content": text},) * n,
            usage=usage if self.reports else Usage(),
            dollars=PRICE.dollars(usage) if self.reports else None,
        )

    async def stream(self, messages: Any, on_delta: Any, **options: Any) -> Completion:
        max_tokens = options["max_tokens"]
        await asyncio.sleep(0)
        self.bill += PRICE.dollars(Usage(input=4 * len(messages)))
        self.sent += 1
        for word in range(min(self.words, max_tokens)):
            self.bill += PRICE.dollars(Usage(output=1))
            on_delta({"content": "word "})
            await asyncio.sleep(0)
            if self.fails is not None and word > 3:
                raise self.fails("broken")
        usage = Usage(input=4 * len(messages), output=min(self.words, max_tokens))
        return said("word " * self.words, usage=usage if self.reports else Usage())


class CancelledAt:
    """Awaits `work`, and cancels it at its suspension number `at`; `hit` says whether it came so far."""

    def __init__(self, work: Any, at: int) -> None:
        self._work, self._at, self.hit = work, at, False

    def __await__(self) -> Any:
        number = 0
        try:
            waited = self._work.send(None)
            while True:
                error: BaseException | None = None
                if number == self._at:
                    self.hit, error = True, asyncio.CancelledError()
                else:
                    try:
                        yield waited
                    except BaseException as thrown:
                        error = thrown
                waited = self._work.send(None) if error is None else self._work.throw(error)
                number += 1
        except StopIteration as stop:
            return stop.value


async def over(budgets: DatabaseBudgets) -> None:
    """Until nothing of any call is under way; what a loop left that ended comes to no end."""
    loop = asyncio.get_running_loop()
    while under_way := {work for work in reservation.background if work.get_loop() is loop}:
        await asyncio.wait(under_way, timeout=60)
        await asyncio.sleep(0)
    await asyncio.to_thread(budgets.close)
