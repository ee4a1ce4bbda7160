"""Stores of keys in memory, searched by inner product: as floats, or quantized to bytes behind an inverted file.

Positions count from 0 in the order of adding. Neither store locks: their owner does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agentcascade.retrievers.inverted_file import InvertedFile, inner_products, list_count, portions
from agentcascade.retrievers.rabitq import RaBitQFile

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

    Nearest = tuple[IdArray, Vectors]
    """positions and their inner products, fewer than asked for only where the store holds fewer"""

GROWTH = 6
"""The inverted file is trained anew when the store has grown so many times."""
RABITQ_ABOVE = 200_000
"""Keys of a store up to which its inverted file holds bytes: faster to search there, and enough is found"""
RABITQ_GROWTH = 4
"""As `GROWTH`, of a file whose lists are many already"""
GROWN_BY = 4_096
"""Keys for which there is room at most beyond those that there are: room is made under the owner's lock"""


class PreparedKeys(NamedTuple):
    """Keys with all that adding them takes: bytes, scales, and their places in an inverted file."""

    keys: Vectors
    codes: np.ndarray
    scales: Vectors
    file: InvertedFile | RaBitQFile | None
    placed: tuple[Vectors, IdArray] | None


RANKED_AT_ONCE = 192
"""Candidates ranked together: those of a search for eight groups, as floats in memory that is kept."""


class FlatStore:
    """float32 keys; a search looks at every one."""

    def __init__(self, dimension: int) -> None:
        import faiss

        self._dimension = dimension
        self._index: Any = faiss.IndexFlatIP(dimension)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, keys: Vectors) -> None:
        self._index.add(keys)

    def prepared(self, keys: Vectors) -> Vectors:
        """What `put` takes of `keys`; made without the owner's lock."""
        return keys

    def put(self, prepared: Vectors) -> None:
        self.add(prepared)

    def keys(self, positions: IdArray) -> Vectors:
        keys: Vectors = self._index.reconstruct_batch(positions)
        return keys

    def nearest(self, key: Vectors, count: int) -> Nearest:
        scores, positions = self._index.search(key[None], count)
        return positions[0], scores[0]

    def only(self, positions: IdArray) -> FlatStore:
        """A new store of these keys alone."""
        store = FlatStore(self._dimension)
        store.add(self.keys(positions))
        return store


class CompressedStore:
    """Keys as signed bytes with one scale each (28 % of their float32 size with the inverted file)."""

    def __init__(self, dimension: int, seed: int, rabitq_above: int = RABITQ_ABOVE) -> None:
        self._dimension = dimension
        self._seed = seed
        self._rabitq_above = rabitq_above
        self._codes = np.empty((0, dimension), dtype=np.int8)
        self._scales = np.empty(0, dtype=np.float32)
        self._size = self._trained_on = 0
        self._ranked = np.empty((RANKED_AT_ONCE, dimension), dtype=np.int8)
        self._ranked_floats = np.empty((RANKED_AT_ONCE, dimension), dtype=np.float32)
        """Of one search, which holds the owner's lock."""
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

    def keys(self, positions: IdArray) -> Vectors:
        keys: Vectors = self._codes[positions].astype(np.float32)
        keys *= self._scales[positions, None]
        return keys

    def nearest(self, key: Vectors, count: int) -> Nearest:
        if self._file is None:
            raise RuntimeError("the inverted file is not trained yet")
        positions = self._file.candidates(key, count)
        products = np.empty(len(positions), dtype=np.float32)
        for start in range(0, len(positions), RANKED_AT_ONCE):
            part = positions[start : start + RANKED_AT_ONCE]
            codes, rows = self._ranked[: len(part)], self._ranked_floats[: len(part)]
            np.take(self._codes, part, axis=0, out=codes, mode="clip")  # any other mode copies them twice
            np.copyto(rows, codes)
            products[start : start + len(part)] = inner_products(rows, key)
        return positions, products * self._scales[positions]

    @property
    def outgrown_at(self) -> int:
        """The size at which the inverted file should be made anew."""
        if isinstance(self._file, RaBitQFile):
            return RABITQ_GROWTH * self._trained_on
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
    """Signed bytes (n, d) and the scale of each row (n,), so that bytes × scale ≈ keys."""
    scales = np.abs(keys).max(axis=1, initial=0) / 127
    scales[scales == 0] = 1.0
    return np.rint(keys / scales[:, None]).astype(np.int8), scales.astype(np.float32)
