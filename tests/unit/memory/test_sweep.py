"""The sweep: what it says of a combination is what the pipeline gives for it, and nothing is charged twice."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from agentcascade.errors import ConfigError
from agentcascade.memory.memory import Memory
from agentcascade.memory.sweep import TierOutcome, sweep_tiers
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.types import MODULES, TIERS
from tests.memory_parts import history, make_memory

QUESTIONS = [
    "What is the name of the dog that Ann adopted?",
    "When did Bob sell a painting at the market?",
    "zzz qqq",
]
BUDGET = 60
ALL = list(product(TIERS, repeat=5))


@pytest.fixture
async def memory() -> Any:
    with make_memory(k=4, chunk_tokens=40, token_budget=BUDGET, deadline_seconds=60) as made:
        await made.append("h", history(30))
        await made.prepare("h")
        yield made


def swept(memory: Memory, question: str, budget: int = BUDGET) -> list[TierOutcome]:
    return list(sweep_tiers(memory.question_context(question, "h"), memory.pipeline.modules, budget))


@pytest.mark.parametrize("question", QUESTIONS)
async def test_an_outcome_is_what_the_pipeline_gives_for_the_same_tiers(memory: Memory, question: str) -> None:
    outcomes = swept(memory, question)
    assert [o.tiers for o in outcomes] == ALL
    for number in np.random.default_rng(0).choice(243, 40, replace=False):
        outcome = outcomes[number]
        tiers = dict(zip(MODULES, outcome.tiers))
        alone = await memory.recall(question, "h", router=FixedTiers(tiers))
        assert {run.module: run.used for run in alone.runs} == tiers
        assert (alone.text, alone.sources, alone.tokens) == (
            outcome.text.text,
            outcome.text.sources,
            outcome.text.tokens,
        )
        assert outcome.text.tokens <= BUDGET
    if question != QUESTIONS[2]:
        assert len({o.text.text for o in outcomes}) > 5, "tiers matter here"


class Watched:
    """Writes down what it was asked on, and decides as it is told."""

    name = "watched"

    def __init__(self, tiers: Sequence[str]) -> None:
        self._fixed, self.reads = FixedTiers(dict(zip(MODULES, tiers))), {}  # type: ignore[arg-type,var-annotated]

    def probabilities(self, module: Any, state: Any, tradeoff: float = 0.0) -> Any:
        self.reads[module] = state.read.copy()
        return self._fixed.probabilities(module, state, tradeoff)


async def test_the_reads_of_an_outcome_are_those_that_a_router_would_be_asked_on(memory: Memory) -> None:
    outcomes = swept(memory, QUESTIONS[0])
    for number in np.random.default_rng(1).choice(243, 15, replace=False):
        router = Watched(ALL[number])
        await memory.recall(QUESTIONS[0], "h", router=router)
        for name, stage in zip(MODULES, (0, 1, 1, 1, 2)):
            assert (router.reads[name] == outcomes[number].reads[stage]).all()


class Clock:
    """A clock of each thread's own that only the work on tokens moves: one millisecond a text."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self) -> float:
        return getattr(self._own, "now", 0.0)

    def work(self, texts: int) -> None:
        self._own.now = self() + texts / 1000


class Tokens:
    """An embedder whose vectors of tokens take time by the clock, and are written down."""

    name, dimension = "tokens", 64

    def __init__(self, clock: Clock | None = None) -> None:
        self._inner, self._clock, self.texts = HashEmbedder(64), clock, list[str]()

    def embed(self, texts: Sequence[str]) -> Any:
        return self._inner.embed(texts)

    def token_vectors(self, texts: Sequence[str]) -> Any:
        self.texts += texts
        if self._clock is not None:
            self._clock.work(len(texts))
        return [np.asarray(self._inner.embed(text.split() or [""]), dtype=np.float32) for text in texts]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.thread_time", made)
    return made


async def made_of(embedder: Tokens) -> Memory:
    memory = make_memory(embedder=embedder, k=4, chunk_tokens=40, token_budget=BUDGET, deadline_seconds=60)
    await memory.append("h", history(30))
    await memory.prepare("h")
    return memory


@pytest.mark.parametrize("question", QUESTIONS[:2])
async def test_a_combination_is_charged_for_each_token_vector_once_whatever_is_cached(
    clock: Clock, question: str
) -> None:
    """As many milliseconds as there are texts whose tokens the pipeline would look at from a cold cache."""
    with await made_of(Tokens(clock)) as memory:
        first, again = swept(memory, question), swept(memory, question)
    assert [o.milliseconds for o in first] == pytest.approx([o.milliseconds for o in again]), "cold or warm"
    assert first[0].milliseconds == 0, "rules look at no tokens"
    assert len({round(o.milliseconds, 6) for o in first}) > 3
    for number in [*np.random.default_rng(2).choice(243, 30, replace=False), 242]:
        outcome, embedder = first[number], Tokens()
        with await made_of(embedder) as alone:
            await alone.recall(question, "h", router=FixedTiers(dict(zip(MODULES, outcome.tiers))))
        assert outcome.milliseconds == pytest.approx(len(set(embedder.texts))), outcome.tiers


async def test_a_sweep_computes_every_token_vector_once(clock: Clock) -> None:
    embedder = Tokens(clock)
    with await made_of(embedder) as memory:
        swept(memory, QUESTIONS[0])
    assert len(embedder.texts) == len(set(embedder.texts)) > 5


async def test_a_small_budget_is_kept_in_every_combination(memory: Memory) -> None:
    outcomes = swept(memory, QUESTIONS[0], budget=25)
    assert all(o.text.tokens <= 25 for o in outcomes)
    assert any(o.text.dropped for o in outcomes)


async def test_tiers_that_would_ask_a_chat_model_are_not_swept() -> None:
    with make_memory(axis="implementation") as memory:
        await memory.append("h", history())
        with pytest.raises(ConfigError, match=r"filter high asks a chat model: a sweep takes tiers without: .*explore"):
            swept(memory, QUESTIONS[0])
