"""Fast search with faiss: exact while a namespace is small, approximate and compressed when it is large.

Beyond `exact_below` steps a partition keeps each key as bytes (one scale per key) and looks candidates up in an
inverted file over the keys' principal components; candidates are ranked again on the bytes. The bytes are 28 % of the
float32 keys; what recall that leaves is measured by `recall`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.errors import MissingExtra
from agentcascade.retrievers.grouping import Hit, best_per_group, check_keys

if TYPE_CHECKING:
    from agentcascade.protocols import Ids, Vectors

COMPONENTS = 192
PROBES = 48
GROWTH = 6
"""An approximate index is trained anew when its partition has grown so many times."""
OVERFETCH = 24
"""Candidates per wanted group: steps of one trajectory share goal and plan, so they come in bunches."""
ENCODED_AT_ONCE = 50_000


class FaissRetriever:
    """One partition per namespace, so that no search can see another's steps. Thread-safe."""

    def __init__(self, dimension: int, *, exact_below: int = 4_000, seed: int = 0) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtra("faiss-cpu", "faiss", "retrieval.index 'faiss'") from error
        faiss.omp_set_num_threads(1)  # a single query gains nothing from threads, and loses much beside others
        self.dimension = dimension
        self._exact_below, self._seed = exact_below, seed
        self._partitions: dict[str, _Partition] = {}
        self._lock = threading.Lock()

    def add(self, namespace: str, rows: Ids, groups: Ids, keys: Vectors) -> None:
        keys = check_keys(keys, self.dimension)
        with self._lock:
            partition = self._partitions.get(namespace)
            if partition is None:
                partition = _Partition(self.dimension, self._exact_below, self._seed)
                self._partitions[namespace] = partition
        partition.add(np.asarray(rows, dtype=np.int64), np.asarray(groups, dtype=np.int64), keys)

    def remove(self, namespace: str, groups: Collection[int]) -> None:
        partition = self._partitions.get(namespace)
        if partition is not None:
            partition.remove(groups)

    def search(self, namespace: str, key: Vectors, k: int, exclude: Collection[int] = ()) -> list[Hit]:
        key = check_keys(key[None], self.dimension)
        partition = self._partitions.get(namespace)
        return [] if partition is None or k < 1 else partition.search(key, k, exclude)

    def __len__(self) -> int:
        return sum(p.alive for p in list(self._partitions.values()))

    def recall(self, namespace: str, queries: Vectors, k: int) -> float:
        """Share of the k best groups that `search` finds, against an exact scan of the stored keys."""
        partition = self._partitions.get(namespace)
        return 1.0 if partition is None else partition.recall(check_keys(queries, self.dimension), k)


class _Partition:
    """The steps of one namespace. `_write` serialises writers; `_lock` guards what searches read."""

    def __init__(self, dimension: int, exact_below: int, seed: int) -> None:
        import faiss

        self._faiss, self._dimension, self._seed = faiss, dimension, seed
        self._exact_below = exact_below
        self._write, self._lock = threading.Lock(), threading.Lock()
        self._flat: Any = faiss.IndexFlatIP(dimension)
        self._approximate: Any = None
        self._trained_on = 0
        self._size = self._dead = 0
        self._rows = np.empty(0, dtype=np.int64)
        self._groups = np.empty(0, dtype=np.int64)
        self._gone = np.empty(0, dtype=bool)
        self._codes = np.empty((0, dimension), dtype=np.int8)
        self._scales = np.empty(0, dtype=np.float32)

    @property
    def alive(self) -> int:
        return self._size - self._dead

    def add(self, rows: Ids, groups: Ids, keys: Vectors) -> None:
        with self._write:
            with self._lock:
                self._append(rows, groups, keys)
            if self._flat is not None and self._size > self._exact_below:
                self._compress()
            elif self._approximate is not None and self._size > GROWTH * self._trained_on:
                self._train()

    def _append(self, rows: Ids, groups: Ids, keys: Vectors) -> None:
        start, end = self._size, self._size + len(rows)
        self._reserve(end, codes=self._flat is None)
        self._rows[start:end], self._groups[start:end], self._gone[start:end] = rows, groups, False
        if self._flat is not None:
            self._flat.add(keys)
        else:
            self._codes[start:end], self._scales[start:end] = encode(keys)
            self._approximate.add(keys)
        self._size = end

    def _reserve(self, size: int, *, codes: bool) -> None:
        """Room for `size` rows. Arrays grow in place, so that a large bank is never held twice."""
        if size > len(self._rows):
            capacity = max(size, int(1.3 * len(self._rows)), 1024)
            for array in (self._rows, self._groups, self._gone):
                array.resize(capacity, refcheck=False)
        if codes and size > len(self._codes):
            self._codes.resize((len(self._rows), self._dimension), refcheck=False)
            self._scales.resize(len(self._rows), refcheck=False)

    def _compress(self) -> None:
        """From exact to approximate; searches go on with the exact index meanwhile."""
        keys = self._flat.reconstruct_n(0, self._size)
        with self._lock:
            self._reserve(self._size, codes=True)
            self._codes[: self._size], self._scales[: self._size] = encode(keys)
        del keys
        self._train()
        with self._lock:
            self._flat = None

    def _train(self) -> None:
        """Make the inverted file for the present size from the stored keys, then put it in place."""
        faiss, size = self._faiss, self._size
        lists = int(max(16, min(4096, 4 * np.sqrt(size), size / 39)))
        components = min(COMPONENTS, self._dimension)
        index = faiss.index_factory(
            self._dimension, f"PCA{components},IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT
        )
        ivf = faiss.extract_index_ivf(index)
        ivf.nprobe, ivf.cp.seed, ivf.cp.niter = min(lists, PROBES), self._seed + 1, 8
        rng = np.random.default_rng(self._seed)
        sample = np.sort(rng.choice(size, min(size, 40 * lists), replace=False))
        index.train(self._decode(sample))
        for start in range(0, size, ENCODED_AT_ONCE):
            index.add(self._decode(np.arange(start, min(size, start + ENCODED_AT_ONCE))))
        with self._lock:
            self._approximate, self._trained_on = index, size

    def _decode(self, positions: Ids) -> Vectors:
        return self._codes[positions].astype(np.float32) * self._scales[positions, None]

    def search(self, key: Vectors, k: int, exclude: Collection[int]) -> list[Hit]:
        fetch = OVERFETCH * k
        with self._lock:
            while True:
                hits, exhausted = self._fetch(key, min(fetch, self._size), k, exclude)
                if len(hits) >= k or exhausted:
                    return hits
                fetch *= 4

    def _fetch(self, key: Vectors, fetch: int, k: int, exclude: Collection[int]) -> tuple[list[Hit], bool]:
        """The best groups among the `fetch` nearest rows, and whether there is nothing more to fetch."""
        if fetch == 0:
            return [], True
        index = self._flat if self._flat is not None else self._approximate
        scores, positions = index.search(key, fetch)
        found = positions[0] >= 0
        exhausted = fetch >= self._size or not found.all()
        positions, scores = positions[0][found], scores[0][found]
        if self._dead:
            living = ~self._gone[positions]
            positions, scores = positions[living], scores[living]
        if self._flat is None:
            scores = (self._codes[positions].astype(np.float32) @ key[0]) * self._scales[positions]
        return best_per_group(self._rows[positions], self._groups[positions], scores, k, exclude), exhausted

    def remove(self, groups: Collection[int]) -> None:
        with self._write, self._lock:
            doomed = np.isin(self._groups[: self._size], list(groups)) & ~self._gone[: self._size]
            self._gone[: self._size] |= doomed
            self._dead += int(doomed.sum())
            if self._dead > max(1024, self._size // 4) or self._dead == self._size:
                self._compact()

    def _compact(self) -> None:
        """Drop removed rows for good."""
        keep = np.flatnonzero(~self._gone[: self._size])
        if self._flat is not None:
            keys = self._flat.reconstruct_n(0, self._size)[keep]
        else:
            keys = self._decode(keep)
        rows, groups = self._rows[keep], self._groups[keep]
        fresh = _Partition(self._dimension, self._exact_below, self._seed)
        for start in range(0, len(keep), ENCODED_AT_ONCE):
            part = slice(start, start + ENCODED_AT_ONCE)
            fresh.add(rows[part], groups[part], keys[part])
        state = {name: value for name, value in vars(fresh).items() if name not in ("_write", "_lock")}
        vars(self).update(state)

    def recall(self, queries: Vectors, k: int) -> float:
        living = np.flatnonzero(~self._gone[: self._size])
        best: list[list[Hit]] = [[] for _ in queries]
        for start in range(0, len(living), ENCODED_AT_ONCE):
            part = living[start : start + ENCODED_AT_ONCE]
            keys = self._decode(part) if self._flat is None else self._flat.reconstruct_n(0, self._size)[part]
            scores = queries @ keys.T
            for i, row_scores in enumerate(scores):
                near = np.argpartition(-row_scores, min(len(part) - 1, 50 * k))[: 50 * k]
                hits = best_per_group(self._rows[part[near]], self._groups[part[near]], row_scores[near], k)
                old = np.array([*best[i], *hits], dtype=object)
                best[i] = best_per_group(
                    old[:, 0].astype(np.int64), old[:, 1].astype(np.int64), old[:, 2].astype(np.float32), k
                )
        found = wanted = 0
        for query, truth in zip(queries, best):
            groups = {g for _, g, _ in self.search(query[None], k, ())}
            found += len(groups & {g for _, g, _ in truth})
            wanted += len(truth)
        return found / wanted if wanted else 1.0


def encode(keys: Vectors) -> tuple[np.ndarray, Vectors]:
    """Signed bytes (n, d) and the scale of each row (n,), so that bytes × scale ≈ keys."""
    scales = np.abs(keys).max(axis=1) / 127
    scales[scales == 0] = 1.0
    return np.rint(keys / scales[:, None]).astype(np.int8), scales.astype(np.float32)
