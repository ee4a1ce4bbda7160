"""Index of a bank's steps, which follows what this and other processes add and remove."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Connection

from agentcascade._util import forking
from agentcascade.bank.embedding_space import check_embedding_model, embedding_space
from agentcascade.errors import BankError
from agentcascade.protocols import Embedder, Retriever, is_shared
from agentcascade.storage import Database, bank_metadata, trajectories
from agentcascade.storage.trajectories import POSITIONS

if TYPE_CHECKING:
    from agentcascade.protocols import Vectors

KEYS = ("goal", "plan", "observation")
WAIT_SECONDS = 1.0
"""For an index that takes in others' rows, or trains, until what was just added is found at once."""


class StepIndex:
    """The retriever, brought up to date with the database. Thread-safe; `lock` is held while it changes.

    `weights` are those of the keys' parts. `read_along` is called with the connection at the beginning of every look at
    the database, `forget` with the key of every trajectory that was removed.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        retriever: Retriever,
        weights: Mapping[str, float] | None,
        *,
        read_along: Callable[[Connection], None],
        forget: Callable[[int], None],
    ) -> None:
        self.shared = retriever if is_shared(retriever) else None
        """The retriever, where other processes search the same index."""
        self.lock = forking.rlock()
        self.loaded = False
        self.caught_up_at = 0.0
        self._database = database
        self._embedder = embedder
        self._retriever = retriever
        self._scales = _scales(weights or dict.fromkeys(KEYS, 1.0))
        self._read_along = read_along
        self._forget = forget
        self._trajectories_of: dict[tuple[str, str], frozenset[int]] = {}
        self._episode_of: dict[int, tuple[str, str]] = {}
        self._watermark = 0
        """The last trajectory that is indexed."""
        self._removal_mark = 0

    def key(self, vectors: Sequence[np.ndarray]) -> Vectors:
        """The key (3 d,) of a step from its goal's, plan's and observation's unit vectors (d,)."""
        return np.concatenate([v * np.float32(s) for v, s in zip(vectors, self._scales)])

    def step_keys(self, row: trajectories.IndexRow, vectors: Mapping[str, np.ndarray]) -> Vectors:
        """Keys (steps, 3 d) of a trajectory's steps from its texts' vectors; those that lack are zero."""
        zero = np.zeros(self._embedder.dimension, dtype=np.float32)
        keys = [[vectors.get(k, zero) for k in (row.goal_key, row.plan_key, o)] for o in row.observation_keys]
        return np.stack([self.key(key) for key in keys])

    def trajectories_of(self, namespace: str, episode: str) -> frozenset[int]:
        """Keys of the trajectories that an episode was banked as."""
        return self._trajectories_of.get((namespace, episode), frozenset())

    def catch_up_unless_busy(self) -> None:
        """An index may train for seconds while it takes in rows; a retrieval makes do with what it has meanwhile."""
        if self.lock.acquire(blocking=False):
            try:
                if self._is_current():
                    self.caught_up_at = time.monotonic()
                else:
                    self.catch_up()
            finally:
                self.lock.release()

    def _is_current(self) -> bool:
        """Whether nothing was added or removed since, nor embedded by another model."""
        with self._database.reading() as connection:
            self._read_along(connection)
            newest = bank_metadata.read_newest(connection)
        watermark = max(self._watermark, self.shared.watermark) if self.shared else self._watermark
        is_known = newest.trajectory <= watermark and newest.removal <= self._removal_mark
        return self.loaded and is_known and newest.embedding_model == embedding_space(self._embedder)

    def catch_up_soon(self) -> None:
        """`catch_up`, but where somebody else has the index for long it is left to the next retrieval."""
        if self.lock.acquire(timeout=WAIT_SECONDS):
            try:
                self.catch_up()
            finally:
                self.lock.release()
        else:
            self.caught_up_at = 0.0

    def catch_up(self) -> None:
        """Take in what was added and removed since. Raises `EmbeddingModelChanged`, `StorageError`."""
        with self.lock:
            while True:
                with self._database.begin() as connection:
                    check_embedding_model(connection, self._embedder)  # another process may have embedded all anew
                    self._read_along(connection)
                    if not self.loaded and not self._watermark:
                        self._removal_mark = trajectories.last_removal(connection)
                    if self.shared:  # what others have indexed is not looked at again
                        self._watermark = max(self._watermark, self.shared.watermark)
                    removals = trajectories.read_removals(connection, self._removal_mark)
                    rows = trajectories.read_index_rows(connection, self._watermark)
                    text_keys = {k for r in rows for k in (r.goal_key, r.plan_key, *r.observation_keys) if k}
                    vectors = trajectories.read_vectors(connection, text_keys, self._embedder.dimension)
                if removals:
                    self._remove(removals)
                    self._removal_mark = removals[-1][0]
                if rows:
                    self._add(rows, vectors)
                    self._watermark = rows[-1].pk
                    if self.shared:
                        self.shared.reached(self._watermark)
                if len(rows) < trajectories.CHUNK:
                    break
            if not self.loaded:
                self._retriever.settle()  # so that the first searches do not depend on how fast this machine trains
            self.loaded = True
            self.caught_up_at = time.monotonic()

    def _remove(self, removals: Sequence[tuple[int, int, str]]) -> None:
        """All of a namespace at once: an index may be copied for each removal, and nobody searches it meanwhile."""
        removed: dict[str, list[int]] = {}
        for _, pk, namespace in removals:
            removed.setdefault(namespace, []).append(pk)
            self._forget(pk)
            episode = self._episode_of.pop(pk, None)
            if episode is not None:
                remaining = self._trajectories_of.pop(episode, frozenset()) - {pk}
                if remaining:
                    self._trajectories_of[episode] = remaining
        if not self.shared:
            for namespace, pks in removed.items():
                self._retriever.remove(namespace, pks)

    def _add(self, rows: Sequence[trajectories.IndexRow], vectors: Mapping[str, np.ndarray]) -> None:
        for namespace in {r.namespace for r in rows}:
            with_steps = [r for r in rows if r.namespace == namespace and r.observation_keys]
            if not with_steps:  # removed between two reads
                continue
            keys = [self.step_keys(r, vectors) for r in with_steps]
            groups = np.array([r.pk for r in with_steps for _ in r.observation_keys], dtype=np.int64)
            positions = np.array([i for r in with_steps for i in range(len(r.observation_keys))], dtype=np.int64)
            self._retriever.add(namespace, (groups << POSITIONS) | positions, groups, np.concatenate(keys))
            for row in with_steps:
                if row.episode:
                    indexed = self._trajectories_of.get((namespace, row.episode), frozenset())
                    self._trajectories_of[namespace, row.episode] = indexed | {row.pk}
                    self._episode_of[row.pk] = namespace, row.episode


def _scales(weights: Mapping[str, float]) -> list[float]:
    """The roots of the weights' shares. Raises `BankError`."""
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0 or set(weights) != set(KEYS):
        raise BankError(f"weights {dict(weights)}: give goal, plan and observation, none negative, not all zero")
    return [sqrt(weights[key] / total) for key in KEYS]
