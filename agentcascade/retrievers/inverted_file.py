"""Inverted file of keys: those like each other lie in one list, and a search looks at a few lists."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

COMPONENTS = 128
"""Directions kept of a key to find candidates; they are ranked on all of its bytes afterwards."""
PROBES = 24
"""Lists searched at least; one in 80 of many lists."""
LONG, OF_LONG = 4, 2 / 3
"""Of lists that have grown so many times longer, this share is searched: as much is found in them (recall@6 of recorded
episodes .960 and .961, `bench_retrieval.py` with 100,000 steps)."""
AT_ONCE = 4_000
"""Keys handled at a time."""
FEW = 256
"""Keys up to which each one's nearest list is found by all products at once: a quarter of the time of faiss's search"""


class InvertedFile:
    """faiss IVF over the keys' leading components, one byte each."""

    def __init__(self, sample: Iterator[Vectors], size: int, dimension: int, seed: int) -> None:
        import faiss

        library: Any = faiss
        first = next(sample)
        # second moments, not covariance: inner products change when a mean is taken off
        _, directions = np.linalg.eigh(first[:10_000].T @ first[:10_000])
        self._leading = linear_map(directions[:, ::-1][:, : min(COMPONENTS, dimension)].T)
        lists = list_count(size)
        self._index = library.index_factory(self._leading.d_out, f"IVF{lists},SQ8", library.METRIC_INNER_PRODUCT)
        self._size, self._probes = size, min(lists, max(PROBES, lists // 80))
        self._index.nprobe, self._index.cp.seed, self._index.cp.niter = self._probes, seed + 1, 8
        self._index.cp.min_points_per_centroid = 1
        self._index.train(np.concatenate([self._leading.apply(keys) for keys in chain([first], sample)]))
        self._centroids = linear_map(self._index.quantizer.reconstruct_n(0, lists))
        self._every = library.SearchParametersIVF(nprobe=lists)
        self._pointer = library.swig_ptr

    def add(self, keys: Vectors) -> None:
        self.put(self.placed(keys))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def placed(self, keys: Vectors) -> tuple[Vectors, IdArray]:
        """The leading components of `keys`, and the list that each belongs into: most of the work of adding."""
        components = self._leading.apply(keys)
        return components, nearest_lists(components, self._index.quantizer, self._centroids)

    def put(self, placed: tuple[Vectors, IdArray]) -> None:
        components, lists = placed
        if not len(lists):
            return
        self._index.add_core(len(components), self._pointer(components), None, self._pointer(lists))
        if len(self) > LONG * self._size:
            self._index.nprobe = max(1, int(OF_LONG * self._probes))

    def candidates(self, key: Vectors, count: int) -> IdArray:
        query = self._leading.apply(key[None])
        found = self._index.search(query, count)[1][0]
        if count and found[-1] < 0:  # the probed lists hold fewer
            found = self._index.search(query, count, params=self._every)[1][0]
        positions: IdArray = found[found >= 0]
        return positions


def linear_map(matrix: Vectors) -> Any:
    """faiss's product of keys (n, in) with `matrix` (out, in), in as many threads as OpenMP has for who calls.

    numpy's BLAS starts threads of its own, which wait for each other: 12 keys took it 96 ms, at most 2.6 s, on a busy
    machine where this took .12 ms, at most 25 ms.
    """
    import faiss

    library: Any = faiss
    product = library.LinearTransform(matrix.shape[1], matrix.shape[0], False)
    library.copy_array_to_vector(np.ascontiguousarray(matrix, dtype=np.float32).ravel(), product.A)
    product.is_trained = True
    return product


def nearest_lists(components: Vectors, quantizer: Any, centroids: Any) -> IdArray:
    """The list that each key belongs into. `centroids` is the map by those of `quantizer`."""
    if len(components) > FEW:
        found: IdArray = quantizer.assign(components, 1).ravel()
    else:
        found = centroids.apply(components).argmax(axis=1)
    return found


def inner_products(rows: Vectors, key: Vectors) -> Vectors:
    """Those of float32 `rows` (n, d), contiguous, with `key` (d,), in the calling thread alone.

    For one key the threads that BLAS may start cost more than they bring.
    """
    import faiss

    library: Any = faiss
    products = np.empty(len(rows), dtype=np.float32)
    pointers = [library.swig_ptr(array) for array in (products, key, rows)]
    library.fvec_inner_products_ny(*pointers, rows.shape[1], len(rows))
    return products


def list_count(size: int) -> int:
    """Lists of an inverted file of `size` keys."""
    return int(max(1, min(4096, 4 * np.sqrt(size), size / 39)))


def portions(positions: IdArray) -> Iterator[IdArray]:
    """Portions of `AT_ONCE` positions."""
    return (positions[start : start + AT_ONCE] for start in range(0, len(positions), AT_ONCE))
