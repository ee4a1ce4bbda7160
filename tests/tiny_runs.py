"""Runs of the tiny suite, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agentcascade.bench import runner
from agentcascade.bench.policies import POLICIES
from agentcascade.bench.records import EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.runner import RunPlan
from agentcascade.bench.suites.protocol import Task
from agentcascade.bench.worker import Setup
from agentcascade.config.load import CascadeConfig

SETTINGS = {"suite": "tiny"}
SEEDS = (0, 1)
DEMOS = [Task(f"demo {i}", f"count demo{i}") for i in range(3)]
TASKS = [Task(f"task {i}", f"count task{i}") for i in range(4)]


def play(
    folder: Path,
    *,
    policies: tuple[str, ...] = POLICIES,
    tasks: list[Task] = TASKS,
    demos: list[Task] = DEMOS,
    seeds: tuple[int, ...] = SEEDS,
    workers: int = 2,
    suite: str = "tiny_suite:Suite",
    stop_after: int | None = None,
    ray: str | None = None,
    bank: str | None = None,
    bank_is: str | None = None,
    teacher: str = "tiny_suite:Teacher",
    student: Mapping[str, Any] = MappingProxyType({"name": "tiny_suite:Student"}),
    stopped: dict[str, str] | None = None,
    prompt: Mapping[str, Any] = MappingProxyType({}),
) -> list[EpisodeRecord]:
    """A run of the tiny suite in `folder`, or the rest of it; Ctrl-C after `stop_after` records of its own."""
    config = CascadeConfig.model_validate(
        {
            "teacher": {"name": teacher},
            "student": dict(student),
            "retrieval": {"embedder": "hashing:64", "index": "exact", "k": 2},
            "actions": {"format": "react"},
            "prompt": dict(prompt),
        }
    )
    store = EpisodeRunFolder(folder, SETTINGS, resume=True)
    setup = Setup(suite, config, {s: bank_is or store.bank_url(s, bank) for s in seeds})
    plan = RunPlan(setup, policies, dict.fromkeys(seeds, demos), dict.fromkeys(seeds, tasks), workers, ray)
    plan.stopped = {} if stopped is None else stopped
    fresh = 0

    def on_record(record: EpisodeRecord, resumed: bool) -> None:
        nonlocal fresh
        fresh += not resumed
        if fresh == stop_after:
            raise KeyboardInterrupt

    try:
        return runner.run_benchmark(plan, store, on_record)
    finally:
        store.close()


TIMES = {"id", "seconds", "created_at", "overhead_ms", "embedding_ms"}


def without_times(value: Any) -> Any:
    """A dump without what differs from run to run: random ids, and how long things took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def comparable(records: list[EpisodeRecord]) -> list[Any]:
    return [without_times(r.model_dump(mode="json")) for r in sorted(records, key=lambda r: r.key)]
