"""RaBitQ: inverted file of one bit for each component of a key rotated at random (Gao & Long 2024).

In a million steps it finds more of the true neighbours than bytes of a key's leading components do; a search of a small
namespace costs more by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcascade.retrievers.inverted_file import (
    AT_ONCE,
    COMPONENTS,
    PROBES,
    inner_products,
    linear_map,
    list_count,
    nearest_lists,
    portions,
)

if TYPE_CHECKING:
    from agentcascade.protocols import IdArray, Vectors

WIDTH = 1_024
"""Bits of a key, at least"""
QUERY_BITS = 4
"""Of each component of a query, which is compared with one bit of a key's"""
MANY = 100
"""One in so many lists is searched: in a million steps, 40 of 4,003 find .949 of the nearest, 24 .938"""
BLOCK = 128
"""Components rotated together: a whole matrix would cost nine times more for keys of 1,152"""


class RandomRotation:
    """Rotation of keys (n, dimension), fixed by `seed`; inner products stay what they were.

    What a key holds is spread over all components of a block, so that a bit of each tells as much as any other. Narrow
    keys get more components than they had, `width` in all.
    """

    def __init__(self, dimension: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._blocks = -(-max(WIDTH, dimension) // BLOCK)
        self.width = self._blocks * BLOCK
        self._places = rng.permutation(self.width)[:dimension]
        self._block = np.linalg.qr(rng.standard_normal((BLOCK, BLOCK)))[0].astype(np.float32)

    def rotated(self, keys: Vectors) -> Vectors:
        """Keys (n, width) with the inner products of `keys` (n, dimension)."""
        padded = np.zeros((len(keys), self.width), dtype=np.float32)
        padded[:, self._places] = keys
        # one small product for each key: BLAS starts no threads for it
        products: Vectors = np.matmul(padded.reshape(len(keys), self._blocks, BLOCK), self._block)
        return products.reshape(len(keys), self.width)


class RaBitQFile:
    """faiss IVF: lists by the keys' leading components; in them a bit for each component of a rotated key.

    Args:
        sample: positions of the keys that the lists are found from.
        read: gives the keys (n, dimension) at some positions.
        size: keys that the file is made for.
    """

    def __init__(self, sample: IdArray, read: Callable[[IdArray], Vectors], size: int, seed: int) -> None:
        import faiss

        library: Any = faiss
        first = read(sample[:AT_ONCE])
        _, directions = np.linalg.eigh(first.T @ first)
        self._leading = linear_map(directions[:, ::-1][:, :COMPONENTS].T)
        self._rotation = RandomRotation(first.shape[1], seed)
        self.size = size
        self._lists = list_count(size)
        clustering = library.Kmeans(
            self._leading.d_out, self._lists, niter=8, seed=seed + 1, spherical=True, min_points_per_centroid=1
        )
        clustering.train(np.concatenate([self._leading.apply(read(part)) for part in portions(sample)]))
        self._nearest = clustering.index
        self._centroids = linear_map(clustering.centroids)
        self._means = self._mean_keys(read(part) for part in portions(sample))
        self._flat = library.IndexFlat(self._rotation.width, library.METRIC_INNER_PRODUCT)
        self._flat.add(self._means)
        self._index = library.IndexIVFRaBitQ(
            self._flat, self._rotation.width, self._lists, library.METRIC_INNER_PRODUCT
        )
        self._index.is_trained, self._index.qb = True, QUERY_BITS
        self._probes = min(self._lists, max(PROBES, self._lists // MANY))
        self._pointer = library.swig_ptr

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, keys: Vectors) -> None:
        self.put(self.placed(keys))

    def placed(self, keys: Vectors) -> tuple[Vectors, IdArray]:
        """Rotated keys, and the list that each belongs into: most of the work of adding."""
        own = nearest_lists(self._leading.apply(keys), self._nearest, self._centroids)
        return self._rotation.rotated(keys), own

    def put(self, placed: tuple[Vectors, IdArray]) -> None:
        rotated, lists = placed
        if not len(lists):
            return
        self._index.add_core(len(rotated), self._pointer(rotated), None, self._pointer(lists))

    def candidates(self, key: Vectors, count: int) -> IdArray:
        """Positions of the `count` keys that are nearest as far as their bits tell, best first."""
        components, rotated = self._leading.apply(key[None]), self._rotation.rotated(key[None])
        found = self._in_lists(components, rotated, count, self._probes)
        if count and found[-1] < 0:  # the probed lists hold fewer
            found = self._in_lists(components, rotated, count, self._lists)
        positions: IdArray = found[found >= 0]
        return positions

    def _in_lists(self, components: Vectors, rotated: Vectors, count: int, probes: int) -> IdArray:
        lists = self._nearest.search(components, probes)[1]
        products = inner_products(self._means[lists[0]], rotated[0])[None]
        self._index.nprobe = probes
        found: IdArray = self._index.search_preassigned(rotated, count, lists, products)[1][0]
        return found

    def _mean_keys(self, sample: Iterator[Vectors]) -> Vectors:
        """The mean of the rotated keys of each list; zero for a list without any."""
        shape = self._lists, self._rotation.width
        sums, counts = np.zeros(shape, dtype=np.float32), np.zeros((self._lists, 1), dtype=np.float32)
        for keys in sample:
            rotated, own = self.placed(keys)
            np.add.at(sums, own, rotated)
            np.add.at(counts, own, 1)
        sums /= np.maximum(counts, 1)
        return sums
