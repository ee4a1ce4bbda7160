"""`Memory`: append turns to histories, and recall a short text for a question."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Unpack

import numpy as np

from agentcascade._util.threads import apart
from agentcascade.billing.door import Door
from agentcascade.errors import InvalidRequest, describe
from agentcascade.event_loop import LoopThread
from agentcascade.lifetime import Lifetime
from agentcascade.memory.budget import DirectCaller, ModelCaller, QuestionBudget
from agentcascade.memory.held_indexes import HeldIndexes
from agentcascade.memory.index import HistoryIndex
from agentcascade.memory.live_index import HistoryStore, InMemoryHistories, LiveIndex
from agentcascade.memory.llm import Size
from agentcascade.memory.pipeline import Pipeline, total_bill
from agentcascade.memory.question import ColdCacheMeter, Query, QuestionContext, SmallModels
from agentcascade.memory.result_cache import AnswerCache, LineVectorCache, ResultStore
from agentcascade.memory.retrieval import retrieve
from agentcascade.memory.types import RecallOptions, TierRouter
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import ChatModel, Recorder, TokenCounter
from agentcascade.types import Account, Recall, Turn

if TYPE_CHECKING:
    from agentcascade.config.sections import MemoryConfig

__all__ = ["Memory"]

EMBEDDING_SHARE = 0.5
"""Share of a question's deadline that may go into embedding the new lines of its history"""
MAX_QUESTION = 8000
"""Characters of a question that are read"""


class Memory:
    """Memory of histories by namespace and name. Make one with `agentcascade.build_memory(config)`; close it when done.

    Histories live in the database, and what other processes append to them is seen; with ``stored=False`` they live in
    this process. `memory.max_histories` and `memory.max_held_bytes` bound what is indexed at a time; the others are
    indexed again when asked.

        >>> import agentcascade
        >>> with agentcascade.build_memory(stored=False, retrieval={"embedder": "hashing"}) as memory:
        ...     memory.append_sync("ann", ["My dog is called Rex.", "I work in Rome."])
        ...     print(memory.recall_sync("What is the dog called?", "ann").text)
        - My dog is called Rex.
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        pipeline: Pipeline,
        small_models: SmallModels,
        vectors: TextVectors,
        dimension: int,
        count: TokenCounter,
        encoder: str = "",
        models: Mapping[Size, ChatModel] | None = None,
        histories: HistoryStore | None = None,
        results: ResultStore | None = None,
        recorder: Recorder | None = None,
        redact: Callable[[str], str] | None = None,
        namespace: str = "default",
        seed: int = 0,
        charging: bool = False,
        door: Door | None = None,
        accounts: Callable[[str], Sequence[Account]] = lambda namespace: (),
    ) -> None:
        self._door = door or Door()
        self._accounts = accounts
        self.config = config
        self.pipeline = pipeline
        self.count = count
        self.models: dict[Size, ChatModel] = dict(models or {})
        self.recorder = recorder
        self.namespace = namespace
        self.encoder = encoder
        self.dimension = dimension
        self._small_models = small_models
        self._vectors = vectors
        self._histories: HistoryStore = InMemoryHistories() if histories is None else histories
        self._redact = redact
        self._seed = seed
        self._charging = charging
        self._answers = AnswerCache(4000, results)
        self._lines = LineVectorCache(vectors, encoder, dimension, results)
        self._indexes = HeldIndexes(config.max_histories, config.max_held_bytes)
        self.life: Lifetime = Lifetime()
        self.life.add(pipeline.close)

    @property
    def router(self) -> TierRouter:
        """The configured tier router."""
        return self.pipeline.router

    async def append(self, history: str, turns: Sequence[Turn | str], *, namespace: str | None = None) -> None:
        """Append turns to a history; they are durable when this returns.

        Args:
            history: name of the history, e.g. a user's or a conversation's id; it is made at its first turn.
            turns: turns or plain texts, oldest first. A turn whose id is there already is skipped.
            namespace: tenant of the history; default: the configured one.

        Raises:
            InvalidRequest: the history has no name, or a turn's id is there with another text.
            StorageError: the database cannot be written.
        """
        if not history:
            raise InvalidRequest("a history needs a name, e.g. the user's or the conversation's id")
        cleaned = [self._clean(Turn(text=t) if isinstance(t, str) else t) for t in turns]
        await apart(self._histories.append, namespace or self.namespace, history, cleaned)

    def _clean(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"text": self._redact(turn.text)}) if self._redact else turn

    async def remove(self, history: str, *, namespace: str | None = None) -> bool:
        """Delete a history, here and, at their next recall, in other processes.

        Args:
            history: name of the history.
            namespace: tenant of the history; default: the configured one.

        Returns:
            Whether there was such a history.

        Raises:
            StorageError: the database cannot be written.
        """
        space = namespace or self.namespace
        self._indexes.drop((space, history))
        return await apart(self._histories.remove, space, history)

    async def prepare(self, history: str, *, namespace: str | None = None) -> int:
        """Embed all of a history now instead of at its first question.

        Args:
            history: name of the history.
            namespace: tenant of the history; default: the configured one.

        Returns:
            Its number of lines.

        Raises:
            StorageError: the database cannot be read.
        """
        index = await apart(self._current_index, namespace or self.namespace, history)
        await apart(_embed_within, index, float("inf"))
        return len(index)

    async def recall(
        self,
        question: str,
        history: str = "",
        *,
        turns: Sequence[Turn | str] | None = None,
        namespace: str | None = None,
        tradeoff: float | None = None,
        token_budget: int | None = None,
        deadline_seconds: float | None = None,
        max_dollars: Decimal | None = None,
        asked_at: datetime | None = None,
        episode: str = "",
        decision: str = "",
        caller: ModelCaller | None = None,
        router: TierRouter | None = None,
        visible: str = "",
    ) -> Recall:
        """Recall the memory for a question, from a named history or from `turns`.

        Args:
            question: what the memory is for; its first `MAX_QUESTION` characters are read.
            history: name of the history; an empty one gives an empty memory.
            turns: the whole history, in place of a named one.
            namespace: tenant of the history; default: the configured one.
            tradeoff: λ from 0, the weight of cost against quality; default: `memory.tradeoff`.
            token_budget: tokens of the memory's text; default: `memory.token_budget`.
            deadline_seconds: seconds for all of it; default: `memory.deadline_seconds`. Late tiers fall back.
            max_dollars: cap on the dollars of its model calls; default: `memory.max_dollars`.
            asked_at: when the question is asked, for "yesterday" and the like.
            episode: id of the episode that the recall belongs to.
            decision: id of the step that the model calls are billed to; default: they are billed to the recall.
            caller: makes the model calls; an agent's step gives its own.
            router: replaces the configured tier router.
            visible: text that the agent sees anyway; its lines are left out of the memory.

        Returns:
            The memory's text with its sources (ids of turns), tokens, dollars, and what each module did. What failed or
            was left out is listed in it, not raised.

        Raises:
            InvalidRequest: the question is empty.
            StorageError: the database cannot be read.
        """
        started = time.perf_counter()
        plain = question.strip()[:MAX_QUESTION]
        if not plain:
            raise InvalidRequest("a memory needs a question: what is to be remembered?")
        config, space = self.config, namespace or self.namespace
        seconds = deadline_seconds if deadline_seconds is not None else config.deadline_seconds
        budget = QuestionBudget(
            self.models,
            self._answers,
            self.count,
            seconds=seconds,
            dollars=max_dollars if max_dollars is not None else config.max_dollars,
            caller=caller or DirectCaller(self._door, self._accounts(space), space),
        )
        name = history if turns is None else _content_name(turns)
        index = await apart(self._current_index, space, name, turns)
        context, left_out = await apart(
            self._question_context, plain, index, budget.remaining_seconds * EMBEDDING_SHARE, asked_at
        )
        strength = config.tradeoff if tradeoff is None else tradeoff
        text, trace = await self.pipeline.run(
            context,
            budget,
            tradeoff=strength,
            token_budget=config.token_budget if token_budget is None else token_budget,
            seed=self._seed,
            router=router,
            visible=visible,
        )
        calls, dollars = total_bill(trace.calls)
        recall = Recall(
            history=history,
            namespace=space,
            episode=episode,
            decision=decision,
            question=plain,
            text=text.text,
            sources=text.sources,
            tokens=text.tokens,
            runs=tuple(trace.runs),
            left_out=(*left_out, *trace.left_out),
            calls=calls,
            dollars=dollars,
            seconds=time.perf_counter() - started,
            router=(router or self.router).name,
            tradeoff=strength,
        )
        if self.recorder is not None:
            self.recorder.record_recall(recall)
        return recall

    def append_sync(self, history: str, turns: Sequence[Turn | str], *, namespace: str | None = None) -> None:
        """Append turns to a history, blocking, with the arguments and errors of `Memory.append`."""
        self._loop.run(self.append(history, turns, namespace=namespace))

    def recall_sync(self, question: str, history: str = "", **options: Unpack[RecallOptions]) -> Recall:
        """Recall the memory for a question, blocking, with the arguments and errors of `Memory.recall`."""
        return self._loop.run(self.recall(question, history, **options))

    @cached_property
    def _loop(self) -> LoopThread:
        self.life.loop = loop = LoopThread()
        return loop

    def question_context(self, question: str, history: str, *, namespace: str | None = None) -> QuestionContext:
        """The modules' context of a question, with all lines embedded: for sweeps and benchmarks.

        Args:
            question: what is asked.
            history: name of the history.
            namespace: tenant of the history; default: the configured one.
        """
        index = self._current_index(namespace or self.namespace, history)
        return self._question_context(question, index, float("inf"), None)[0]

    def _current_index(self, namespace: str, history: str, turns: Sequence[Turn | str] | None = None) -> HistoryIndex:
        """The index of a history, up to date with its store."""
        followed = self._live_index(namespace, history)
        if turns is not None:
            followed.load_fixed([Turn(id=str(i), text=t) if isinstance(t, str) else t for i, t in enumerate(turns)])
        else:
            followed.refresh(self._histories, namespace, history)
        self._indexes.weigh((namespace, history), followed)
        return followed.index

    def _live_index(self, namespace: str, history: str) -> LiveIndex:
        config = self.config

        def make() -> LiveIndex:
            return LiveIndex(
                HistoryIndex(self._lines, self.dimension, self.count, config.chunk_tokens, config.max_history_tokens)
            )

        return self._indexes.get((namespace, history), make)

    def _question_context(
        self, question: str, index: HistoryIndex, seconds: float, asked_at: datetime | None
    ) -> tuple[QuestionContext, list[str]]:
        """The context of a question after raw retrieval, and messages on what could not be embedded in time."""
        left_out = []
        if index.forgotten_tokens:
            left_out.append(
                f"history: its oldest {index.forgotten_tokens} tokens, beyond the {index.max_tokens} that are held"
            )
        vector, missing = np.zeros(self.dimension, dtype=np.float32), 0
        try:
            vector = self._vectors.of([question])[question]
            missing = _embed_within(index, seconds) if self.config.retrieval != "lexical" else 0
        except Exception as error:
            left_out.append(f"the embedder failed ({describe(error)}): the history was searched by words alone")
        if missing:
            left_out.append(f"deadline: {missing} lines of the history are not embedded yet and found by words alone")
        query = Query.parse(question, vector, asked_at)
        snapshot = index.snapshot(query.terms)
        retrieved = retrieve(
            snapshot, vector if vector.any() else None, self.config.retrieval, self.config.k, self.config.top_k
        )
        return QuestionContext(
            query, snapshot, tuple(retrieved), self._small_models, meter=ColdCacheMeter(self._charging)
        ), left_out

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer()` when the memory is closed, last in first out."""
        self.life.add(closer)

    def on_close_last(self, closer: Callable[[], object]) -> None:
        """Call `closer()` after all others when the memory is closed."""
        self.life.add(closer, last=True)

    def close(self) -> None:
        """Close the memory and what it opened; a second call does nothing."""
        self.life.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Memory:
        return self

    async def __aexit__(self, *_: object) -> None:
        await apart(self.close)


def _embed_within(index: HistoryIndex, seconds: float) -> int:
    """Embed the lines that have no vector, for at most `seconds`; returns how many are left."""
    ends = time.monotonic() + seconds
    missing = index.unembedded
    while missing and time.monotonic() < ends:
        missing = index.embed(32 if seconds < float("inf") else None)
    return missing


def _content_name(turns: Sequence[Turn | str]) -> str:
    """Name of a history that was handed over: a digest of its turns, so that it is embedded once."""
    digest = blake2b(digest_size=16)
    for turn in turns:
        fields = turn if isinstance(turn, str) else f"{turn.id}\0{turn.speaker}\0{turn.session}\0{turn.at}\0{turn.text}"
        digest.update(fields.encode(errors="replace") + b"\1")
    return f"\0{digest.hexdigest()}"
