"""Whole runs on a real Ray cluster of two workers: what they give, and what becomes of a worker that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import SETTINGS, TASKS, comparable, play

from agentcascade.bench.policies import POLICIES
from agentcascade.bench.pools import LOCAL, open_pool
from agentcascade.bench.records import RunStore
from agentcascade.bench.report import Report
from agentcascade.bench.suite import Task
from agentcascade.errors import BenchError

ray = pytest.importorskip("ray", reason="needs ray: pip install 'agentcascade[ray]'")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _disconnected() -> Iterator[None]:
    yield
    assert not ray.is_initialized(), "a run leaves no connection behind"


def test_two_ray_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    alone = play(tmp_path / "alone", workers=1)
    together = play(tmp_path / "together", ray=LOCAL)
    assert comparable(together) == comparable(alone)
    lines = (tmp_path / "together" / "episodes.jsonl").read_bytes().count(b"\n")
    assert lines == len(alone)


def test_an_episode_whose_ray_worker_died_is_played_again_and_counted_once(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    tasks = [*TASKS, Task("deadly", f"die once {marker}")]
    records = play(tmp_path / "run", policies=("teacher",), tasks=tasks, seeds=(0,), ray=LOCAL)
    assert marker.exists()
    assert sorted(r.task for r in records) == ["deadly", *(t.id for t in TASKS)]
    assert all(r.success and not r.error for r in records)
    assert (tmp_path / "run" / "episodes.jsonl").read_bytes().count(b"\n") == len(tasks)
