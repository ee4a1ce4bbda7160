"""Ask questions of the real memory pipeline, many at once: for benchmarks, logs of random tiers, on-policy training."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentcascade.bench.early_stop import MAX_ALIKE_FAILURES, FailureBreaker
from agentcascade.bench.memory.scoring import MemoryScore, MemoryScorer
from agentcascade.envs.memory_qa.types import Conversation, Question
from agentcascade.errors import BenchError
from agentcascade.memory.index import expected_bytes
from agentcascade.memory.types import Probabilities, State, TierRouter
from agentcascade.routers.tier.outcome_table import PlayedBatch, TierPolicy
from agentcascade.types import MODULES, TIERS, ModuleName, Recall

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import Vector
    from agentcascade.routers.tier.outcome_table import Ints


class HistoryQuestion(NamedTuple):
    """A question and the history that it is about."""

    history: str
    question: Question


@dataclass
class RecordingRouter:
    """Tier router that records the states it was asked at."""

    router: TierRouter
    name: str = "watched"
    states: dict[ModuleName, State] = field(default_factory=dict)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        self.states[module] = state
        return self.router.probabilities(module, state, tradeoff)


class AnsweredQuestion(NamedTuple):
    """One question with its recall, its score, and the vectors that tiers were chosen on."""

    recall: Recall
    scored: MemoryScore
    reads: tuple[Vector, Vector, Vector]
    query: Vector

    @property
    def milliseconds(self) -> float:
        return sum(run.milliseconds for run in self.recall.runs)


class LiveMemory:
    """Conversations in a memory, with `concurrency` questions at once.

    Held at a time are `memory.max_histories` conversations, within `memory.max_held_bytes`, in the order of the files.
    """

    def __init__(
        self,
        memory: Memory,
        conversations: Sequence[Conversation],
        scorer: MemoryScorer,
        *,
        concurrency: int = 8,
        on_prepared: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.memory = memory
        self.scorer = scorer
        self._concurrency = concurrency
        self._conversations = conversations
        self._bytes = {c.id: expected_bytes(c.turns, memory.dimension) for c in conversations}
        self._on_prepared = on_prepared
        self._held: set[str] = set()
        self._breaker = FailureBreaker()

    async def prepared(self, histories: Collection[str]) -> AsyncIterator[Set[str]]:
        """Yield `histories` in blocks; a block is embedded when it is yielded, and earlier ones are removed.

        Raises `BenchError` for a memory that does not hold what it was given.
        """
        done = 0
        for block in self._blocks([c for c in self._conversations if c.id in histories]):
            names = {c.id for c in block}
            if not self._fit(self._held | names):
                for name in self._held - names:
                    await self.memory.remove(name)
                self._held &= names
            for conversation in block:
                if conversation.id not in self._held:
                    await self._hold(conversation)
                done += 1
                self._on_prepared(done)
            yield names

    def _blocks(self, wanted: Sequence[Conversation]) -> list[list[Conversation]]:
        blocks: list[list[Conversation]] = []
        for conversation in wanted:
            if blocks and self._fit({c.id for c in (*blocks[-1], conversation)}):
                blocks[-1].append(conversation)
            else:
                blocks.append([conversation])
        return blocks

    def _fit(self, names: Set[str]) -> bool:
        """Whether conversations can be held together: one that goes would be embedded again for each question."""
        config = self.memory.config
        taken = sum(self._bytes.get(name, 0) for name in names)
        return len(names) <= config.max_histories and taken <= config.max_held_bytes

    async def _hold(self, conversation: Conversation) -> None:
        """Append and embed a conversation."""
        await self.memory.append(conversation.id, conversation.turns)
        lines = await self.memory.prepare(conversation.id)
        if not lines and any(turn.text.strip() for turn in conversation.turns):
            raise BenchError(f"the memory holds nothing of conversation '{conversation.id}': nothing can be measured")
        self._held.add(conversation.id)

    @property
    def questions(self) -> list[HistoryQuestion]:
        """Every question, in the order of the files."""
        return [HistoryQuestion(c.id, q) for c in self._conversations for q in c.questions]

    async def ask(self, item: HistoryQuestion, router: TierRouter, tradeoff: float = 0.0) -> AnsweredQuestion:
        """Ask one question, with `router` in place of the memory's own."""
        watched = RecordingRouter(router, router.name)
        question = item.question
        recall = await self.memory.recall(
            question.text, item.history, router=watched, tradeoff=tradeoff, asked_at=question.asked_at
        )
        self._check(recall)
        scored = await self.scorer(question, recall.text, recall.sources)
        states = [watched.states[name] for name in ("filter", "entity", "summary")]
        first, second, third = (np.asarray(state.read, dtype=np.float32) for state in states)
        return AnsweredQuestion(recall, scored, (first, second, third), states[0].query)

    def _check(self, recall: Recall) -> None:
        """Raises `BenchError` when tiers keep falling back for one reason, since that measures the lower tiers."""
        fell = (r.failures[-1] for r in recall.runs if r.used != r.asked and r.failures)
        failure = next(fell, None) if self.memory.models else None
        if self._breaker.is_one_too_many("memory", failure):
            raise BenchError(
                f"{MAX_ALIKE_FAILURES} memories in a row were made by lower tiers than asked for: {failure}"
            )

    async def ask_all(
        self,
        items: Sequence[HistoryQuestion],
        routers: Sequence[TierRouter],
        tradeoffs: Sequence[float],
        on_done: Callable[[AnsweredQuestion], None] | None = None,
    ) -> list[AnsweredQuestion]:
        """Ask each question with its router and λ; results in the order given."""
        room = asyncio.Semaphore(self._concurrency)

        async def one(item: HistoryQuestion, router: TierRouter, tradeoff: float) -> AnsweredQuestion:
            async with room:
                result = await self.ask(item, router, tradeoff)
            if on_done:
                on_done(result)
            return result

        answers: dict[int, AnsweredQuestion] = {}
        async for block in self.prepared({a.history for a in items}):
            in_block = [i for i, a in enumerate(items) if a.history in block]
            answers |= zip(in_block, await asyncio.gather(*(one(items[i], routers[i], tradeoffs[i]) for i in in_block)))
        return [answers[i] for i in range(len(items))]


class _PolicyRouter:
    """Tier router of one rollout, which asks the policy in training for its draws."""

    name = "drawn"

    def __init__(self, policy: TierPolicy, tradeoff: float) -> None:
        self._policy = policy
        self._tradeoff = np.array([tradeoff], dtype=np.float32)

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        place = MODULES.index(module)
        tier = int(self._policy(place, state.query[None], np.asarray(state.read)[None], self._tradeoff)[0])
        low, mid, high = (float(tier == i) for i in range(3))
        return low, mid, high


class LiveWorld:
    """The real pipeline as the world that PPO trains in.

    Costs are dollars where a chat model is asked, else milliseconds. `results` keeps all rollouts for a log.
    """

    def __init__(
        self, live: LiveMemory, items: Sequence[HistoryQuestion], runner: asyncio.Runner, *, dollars: bool
    ) -> None:
        self._live = live
        self._items = list(items)
        self._runner = runner
        self._dollars = dollars
        self.results: list[tuple[HistoryQuestion, AnsweredQuestion]] = []

    def __len__(self) -> int:
        return len(self._items)

    def play(self, questions: Ints, policy: TierPolicy, tradeoff: Vector) -> PlayedBatch:
        items = [self._items[int(i)] for i in questions]
        strengths = [float(t) for t in tradeoff]
        routers = [_PolicyRouter(policy, t) for t in strengths]
        results = self._runner.run(self._live.ask_all(items, routers, strengths))
        self.results += zip(items, results)
        tiers = [[TIERS.index(r.recall.tiers[name]) for name in MODULES] for r in results]
        return PlayedBatch(
            query=np.stack([r.query for r in results]).astype(np.float32),
            reads=np.stack([np.stack(r.reads) for r in results]),
            tiers=np.array(tiers, dtype=np.int64),
            score=np.array([r.scored.score for r in results]),
            cost=np.array([answer_cost(r, self._dollars) for r in results]),
        )


def answer_cost(result: AnsweredQuestion, dollars: bool) -> float:
    """Cost of an answer: dollars of the memory's calls, or milliseconds."""
    return float(result.recall.dollars or 0) if dollars else result.milliseconds
