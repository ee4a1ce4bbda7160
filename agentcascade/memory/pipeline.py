"""One question: retrieve, filter, extract from three sides at once, write the memory (BudgetMem, section "pipeline").

Whatever fails or would come too late falls to the next lower tier, and the result says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentcascade._util import forking
from agentcascade.errors import describe
from agentcascade.memory.budget import Account, Purse
from agentcascade.memory.llm import Language
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import Kept
from agentcascade.memory.question import Item, Work
from agentcascade.memory.render import Text, compose
from agentcascade.memory.types import Probabilities, State, TierRouter
from agentcascade.types import TIERS, ModuleName, ModuleRun, Tier, total

FADING = 0.95
"""Of a tier's usual time, at each question that it is passed over for: in the end it is tried again."""
EXTRACTORS: tuple[ModuleName, ...] = ("entity", "temporal", "topic")


@dataclass
class Trace:
    """Who chooses, and what happened on the way."""

    router: TierRouter
    tradeoff: float
    draws: random.Random
    runs: list[ModuleRun] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Pipeline:
    """The five modules and their router. Safe to share between event loops; `close` ends its threads."""

    def __init__(
        self, modules: Mapping[ModuleName, Module[Any]], router: TierRouter, *, explore: float = 0.0, threads: int = 3
    ) -> None:
        self.modules, self.router, self.explore = dict(modules), router, explore
        self._threads = threads
        self.forked()
        forking.on_fork(self.forked)
        self._usual: dict[tuple[ModuleName, Tier], float] = {}

    def forked(self) -> None:
        """Threads of its own, in a child process anew."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="memory")

    async def run(
        self,
        work: Work,
        purse: Purse,
        *,
        tradeoff: float,
        budget: int,
        seed: int,
        router: TierRouter | None = None,
        visible: str = "",
    ) -> tuple[Text, Trace]:
        """The memory of at most `budget` tokens for the question of `work`; `router` replaces the own one."""
        draws = random.Random(f"{seed}:{work.query.text}")
        trace = Trace(router or self.router, tradeoff, draws)
        kept = await self._module("filter", work, work.mean_of_chunks(work.raw), purse, trace)
        if not isinstance(kept, Kept):
            kept = Kept(work.raw, {})
        work = work.but(kept=kept.chunks, relevance=kept.relevance)
        read = work.mean_of_chunks(kept.chunks)
        chosen = {
            name: self._choose(name, State(work.query.text, work.query.vector, read), trace) for name in EXTRACTORS
        }
        results = await asyncio.gather(*(self._tiers(n, *chosen[n], work, purse, trace) for n in EXTRACTORS))
        found: dict[ModuleName, Sequence[Item]] = {n: r or [] for n, r in zip(EXTRACTORS, results)}
        work = work.but(found=found)
        items = await self._module("summary", work, work.mean_of_items(found), purse, trace)
        if items is None:
            items = self.modules["summary"].rules(work) or _as_they_are(work)
        trace.runs.sort(key=lambda run: list(self.modules).index(run.module))
        if visible:
            items = [
                item
                for item in items
                if not item.lines or any(work.view.lines[i].text not in visible for i in item.lines)
            ]
        text = compose(work, items, budget)
        if text.dropped:
            trace.left_out.append(f"token budget of {budget}: {text.dropped} of {len(items)} pieces did not fit")
        return text, trace

    async def _module(
        self,
        name: ModuleName,
        work: Work,
        read: Any,
        purse: Purse,
        trace: Trace,
    ) -> Any:
        tier, probability = self._choose(name, State(work.query.text, work.query.vector, read), trace)
        return await self._tiers(name, tier, probability, work, purse, trace)

    def _choose(self, name: ModuleName, state: State, trace: Trace) -> tuple[Tier, float]:
        """A draw from the router's probabilities; with `explore`, at that rate, from all three alike."""
        probabilities = trace.router.probabilities(name, state, trace.tradeoff)
        return pick(probabilities, self.explore, trace.draws)

    async def _tiers(
        self, name: ModuleName, asked: Tier, probability: float, work: Work, purse: Purse, trace: Trace
    ) -> Any:
        """The output of tier `asked`, or of the next lower one that gives one; None where none does."""
        account, failures = purse.account(), []
        trace.accounts.append(account)
        result, used, spent = None, None, 0.0
        for tier in reversed(TIERS[: TIERS.index(asked) + 1]):
            late = self._too_late(name, tier, purse)
            if late is None:
                started = time.perf_counter()
                try:
                    result, spent = await self._run(name, tier, work, account, purse)
                    used = tier
                    break
                except Exception as error:
                    spent = (time.perf_counter() - started) * 1000
                    if isinstance(error, TimeoutError):  # it takes at least as long
                        self._usual[name, tier] = max(self._usual.get((name, tier), 0.0), spent)
                    late = f"{tier}: {describe(error)}"
            failures.append(late)
        if used != asked:
            instead = f"ran {used} instead of {asked}" if used else "was left out"
            trace.left_out.append(f"{name} {instead} ({failures[-1]})")
        trace.runs.append(
            ModuleRun(
                module=name,
                asked=asked,
                used=used,
                probability=probability,
                milliseconds=spent,
                items=len(result.chunks if isinstance(result, Kept) else result or ()),
                dollars=total(account.calls),
                cached=account.cached and not account.calls,
                failures=tuple(failures),
            )
        )
        return result

    def _too_late(self, name: ModuleName, tier: Tier, purse: Purse) -> str | None:
        left = purse.remaining * 1000
        usual = self._usual.get((name, tier), 0.0)
        if left <= 0 or (left < usual and tier != "low"):
            if left > 0:  # one slow start must not rule it out for ever
                self._usual[name, tier] = FADING * usual
            return f"{tier}: deadline: {max(0.0, left):.0f} ms were left, it usually takes {usual:.0f}"
        return None

    async def _run(self, name: ModuleName, tier: Tier, work: Work, account: Account, purse: Purse) -> tuple[Any, float]:
        """The result, and its milliseconds: of a chat model by the clock, else of the thread that worked."""
        module, work = self.modules[name], work.but(meter=work.meter.fork())
        method = module.methods[tier]
        started = time.perf_counter()
        if isinstance(method, Language):
            result = await module.llm(work, method, account.ask)
            spent = (time.perf_counter() - started) * 1000
        elif method == "rules":
            result, spent = _timed(module, method, work)
        else:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(max(0.001, purse.remaining)):
                result, spent = await loop.run_in_executor(self._pool, _timed, module, method, work)
        clock = (time.perf_counter() - started) * 1000
        self._usual[name, tier] = 0.8 * self._usual.get((name, tier), clock) + 0.2 * clock
        return result, spent

    def close(self) -> None:
        """Ends when the threads at work have ended."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def pick(probabilities: Probabilities, explore: float, draws: random.Random) -> tuple[Tier, float]:
    """A tier drawn from the router's probabilities, mixed with `explore` of any; and how likely it was."""
    mixed = [(1 - explore) * p + explore / 3 for p in probabilities]
    left = draws.random() * sum(mixed)
    for tier, chance in zip(TIERS, mixed):
        left -= chance
        if left < 0:
            return tier, min(1.0, chance)
    best = max(range(3), key=lambda i: mixed[i])  # rounding
    return TIERS[best], min(1.0, mixed[best])


def _timed(module: Module[Any], method: str, work: Work) -> tuple[Any, float]:
    started = time.thread_time()
    result = getattr(module, method)(work)
    return result, (time.thread_time() - started) * 1000 + work.meter.milliseconds


def _as_they_are(work: Work) -> list[Item]:
    """The lines of the best chunks, for want of anything made of them."""
    ranked = [i for chunk in work.kept for i in work.lines([chunk])]
    scores = {i: 1 - rank / (len(ranked) + 1) for rank, i in enumerate(ranked)}
    return [Item(work.text(i), (i,), scores[i]) for i in sorted(scores)]


def bill(accounts: Sequence[Account]) -> tuple[Any, Decimal | None]:
    """All calls in the order of the modules, and their sum."""
    calls = tuple(call for account in accounts for call in account.calls)
    return calls, total(calls)
