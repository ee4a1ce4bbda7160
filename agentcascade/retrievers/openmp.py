"""Threads of OpenMP, in which faiss computes: how many those have that call it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROCESS = os.getpid()
"""That loaded this module; any other is a child of it."""


@contextmanager
def one_thread() -> Iterator[None]:
    """The calling thread alone, which has as many as before afterwards.

    A few keys gain nothing from more, and lose much beside busy ones; and where a thread has had others before a fork,
    it waits for them for ever in the child.
    """
    import faiss

    library: Any = faiss
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


@contextmanager
def all_threads() -> Iterator[None]:
    """As many as there are; in a forked child, which may have been forked amid others' work, one."""
    if os.getpid() == PROCESS:
        yield
    else:
        with one_thread():
            yield
