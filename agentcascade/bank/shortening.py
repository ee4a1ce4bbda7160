"""Banked reasoning in fewer words: a model rewrites it once, shorter where the step is easy.

A step is easy where a shadow or an audit of its own episode has the student agree with itself and with the teacher on
it. Where there is no such record, it is easy if its three nearest steps of other trajectories are `CLOSE` and begin
with the same word: then prompts show many like it. The originals stay in the bank; `restore` goes back to them.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import select

from agentcascade._util import bounds
from agentcascade._util.threads import apart
from agentcascade.bank.bank import Bank
from agentcascade.billing.door import Door, Tab
from agentcascade.errors import BankError, UnknownPrice, describe
from agentcascade.messages import text_of
from agentcascade.models.tokens import count_messages
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


class Words(NamedTuple):
    """The most that a thought may have."""

    easy: int = 12
    hard: int = 40


class Task(NamedTuple):
    """One trajectory's thoughts to be rewritten."""

    pk: int
    trajectory: Trajectory
    words: dict[int, int]
    """Position → the most words that its thought may have."""


class Report(NamedTuple):
    """What was done, or would be. Tokens are of the thoughts, each counted once."""

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

    def plus(self, other: Report) -> Report:
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
        words: Words | None = None,
        prompts: Prompts = DEFAULT,
        *,
        door: Door | None = None,
        accounts: Callable[[str], Sequence[Account]] = lambda namespace: (),
    ) -> None:
        self._prompts, self._door, self._accounts = prompts, door or Door(), accounts
        self.bank, self.model, self.count, self.words = bank, model, count, words or Words()
        if min(self.words) < 1:
            raise BankError(f"words {tuple(self.words)}: a thought has at least one word")

    async def tasks(self, namespace: str | None = None) -> list[Task]:
        """The trajectories that are to be done: those without a shorter thought that have one over its words."""
        with self.bank.database.begin() as connection:
            query = trajectories.newest_first(namespace).where(table.c.pk.not_in(select(shortened.c.trajectory)))
            found = trajectories.read_trajectories(connection, list(connection.execute(query).scalars()))
        made = [Task(pk, t, await self._words(t)) for pk, t in sorted(found.items())]
        return [task for task in made if task.words]

    async def _words(self, trajectory: Trajectory) -> dict[int, int]:
        evidence = await apart(self._evidence, trajectory)
        found = {}
        for position, step in enumerate(trajectory.steps):
            if len(step.reasoning.split()) <= self.words.easy:
                continue
            easy = evidence.get(step.observation)
            easy = await self._familiar(trajectory, step) if easy is None else easy
            most = self.words.easy if easy else self.words.hard
            if len(step.reasoning.split()) > most:
                found[position] = most
        return found

    def _evidence(self, trajectory: Trajectory) -> dict[str, bool]:
        """Observation → whether both models agreed on what to do, where this episode was seen by both."""
        episode = str(trajectory.metadata.get("episode", ""))
        if not episode:
            return {}
        own = (shadows.c.namespace == trajectory.namespace) & (shadows.c.episode == episode)
        columns = shadows.c.observation, shadows.c.samples, shadows.c.teacher_action
        with self.bank.database.begin() as connection:
            rows = connection.execute(select(*columns).where(own & shadows.c.teacher_action.is_not(None))).all()
        return {r.observation: {s["action"] for s in r.samples} == {r.teacher_action} for r in rows if r.samples}

    async def _familiar(self, trajectory: Trajectory, step: Step) -> bool:
        situation = Situation(
            goal=trajectory.goal,
            plan=trajectory.plan,
            observation=step.observation,
            namespace=trajectory.namespace,
        )
        found = (await self.bank.retrieve(situation, NEAR + 1)).demonstrations
        near = [d for d in found if d.trajectory != trajectory.id and d.score >= CLOSE * found[0].score][:NEAR]
        return len(near) == NEAR and {_verb(d.steps[d.match - d.start].action) for d in near} == {_verb(step.action)}

    def estimate(self, tasks: Sequence[Task]) -> Report:
        """What `run` would do to them, if every thought took all the words that it may have."""
        total = Report(left=len(tasks))
        for task in tasks:
            before = sum(self.count(task.trajectory.steps[i].reasoning) for i in task.words)
            after = math.ceil(sum(self._share(task, i) for i in task.words))
            prompt = count_messages(_messages(task, self._prompts), self.count)
            dollars = self.model.dollars(Usage(input=prompt, output=after + 8 * len(task.words)))
            total = total.plus(Report(1, *self._kinds(task), before, after, dollars))
        return total

    def _share(self, task: Task, position: int) -> float:
        text = task.trajectory.steps[position].reasoning
        return self.count(text) * task.words[position] / len(text.split())

    def _kinds(self, task: Task) -> tuple[int, int]:
        easy = sum(most == self.words.easy for most in task.words.values())
        return easy, len(task.words) - easy

    async def run(
        self,
        tasks: Sequence[Task],
        *,
        parallel: int = 4,
        max_dollars: Decimal | None = None,
        done: Callable[[Report], None] = lambda report: None,
    ) -> Report:
        """Rewrite; each trajectory is written with its bill as soon as it is answered, so a new run goes on from there.

        No call begins once `max_dollars` are spent; raises `UnknownPrice` for a limit in a model without a price.
        A trajectory whose answer is unusable is left for the next run, and said in `failures`.
        """
        if max_dollars is not None and self.model.dollars(Usage(input=1)) is None:
            raise UnknownPrice(f"the price of {self.model.name} is not known, so no limit can hold: leave it out")
        whole, waiting = Report(left=len(tasks)), iter(tasks)

        async def work() -> None:
            nonlocal whole
            while max_dollars is None or (whole.dollars or Decimal(0)) < max_dollars:
                task = next(waiting, None)
                if task is None:
                    return
                made = await self._one(task)  # `whole` is read after waiting: others add to it meanwhile
                whole = whole.plus(made)._replace(left=whole.left - 1)
                done(whole)

        await asyncio.gather(*(work() for _ in range(parallel)))
        return whole

    async def _one(self, task: Task) -> Report:
        tab, accounts = Tab(), self._accounts(task.trajectory.namespace)
        problem, shorter = "", dict[int, str]()
        try:
            completion = await self._door.call(
                self.model,
                _messages(task, self._prompts),
                {"temperature": 0.0},
                role="teacher",
                purpose="other",
                bill=tab,
                accounts=accounts,
                seconds=SECONDS,
            )
            shorter = self._shorter(task, completion)
        except ValueError as error:
            problem = f"{task.trajectory.id}: {error}"
        except Exception as error:
            problem = f"{task.trajectory.id}: {describe(error)}"
        if tab.calls:
            await apart(self._write, task, tab.calls, shorter)
        dollars = total(tab.calls)
        if not shorter:
            reason = problem or f"{task.trajectory.id}: no thought became shorter"
            return Report(dollars=dollars, failures=(reason,))
        before = sum(self.count(task.trajectory.steps[i].reasoning) for i in shorter)
        after = sum(self.count(text) for text in shorter.values())
        kept = task._replace(words={i: task.words[i] for i in shorter})
        return Report(1, *self._kinds(kept), before, after, dollars)

    def _shorter(self, task: Task, completion: Completion) -> dict[int, str]:
        """Thoughts by position: those that are there, and shorter. Raises `ValueError` for an unreadable answer."""
        text = text_of(completion.messages[0])
        start, end = text.find("{"), text.rfind("}")
        said = bounds.loads(text[start : end + 1]) if 0 <= start < end else None
        if not isinstance(said, dict):
            raise ValueError(f"{self.model.name} answered no JSON object: {text[:80]!r}")
        found = {}
        for position in task.words:
            thought = said.get(str(position + 1))
            old = task.trajectory.steps[position].reasoning
            if isinstance(thought, str) and 0 < self.count(thought.strip()) < self.count(old):
                found[position] = " ".join(thought.split())
        return found

    def _write(self, task: Task, calls: Sequence[Call], shorter: dict[int, str]) -> None:
        bills = [call.model_dump(exclude={"usage"}) | call.usage.model_dump() for call in calls]
        own = {"id": new_id("rw"), "trajectory": task.trajectory.id, "namespace": task.trajectory.namespace}
        with self.bank.database.begin(write=True) as connection:
            connection.execute(rewrites.insert(), [own | {"episode": "", "created_at": now()}])
            connection.execute(rewrite_calls.insert(), [bill | {"rewrite": own["id"]} for bill in bills])
            there = connection.execute(select(table.c.pk).where(table.c.pk == task.pk).with_for_update()).scalar()
            if shorter and there is not None:
                bank_metadata.write_shortened(connection, task.pk, shorter, self.model.name)


def _messages(task: Task, prompts: Prompts) -> list[Message]:
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
    return [{"role": "user", "content": prompts.render("shorten", steps=data)}]


def _verb(action: str) -> str:
    found = re.search(r"\w+", action)
    return found[0].casefold() if found else ""
