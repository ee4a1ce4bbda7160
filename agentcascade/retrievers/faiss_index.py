"""Fast search with faiss: exact while a namespace is small, approximate and compressed when it is large.

What recall the approximation leaves is measured by `FaissRetriever.recall`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade._util import forking
from agentcascade.errors import MissingExtra
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys, check_rows
from agentcascade.retrievers.inverted_file import AT_ONCE, InvertedFile, portions
from agentcascade.retrievers.openmp import all_threads, one_thread
from agentcascade.retrievers.rabitq import RaBitQFile
from agentcascade.retrievers.stores import RABITQ_ABOVE, CompressedStore, FlatStore

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

OVERFETCH = 24
"""Candidates per wanted group: steps of one trajectory share goal and plan, so they come in bunches."""
ADDED_AT_ONCE = 250
"""Steps added under one hold of the lock: searches wait no longer than that takes (below a millisecond)."""
SCANNED_AT_ONCE = 20_000
FAR_AHEAD = 4
"""Times `exact_below` at which adding waits until steps are bytes."""
RETRY_SECONDS = 600.0
"""After a training that failed, until the next: each may take a minute of all processors."""

log = logging.getLogger("agentcascade.retrievers")


class FaissRetriever:
    """One partition per namespace, so that no search can see another's steps. Thread-safe.

    A namespace of more than `exact_below` steps is searched approximately, one of more than `rabitq_above` with more
    bits of a key (`retrievers/rabitq.py`); `seed` fixes the training. A search or `settle` starts it when it is due, so
    that a bulk load is trained for once. It runs in the background; `add` and `search` go on meanwhile, and `add`
    waits only where a namespace that nobody searches would fill the memory with floats.
    """

    def __init__(
        self, dimension: int, *, exact_below: int = 4_000, rabitq_above: int = RABITQ_ABOVE, seed: int = 0
    ) -> None:
        try:
            import faiss  # noqa: F401
        except ImportError as error:
            raise MissingExtra("faiss-cpu", "faiss", "retrieval.index 'faiss'") from error
        self.dimension = dimension
        self._exact_below = exact_below
        self._rabitq_above = rabitq_above
        self._seed = seed
        self._partitions: dict[str, _Partition] = {}
        self._lock = forking.lock()

    def add(self, namespace: str, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        rows, groups, keys = check_rows(rows, groups, keys, self.dimension)
        with self._lock:
            partition = self._partitions.get(namespace)
            if partition is None:
                partition = _Partition(self.dimension, self._exact_below, self._rabitq_above, self._seed)
                self._partitions[namespace] = partition
        with one_thread():  # more lose much beside busy ones
            partition.add(rows, groups, keys)

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        partition = self._partitions.get(namespace)
        if partition is not None:
            partition.remove(groups)

    def search(self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
        key = check_keys(np.asarray(key)[None], self.dimension)[0]
        partition = self._partitions.get(namespace)
        if partition is None or k < 1:
            return []
        with one_thread():
            return partition.search(key, k, exclude)

    def settle(self) -> None:
        for partition in list(self._partitions.values()):
            partition.settle()

    def __len__(self) -> int:
        return sum(p.alive for p in list(self._partitions.values()))

    def recall(self, namespace: str, queries: Vectors | None = None, k: int = 6) -> float:
        """Share of the k best groups that `search` finds, against an exact scan of the keys as stored.

        `queries` is (n, d); without, 100 of the stored keys. 1 for an empty namespace.
        """
        partition = self._partitions.get(namespace)
        if partition is None:
            return 1.0
        return partition.recall(None if queries is None else check_keys(queries, self.dimension), k)


class _Partition:
    """The steps of one namespace. `_write` serialises writers; `_lock` guards what searches read."""

    def __init__(self, dimension: int, exact_below: int, rabitq_above: int, seed: int) -> None:
        self._exact_below = exact_below
        self._rabitq_above = rabitq_above
        self._seed = seed
        self._dimension = dimension
        self._write = forking.lock()
        self._lock = forking.lock()
        self._store: FlatStore | CompressedStore = FlatStore(dimension)
        self._training: threading.Thread | None = None
        self._not_before = 0.0
        """The time until which nothing is trained, as it failed before."""
        self._size = self._dead = 0
        self._rows = np.empty(0, dtype=np.int64)
        self._groups = np.empty(0, dtype=np.int64)
        self._gone = np.empty(0, dtype=bool)

    @property
    def alive(self) -> int:
        return self._size - self._dead

    def add(self, rows: IdArray, groups: IdArray, keys: Vectors) -> None:
        with self._write:
            for start in range(0, len(rows), ADDED_AT_ONCE):
                part = slice(start, start + ADDED_AT_ONCE)
                store = self._store
                prepared = store.prepared(keys[part])
                with self._lock:
                    if store is not self._store:  # it has gone over to bytes meanwhile
                        prepared = self._store.prepared(keys[part])
                    self._append(rows[part], groups[part], prepared)
                if isinstance(self._store, FlatStore) and self._size > FAR_AHEAD * self._exact_below:
                    self.settle()

    def _append(self, rows: IdArray, groups: IdArray, prepared: Any) -> None:
        start, end = self._size, self._size + len(rows)
        if end > len(self._rows):
            capacity = max(end, int(1.25 * len(self._rows)), 1024)
            for array in (self._rows, self._groups, self._gone):
                array.resize(capacity, refcheck=False)
        self._rows[start:end], self._groups[start:end], self._gone[start:end] = rows, groups, False
        self._store.put(prepared)
        self._size = end

    def _train_when_due(self) -> None:
        """Start the training that the steps there are ask for, unless one is under way. `_lock` is held."""
        due = self._exact_below if isinstance(self._store, FlatStore) else self._store.outgrown_at
        if self._size <= due or (self._training is not None and self._training.is_alive()):
            return
        if time.monotonic() < self._not_before:
            return
        training = threading.Thread(target=self._try, args=(self._store, self._size), name="faiss-training")
        try:
            training.start()
        except RuntimeError:  # no thread can be had; the search that asks for one needs none
            self._put_off(self._size)
        else:
            self._training = training  # not before: who waits for it may not find it unstarted

    def _try(self, store: FlatStore | CompressedStore, size: int) -> None:
        try:
            with all_threads():
                self._train(store, size)
        except Exception:
            self._put_off(size)

    def _put_off(self, size: int) -> None:
        self._not_before = time.monotonic() + RETRY_SECONDS
        log.warning("faiss: training for %d steps failed; they are searched as before", size, exc_info=True)

    def _train(self, store: FlatStore | CompressedStore, size: int) -> None:
        """Go over to bytes, or make a larger inverted file, for the first `size` steps; add what came meanwhile.

        What is made of a store that was compacted meanwhile is dropped.
        """

        read = partial(store.keys, lock=self._lock)
        if isinstance(store, FlatStore):
            compressed = CompressedStore(self._dimension, self._seed, self._rabitq_above)
            for part in portions(np.arange(size)):
                compressed.add(read(part))
            compressed.use(compressed.trained(size, compressed.keys))
            _catch_up(compressed, store, read)
            with self._lock:
                compressed.add(store.keys(np.arange(len(compressed), len(store))))
                if self._store is store:
                    self._store = compressed
        else:
            file = store.trained(size, read)
            _catch_up(file, store, read)
            with self._lock:
                file.add(store.keys(np.arange(len(file), len(store))))
                store.use(file)

    def settle(self) -> None:
        self._wait()
        with self._lock:
            self._train_when_due()
        self._wait()

    def _wait(self) -> None:
        """For the training that is under way."""
        training = self._training
        if training is not None:
            training.join()

    def search(self, key: Vectors, k: int, exclude: Collection[int]) -> list[Hit]:
        fetch = OVERFETCH * k
        with self._lock:
            self._train_when_due()
            while self._size:
                count = min(fetch, self._size)
                positions, scores, others = self._store.nearest(key, count)
                if self._dead:
                    living = ~self._gone[positions]
                    positions, scores = positions[living], scores[living]
                hits = best_per_group(self._rows[positions], self._groups[positions], scores, k, exclude)
                # where more tie with the last hit than were fetched, the tie is settled by row, not by chance
                if count == self._size or (len(hits) >= k and others < hits[-1][2]):
                    return hits
                fetch *= 4
        return []

    def remove(self, groups: Collection[int]) -> None:
        with self._write:
            with self._lock:
                doomed = np.isin(self._groups[: self._size], list(groups)) & ~self._gone[: self._size]
                self._gone[: self._size] |= doomed
                self._dead += int(doomed.sum())
            if self._dead > max(1024, self._size // 4) or self._dead == self._size:
                self._compact()

    def _compact(self) -> None:
        """Drop removed rows for good. They are hidden already: the smaller store is made aside, then put in place."""
        self._wait()
        keep = np.flatnonzero(~self._gone[: self._size])
        with all_threads():
            store = self._store.only(keep) if len(keep) > self._exact_below else FlatStore(self._dimension)
            if len(keep) and not len(store):
                store.add(self._store.keys(keep))
        rows, groups = self._rows[keep], self._groups[keep]
        with self._lock:
            self._store = store
            self._rows = rows
            self._groups = groups
            self._gone = np.zeros(len(keep), dtype=bool)
            self._size = len(keep)
            self._dead = 0

    def recall(self, queries: Vectors | None, k: int) -> float:
        with self._write:  # nothing moves under the scan; searches go on
            self.settle()
            living = np.flatnonzero(~self._gone[: self._size])
            if queries is None:
                rng = np.random.default_rng(self._seed)
                queries = self._store.keys(rng.permutation(living)[:100])
            best: list[list[Hit]] = [[] for _ in queries]
            for start in range(0, len(living), SCANNED_AT_ONCE):
                part = living[start : start + SCANNED_AT_ONCE]
                for i, scores in enumerate(queries @ self._store.keys(part).T):
                    best[i] += best_per_group(self._rows[part], self._groups[part], scores, k)
            hits_found = hits_expected = 0
            for query, hits in zip(queries, best):
                bar = sorted({g: s for _, g, s in sorted(hits, key=lambda hit: hit[2])}.values())[-k:]
                # groups that tie with the last one are as good as it
                with one_thread():
                    found = self.search(query, k, ())
                hits_found += min(len(bar), sum(s >= bar[0] - 1e-5 for _, _, s in found))
                hits_expected += len(bar)
        return hits_found / hits_expected if hits_expected else 1.0


def _catch_up(
    made: CompressedStore | InvertedFile | RaBitQFile,
    store: FlatStore | CompressedStore,
    read: Callable[[IdArray], Vectors],
) -> None:
    """Add what `store` has more than `made`, until little is left for which searches have to wait."""
    while len(store) - len(made) > ADDED_AT_ONCE:
        made.add(read(np.arange(len(made), min(len(store), len(made) + AT_ONCE))))
