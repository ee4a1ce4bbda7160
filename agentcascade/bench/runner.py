"""Runs a benchmark: demonstrations first, then every policy over every task and seed, in worker processes.

Every random choice hangs on (seed, policy, task), never on which worker played it or when, so a run that was killed
and resumed ends in the same table as one that was not.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field

from agentcascade import assembly
from agentcascade.bench import worker
from agentcascade.bench.policies import SHADOW, TUNED
from agentcascade.bench.records import EpisodeRecord, Job, RunStore
from agentcascade.bench.suite import Task
from agentcascade.errors import BenchError
from agentcascade.types import Trajectory

OnRecord = Callable[[EpisodeRecord, bool], None]
"""Called with every record, and whether it was read from an earlier run."""


@dataclass
class Plan:
    """What to run: tasks by seed for the demonstrations and for the policies."""

    setup: worker.Setup
    policies: Sequence[str]
    demonstrations: dict[int, list[Task]]
    tasks: dict[int, list[Task]]
    workers: int = 1
    records: list[EpisodeRecord] = field(default_factory=list)


MAX_BROKEN_POOLS = 5


def run(plan: Plan, store: RunStore, on_record: OnRecord) -> list[EpisodeRecord]:
    """Play what is not played yet; returns all records. KeyboardInterrupt leaves a resumable run."""
    done = {r.key: r for r in store}
    for record in done.values():
        on_record(record, True)
    if any(needs_bank(p, plan) for p in plan.policies):
        jobs = [
            Job("demos", s, i, t.id, t.path) for s, tasks in plan.demonstrations.items() for i, t in enumerate(tasks)
        ]
        _play(jobs, plan, store, done, on_record)
        for seed in plan.tasks:
            _bank(plan, seed, [r.trajectory for j in jobs if j.seed == seed and (r := done[j.key]).trajectory])
    for policies in _stages(plan.policies):
        jobs = []
        for seed, tasks in plan.tasks.items():
            share = _teacher_share(done.values(), seed)
            # Task by task, since the engine keeps a game that it has just translated.
            jobs += [
                Job(p, seed, i, t.id, t.path, share, t.category, t.group) for i, t in enumerate(tasks) for p in policies
            ]
        _play(jobs, plan, store, done, on_record)
    return list(done.values())


def needs_bank(policy: str, plan: Plan) -> bool:
    setup = plan.setup
    config = setup.tuned if policy == TUNED and setup.tuned else setup.config
    return policy in ("student+demos", "cascade", "random", SHADOW, TUNED) and config.retrieval.k > 0


def _stages(policies: Sequence[str]) -> list[list[str]]:
    """`random` waits for the cascade's teacher share; all else can run side by side."""
    return [s for s in ([p for p in policies if p != "random"], [p for p in policies if p == "random"]) if s]


def _teacher_share(records: Iterable[EpisodeRecord], seed: int) -> float:
    own = [r for r in records if r.policy == "cascade" and r.seed == seed]
    return sum(r.teacher_steps for r in own) / max(1, sum(r.steps for r in own))


def _bank(plan: Plan, seed: int, trajectories: Sequence[Trajectory | None]) -> None:
    """Bank a seed's demonstrations in task order, so that ties rank alike in every run; repeats are ignored."""
    from agentcascade.storage import open_database

    found = [t for t in trajectories if t is not None]
    if not found:
        raise BenchError("no demonstration episode succeeded: the bank is empty. Raise --demos or change --teacher")
    config = plan.setup.config
    with closing(open_database(plan.setup.bank_urls[seed])) as database:
        bank = assembly.open_bank(config, database, worker.embedder(config.retrieval.embedder))
        asyncio.run(bank.add_many(found))


def _play(
    jobs: Sequence[Job],
    plan: Plan,
    store: RunStore,
    done: dict[tuple[str, int, str], EpisodeRecord],
    on_record: OnRecord,
) -> None:
    """Play `jobs` in worker processes. A worker that dies takes its episode back to the queue, a few times."""
    waiting = [j for j in jobs if j.key not in done]
    broken = 0
    while waiting:
        try:
            _play_in_pool(waiting, plan, store, done, on_record)
        except BrokenProcessPool as error:
            broken += 1
            if broken > MAX_BROKEN_POOLS:
                raise BenchError(
                    f"worker processes died {broken} times: see memory and the engine (agentcascade doctor); "
                    "what was played is kept, continue with --resume"
                ) from error
        waiting = [j for j in waiting if j.key not in done]


def _play_in_pool(
    jobs: Sequence[Job],
    plan: Plan,
    store: RunStore,
    done: dict[tuple[str, int, str], EpisodeRecord],
    on_record: OnRecord,
) -> None:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(plan.workers, context, initializer=worker.start, initargs=(plan.setup,))
    queue = iter(jobs)
    running: set[Future[EpisodeRecord]] = set()
    try:
        while True:
            # A short queue, so that Ctrl-C does not wait for episodes nobody asked for.
            while len(running) < 2 * plan.workers and (job := next(queue, None)) is not None:
                running.add(pool.submit(worker.play, job))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                record = future.result()
                store.append(record)
                done[record.key] = record
                on_record(record, False)
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
