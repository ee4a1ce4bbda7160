"""OpenMP's threads: what a caller has stays as it was, and no forked child waits for those of its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import faiss
import numpy as np
import pytest

from agentcascade.retrievers.faiss_index import FaissRetriever

library: Any = faiss

IN_A_CHILD = """
import os, sys, threading
import numpy as np
from agentcascade.retrievers.faiss_index import FaissRetriever

keys = np.random.default_rng(0).normal(size=(6_000, 16)).astype(np.float32)
keys /= np.linalg.norm(keys, axis=1, keepdims=True)
rows = np.arange(len(keys))
index = FaissRetriever(16, exact_below=1_000)
adding = threading.Thread(target=index.add, args=("a", rows[:900], rows[:900], keys[:900]))
adding.start()
adding.join()
index.search("a", keys[0], 3)
if sys.argv[1] == "trained":
    index.add("a", rows[900:2_000], rows[900:2_000], keys[900:2_000])
    index.settle()
    index.remove("a", range(900, 1_950))
child = os.fork()
if child == 0:
    assert index.search("a", keys[0], 3)[0][0] == 0
    index.add("a", rows[2_000:] + 10_000, rows[2_000:] + 10_000, keys[2_000:])
    index.settle()
    index.remove("a", range(12_000, 14_000))
    assert index.search("a", keys[5_000], 1)[0][0] == 15_000
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("before", ["searched", "trained"])
def test_a_child_of_a_process_that_has_searched_adds_trains_and_searches(before: str) -> None:
    command = [sys.executable, "-c", IN_A_CHILD, before]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "2"}, start_new_session=True) as process:
        try:
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)


def test_who_adds_searches_and_removes_has_as_many_threads_as_before() -> None:
    keys, rows = np.random.default_rng(0).normal(size=(3_000, 16)).astype(np.float32), np.arange(3_000)
    index, before = FaissRetriever(16, exact_below=250), library.omp_get_max_threads()
    library.omp_set_num_threads(3)
    try:
        index.add("a", rows, rows, keys)
        index.search("a", keys[0], 3)
        index.remove("a", range(2_000))
        index.recall("a")
        assert library.omp_get_max_threads() == 3
    finally:
        library.omp_set_num_threads(before)
