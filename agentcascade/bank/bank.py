"""The bank: successful teacher trajectories, and the demonstrations cut from them.

A step's key is its goal, plan and observation, embedded one by one, weighted and laid end to end; one inner product
with the present situation's key is the weighted mean of the three cosines (Traj-Bootstrap's multi-key average).
The database is the truth; the index is rebuilt from it and follows what other processes add and remove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sqlalchemy import Connection, delete, select

from agentcascade._util import forking
from agentcascade._util.lru_cache import Cache
from agentcascade._util.threads import apart
from agentcascade.errors import BankError, EmbeddingModelChanged
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import Embedder, Retriever, SharedRetriever
from agentcascade.storage import Database, bank_metadata, trajectories
from agentcascade.storage.tables import embeddings
from agentcascade.storage.tables import trajectories as table
from agentcascade.storage.trajectories import POSITIONS
from agentcascade.types import DERIVED, Demonstration, Situation, Trajectory

if TYPE_CHECKING:
    from agentcascade.bank.success_ranking import Utility
    from agentcascade.protocols import Vectors

KEYS = ("goal", "plan", "observation")
CACHED_TRAJECTORIES = 5_000
REFRESH_SECONDS = 2.0
OVERFETCH = 16
"""Look no further than this times k for windows that teach something new: a bank of near-duplicates stays fast."""


class Retrieval(NamedTuple):
    """Demonstrations, best first, and the seconds that embedding the situation took."""

    demonstrations: list[Demonstration]
    embedding_seconds: float


class Bank:
    """Adds trajectories, retrieves demonstrations. Thread-safe; one per process over a shared database.

    `weights` of the keys count relative to each other. A window is the matched step with `window_before` steps before
    and `window_after` after it, clipped. `redact` is applied to what is stored. `utility` ranks what helped higher;
    `shortened` shows the shorter reasonings that `agentcascade bank shorten` made.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        retriever: Retriever,
        *,
        weights: Mapping[str, float] | None = None,
        window_before: int = 2,
        window_after: int = 2,
        redact: Callable[[Trajectory], Trajectory] | None = None,
        utility: Utility | None = None,
        shortened: bool = False,
    ) -> None:
        self.database, self.embedder, self.retriever = database, embedder, retriever
        weights = weights or dict.fromkeys(KEYS, 1.0)
        total = sum(weights.values())
        if total <= 0 or min(weights.values()) < 0 or set(weights) != set(KEYS):
            raise BankError(f"weights {dict(weights)}: give goal, plan and observation, none negative, not all zero")
        self._scales = [sqrt(weights[key] / total) for key in KEYS]
        self._before, self._after, self._redact = window_before, window_after, redact
        self._utility, self._shortened, self._edits = utility, shortened, "0"
        self._shared = retriever if isinstance(retriever, SharedRetriever) else None
        self._lock = forking.rlock()
        self._texts = TextVectors(embedder)
        self._trajectories: Cache[int, Trajectory] = Cache(CACHED_TRAJECTORIES)
        self._episodes: dict[tuple[str, str], frozenset[int]] = {}
        self._episode_of: dict[int, tuple[str, str]] = {}
        self._watermark = self._removal_mark = 0
        self._checked = 0.0
        self._loaded = False

    async def add(self, trajectory: Trajectory) -> bool:
        """Bank one trajectory; durable when it returns. False when it is there already.

        Raises `BankError` for one that failed or has no steps, `EmbeddingError`, `StorageError`; then nothing of it
        was written.
        """
        return (await self.add_many([trajectory]))[0]

    async def add_many(self, items: Sequence[Trajectory]) -> list[bool]:
        """Bank all of `items` in one transaction, or none; True for each that was new."""
        return await apart(self._add, items)

    def _add(self, items: Sequence[Trajectory]) -> list[bool]:
        items = [self._redact(item) for item in items] if self._redact else items
        for item in items:
            trajectories.check_bankable(item)
        texts = {t for item in items for t in (item.goal, item.plan, *(s.observation for s in item.steps)) if t}
        model = self.embedder.name
        vectors = {trajectories.text_key(model, t): v.tobytes() for t, v in self._texts.of(texts).items()}
        with self.database.begin(write=True) as connection:
            self._check_model(connection, write=True)
            seen = trajectories.banked_digests(connection, items)
            new: list[bool] = []
            for item in items:
                identity = item.namespace, trajectories.content_digest(item)
                new.append(identity not in seen)
                seen.add(identity)
            fresh = [item for item, is_new in zip(items, new) if is_new]
            if (double := trajectories.duplicate_id(connection, fresh)) is not None:
                raise BankError(f"a different trajectory has the id '{double}' already: give it another id")
            if fresh:
                trajectories.insert_trajectories(connection, fresh, vectors, model)
        self._catch_up()
        return new

    async def retrieve(self, situation: Situation, k: int) -> Retrieval:
        """The k best demonstrations for a situation, one window per trajectory, best first.

        Left out: other namespaces, the situation's own episode, and windows that show the same actions for the same
        goal as a better one. Fewer than k when the bank holds fewer.
        """
        if k <= 0:
            return Retrieval([], 0.0)
        if not self._loaded:
            await apart(self._catch_up)
        elif time.monotonic() - self._checked > REFRESH_SECONDS:
            await apart(self._catch_up_unless_busy)
        texts = situation.goal, situation.plan, situation.observation
        seconds = 0.0
        if not self._texts.cached(texts):
            started = time.perf_counter()
            await apart(self._texts.of, texts)
            seconds = time.perf_counter() - started
        vectors = self._texts.of(texts)
        key = self._key([vectors[t] for t in texts])
        own = "" if situation.episode.startswith(DERIVED) else situation.episode
        exclude = self._episodes.get((situation.namespace, own), frozenset())
        want, most = k + 2, float("-inf")
        while True:
            asked = situation.namespace, key, want, exclude
            if self._shared:
                hits = await apart(self._shared.search, *asked)
            else:
                hits = self.retriever.search(*asked)
            everything = len(hits) < want or want > OVERFETCH * k
            if self._utility is not None:
                hits, most = await apart(self._utility.ranked, situation.namespace, hits)
            found = await self._windows(hits, k, situation.episode, own)
            if everything or (len(found) == k and found[-1].score >= most):
                return Retrieval(found, seconds)
            want *= 2

    def scores(self, situation: Situation, windows: Sequence[Demonstration]) -> list[float | None]:
        """What each window scores in a situation: as much as its best step. None for one that was removed. Blocks."""
        texts = {t for w in windows for t in (w.goal, w.plan, *(s.observation for s in w.steps))}
        keys = {t: trajectories.text_key(self.embedder.name, t) for t in texts}
        with self.database.begin() as connection:
            there = trajectories.banked_ids(connection, {w.trajectory for w in windows})
            stored = trajectories.read_vectors(connection, {k for k in keys.values() if k}, self.embedder.dimension)
        vectors = self._texts.of([situation.goal, situation.plan, situation.observation, ""])
        own = self._key([vectors[t] for t in (situation.goal, situation.plan, situation.observation)])

        def score(window: Demonstration, observation: str) -> float:
            parts = (stored.get(keys[t], vectors[""]) for t in (window.goal, window.plan, observation))
            return float(own @ self._key(list(parts)))

        return [max(score(w, s.observation) for s in w.steps) if w.trajectory in there else None for w in windows]

    async def _windows(
        self, hits: Sequence[tuple[int, int, float]], k: int, episode: str, named: str
    ) -> list[Demonstration]:
        """The windows of `hits`, without those of the `episode` itself; `named` is its id if a caller gave it one."""
        if any(self._trajectories.get(group) is None for _, group, _ in hits):
            await apart(self._read, [group for _, group, _ in hits])
        found: list[Demonstration] = []
        shown: set[tuple[str, ...]] = set()
        for row, group, score in hits:
            trajectory = self._trajectories.get(group)
            if trajectory is None or trajectory.id == episode:  # removed meanwhile by another process, or our own
                continue
            if named and trajectory.metadata.get("episode") == named:  # which a shared index does not leave out
                continue
            window = self._cut(trajectory, row & ((1 << POSITIONS) - 1), score)
            teaches = (window.goal, *(s.action for s in window.steps))
            if teaches not in shown:
                shown.add(teaches)
                found.append(window)
                if len(found) == k:
                    break
        return found

    def _cut(self, trajectory: Trajectory, match: int, score: float) -> Demonstration:
        start, end = max(0, match - self._before), match + self._after + 1
        return Demonstration.model_construct(
            trajectory=trajectory.id,
            goal=trajectory.goal,
            plan=trajectory.plan,
            steps=trajectory.steps[start:end],
            start=start,
            match=match,
            length=len(trajectory.steps),
            score=score,
        )

    def _read(self, groups: Collection[int]) -> None:
        missing = [g for g in groups if self._trajectories.get(g) is None]
        with self.database.begin() as connection:
            shorter = bank_metadata.read_shortened(connection, missing) if self._shortened else {}
            for pk, trajectory in trajectories.read_trajectories(connection, missing).items():
                self._trajectories.put(pk, bank_metadata.with_shortened(trajectory, shorter.get(pk)))

    def close(self) -> None:
        """Wait for what the index still does in the background. The database stays open: it is its owner's."""
        self.retriever.settle()

    async def refresh(self) -> None:
        """Take in at once what other processes added and removed; `retrieve` does so every two seconds."""
        await apart(self._catch_up)

    def _catch_up_unless_busy(self) -> None:
        """An index may train for seconds while it takes in rows; a retrieval makes do with what it has meanwhile."""
        if self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()

    def _catch_up(self) -> None:
        with self._lock:
            while True:
                with self.database.begin() as connection:
                    self._check_model(connection)  # another process may have embedded the bank anew
                    if self._shortened and (edits := bank_metadata.edit_mark(connection)) != self._edits:
                        self._trajectories, self._edits = Cache(CACHED_TRAJECTORIES), edits
                    if not self._loaded and not self._watermark:
                        self._removal_mark = trajectories.last_removal(connection)
                    if self._shared:  # what others have indexed is not looked at again
                        self._watermark = max(self._watermark, self._shared.watermark)
                    for mark, pk, namespace in trajectories.read_removals(connection, self._removal_mark):
                        if not self._shared:
                            self.retriever.remove(namespace, [pk])
                        self._trajectories.drop(pk)
                        self._forget_episode(pk)
                        self._removal_mark = mark
                    rows = trajectories.read_index_rows(connection, self._watermark)
                    keys = {k for r in rows for k in (r.goal_key, r.plan_key, *r.observation_keys) if k}
                    vectors = trajectories.read_vectors(connection, keys, self.embedder.dimension)
                if rows:
                    self._index(rows, vectors)
                    self._watermark = rows[-1].pk
                    if self._shared:
                        self._shared.reached(self._watermark)
                if len(rows) < trajectories.CHUNK:
                    break
            if not self._loaded:
                self.retriever.settle()  # so that the first searches do not depend on how fast this machine trains
            self._loaded, self._checked = True, time.monotonic()

    def _index(self, rows: Sequence[trajectories.IndexRow], vectors: Mapping[str, np.ndarray]) -> None:
        zero = np.zeros(self.embedder.dimension, dtype=np.float32)
        for namespace in {r.namespace for r in rows}:
            own = [r for r in rows if r.namespace == namespace and r.observation_keys]
            if not own:  # removed between two reads
                continue
            keys = [
                self._key([vectors.get(k, zero) for k in (r.goal_key, r.plan_key, observation)])
                for r in own
                for observation in r.observation_keys
            ]
            groups = np.array([r.pk for r in own for _ in r.observation_keys], dtype=np.int64)
            positions = np.array([i for r in own for i in range(len(r.observation_keys))], dtype=np.int64)
            self.retriever.add(namespace, (groups << POSITIONS) | positions, groups, np.stack(keys))
            for row in own:
                if row.episode:
                    known = self._episodes.get((namespace, row.episode), frozenset())
                    self._episodes[namespace, row.episode] = known | {row.pk}
                    self._episode_of[row.pk] = namespace, row.episode

    def _forget_episode(self, pk: int) -> None:
        episode = self._episode_of.pop(pk, None)
        if episode is not None:
            left = self._episodes.pop(episode, frozenset()) - {pk}
            if left:
                self._episodes[episode] = left

    def _key(self, vectors: Sequence[np.ndarray]) -> Vectors:
        return np.concatenate([v * np.float32(s) for v, s in zip(vectors, self._scales)])

    def _check_model(self, connection: Connection, *, write: bool = False) -> None:
        """The bank remembers which model embedded it; the first `write` into an empty one sets it."""
        mine, stored = f"{self.embedder.name}/{self.embedder.dimension}", bank_metadata.embedding_model(connection)
        if stored == mine:
            return
        if stored is not None and connection.execute(select(table.c.pk).limit(1)).scalar() is not None:
            raise EmbeddingModelChanged(
                f"the bank was embedded with {stored}, the embedder is {mine}: set retrieval.embedder back, or run "
                "`agentcascade bank reembed` to embed all of it anew"
            )
        if write:
            bank_metadata.set_embedding_model(connection, mine)

    def reembed(self) -> int:
        """Embed the whole bank with the present embedder, in one transaction; returns the number of texts."""
        with self._lock, self.database.begin(write=True) as connection:
            pks = list(connection.execute(trajectories.newest_first(None)).scalars())
            everything = [
                t
                for part in trajectories.chunks(pks)
                for t in trajectories.read_trajectories(connection, part).values()
            ]
            texts = {t for i in everything for t in (i.goal, i.plan, *(s.observation for s in i.steps)) if t}
            vectors = {
                trajectories.text_key(self.embedder.name, t): v.tobytes() for t, v in self._texts.of(texts).items()
            }
            noted = bank_metadata.read_notes(connection)
            trajectories.delete_trajectories(connection, pks)
            connection.execute(delete(embeddings))
            bank_metadata.set_embedding_model(connection, f"{self.embedder.name}/{self.embedder.dimension}")
            trajectories.insert_trajectories(connection, everything[::-1], vectors, self.embedder.name)
            bank_metadata.write_notes(connection, noted)
        return len(texts)
