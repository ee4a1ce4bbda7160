"""Memory pipeline: filter, then entity, temporal and topic extraction at once, then summary (BudgetMem, "pipeline").

A tier that fails or would miss the deadline falls back to the next lower one, and the trace lists it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from agentcascade._util import forking
from agentcascade.errors import describe
from agentcascade.memory.budget import ModuleCalls, QuestionBudget
from agentcascade.memory.combinations import EXTRACTORS
from agentcascade.memory.llm import ChatMethod
from agentcascade.memory.modules.base import Module
from agentcascade.memory.modules.filter import FilteredChunks
from agentcascade.memory.question import MemoryItem, QuestionContext
from agentcascade.memory.render import MemoryText, compose
from agentcascade.memory.types import Probabilities, State, TierRouter
from agentcascade.types import TIERS, ModuleName, ModuleRun, Tier, total

USUAL_TIME_DECAY = 0.95
"""Factor on a tier's usual time at each question that it is skipped for, so that it is tried again in the end"""


@dataclass
class Trace:
    """Trace of one question through the pipeline: its router, its runs, and the calls of each module."""

    router: TierRouter
    tradeoff: float
    draws: random.Random
    runs: list[ModuleRun] = field(default_factory=list)
    calls: list[ModuleCalls] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Pipeline:
    """The memory modules and their tier router. Safe to share between event loops; `close` ends its threads."""

    def __init__(
        self, modules: Mapping[ModuleName, Module[Any]], router: TierRouter, *, explore: float = 0.0, threads: int = 3
    ) -> None:
        self.modules: dict[ModuleName, Module[Any]] = dict(modules)
        self.router = router
        self.explore = explore
        self._threads = threads
        self.forked()
        forking.on_fork(self.forked)
        self._usual_milliseconds: dict[tuple[ModuleName, Tier], float] = {}

    def forked(self) -> None:
        """Make the thread pool, anew in a child process."""
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="memory")

    async def run(
        self,
        context: QuestionContext,
        budget: QuestionBudget,
        *,
        tradeoff: float,
        token_budget: int,
        seed: int,
        router: TierRouter | None = None,
        visible: str = "",
    ) -> tuple[MemoryText, Trace]:
        """The memory of at most `token_budget` tokens for a question; `router` replaces the pipeline's own."""
        draws = random.Random(f"{seed}:{context.query.text}")
        trace = Trace(router or self.router, tradeoff, draws)
        filtered = await self._run_module("filter", context, context.mean_of_chunks(context.retrieved), budget, trace)
        if not isinstance(filtered, FilteredChunks):
            filtered = FilteredChunks(context.retrieved, {})
        context = replace(context, filtered=filtered.chunks, relevance=filtered.relevance)
        read = context.mean_of_chunks(filtered.chunks)
        chosen = {
            name: self._choose(name, State(context.query.text, context.query.vector, read), trace)
            for name in EXTRACTORS
        }
        results = await asyncio.gather(
            *(self._run_with_fallback(n, *chosen[n], context, budget, trace) for n in EXTRACTORS)
        )
        extracted: dict[ModuleName, Sequence[MemoryItem]] = {n: r or [] for n, r in zip(EXTRACTORS, results)}
        context = replace(context, extracted=extracted)
        items = await self._run_module("summary", context, context.mean_of_items(extracted), budget, trace)
        if items is None:
            items = self.modules["summary"].rules(context) or _unprocessed_items(context)
        trace.runs.sort(key=lambda run: list(self.modules).index(run.module))
        if visible:
            items = [
                item
                for item in items
                if not item.lines or any(context.history.lines[i].text not in visible for i in item.lines)
            ]
        text = compose(context, items, token_budget)
        if text.dropped:
            trace.left_out.append(f"token budget of {token_budget}: {text.dropped} of {len(items)} pieces did not fit")
        return text, trace

    async def _run_module(
        self,
        name: ModuleName,
        context: QuestionContext,
        read: Any,
        budget: QuestionBudget,
        trace: Trace,
    ) -> Any:
        tier, probability = self._choose(name, State(context.query.text, context.query.vector, read), trace)
        return await self._run_with_fallback(name, tier, probability, context, budget, trace)

    def _choose(self, name: ModuleName, state: State, trace: Trace) -> tuple[Tier, float]:
        """Draw a tier from the router's probabilities, which `explore` mixes with uniform ones."""
        probabilities = trace.router.probabilities(name, state, trace.tradeoff)
        return draw_tier(probabilities, self.explore, trace.draws)

    async def _run_with_fallback(
        self,
        name: ModuleName,
        wanted: Tier,
        probability: float,
        context: QuestionContext,
        budget: QuestionBudget,
        trace: Trace,
    ) -> Any:
        """The output of tier `wanted`, or of the next lower one that gives one; None where none does."""
        calls, failures = budget.module_calls(), []
        trace.calls.append(calls)
        result, ran, spent = None, None, 0.0
        for tier in reversed(TIERS[: TIERS.index(wanted) + 1]):
            failure = self._why_too_late(name, tier, budget)
            if failure is None:
                started = time.perf_counter()
                try:
                    result, spent = await self._run(name, tier, context, calls, budget)
                    ran = tier
                    break
                except Exception as error:
                    spent = (time.perf_counter() - started) * 1000
                    if isinstance(error, TimeoutError):  # it takes at least as long
                        self._usual_milliseconds[name, tier] = max(
                            self._usual_milliseconds.get((name, tier), 0.0), spent
                        )
                    failure = f"{tier}: {describe(error)}"
            failures.append(failure)
        if ran != wanted:
            instead = f"ran {ran} instead of {wanted}" if ran else "was left out"
            trace.left_out.append(f"{name} {instead} ({failures[-1]})")
        trace.runs.append(
            ModuleRun(
                module=name,
                asked=wanted,
                used=ran,
                probability=probability,
                milliseconds=spent,
                items=len(result.chunks if isinstance(result, FilteredChunks) else result or ()),
                dollars=total(calls.calls),
                cached=calls.cached and not calls.calls,
                failures=tuple(failures),
            )
        )
        return result

    def _why_too_late(self, name: ModuleName, tier: Tier, budget: QuestionBudget) -> str | None:
        left = budget.remaining_seconds * 1000
        usual = self._usual_milliseconds.get((name, tier), 0.0)
        if left <= 0 or (left < usual and tier != "low"):
            if left > 0:  # one slow start must not rule it out for ever
                self._usual_milliseconds[name, tier] = USUAL_TIME_DECAY * usual
            return f"{tier}: deadline: {max(0.0, left):.0f} ms were left, it usually takes {usual:.0f}"
        return None

    async def _run(
        self, name: ModuleName, tier: Tier, context: QuestionContext, calls: ModuleCalls, budget: QuestionBudget
    ) -> tuple[Any, float]:
        """The result and its milliseconds: wall-clock time of a chat model, else CPU time of the thread."""
        module, context = self.modules[name], replace(context, meter=context.meter.fork())
        method = module.methods[tier]
        started = time.perf_counter()
        if isinstance(method, ChatMethod):
            result = await module.llm(context, method, calls.ask)
            spent = (time.perf_counter() - started) * 1000
        elif method == "rules":
            result, spent = _run_timed(module, method, context)
        else:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(max(0.001, budget.remaining_seconds)):
                result, spent = await loop.run_in_executor(self._pool, _run_timed, module, method, context)
        clock = (time.perf_counter() - started) * 1000
        self._usual_milliseconds[name, tier] = 0.8 * self._usual_milliseconds.get((name, tier), clock) + 0.2 * clock
        return result, spent

    def close(self) -> None:
        """Wait for the threads at work and end them."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def draw_tier(probabilities: Probabilities, explore: float, draws: random.Random) -> tuple[Tier, float]:
    """Draw a tier from `probabilities` mixed with uniform ones at rate `explore`; returns it and its probability."""
    mixed = [(1 - explore) * p + explore / 3 for p in probabilities]
    left = draws.random() * sum(mixed)
    for tier, chance in zip(TIERS, mixed):
        left -= chance
        if left < 0:
            return tier, min(1.0, chance)
    best = max(range(len(TIERS)), key=lambda i: mixed[i])  # rounding
    return TIERS[best], min(1.0, mixed[best])


def _run_timed(module: Module[Any], method: str, context: QuestionContext) -> tuple[Any, float]:
    started = time.thread_time()
    result = getattr(module, method)(context)
    return result, (time.thread_time() - started) * 1000 + context.meter.milliseconds


def _unprocessed_items(context: QuestionContext) -> list[MemoryItem]:
    """The lines of the filtered chunks as items, where no module made any."""
    ranked = [i for chunk in context.filtered for i in context.lines_of([chunk])]
    scores = {i: 1 - rank / (len(ranked) + 1) for rank, i in enumerate(ranked)}
    return [MemoryItem(context.dated_text(i), (i,), scores[i]) for i in sorted(scores)]


def total_bill(module_calls: Sequence[ModuleCalls]) -> tuple[Any, Decimal | None]:
    """All calls in the order of the modules, and their dollars."""
    calls = tuple(call for module in module_calls for call in module.calls)
    return calls, total(calls)
