"""Worker processes of this machine: results that came at the same time as a failure."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from agentcascade.bench.pools import local


def test_results_that_came_with_a_failure_are_handed_over_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_them(running: Collection[Future[int]], return_when: str) -> Any:
        return wait(running)

    def play(number: int) -> int:
        if number == 3:
            raise ValueError("broke")
        return number

    monkeypatch.setattr(local, "ProcessPoolExecutor", lambda workers, *_, **__: ThreadPoolExecutor(workers))
    monkeypatch.setattr(local, "wait", all_of_them)  # as where the asker is slow
    came: list[int] = []
    with pytest.raises(ValueError, match="broke"):
        came.extend(local.ProcessPool(8, print).map(play, range(16)))
    assert sorted(came) == [n for n in range(16) if n != 3]
