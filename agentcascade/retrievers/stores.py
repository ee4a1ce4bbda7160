"""Stores of keys in memory, searched by inner product: as floats, or quantized to bytes behind an inverted file.

Positions count from 0 in the order of adding. Neither store locks: their owner does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agentcascade.retrievers.inverted_file import InvertedFile, list_count, portions
from agentcascade.retrievers.rabitq import RaBitQFile

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

    Nearest = tuple[IdArray, Vectors, float]
    """positions and their inner products, fewer than asked for only where the store holds fewer; and what all others'
    inner products do not exceed, as far as the store knows"""

GROWTH = 6
"""The inverted file is trained anew when the store has grown so many times."""
RABITQ_ABOVE = 200_000
"""Keys of a store up to which its inverted file holds bytes: faster to search there, and enough is found"""
RABITQ_GROWTH = 4
"""As `GROWTH`, of a file whose lists are many already"""
GROWN_BY = 1_024
"""Keys for which there is room at most beyond those that there are: room is made under the owner's lock"""


UNLOCKED = nullcontext()


class PreparedKeys(NamedTuple):
    """Keys with all that adding them takes: bytes, scales, and their places in an inverted file."""

    keys: Vectors
    codes: np.ndarray
    scales: Vectors
    file: InvertedFile | RaBitQFile | None
    placed: tuple[Vectors, IdArray] | None


RANKED_AT_ONCE = 192
"""Candidates ranked together: those of a search for eight groups."""
ROUNDING = 1e-5
"""What an inner product of float32 may be wrong by, for vectors of length one"""


class FlatStore:
    """float32 keys; a search looks at bytes of every one, a quarter of the memory, and then at the floats of the best.

    What rounding may have hidden is bounded, so that a search knows whether what it found is exact.
    """

    def __init__(self, dimension: int) -> None:
        import faiss

        self._dimension = dimension
        self._pointer: Any = faiss.swig_ptr
        self._index: Any = faiss.IndexFlatIP(dimension)
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed  # takes whole numbers alone, of queries as well
        self._bytes: Any = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        self._step = 1e-30
        """What one byte's unit is worth."""
        self._error = self._longest = 0.0
        """Of all keys: the distance from what their bytes say, and the length of that, at most."""

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, keys: Vectors) -> None:
        self._index.add(keys)
        largest = float(np.abs(keys).max(initial=0))
        if largest > 127 * self._step:
            self._step, self._error, self._longest = 1.25 * largest / 127, 0.0, 0.0
            self._bytes.reset()
            keys = self.keys(np.arange(len(self)))
        rounded = np.rint(keys / self._step)
        self._bytes.add(rounded)
        rounded *= self._step
        lengths = np.linalg.norm(rounded, axis=1)
        self._longest = max(self._longest, float(lengths.max(initial=0)))
        errors = np.linalg.norm(keys - rounded, axis=1) + ROUNDING * lengths
        self._error = max(self._error, float(errors.max(initial=0)))

    def prepared(self, keys: Vectors) -> Vectors:
        """What `put` takes of `keys`; made without the owner's lock."""
        return keys

    def put(self, prepared: Vectors) -> None:
        self.add(prepared)

    def keys(self, positions: IdArray, lock: AbstractContextManager[Any] = UNLOCKED) -> Vectors:
        """Keys (n, d) at `positions`; `lock` is held no longer than what is stored of them is copied."""
        with lock:
            keys: Vectors = self._index.reconstruct_batch(positions)
        return keys

    def nearest(self, key: Vectors, count: int) -> Nearest:
        if 2 * count >= len(self):
            scores, positions = self._index.search(key[None], count)
            return positions[0], scores[0], float(scores[0, -1])
        step = max(float(np.abs(key).max()) / 127, 1e-30)
        rounded = np.rint(key / step)
        rough, positions = self._bytes.search(rounded[None], count)
        scores = np.empty_like(rough)
        of_key, of_scores, of_positions = (self._pointer(array) for array in (key, scores, positions))
        self._index.compute_distance_subset(1, of_key, count, of_scores, of_positions)
        hidden = self._error * np.linalg.norm(key) + self._longest * np.linalg.norm(key - rounded * step)
        return positions[0], scores[0], float(rough[0, -1] * self._step * step + hidden)

    def only(self, positions: IdArray) -> FlatStore:
        """A new store of these keys alone."""
        store = FlatStore(self._dimension)
        store.add(self.keys(positions))
        return store


class CompressedStore:
    """Keys as signed bytes with one scale each (28 % of their float32 size with the inverted file)."""

    def __init__(self, dimension: int, seed: int, rabitq_above: int = RABITQ_ABOVE) -> None:
        import faiss

        self._dimension = dimension
        self._seed = seed
        self._rabitq_above = rabitq_above
        self._codes = np.empty((0, dimension), dtype=np.uint8)
        """As faiss has signed bytes: 128 is zero."""
        self._scales = np.empty(0, dtype=np.float32)
        self._size = self._trained_on = 0
        kind = faiss.ScalarQuantizer.QT_8bit_uniform
        self._ranking: Any = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        # of 256 steps the first is about the least value: a byte stands for itself less 128
        self._ranking.train(np.repeat(np.array([[-128.5], [126.5]], dtype=np.float32), dimension, axis=1))
        self._ranking.add(np.zeros((RANKED_AT_ONCE, dimension), dtype=np.float32))
        memory: Any = faiss.rev_swig_ptr(self._ranking.codes.data(), RANKED_AT_ONCE * dimension)
        self._ranked = memory.reshape(RANKED_AT_ONCE, dimension)
        """The bytes of `_ranking`, for the candidates of one search, which holds the owner's lock."""
        self._file: InvertedFile | RaBitQFile | None = None

    def __len__(self) -> int:
        return self._size

    def add(self, keys: Vectors) -> None:
        self.put(self.prepared(keys))

    def prepared(self, keys: Vectors) -> PreparedKeys:
        """What `put` takes of `keys`: all that can be done without the owner's lock is done."""
        codes, scales = quantize(keys)
        file = self._file
        return PreparedKeys(keys, codes, scales, file, file.placed(keys) if file is not None else None)

    def put(self, prepared: PreparedKeys) -> None:
        start, end = self._size, self._size + len(prepared.keys)
        if end > len(self._codes):
            # in place, so that a large bank is never held twice, and by little, as new memory is filled with zeros
            capacity = max(end, min(int(1.25 * len(self._codes)), len(self._codes) + GROWN_BY), 1024)
            self._codes.resize((capacity, self._dimension), refcheck=False)
            self._scales.resize(capacity, refcheck=False)
        self._codes[start:end], self._scales[start:end] = prepared.codes, prepared.scales
        if self._file is not None:
            placed = prepared.placed if prepared.file is self._file else None  # there is another file since
            self._file.put(placed or self._file.placed(prepared.keys))
        self._size = end

    def keys(self, positions: IdArray, lock: AbstractContextManager[Any] = UNLOCKED) -> Vectors:
        """As of a `FlatStore`: rounded to the bytes that are stored."""
        with lock:
            codes, scales = self._codes[positions], self._scales[positions, None]
        keys: Vectors = codes.astype(np.float32)
        keys -= 128
        keys *= scales
        return keys

    def nearest(self, key: Vectors, count: int) -> Nearest:
        if self._file is None:
            raise RuntimeError("the inverted file is not trained yet")
        positions = self._file.candidates(key, count)
        products = np.empty(len(positions), dtype=np.float32)
        by_row = np.empty(RANKED_AT_ONCE, dtype=np.float32)
        for start in range(0, len(positions), RANKED_AT_ONCE):
            part = positions[start : start + RANKED_AT_ONCE]
            # any other mode copies them twice
            np.take(self._codes, part, axis=0, out=self._ranked[: len(part)], mode="clip")
            of_part, order = self._ranking.search(key[None], RANKED_AT_ONCE)
            by_row[order[0]] = of_part[0]
            products[start : start + len(part)] = by_row[: len(part)]
        scores = products * self._scales[positions]
        return positions, scores, float(scores[-1]) if len(scores) else -np.inf

    @property
    def outgrown_at(self) -> int:
        """The size at which the inverted file should be made anew."""
        if isinstance(self._file, RaBitQFile):
            return RABITQ_GROWTH * self._file.size  # many may have come while it was made
        return min(GROWTH * self._trained_on, self._rabitq_above)

    def trained(self, size: int, read: Callable[[IdArray], Vectors]) -> InvertedFile | RaBitQFile:
        """An inverted file made for the first `size` keys, read by `read`. The store keeps its own until `use`."""
        order = np.random.default_rng(self._seed).permutation(size)[: 40 * list_count(size)]
        file: InvertedFile | RaBitQFile
        if size > self._rabitq_above:
            file = RaBitQFile(order, read, size, self._seed)
        else:
            file = InvertedFile((read(part) for part in portions(order)), size, self._dimension, self._seed)
        for part in portions(np.arange(size)):
            file.add(read(part))
        return file

    def use(self, file: InvertedFile | RaBitQFile) -> None:
        self._file = file
        self._trained_on = self._size

    def only(self, positions: IdArray) -> CompressedStore:
        """A new store of these keys alone, with a file of its own."""
        store = CompressedStore(self._dimension, self._seed, self._rabitq_above)
        store._codes = self._codes[positions]
        store._scales = self._scales[positions]
        store._size = len(positions)
        store.use(store.trained(len(positions), store.keys))
        return store


def quantize(keys: Vectors) -> tuple[np.ndarray, Vectors]:
    """Bytes (n, d) and the scale of each row (n,), so that (bytes - 128) × scale ≈ keys."""
    scales = np.abs(keys).max(axis=1, initial=0) / 127
    scales[scales == 0] = 1.0
    return (np.rint(keys / scales[:, None]) + 128).astype(np.uint8), scales.astype(np.float32)
