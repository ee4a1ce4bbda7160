"""Rollouts of random tiers on a Ray cluster: a worker takes a conversation with all its questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade.bench.memory.live import AnsweredQuestion, HistoryQuestion, LiveMemory
from agentcascade.bench.memory.scoring import MemoryScorer
from agentcascade.bench.pools.base import WorkersDied
from agentcascade.bench.pools.open import open_pool
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import BenchError

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import TierRouter


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker's memory and scorer; picklable. `scoring` are the arguments of `make_scorer`."""

    config: CascadeConfig
    scoring: Mapping[str, Any]
    concurrency: int


class ConversationJob(NamedTuple):
    """One conversation with its questions, each with its number and its router."""

    conversation: Conversation
    items: Sequence[tuple[int, HistoryQuestion, TierRouter]]


def play_rollouts(
    settings: WorkerSettings,
    conversations: Sequence[Conversation],
    items: Sequence[HistoryQuestion],
    routers: Sequence[TierRouter],
    *,
    ray: str,
    workers: int,
    on_done: Callable[[int], None],
) -> list[AnsweredQuestion]:
    """Ask each question with its router; answers in the order given. `on_done` gets the number of answers so far."""
    numbered = list(zip(range(len(items)), items, routers))
    jobs = [ConversationJob(c, [each for each in numbered if each[1].history == c.id]) for c in conversations]
    jobs = sorted((w for w in jobs if w.items), key=lambda w: -len(w.conversation.turns) * len(w.items))
    answers: dict[int, AnsweredQuestion] = {}
    try:
        with open_pool(min(workers, max(1, len(jobs))), _start, settings, ray=ray) as pool:
            for results in pool.map(_play, jobs):
                answers.update(results)
                on_done(len(answers))
    except WorkersDied as error:
        raise BenchError(f"a worker died ({error}): see its memory, and run again") from error
    return [answers[number] for number in range(len(items))]


_worker: tuple[Memory, MemoryScorer, int] | None = None


def _start(settings: WorkerSettings) -> None:
    from agentcascade.assembly.memory import build_bench_memory
    from agentcascade.bench.memory.scoring import make_scorer

    global _worker
    _worker = (
        build_bench_memory(settings.config),
        make_scorer(prompt=settings.config.prompt, **settings.scoring),
        settings.concurrency,
    )


def _play(job: ConversationJob) -> list[tuple[int, AnsweredQuestion]]:
    assert _worker is not None
    memory, scorer, concurrency = _worker
    live = LiveMemory(memory, [job.conversation], scorer, concurrency=concurrency)
    numbers, items, routers = zip(*job.items)
    return list(zip(numbers, asyncio.run(live.ask_all(items, routers, [0.0] * len(items)))))
