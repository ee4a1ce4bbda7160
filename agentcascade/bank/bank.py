"""The bank: successful teacher trajectories, and the retrieval of demonstrations from them.

A step's key is its goal, plan and observation, embedded one by one, weighted and laid end to end; one inner product
with the present situation's key is the weighted mean of the three cosines (Traj-Bootstrap's multi-key average).
The database is the truth; the index is rebuilt from it and follows what other processes add and remove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Connection

from agentcascade._util.bounds import off_loop
from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.bank.embedding_space import check_embedding_model, embed_banked, reembed, text_vectors
from agentcascade.bank.step_index import StepIndex
from agentcascade.bank.windows import cut_window, same_actions
from agentcascade.errors import BankError
from agentcascade.models.embeddings import TextVectors
from agentcascade.protocols import Embedder, Retriever
from agentcascade.storage import Database, bank_metadata, trajectories
from agentcascade.storage.trajectories import POSITIONS
from agentcascade.types import DERIVED, Demonstration, Situation, Trajectory

if TYPE_CHECKING:
    import numpy as np

    from agentcascade.bank.failures import FailureShelf
    from agentcascade.bank.success_ranking import SuccessRanking
    from agentcascade.protocols import Vectors

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

    Args:
        database: Where trajectories and vectors are. It stays open: it is its owner's.
        embedder: Texts to unit vectors (d,). Another model than the one that embedded the bank is an error.
        retriever: The index of step keys (3 d,), empty unless it is a `SharedRetriever`.
        weights: Of ``goal``, ``plan`` and ``observation``, relative to each other; equal by default.
        window_before: Steps of a demonstration before the matched one; clipped at the trajectory's beginning.
        window_after: Steps of a demonstration after the matched one; clipped at the trajectory's end.
        redact: Applied to every trajectory before it is embedded and stored.
        utility: Ranks trajectories that led to success higher.
        shortened: Whether demonstrations show the shorter reasonings that `agentcascade bank shorten` made.
        failures: Adds to demonstrations what is known to fail in the situations of their steps.

    Raises:
        BankError: For weights that are negative, all zero, or of other keys.

    >>> import asyncio
    >>> from agentcascade.retrievers.hashing import HashEmbedder
    >>> from agentcascade.retrievers.numpy_index import ExactRetriever
    >>> from agentcascade.storage import open_database
    >>> from agentcascade.types import Step
    >>> embedder = HashEmbedder(64)
    >>> bank = Bank(open_database("sqlite:///:memory:"), embedder, ExactRetriever(3 * 64))
    >>> step = Step(observation="a door", action="open the door")
    >>> taught = Trajectory(goal="leave the room", steps=(step,), success=True)
    >>> asyncio.run(bank.add(taught)), asyncio.run(bank.add(taught))
    (True, False)
    >>> present = Situation(goal="leave the house", observation="a closed door")
    >>> [d.steps[0].action for d in asyncio.run(bank.retrieve(present, k=3)).demonstrations]
    ['open the door']
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
        utility: SuccessRanking | None = None,
        shortened: bool = False,
        failures: FailureShelf | None = None,
    ) -> None:
        self.database = database
        self.embedder = embedder
        self.retriever = retriever
        self._before = window_before
        self._after = window_after
        self._redact = redact
        self._utility = utility
        self._shortened = shortened
        self._failures = failures
        self._edit_mark = "0"
        self._texts = TextVectors(embedder)
        self._trajectories: LRUCache[int, Trajectory] = LRUCache(CACHED_TRAJECTORIES)
        self._index = StepIndex(
            database,
            embedder,
            retriever,
            weights,
            read_along=self._drop_if_edited,
            forget=lambda pk: self._trajectories.drop(pk),
        )

    async def add(self, trajectory: Trajectory) -> bool:
        """Bank one trajectory; durable when it returns.

        Args:
            trajectory: A successful one, with a goal and steps.

        Returns:
            False when its namespace holds one with the same goal, plan and steps already.

        Raises:
            BankError: For one that failed or has no steps, or whose id another trajectory has.
            EmbeddingModelChanged: When another model embedded the bank.
            EmbeddingError: When it cannot be embedded.
            StorageError: When the database fails. Nothing of it was written in any of these cases.
        """
        return (await self.add_many([trajectory]))[0]

    async def add_many(self, items: Sequence[Trajectory]) -> list[bool]:
        """Bank all of `items` in one transaction, or none.

        Args:
            items: Successful trajectories, as for `add`.

        Returns:
            One truth value for each item: whether it was new.

        Raises:
            BankError: As `add` does, as `EmbeddingModelChanged`, `EmbeddingError` and `StorageError`; nothing was
                written then.
        """
        return await apart(self._add, items)

    def _add(self, items: Sequence[Trajectory]) -> list[bool]:
        items = [trajectories.encodable(self._redact(item) if self._redact else item) for item in items]
        for item in items:
            trajectories.check_bankable(item)
        vectors = text_vectors(self.embedder, self._texts, items)
        with self.database.begin(write=True) as connection:
            check_embedding_model(connection, self.embedder, write=True)
            banked = trajectories.banked_digests(connection, items)
            new: list[bool] = []
            for item in items:
                identity = item.namespace, trajectories.content_digest(item)
                new.append(identity not in banked)
                banked.add(identity)
            new_items = [item for item, is_new in zip(items, new) if is_new]
            if (duplicate := trajectories.duplicate_id(connection, new_items)) is not None:
                raise BankError(f"a different trajectory has the id '{duplicate}' already: give it another id")
            if new_items:
                trajectories.insert_trajectories(connection, new_items, vectors, self.embedder.name)
        self._index.catch_up_soon()
        return new

    async def retrieve(self, situation: Situation, k: int, *, window: tuple[int, int] | None = None) -> Retrieval:
        """The k best demonstrations for a situation, one window per trajectory, best first.

        Left out: other namespaces, the situation's own episode, and windows that show the same actions for the same
        goal as a better one.

        Args:
            situation: Its goal, plan and observation are compared, in its namespace.
            k: Demonstrations; none for 0.
            window: Steps before and after the one that matches, in place of the bank's own.

        Returns:
            Up to k demonstrations, fewer when the bank holds fewer, with their scores (weighted mean of three cosines,
            in [-1, 1], plus what `utility` adds), and the seconds that embedding the situation took.

        Raises:
            EmbeddingModelChanged: When another model embedded the bank.
            EmbeddingError: When the situation cannot be embedded.
            StorageError: When the database fails.
        """
        if k <= 0:
            return Retrieval([], 0.0)
        if not self._index.loaded:
            await apart(self._index.catch_up)
        elif time.monotonic() - self._index.caught_up_at > REFRESH_SECONDS:
            await apart(self._index.catch_up_unless_busy)
        texts = situation.goal, situation.plan, situation.observation
        seconds = 0.0
        vectors = self._texts.known(texts)
        if vectors is None:
            started = time.perf_counter()
            vectors = await off_loop(not self._texts.is_quick(texts), self._texts.of, texts)
            seconds = time.perf_counter() - started
        key = self._index.key([vectors[t] for t in texts])
        named_episode = "" if situation.episode.startswith(DERIVED) else situation.episode
        exclude = self._index.trajectories_of(situation.namespace, named_episode)
        count, best_of_rest = k + 2, float("-inf")
        while True:
            query = situation.namespace, key, count, exclude
            if self._index.shared:
                hits = await apart(self._index.shared.search, *query)
            else:
                hits = self.retriever.search(*query)
            everything = len(hits) < count or count > OVERFETCH * k
            if self._utility is not None:
                hits, best_of_rest = await apart(self._utility.ranked, situation.namespace, hits)
            windows = await self._windows(
                hits, k, window, exclude_trajectory=situation.episode, exclude_episode=named_episode
            )
            if everything or (len(windows) == k and windows[-1].score >= best_of_rest):
                return Retrieval(windows, seconds)
            count *= 2

    def scores(self, situation: Situation, windows: Sequence[Demonstration]) -> list[float | None]:
        """Scores of demonstrations in another situation. Blocks.

        Args:
            situation: Its goal, plan and observation are compared.
            windows: Demonstrations that `retrieve` gave.

        Returns:
            For each window the score of its best step, in [-1, 1]; None for one that was removed.

        Raises:
            EmbeddingError: When the situation cannot be embedded.
            StorageError: When the database fails.
        """
        texts = {t for w in windows for t in (w.goal, w.plan, *(s.observation for s in w.steps))}
        keys = {t: trajectories.text_key(self.embedder.name, t) for t in texts}
        with self.database.begin() as connection:
            banked = trajectories.banked_ids(connection, {w.trajectory for w in windows})
            stored = trajectories.read_vectors(connection, {k for k in keys.values() if k}, self.embedder.dimension)
        vectors = self._texts.of([situation.goal, situation.plan, situation.observation, ""])
        situation_key = self._index.key([vectors[t] for t in (situation.goal, situation.plan, situation.observation)])

        def score(window: Demonstration, observation: str) -> float:
            parts = (stored.get(keys[t], vectors[""]) for t in (window.goal, window.plan, observation))
            return float(situation_key @ self._index.key(list(parts)))

        return [max(score(w, s.observation) for s in w.steps) if w.trajectory in banked else None for w in windows]

    def step_keys(self, row: trajectories.IndexRow, vectors: Mapping[str, np.ndarray]) -> Vectors:
        """Keys (steps, 3 d) by which the steps of `row`, a trajectory, are found, of its texts' vectors by text key."""
        return self._index.step_keys(row, vectors)

    async def _windows(
        self,
        hits: Sequence[tuple[int, int, float]],
        k: int,
        window: tuple[int, int] | None,
        *,
        exclude_trajectory: str,
        exclude_episode: str,
    ) -> list[Demonstration]:
        """The first k windows of `hits` (row, trajectory, score), without those of the situation's own episode.

        That is banked under its id (`exclude_trajectory`), or names it in its metadata (`exclude_episode`, empty for an
        id that no caller gave).
        """
        groups = [group for _, group, _ in hits]
        found = self._trajectories.get_many(groups)
        if any(trajectory is None for trajectory in found):
            await apart(self._load, groups)
            found = self._trajectories.get_many(groups)
        before, after = window or (self._before, self._after)
        windows: list[Demonstration] = []
        taught: dict[str, list[Demonstration]] = {}
        for (row, _, score), trajectory in zip(hits, found):
            if trajectory is None:  # another process has removed it meanwhile
                continue
            if trajectory.id == exclude_trajectory:
                continue
            if exclude_episode and trajectory.metadata.get("episode") == exclude_episode:  # a shared index has it
                continue
            match = row & ((1 << POSITIONS) - 1)
            cut = cut_window(trajectory, match, score, before=before, after=after)
            alike = taught.setdefault(cut.goal, [])
            if not any(same_actions(cut, other) for other in alike):
                alike.append(cut)
                if self._failures and (
                    tried := self._failures.tried(trajectory, cut.start, cut.start + len(cut.steps))
                ):
                    cut = cut.model_copy(update={"tried": tried})
                windows.append(cut)
                if len(windows) == k:
                    break
        return windows

    def _load(self, groups: Collection[int]) -> None:
        missing = [g for g in groups if self._trajectories.get(g) is None]
        with self.database.begin() as connection:
            shorter = bank_metadata.read_shortened(connection, missing) if self._shortened else {}
            for pk, trajectory in trajectories.read_trajectories(connection, missing).items():
                self._trajectories.put(pk, bank_metadata.with_shortened(trajectory, shorter.get(pk)))

    def close(self) -> None:
        """Wait for what the index still does in the background."""
        self.retriever.settle()

    async def refresh(self) -> None:
        """Take in at once what other processes added and removed; `retrieve` does so every two seconds.

        Raises:
            EmbeddingModelChanged: When another model embedded the bank.
            StorageError: When the database fails.
        """
        await apart(self._index.catch_up)

    def _drop_if_edited(self, connection: Connection) -> None:
        """Forget the trajectories that were read when other reasonings are to be shown by now."""
        if self._shortened and (edit_mark := bank_metadata.edit_mark(connection)) != self._edit_mark:
            self._trajectories = LRUCache(CACHED_TRAJECTORIES)
            self._edit_mark = edit_mark

    def reembed(self) -> int:
        """Embed the whole bank with the present embedder, in one transaction. Blocks.

        Returns:
            The number of different texts that were embedded.

        Raises:
            EmbeddingError: When a text cannot be embedded.
            StorageError: When the database fails. The bank is as it was in both cases.
        """
        vectors = embed_banked(self.database, self.embedder, self._texts)
        with self._index.lock, self.database.begin(write=True) as connection:
            return reembed(connection, self.embedder, self._texts, vectors)
