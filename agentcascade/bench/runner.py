"""Run a benchmark: demonstrations first, then every policy over every task and seed, in a pool of workers.

Every random choice is seeded by (seed, policy, task), never by worker or time, so a run that was killed and resumed
gives the same table as one that was not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from types import TracebackType

from agentcascade.assembly import components
from agentcascade.bench import worker
from agentcascade.bench.early_stop import MAX_ALIKE_FAILURES, FailureBreaker
from agentcascade.bench.policies import TUNED, uses_demonstrations
from agentcascade.bench.pools.base import Pool, WorkersDied
from agentcascade.bench.pools.open import open_pool
from agentcascade.bench.records import EpisodeJob, EpisodeRecord, EpisodeRunFolder
from agentcascade.bench.suites.protocol import Task
from agentcascade.errors import BenchError
from agentcascade.types import Trajectory

OnRecord = Callable[[EpisodeRecord, bool], None]
"""Callback with every record, and whether it was read from an earlier run"""
Done = dict[tuple[str, int, str], EpisodeRecord]


@dataclass
class RunPlan:
    """Plan of a run: policies, and tasks by seed for them and for the demonstrations."""

    setup: worker.Setup
    policies: Sequence[str]
    demonstrations: dict[int, list[Task]]
    tasks: dict[int, list[Task]]
    workers: int = 1
    ray: str | None = None
    """Address of a Ray cluster to play on, instead of processes of this machine"""
    stopped: dict[str, str] = field(default_factory=dict)
    """Policies that were ended since their episodes kept failing alike, and the failure"""


MAX_BROKEN_POOLS = 5
DEMONSTRATIONS = "demos"


def run_benchmark(plan: RunPlan, store: EpisodeRunFolder, on_record: OnRecord) -> list[EpisodeRecord]:
    """Run the episodes that are not played yet or broke; returns all records.

    A policy whose episodes keep failing alike is ended and listed in `plan.stopped`. Raises `BenchError`, also where
    the demonstrations fail so. KeyboardInterrupt leaves a resumable run.
    """
    done = {r.key: r for r in store if r.failure is None}
    for record in done.values():
        on_record(record, True)
    with _Workers(plan, store, done, on_record) as crew:
        if any(needs_bank(p, plan) for p in plan.policies):
            demonstrations = plan.demonstrations.items()
            jobs = [
                EpisodeJob(DEMONSTRATIONS, s, i, t.id, t.path)
                for s, tasks in demonstrations
                for i, t in enumerate(tasks)
            ]
            crew.play(jobs)
            if DEMONSTRATIONS in plan.stopped:
                raise BenchError(
                    f"no demonstrations were collected: {MAX_ALIKE_FAILURES} episodes in a row broke alike, "
                    f"of {plan.stopped[DEMONSTRATIONS]}"
                )
            for seed in plan.tasks:
                _bank_demonstrations(
                    plan, seed, [r.trajectory for j in jobs if j.seed == seed and (r := done[j.key]).trajectory]
                )
        for policies in _stages(plan.policies):
            if policies == ["random"] and "cascade" in plan.stopped:
                plan.stopped["random"] = f"{plan.stopped['cascade']} (of the cascade, at whose share it mixes)"
            jobs = []
            for seed, tasks in plan.tasks.items():
                share = _teacher_share(done.values(), seed)
                # Task by task, since the engine keeps a game that it has just translated.
                jobs += [
                    EpisodeJob(p, seed, i, t.id, t.path, share, t.category, t.group)
                    for i, t in enumerate(tasks)
                    for p in policies
                ]
            crew.play(jobs)
    return list(done.values())


def needs_bank(policy: str, plan: RunPlan) -> bool:
    """Whether a policy retrieves demonstrations from a bank."""
    setup = plan.setup
    config = setup.tuned if policy == TUNED and setup.tuned else setup.config
    return uses_demonstrations(policy) and config.retrieval.k > 0


def _stages(policies: Sequence[str]) -> list[list[str]]:
    """Stages of a run: `random` waits for the cascade's teacher share, all else runs side by side."""
    return [s for s in ([p for p in policies if p != "random"], [p for p in policies if p == "random"]) if s]


def _teacher_share(records: Iterable[EpisodeRecord], seed: int) -> float:
    of_cascade = [r for r in records if r.policy == "cascade" and r.seed == seed]
    return sum(r.teacher_steps for r in of_cascade) / max(1, sum(r.steps for r in of_cascade))


def _bank_demonstrations(plan: RunPlan, seed: int, trajectories: Sequence[Trajectory | None]) -> None:
    """Bank a seed's demonstrations in task order, so that ties rank alike in every run; duplicates are ignored."""
    from agentcascade.storage import open_database

    successes = [t for t in trajectories if t is not None]
    if not successes:
        raise BenchError("no demonstration episode succeeded: the bank is empty. Raise --demos or change --teacher")
    config = plan.setup.config
    with closing(open_database(plan.setup.bank_urls[seed])) as database:
        bank = components.open_bank(config, database, worker.embedder(config.retrieval.embedder))
        asyncio.run(bank.add_many(successes))


class _Workers:
    """Worker pool of a run, replaced when workers die."""

    def __init__(self, plan: RunPlan, store: EpisodeRunFolder, done: Done, on_record: OnRecord) -> None:
        self._plan = plan
        self._store = store
        self._done = done
        self._on_record = on_record
        self._breaker = FailureBreaker()
        self._stack = ExitStack()
        self._pool: Pool | None = None

    def __enter__(self) -> _Workers:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def play(self, jobs: Sequence[EpisodeJob]) -> None:
        """Play the jobs that are not played yet; a dead worker's episode is played again, a few times."""
        broken, stopped = 0, self._plan.stopped
        while waiting := [j for j in jobs if j.key not in self._done and j.policy not in stopped]:
            try:
                for record in self._opened().map(worker.play, (j for j in waiting if j.policy not in stopped)):
                    self._store.append(record)
                    self._done[record.key] = record
                    self._on_record(record, False)
                    if self._breaker.is_one_too_many(record.policy, record.failure) and record.failure is not None:
                        stopped.setdefault(record.policy, record.failure)
            except WorkersDied as error:
                broken += 1
                if error.for_good or broken > MAX_BROKEN_POOLS:
                    how = "over one task each time" if error.for_good else f"{broken} times"
                    raise BenchError(
                        f"worker processes died {how}: see memory and the engine (agentcascade doctor); what was "
                        "played is kept, continue with --resume"
                    ) from error
                self._pool = None
                self._stack.close()

    def _opened(self) -> Pool:
        if self._pool is None:
            plan = self._plan
            pool = self._stack.enter_context(open_pool(plan.workers, worker.start, plan.setup, ray=plan.ray))
            files = [url for url in plan.setup.bank_urls.values() if url.startswith("sqlite")]
            if files and not pool.shares_files:
                raise BenchError(
                    "the bank is a file of this machine, and some Ray workers are on others: give a bank that all of "
                    "them reach, --bank postgresql://…"
                )
            self._pool = pool
        return self._pool
