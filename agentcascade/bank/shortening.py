"""Shortening of banked reasoning: a model rewrites it once, in fewer words where the step is easy.

A step is easy where a shadow or an audit of its own episode has the student agree with itself and with the teacher on
it. Where there is no such record, it is easy if its three nearest steps of other trajectories are `CLOSE` and begin
with the same word: then prompts show many like it. The originals stay in the bank; `restore` goes back to them.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import select

from agentcascade._util import bounds
from agentcascade._util.threads import apart
from agentcascade.bank.bank import Bank
from agentcascade.billing.door import Door, Tab
from agentcascade.errors import BankError, UnknownPrice, describe
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.storage import bank_metadata, trajectories
from agentcascade.storage.tables import rewrite_calls, rewrites, shadows, shortened
from agentcascade.storage.tables import trajectories as table
from agentcascade.types import (
    Account,
    Call,
    Completion,
    Message,
    Situation,
    Step,
    Trajectory,
    Usage,
    new_id,
    now,
    total,
)

NEAR = 3
CLOSE = 0.7
"""Share of a step's likeness to itself from which a step of another trajectory shows the same situation."""
OBSERVATION_CHARACTERS = 600
SECONDS = 600.0
"""For one trajectory."""
OPTIONS: Mapping[str, Any] = {"temperature": 0.0}


class WordLimits(NamedTuple):
    """The most words that a thought may have."""

    easy: int = 12
    hard: int = 40


class ShorteningTask(NamedTuple):
    """One trajectory's thoughts to be rewritten."""

    pk: int
    trajectory: Trajectory
    words: dict[int, int]
    """Position → the most words that its thought may have."""


class ShorteningReport(NamedTuple):
    """What shortening did, or would do. Tokens are of the thoughts, each counted once."""

    trajectories: int = 0
    easy: int = 0
    hard: int = 0
    before: int = 0
    after: int = 0
    dollars: Decimal | None = Decimal(0)
    """None where a price is not known."""
    failures: tuple[str, ...] = ()
    left: int = 0
    """Trajectories that are still to be done."""

    def plus(self, other: ShorteningReport) -> ShorteningReport:
        return self._replace(
            trajectories=self.trajectories + other.trajectories,
            easy=self.easy + other.easy,
            hard=self.hard + other.hard,
            before=self.before + other.before,
            after=self.after + other.after,
            dollars=None if self.dollars is None or other.dollars is None else self.dollars + other.dollars,
            failures=self.failures + other.failures,
        )


class Shortener:
    """Rewrites what a bank holds. `model` is the one that rewrites, the teacher as a rule.

    It is called through `door`, within the `accounts` of a trajectory's namespace.
    """

    def __init__(
        self,
        bank: Bank,
        model: ChatModel,
        count: TokenCounter,
        words: WordLimits | None = None,
        prompts: Prompts = DEFAULT,
        *,
        door: Door | None = None,
        accounts: Callable[[str], Sequence[Account]] = lambda namespace: (),
    ) -> None:
        self._prompts = prompts
        self._door = door or Door()
        self._accounts = accounts
        self.bank = bank
        self.model = model
        self.count = count
        self.words = words or WordLimits()
        if min(self.words) < 1:
            raise BankError(f"words {tuple(self.words)}: a thought has at least one word")

    async def tasks(self, namespace: str | None = None) -> list[ShorteningTask]:
        """The trajectories that are to be done: those without a shorter thought that have one over its words."""
        with self.bank.database.begin() as connection:
            query = trajectories.newest_first(namespace).where(table.c.pk.not_in(select(shortened.c.trajectory)))
            by_key = trajectories.read_trajectories(connection, list(connection.execute(query).scalars()))
        tasks = [ShorteningTask(pk, t, await self._words(t)) for pk, t in sorted(by_key.items())]
        return [task for task in tasks if task.words]

    async def _words(self, trajectory: Trajectory) -> dict[int, int]:
        evidence = await apart(self._evidence, trajectory)
        limits = {}
        for position, step in enumerate(trajectory.steps):
            if len(step.reasoning.split()) <= self.words.easy:
                continue
            easy = evidence.get(step.observation)
            easy = await self._familiar(trajectory, step) if easy is None else easy
            limit = self.words.easy if easy else self.words.hard
            if len(step.reasoning.split()) > limit:
                limits[position] = limit
        return limits

    def _evidence(self, trajectory: Trajectory) -> dict[str, bool]:
        """Observation → whether both models agreed on what to do, where this episode was seen by both."""
        episode = str(trajectory.metadata.get("episode", ""))
        if not episode:
            return {}
        of_episode = (shadows.c.namespace == trajectory.namespace) & (shadows.c.episode == episode)
        columns = shadows.c.observation, shadows.c.samples, shadows.c.teacher_action
        with self.bank.database.begin() as connection:
            rows = connection.execute(select(*columns).where(of_episode & shadows.c.teacher_action.is_not(None))).all()
        return {r.observation: {s["action"] for s in r.samples} == {r.teacher_action} for r in rows if r.samples}

    async def _familiar(self, trajectory: Trajectory, step: Step) -> bool:
        situation = Situation(
            goal=trajectory.goal,
            plan=trajectory.plan,
            observation=step.observation,
            namespace=trajectory.namespace,
        )
        retrieved = (await self.bank.retrieve(situation, NEAR + 1)).demonstrations
        nearest = [d for d in retrieved if d.trajectory != trajectory.id and d.score >= CLOSE * retrieved[0].score][
            :NEAR
        ]
        return len(nearest) == NEAR and {_verb(d.steps[d.match - d.start].action) for d in nearest} == {
            _verb(step.action)
        }

    def estimate(self, tasks: Sequence[ShorteningTask]) -> ShorteningReport:
        """What `run` would do to them, if every thought took all the words that it may have."""
        total = ShorteningReport(left=len(tasks))
        for task in tasks:
            before = sum(self.count(task.trajectory.steps[i].reasoning) for i in task.words)
            after = math.ceil(sum(self._share(task, i) for i in task.words))
            prompt = count_messages(_messages(task, self._prompts), self.count)
            dollars = self.model.dollars(Usage(input=prompt, output=after + 8 * len(task.words)))
            total = total.plus(ShorteningReport(1, *self._kinds(task), before, after, dollars))
        return total

    def _share(self, task: ShorteningTask, position: int) -> float:
        text = task.trajectory.steps[position].reasoning
        return self.count(text) * task.words[position] / len(text.split())

    def _kinds(self, task: ShorteningTask) -> tuple[int, int]:
        easy = sum(limit == self.words.easy for limit in task.words.values())
        return easy, len(task.words) - easy

    async def run(
        self,
        tasks: Sequence[ShorteningTask],
        *,
        parallel: int = 4,
        max_dollars: Decimal | None = None,
        done: Callable[[ShorteningReport], None] = lambda report: None,
    ) -> ShorteningReport:
        """Rewrite; each trajectory is written with its bill as soon as it is answered, so a new run goes on from there.

        No call begins once `max_dollars` are spent; raises `UnknownPrice` for a limit in a model without a price.
        A trajectory whose answer is unusable is left for the next run, and said in `failures`.
        """
        if max_dollars is not None and self.model.dollars(Usage(input=1)) is None:
            raise UnknownPrice(f"the price of {self.model.name} is not known, so no limit can hold: leave it out")
        report, tasks_left = ShorteningReport(left=len(tasks)), iter(tasks)

        async def work() -> None:
            nonlocal report
            while max_dollars is None or (report.dollars or Decimal(0)) < max_dollars:
                task = next(tasks_left, None)
                if task is None:
                    return
                task_report = await self._one(task)  # `whole` is read after waiting: others add to it meanwhile
                report = report.plus(task_report)._replace(left=report.left - 1)
                done(report)

        await asyncio.gather(*(work() for _ in range(parallel)))
        return report

    async def _one(self, task: ShorteningTask) -> ShorteningReport:
        tab, accounts = Tab(), self._accounts(task.trajectory.namespace)
        problem: str | None = None
        completion: Completion | None = None
        try:
            completion = await self._door.call(
                self.model,
                self.messages(task),
                OPTIONS,
                role="teacher",
                purpose="other",
                bill=tab,
                accounts=accounts,
                seconds=SECONDS,
            )
        except Exception as error:
            problem = str(error) if isinstance(error, ValueError) else describe(error)
        return await self.keep(task, completion, problem or "", tab.calls)

    def messages(self, task: ShorteningTask) -> list[Message]:
        """What the model is asked for a trajectory."""
        return _messages(task, self._prompts)

    async def keep(
        self, task: ShorteningTask, completion: Completion | None, problem: str, calls: Sequence[Call]
    ) -> ShorteningReport:
        """Write what an answer made shorter, with the bills that are not written elsewhere."""
        shorter = dict[int, str]()
        if completion is not None:
            try:
                shorter = self._shorter(task, completion)
            except ValueError as error:
                problem = str(error)
        if calls or shorter:
            await apart(self._write, task, calls, shorter)
        dollars = total(calls)
        if not shorter:
            reason = f"{task.trajectory.id}: {problem or 'no thought became shorter'}"
            return ShorteningReport(dollars=dollars, failures=(reason,))
        before = sum(self.count(task.trajectory.steps[i].reasoning) for i in shorter)
        after = sum(self.count(text) for text in shorter.values())
        shortened_task = task._replace(words={i: task.words[i] for i in shorter})
        return ShorteningReport(1, *self._kinds(shortened_task), before, after, dollars)

    def _shorter(self, task: ShorteningTask, completion: Completion) -> dict[int, str]:
        """Thoughts by position: those that are there, and shorter. Raises `ValueError` for an unreadable answer."""
        text = text_of(completion.messages[0])
        start, end = text.find("{"), text.rfind("}")
        answer = bounds.loads(text[start : end + 1]) if 0 <= start < end else None
        if not isinstance(answer, dict):
            raise ValueError(f"{self.model.name} answered no JSON object: {text[:80]!r}")
        shorter = {}
        for position in task.words:
            thought = answer.get(str(position + 1))
            old = task.trajectory.steps[position].reasoning
            if isinstance(thought, str) and 0 < self.count(thought.strip()) < self.count(old):
                shorter[position] = " ".join(thought.split())
        return shorter

    def _write(self, task: ShorteningTask, calls: Sequence[Call], shorter: dict[int, str]) -> None:
        bills = [call.model_dump(exclude={"usage"}) | call.usage.model_dump() for call in calls]
        rewrite = {"id": new_id("rw"), "trajectory": task.trajectory.id, "namespace": task.trajectory.namespace}
        with self.bank.database.begin(write=True) as connection:
            if bills:
                connection.execute(rewrites.insert(), [rewrite | {"episode": "", "created_at": now()}])
                connection.execute(rewrite_calls.insert(), [bill | {"rewrite": rewrite["id"]} for bill in bills])
            by_id = select(table.c.pk).where(table.c.id == task.trajectory.id)  # a bank embedded anew has other keys
            pk = connection.execute(by_id.with_for_update()).scalar()
            if shorter and pk is not None:
                bank_metadata.write_shortened(connection, pk, shorter, self.model.name)


def _messages(task: ShorteningTask, prompts: Prompts) -> list[Message]:
    steps = [
        {
            "step": i + 1,
            "observation": step.observation[:OBSERVATION_CHARACTERS],
            "action": step.action,
            "thought": step.reasoning,
            "words": task.words[i],
        }
        for i, step in enumerate(task.trajectory.steps)
        if i in task.words
    ]
    data = prompts.quoting.words(json.dumps({"goal": task.trajectory.goal, "steps": steps}, ensure_ascii=False))
    values = {"steps": data}
    return [Composed({"role": "user", "content": ""}, prompts.render("shorten", **values), Rendered("shorten", values))]


def _verb(action: str) -> str:
    word = re.search(r"\w+", action)
    return word[0].casefold() if word else ""
