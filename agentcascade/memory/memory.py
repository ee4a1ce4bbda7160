"""`Memory`: histories that grow, and what an answer needs of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade._util.lru_cache import Cache
from agentcascade._util.threads import apart
from agentcascade.billing.door import Door
from agentcascade.errors import InvalidRequest, describe
from agentcascade.event_loop import LoopThread
from agentcascade.lifetime import Lifetime
from agentcascade.memory.budget import Caller, Directly, Purse
from agentcascade.memory.index import HistoryIndex
from agentcascade.memory.live_index import Followed, Held, Stored
from agentcascade.memory.llm import Size
from agentcascade.memory.pipeline import Pipeline, bill
from agentcascade.memory.question import Meter, Query, Tools, Work
from agentcascade.memory.result_cache import Answers, Kept, LineVectors
from agentcascade.memory.retrieval import retrieve
from agentcascade.memory.types import TierRouter
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import ChatModel, Recorder, TokenCounter
from agentcascade.types import Account, Recall, Turn

if TYPE_CHECKING:
    from agentcascade.config.sections import MemoryConfig

PREPARING = 0.5
"""Share of a question's deadline that may go into embedding what is new in the history."""
MAX_QUESTION = 8000
"""Characters of a question that are read."""


class Memory:
    """Histories by namespace and name. Make one with `agentcascade.build_memory(config)`; close it when done.

    Histories live in the database, if there is one, and are followed when other processes append to them; else in this
    process. `memory.max_histories` bounds how many are held ready to be searched: the others are read again when asked.
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        pipeline: Pipeline,
        tools: Tools,
        vectors: TextVectors,
        dimension: int,
        count: TokenCounter,
        encoder: str = "",
        models: Mapping[Size, ChatModel] | None = None,
        stored: Stored | None = None,
        kept: Kept | None = None,
        recorder: Recorder | None = None,
        redact: Callable[[str], str] | None = None,
        namespace: str = "default",
        seed: int = 0,
        charging: bool = False,
        door: Door | None = None,
        accounts: Callable[[str], Sequence[Account]] = lambda namespace: (),
    ) -> None:
        self._door, self._accounts = door or Door(), accounts
        self.config, self.pipeline, self.count = config, pipeline, count
        self.models, self.recorder, self.namespace = dict(models or {}), recorder, namespace
        self.encoder, self.dimension = encoder, dimension
        self._tools, self._vectors = tools, vectors
        self._stored: Stored = Held() if stored is None else stored
        self._redact, self._seed, self._charging = redact, seed, charging
        self._answers = Answers(4000, kept)
        self._lines = LineVectors(vectors, encoder, dimension, kept)
        self._indexes: Cache[tuple[str, str], Followed] = Cache(config.max_histories)
        self.life = Lifetime()
        self.life.add(pipeline.close)

    @property
    def router(self) -> TierRouter:
        return self.pipeline.router

    async def append(self, history: str, turns: Sequence[Turn | str], *, namespace: str | None = None) -> None:
        """Add turns (or plain texts) at the end of a history; they are durable when this returns.

        A turn whose id is there already is passed over. Raises `InvalidRequest` when it says something else, and
        `StorageError`.
        """
        if not history:
            raise InvalidRequest("a history needs a name, e.g. the user's or the conversation's id")
        made = [self._clean(Turn(text=t) if isinstance(t, str) else t) for t in turns]
        await apart(self._stored.append, namespace or self.namespace, history, made)

    def _clean(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"text": self._redact(turn.text)}) if self._redact else turn

    async def remove(self, history: str, *, namespace: str | None = None) -> bool:
        """Delete a history for good, here and, at their next recall, in other processes; false where there is none."""
        space = namespace or self.namespace
        self._indexes.drop((space, history))
        return await apart(self._stored.remove, space, history)

    async def prepare(self, history: str, *, namespace: str | None = None) -> int:
        """Embed all of a history now instead of at its first question; returns its lines."""
        index = await apart(self._current, namespace or self.namespace, history)
        await apart(_embed_until, index, float("inf"))
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
        caller: Caller | None = None,
        router: TierRouter | None = None,
        visible: str = "",
    ) -> Recall:
        """The memory for `question`: of the named history, or of `turns` handed over with it.

        An empty history gives an empty memory. Raises `InvalidRequest` for an empty question and `StorageError`;
        what else goes wrong is in the result. With `decision` the calls are billed to that step, else to the recall.
        `router` replaces the configured one. Lines that stand in `visible` are in front of the agent already.
        """
        started = time.perf_counter()
        plain = question.strip()[:MAX_QUESTION]
        if not plain:
            raise InvalidRequest("a memory needs a question: what is to be remembered?")
        config, space = self.config, namespace or self.namespace
        seconds = deadline_seconds if deadline_seconds is not None else config.deadline_seconds
        purse = Purse(
            self.models,
            self._answers,
            self.count,
            seconds=seconds,
            dollars=max_dollars if max_dollars is not None else config.max_dollars,
            caller=caller or Directly(self._door, self._accounts(space)),
        )
        name = history if turns is None else _content(turns)
        index = await apart(self._current, space, name, turns)
        work, left_out = await apart(self._read, plain, index, purse.remaining * PREPARING, asked_at)
        strength = config.tradeoff if tradeoff is None else tradeoff
        text, trace = await self.pipeline.run(
            work,
            purse,
            tradeoff=strength,
            budget=config.token_budget if token_budget is None else token_budget,
            seed=self._seed,
            router=router,
            visible=visible,
        )
        calls, dollars = bill(trace.accounts)
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
            self.recorder.recalled(recall)
        return recall

    def append_sync(self, history: str, turns: Sequence[Turn | str], *, namespace: str | None = None) -> None:
        """`append` for programs without an event loop."""
        self._loop.run(self.append(history, turns, namespace=namespace))

    def recall_sync(self, question: str, history: str = "", **options: Any) -> Recall:
        """`recall` for programs without an event loop."""
        return self._loop.run(self.recall(question, history, **options))

    @cached_property
    def _loop(self) -> LoopThread:
        self.life.loop = loop = LoopThread()
        return loop

    def work(self, question: str, history: str, *, namespace: str | None = None) -> Work:
        """What the modules would be given for a question, everything embedded: for sweeps and benchmarks."""
        index = self._current(namespace or self.namespace, history)
        return self._read(question, index, float("inf"), None)[0]

    def _current(self, namespace: str, history: str, turns: Sequence[Turn | str] | None = None) -> HistoryIndex:
        """The index with all that is known of the history."""
        followed = self._followed(namespace, history)
        if turns is not None:
            followed.once([Turn(id=str(i), text=t) if isinstance(t, str) else t for i, t in enumerate(turns)])
        else:
            followed.follow(self._stored, namespace, history)
        return followed.index

    def _followed(self, namespace: str, history: str) -> Followed:
        key = namespace, history
        found = self._indexes.get(key)
        if found is None:
            config = self.config
            index = HistoryIndex(
                self._lines, self.dimension, self.count, config.chunk_tokens, config.max_history_tokens
            )
            found = self._indexes.setdefault(key, Followed(index))
        return found

    def _read(
        self, question: str, index: HistoryIndex, seconds: float, asked_at: datetime | None
    ) -> tuple[Work, list[str]]:
        """The question and what raw retrieval finds for it; what could not be embedded in time is said."""
        left_out = []
        if index.forgotten:
            left_out.append(
                f"history: its oldest {index.forgotten} tokens, beyond the {index.max_tokens} that are held"
            )
        vector, missing = np.zeros(self.dimension, dtype=np.float32), 0
        try:
            vector = self._vectors.of([question])[question]
            missing = _embed_until(index, seconds) if self.config.retrieval != "lexical" else 0
        except Exception as error:
            left_out.append(f"the embedder failed ({describe(error)}): the history was searched by words alone")
        if missing:
            left_out.append(f"deadline: {missing} lines of the history are not embedded yet and found by words alone")
        query = Query.read(question, vector, asked_at)
        view = index.view(query.terms)
        raw = retrieve(view, vector if vector.any() else None, self.config.retrieval, self.config.k, self.config.top_k)
        return Work(query, view, tuple(raw), self._tools, meter=Meter(self._charging)), left_out

    def on_close(self, closer: Callable[[], object]) -> None:
        """Call `closer()` when the memory is closed; last in, first out."""
        self.life.add(closer)

    def on_close_last(self, closer: Callable[[], object]) -> None:
        """The same, after all else."""
        self.life.add(closer, last=True)

    def close(self) -> None:
        """A second call does nothing."""
        self.life.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Memory:
        return self

    async def __aexit__(self, *_: object) -> None:
        await apart(self.close)


def _embed_until(index: HistoryIndex, seconds: float) -> int:
    """Embed what has no vector yet, for so long; returns how many lines are left."""
    ends = time.monotonic() + seconds
    missing = index.missing
    while missing and time.monotonic() < ends:
        missing = index.embed(32 if seconds < float("inf") else None)
    return missing


def _content(turns: Sequence[Turn | str]) -> str:
    """A name made of what the turns say: the same history handed over again is not embedded again."""
    digest = blake2b(digest_size=16)
    for turn in turns:
        said = turn if isinstance(turn, str) else f"{turn.id}\0{turn.speaker}\0{turn.session}\0{turn.at}\0{turn.text}"
        digest.update(said.encode(errors="replace") + b"\1")
    return f"\0{digest.hexdigest()}"
