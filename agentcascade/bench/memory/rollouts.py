"""Rollouts of random tiers on a Ray cluster: a worker takes a conversation with all that is asked about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agentcascade.bench.memory.live import Asked, Live, Result
from agentcascade.bench.memory.scoring import Scorer
from agentcascade.bench.pools.base import WorkersDied
from agentcascade.bench.pools.open import open_pool
from agentcascade.config.load import CascadeConfig
from agentcascade.envs.memory_qa.types import Conversation
from agentcascade.errors import BenchError

if TYPE_CHECKING:
    from agentcascade.memory.memory import Memory
    from agentcascade.memory.types import TierRouter


@dataclass(frozen=True)
class Setting:
    """What a worker makes its memory and its scorer of; picklable. `scoring` are the arguments of `make_scorer`."""

    config: CascadeConfig
    scoring: Mapping[str, Any]
    concurrency: int


class Work(NamedTuple):
    """One conversation, and what is asked about it: each question with its number and its router."""

    conversation: Conversation
    asked: Sequence[tuple[int, Asked, TierRouter]]


def play(
    setting: Setting,
    conversations: Sequence[Conversation],
    asked: Sequence[Asked],
    routers: Sequence[TierRouter],
    *,
    ray: str,
    workers: int,
    on_done: Callable[[int], None],
) -> list[Result]:
    """Each question with its router, in the order given. `on_done` is told how many are answered."""
    numbered = list(zip(range(len(asked)), asked, routers))
    works = [Work(c, [each for each in numbered if each[1].history == c.id]) for c in conversations]
    works = sorted((w for w in works if w.asked), key=lambda w: -len(w.conversation.turns) * len(w.asked))
    found: dict[int, Result] = {}
    try:
        with open_pool(min(workers, max(1, len(works))), _start, setting, ray=ray) as pool:
            for results in pool.map(_play, works):
                found.update(results)
                on_done(len(found))
    except WorkersDied as error:
        raise BenchError(f"a worker died ({error}): see its memory, and run again") from error
    return [found[number] for number in range(len(asked))]


_made: tuple[Memory, Scorer, int] | None = None


def _start(setting: Setting) -> None:
    from agentcascade.assembly.memory import build_bench_memory
    from agentcascade.bench.memory.scoring import make_scorer

    global _made
    _made = (
        build_bench_memory(setting.config),
        make_scorer(prompt=setting.config.prompt, **setting.scoring),
        setting.concurrency,
    )


def _play(work: Work) -> list[tuple[int, Result]]:
    assert _made is not None
    memory, scorer, concurrency = _made
    live = Live(memory, [work.conversation], scorer, concurrency=concurrency)
    numbers, asked, routers = zip(*work.asked)
    return list(zip(numbers, asyncio.run(live.ask_all(asked, routers, [0.0] * len(asked)))))
