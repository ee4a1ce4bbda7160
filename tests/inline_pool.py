"""A worker pool in the test's own process, through pickle as another's; for runs whose processes are not the point."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from agentcascade.bench import worker
from agentcascade.bench.pools import local


class InlinePool:
    """Pool whose worker is here. Whatever goes to it or comes back is pickled, as between processes."""

    shares_files = True

    def __init__(self, workers: int, start: Callable[..., None], *arguments: Any) -> None:
        started, given = pickle.loads(pickle.dumps((start, arguments)))
        started(*given)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            called, given = pickle.loads(pickle.dumps((function, item)))
            yield pickle.loads(pickle.dumps(called(given)))

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        worker._worker = None
        worker.Worker._database.cache_clear()
        worker.embedder.cache_clear()


@pytest.fixture
def plays_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs play in this process, but in tests that are marked `processes`."""
    if request.node.get_closest_marker("processes") is None:
        monkeypatch.setattr(local, "ProcessPool", InlinePool)
