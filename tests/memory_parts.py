"""What the tests of the memory build it from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from agentcascade.config.sections import MemoryConfig
from agentcascade.memory.index import HistoryIndex
from agentcascade.memory.memory import Memory
from agentcascade.memory.pipeline import Pipeline
from agentcascade.memory.question import SmallModels, token_vectors_of
from agentcascade.memory.result_cache import LineVectorCache
from agentcascade.memory.tiers import make_modules
from agentcascade.memory.types import Probabilities, State, TierRouter
from agentcascade.models.embeddings import TextVectors
from agentcascade.models.tokens import token_counter
from agentcascade.protocols import ChatModel, Embedder, Recorder
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.types import ModuleName, Turn

DAY = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)

SAID = [
    ("Ann", "Hey Bob, good to see you!"),
    ("Bob", "You too. What have you been up to?"),
    ("Ann", "I adopted a dog from the shelter yesterday. His name is Rex."),
    ("Bob", "Wonderful! I have been painting a lot, mostly sunsets over the sea."),
    ("Ann", "Nice. Have you sold any painting yet?"),
    ("Bob", "Yes, one at the market last Saturday, for 200 dollars."),
]


def history(extra: int = 0) -> list[Turn]:
    """A short talk, and `extra` turns of no interest behind it."""
    turns = [Turn(id=f"t{i}", speaker=w, text=t, session="first", at=DAY) for i, (w, t) in enumerate(SAID)]
    for i in range(extra):
        at = DAY + timedelta(days=1 + i // 10)
        turns.append(
            Turn(id=f"x{i}", speaker="Ann", text=f"Weather report {i}: it rained again.", session=f"s{i // 10}", at=at)
        )
    return turns


class Spy:
    """A tier router that remembers what it was asked."""

    name = "spy"

    def __init__(self, tiers: Mapping[ModuleName, str] | str = "low") -> None:
        self._fixed = FixedTiers(tiers)  # type: ignore[arg-type]
        self.asked: list[tuple[ModuleName, State, float]] = []

    def probabilities(self, module: ModuleName, state: State, tradeoff: float = 0.0) -> Probabilities:
        self.asked.append((module, state, tradeoff))
        return self._fixed.probabilities(module, state, tradeoff)


class Slow:
    """An embedder that counts, and may fail."""

    def __init__(self, fail: Callable[[], bool] = lambda: False) -> None:
        self._inner, self.texts, self._fail = HashEmbedder(64), 0, fail
        self.name, self.dimension = "slow", 64

    def embed(self, texts: Sequence[str]) -> Any:
        if self._fail():
            raise RuntimeError("the embedder is broken")
        self.texts += len(texts)
        return self._inner.embed(texts)


def make_memory(
    router: TierRouter | str | dict[Any, Any] = "mid",
    *,
    embedder: Embedder | None = None,
    axis: str = "local",
    models: Mapping[Any, ChatModel] | None = None,
    stored: Any = None,
    recorder: Recorder | None = None,
    **settings: Any,
) -> Memory:
    """A memory over hashed words, in this process."""
    config = MemoryConfig(axis=axis, **settings)
    used, count = embedder or HashEmbedder(256), token_counter()
    vectors = TextVectors(used)
    modules = make_modules(config.axis, config.tiers)
    chosen = FixedTiers(router) if isinstance(router, (str, dict)) else router  # type: ignore[arg-type]
    return Memory(
        config,
        pipeline=Pipeline(modules, chosen, explore=config.explore),
        small_models=SmallModels(vectors, token_vectors_of(used), count),
        vectors=vectors,
        dimension=used.dimension,
        count=count,
        models=models,
        histories=stored,
        recorder=recorder,
    )


def make_index(max_tokens: int = 100_000, embedder: Embedder | None = None, chunk: int = 64) -> HistoryIndex:
    used = embedder or HashEmbedder(64)
    lines = LineVectorCache(TextVectors(used), used.name, used.dimension, None)
    return HistoryIndex(lines, used.dimension, token_counter(), chunk, max_tokens)


def norm(vector: Any) -> float:
    return float(np.linalg.norm(vector))
