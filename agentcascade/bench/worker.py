"""Plays episodes in a worker process: engine, models, embedder and banks are made once and kept."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from agentcascade.actions.equivalence import DryRun
from agentcascade.assembly import components
from agentcascade.assembly.committee import check_committee, committee_router, seat_of
from agentcascade.bench.policies import TUNED, configure_policy
from agentcascade.bench.records import EpisodeJob, EpisodeRecord
from agentcascade.bench.suites.protocol import Suite
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ModelConfig
from agentcascade.episodes.episode import Episode
from agentcascade.errors import BenchError, describe
from agentcascade.ledger.ledger import MemoryRecorder
from agentcascade.prompts.additions import rendered_by
from agentcascade.prompts.prompts import Prompts, prompts_of
from agentcascade.protocols import ChatModel, Embedder, TokenCounter
from agentcascade.step.context import FurtherStudent, StepContext
from agentcascade.types import Message, Tool, total


@dataclass(frozen=True)
class Setup:
    """Everything a worker needs to know; picklable."""

    suite: str
    config: CascadeConfig
    bank_urls: dict[int, str]
    tuned: CascadeConfig | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """The suite's own"""


class Completing:
    """What a suite's agent loop calls: the conversation in, the cascade's answer out."""

    def __init__(self, cascade: Cascade, episode: Episode, suite: Suite, prompts: Prompts) -> None:
        self._cascade, self._episode, self._suite, self._prompts = cascade, episode, suite, prompts
        self._options: dict[str, Any] = {"stop": list(suite.stop)} if suite.stop else {}

    async def __call__(self, messages: list[Message]) -> str:
        """The assistant's text."""
        return (await self._answer(messages, None)).choices[0].message.content or ""

    async def message(self, messages: list[Message], *, tools: Sequence[Tool] | None = None) -> Message:
        """The assistant's message, with its tool calls."""
        message: Message = (await self._answer(messages, tools)).choices[0].message.model_dump(exclude_none=True)
        return message

    async def _answer(self, messages: list[Message], tools: Sequence[Tool] | None) -> Any:
        self._episode.goal = self._episode.goal or self._suite.goal(messages)
        told = [rendered_by(self._prompts, message) for message in messages]
        answer = await self._episode.complete(told, tools=tools, **self._options)
        await self._cascade.settle()  # here nobody waits for the answer, and all must be counted
        return answer


class Worker:
    """One process's engine, models and cascades."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.suite: Suite = components.load(setup.suite)(**setup.options)
        teacher = setup.config.teacher
        self.environment = self.suite.environment(expert=teacher is not None and teacher.name == "offline/expert")
        self._recorder = MemoryRecorder()
        self._cascades: dict[tuple[str, int], Cascade] = {}

    def play(self, job: EpisodeJob) -> EpisodeRecord:
        """Play one episode; whatever breaks in it is its record's `error`, and a loss.

        Raises `BenchError` where the task is a file that this machine does not have.
        """
        if Path(job.path).is_absolute() and not Path(job.path).exists():  # another machine's, and nobody's loss
            raise BenchError(f"{socket.gethostname()} has no {job.path}: put the tasks where every worker finds them")
        return asyncio.run(self._play(job))

    async def _play(self, job: EpisodeJob) -> EpisodeRecord:
        started = time.perf_counter()
        cascade = self._cascade(job)
        seed = job.seed * 1_000_003 + job.index * 1009
        episode = cascade.episode(id=f"{job.policy}-{job.seed}-{job.index}", seed=seed, category=job.category)
        complete = Completing(cascade, episode, self.suite, prompts_of(self.setup.config.prompt))
        error, success = None, False
        try:
            success = (await self.suite.play(self.environment, job.path, complete)).success
        except Exception as caught:
            error = describe(caught)
        trajectory = None
        if job.policy == "demos" and success:
            trajectory = episode.trajectory(success).model_copy(update={"id": f"demo-{job.seed}-{job.index:05d}"})
        decisions, shadows = self._recorder.take_decisions(), tuple(self._recorder.shadows)
        self._recorder.shadows.clear()
        calls = [c for d in decisions for c in d.calls] + [c for s in shadows for c in s.calls]
        alone = [d.teacher_dollars for d in decisions]
        return EpisodeRecord(
            policy=job.policy,
            seed=job.seed,
            index=job.index,
            task=job.task,
            success=success,
            steps=len(episode.steps),
            teacher_steps=sum(d.answered_by == "teacher" for d in episode.decisions),
            dollars=total(calls),
            teacher_dollars=None if None in alone else sum(d for d in alone if d is not None),
            seconds=time.perf_counter() - started,
            error=error,
            group=job.group,
            decisions=tuple(decisions),
            shadows=shadows,
            trajectory=trajectory,
        )

    def _cascade(self, job: EpisodeJob) -> Cascade:
        key = job.policy, job.seed
        if key not in self._cascades:
            base = self.setup.tuned if job.policy == TUNED and self.setup.tuned else self.setup.config
            config = configure_policy(job.policy, base, teacher_share=job.teacher_share, seed=job.seed)
            self._cascades[key] = self._build(config, job.seed)
        return self._cascades[key]

    def _build(self, config: CascadeConfig, seed: int) -> Cascade:
        from agentcascade.models.tokens import token_counter

        count = token_counter()
        teacher, student = (self._model(m, count) for m in (config.teacher, config.student))
        bank = None
        if config.retrieval.k and config.mode != "collect":
            bank = components.open_bank(config, self._database(seed), embedder(config.retrieval.embedder))
        check_committee(config)
        committee = config.sampling.across == "students"
        environment = self.environment
        impossible, admissible = (getattr(environment, name, None) for name in ("impossible", "admissible"))
        if config.router.name == "random":  # else the teacher would have more than its share
            impossible = None
        dry_run = getattr(environment, "dry_run", None) if config.actions.dry_run else None
        context = StepContext(
            config=config,
            router=committee_router(config) if committee else components.make_router(config.router),
            count=count,
            teacher=teacher,
            student=student,
            students=self._further(config, count),
            bank=bank,
            actions=components.format_of(config),
            validators=() if impossible is None else (impossible,),
            mergers=(*(() if dry_run is None else (DryRun(dry_run),)), *components.make_mergers(config, count)),
            choices=None if admissible is None else lambda situation: admissible(),
            recorder=self._recorder,  # knows of steps that failed, too: they were paid for
        )
        return Cascade(context)

    def _further(self, config: CascadeConfig, count: TokenCounter) -> tuple[FurtherStudent, ...]:
        """The students beside the first."""
        made = []
        for link in config.students:
            model = self._model(link, count)
            assert model is not None
            made.append(FurtherStudent(model, components.make_router(link.router), seat_of(link)))
        return tuple(made)

    def _model(self, config: ModelConfig | None, count: TokenCounter) -> ChatModel | None:
        if config is None:
            return None
        model = components.make_model(config, count)
        if hasattr(model, "bind"):
            model.bind(self.environment)
        adapted = getattr(self.suite, "adapt", None)
        return model if adapted is None else adapted(model)

    @cache  # noqa: B019 - a worker lives as long as its process
    def _database(self, seed: int) -> Any:
        from agentcascade.storage import open_database

        return open_database(self.setup.bank_urls[seed])


@cache
def embedder(name: str) -> Embedder:
    """One embedder per process, whatever the number of banks."""
    return components.make_embedder(name)


_worker: Worker | Exception | None = None


def start(setup: Setup) -> None:
    """Initialise this process; it ends with its parent, even one that was killed."""
    global _worker
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _worker = Worker(setup)
    except Exception as error:  # raised here it would only break the pool: `play` raises it where it can be read
        _worker = error


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def play(job: EpisodeJob) -> EpisodeRecord:
    if isinstance(_worker, Exception):
        raise _worker
    assert _worker is not None
    return _worker.play(job)
