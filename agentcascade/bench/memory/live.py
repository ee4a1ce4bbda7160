"""Questions put to the real pipeline, many at once: for benchmarks, logs of random tiers and training on policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.bench.early_stop import ALIKE, Breaker
from agentcascade.bench.memory.scoring import Scored, Scorer
from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import BenchError
from agentcascade.memory.types import Probabilities, State, TierRouter
from agentcascade.routers.tier.outcome_table import PlayedBatch, TierPolicy
from agentcascade.types import MODULES, TIERS, ModuleName, Recall

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import Vector
    from agentcascade.routers.tier.outcome_table import Ints


class Asked(NamedTuple):
    """A question and the history that it is about."""

    history: str
    question: Question


@dataclass
class Watched:
    """A router that remembers on what states it was asked, and what it gave."""

    router: TierRouter
    name: str = "watched"
    states: dict[ModuleName, State] = field(default_factory=dict)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        self.states[module] = state
        return self.router.probabilities(module, state, tradeoff)


class Result(NamedTuple):
    """One question answered."""

    recall: Recall
    scored: Scored
    reads: tuple[Vector, Vector, Vector]
    query: Vector

    @property
    def milliseconds(self) -> float:
        return sum(run.milliseconds for run in self.recall.runs)


class Live:
    """Conversations in a memory, asked about. `concurrency` questions are under way at once.

    No more than `memory.max_histories` conversations are held at a time, in the order of the files.
    """

    def __init__(
        self,
        memory: Memory,
        conversations: Sequence[Conversation],
        scorer: Scorer,
        *,
        concurrency: int = 8,
        on_prepared: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.memory, self.scorer, self._concurrency = memory, scorer, concurrency
        self._conversations, self._on_prepared = conversations, on_prepared
        self._held: set[str] = set()
        self._breaker = Breaker()

    async def prepared(self, histories: Collection[str]) -> AsyncIterator[Set[str]]:
        """The `histories` in blocks; one is embedded when it is handed out, and those before it are forgotten.

        Raises `BenchError` for a memory that does not hold what it was given.
        """
        size, done = self.memory.config.max_histories, 0
        wanted = [c for c in self._conversations if c.id in histories]
        for block in (wanted[i : i + size] for i in range(0, len(wanted), size)):
            names = {c.id for c in block}
            if len(self._held | names) > size:
                for name in self._held - names:
                    await self.memory.remove(name)
                self._held &= names
            for conversation in block:
                if conversation.id not in self._held:
                    await self._hold(conversation)
                done += 1
                self._on_prepared(done)
            yield names

    async def _hold(self, conversation: Conversation) -> None:
        """Append and embed it."""
        await self.memory.append(conversation.id, conversation.turns)
        lines = await self.memory.prepare(conversation.id)
        if not lines and any(turn.text.strip() for turn in conversation.turns):
            raise BenchError(f"the memory holds nothing of conversation '{conversation.id}': nothing can be measured")
        self._held.add(conversation.id)

    @property
    def asked(self) -> list[Asked]:
        """Every question, in the order of the files."""
        return [Asked(c.id, q) for c in self._conversations for q in c.questions]

    async def ask(self, asked: Asked, router: TierRouter, tradeoff: float = 0.0) -> Result:
        """One question, with `router` in place of the memory's own."""
        watched = Watched(router, router.name)
        question = asked.question
        recall = await self.memory.recall(
            question.text, asked.history, router=watched, tradeoff=tradeoff, asked_at=question.asked_at
        )
        self._check(recall)
        scored = await self.scorer(question, recall.text, recall.sources)
        states = [watched.states[name] for name in ("filter", "entity", "summary")]
        first, second, third = (np.asarray(state.read, dtype=np.float32) for state in states)
        return Result(recall, scored, (first, second, third), states[0].query)

    def _check(self, recall: Recall) -> None:
        """Raises `BenchError` when tiers fall for one reason again and again: that would measure the lower ones."""
        fell = (r.failures[-1] for r in recall.runs if r.used != r.asked and r.failures)
        failure = next(fell, None) if self.memory.models else None
        if self._breaker.broke("memory", failure):
            raise BenchError(f"{ALIKE} memories in a row were made by lower tiers than asked for: {failure}")

    async def ask_all(
        self,
        asked: Sequence[Asked],
        routers: Sequence[TierRouter],
        tradeoffs: Sequence[float],
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Each question with its router and λ; results in the order given."""
        room = asyncio.Semaphore(self._concurrency)

        async def one(item: Asked, router: TierRouter, tradeoff: float) -> Result:
            async with room:
                result = await self.ask(item, router, tradeoff)
            if on_done:
                on_done(result)
            return result

        found: dict[int, Result] = {}
        async for block in self.prepared({a.history for a in asked}):
            own = [i for i, a in enumerate(asked) if a.history in block]
            found |= zip(own, await asyncio.gather(*(one(asked[i], routers[i], tradeoffs[i]) for i in own)))
        return [found[i] for i in range(len(asked))]


class _Drawn:
    """One episode's router: asks the policy in training for its draw."""

    name = "drawn"

    def __init__(self, policy: TierPolicy, tradeoff: float) -> None:
        self._policy, self._tradeoff = policy, np.array([tradeoff], dtype=np.float32)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        place = MODULES.index(module)
        tier = int(self._policy(place, state.query[None], np.asarray(state.read)[None], self._tradeoff)[0])
        low, mid, high = (float(tier == i) for i in range(3))
        return low, mid, high


class LiveWorld:
    """The pipeline as the world that PPO trains in: every rollout is played for real, `Live.concurrency` at once.

    Costs are dollars where a chat model is asked, else milliseconds. `results` keeps all that was played, for a log.
    """

    def __init__(self, live: Live, asked: Sequence[Asked], runner: asyncio.Runner, *, dollars: bool) -> None:
        self._live, self._asked, self._runner, self._dollars = live, list(asked), runner, dollars
        self.results: list[tuple[Asked, Result]] = []

    def __len__(self) -> int:
        return len(self._asked)

    def play(self, questions: Ints, policy: TierPolicy, tradeoff: Vector) -> PlayedBatch:
        asked = [self._asked[int(i)] for i in questions]
        strengths = [float(t) for t in tradeoff]
        routers = [_Drawn(policy, t) for t in strengths]
        results = self._runner.run(self._live.ask_all(asked, routers, strengths))
        self.results += zip(asked, results)
        tiers = [[TIERS.index(r.recall.tiers[name]) for name in MODULES] for r in results]
        return PlayedBatch(
            query=np.stack([r.query for r in results]).astype(np.float32),
            reads=np.stack([np.stack(r.reads) for r in results]),
            tiers=np.array(tiers, dtype=np.int64),
            score=np.array([r.scored.score for r in results]),
            cost=np.array([cost_of(r, self._dollars) for r in results]),
        )


def cost_of(result: Result, dollars: bool) -> float:
    """Dollars of the memory's calls, or milliseconds."""
    return float(result.recall.dollars or 0) if dollars else result.milliseconds
