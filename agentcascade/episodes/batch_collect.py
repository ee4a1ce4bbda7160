"""Collecting of demonstrations from a list of tasks: one step each, answered and judged by batches, then banked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from agentcascade import conversation
from agentcascade._util import bounds
from agentcascade.actions.base import ActionFormat
from agentcascade.bank.bank import Bank
from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchAnswer, BatchRequest
from agentcascade.episodes.judge import ModelJudge
from agentcascade.episodes.judge_batch import judge_by_batch
from agentcascade.errors import InvalidAction, InvalidRequest
from agentcascade.messages import text_of
from agentcascade.protocols import ChatModel
from agentcascade.types import Account, Message, Trajectory


class Task(NamedTuple):
    """A task of one step: the conversation before it."""

    id: str
    messages: Sequence[Message]
    tools: Sequence[Any] = ()


class Collected(NamedTuple):
    """What became of the tasks: so many were answered, judged successful, and new in the bank; why others were not."""

    answered: int
    succeeded: int
    banked: int
    problems: tuple[str, ...]


def read_tasks(path: Path) -> list[Task]:
    """Tasks of a file of JSON lines, each ``{"messages": [...]}`` or ``{"goal": "..."}``, perhaps with an ``id``.

    Raises:
        InvalidRequest: A line is none; it is named.
    """
    tasks = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = bounds.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("a line is a JSON object with messages, or with a goal")
            goal = entry.get("goal")
            messages = entry.get("messages") or ([{"role": "user", "content": goal}] if isinstance(goal, str) else None)
            if not isinstance(messages, list):
                raise ValueError("give messages, or a goal")
            conversation.check(messages)
            if not next((text_of(m) for m in messages if m["role"] == "user"), "").strip():
                raise ValueError("its first user message has no text: that is the goal, without it nothing is banked")
        except ValueError as error:
            raise InvalidRequest(f"{path}, line {number}: {str(error)[:200]}") from error
        digest = blake2b(json.dumps(entry, sort_keys=True).encode(errors="replace"), digest_size=10).hexdigest()
        tasks.append(Task(str(entry.get("id") or digest)[:200], messages, entry.get("tools") or ()))
    return tasks


async def collect_by_batch(
    tasks: Sequence[Task],
    teacher: ChatModel,
    judge: ModelJudge | None,
    bank: Bank,
    batches: Batches,
    formats: ActionFormat,
    *,
    namespace: str,
    accounts: Sequence[Account],
) -> Collected:
    """Have the teacher answer every task, and bank what the judge calls a success; without one, all of it.

    Raises what `Batches.complete_all` and `Bank.add` raise.
    """
    requests = [BatchRequest(task.messages, {"tools": list(task.tools)} if task.tools else {}) for task in tasks]
    purpose: dict[str, Any] = {"role": "teacher", "namespace": namespace, "accounts": accounts}
    answers = await batches.complete_all(teacher, requests, job="bank collect", purpose="act", **purpose)
    problems = [f"{task.id}: {answer.error}" for task, answer in zip(tasks, answers) if answer.completion is None]
    trajectories = []
    for task, answer in zip(tasks, answers):
        if answer.completion is not None:
            whole = [*task.messages, answer.completion.messages[0]]
            situation = await asyncio.to_thread(conversation.read, whole, formats)
            if not situation.history[-1].action.strip():  # nothing that could be shown, nor anything to be judged
                problems.append(f"{task.id}: the answer holds no action")
                continue
            trajectories.append(
                Trajectory(
                    namespace=namespace,
                    goal=situation.goal,
                    steps=situation.history,
                    success=True,
                    model=teacher.name,
                    metadata={"task": task.id},
                )
            )
    successes = trajectories
    judged: list[BatchAnswer] = []
    if judge is not None and trajectories:
        asked = [_fixed(trajectory) for trajectory in trajectories]
        found = await judge_by_batch(judge, asked, batches, job="bank collect", accounts=lambda _: accounts)
        judged = found.answers
        successes = [trajectory for trajectory, verdict in zip(trajectories, found.verdicts) if verdict is True]
        problems += [
            f"{trajectory.metadata['task']}: {verdict}"
            for trajectory, verdict in zip(trajectories, found.verdicts)
            if isinstance(verdict, InvalidAction)
        ]
    added = [await bank.add(trajectory) for trajectory in successes]
    await batches.take([*answers, *judged])
    return Collected(len(trajectories), len(successes), sum(added), tuple(problems))


def _fixed(trajectory: Trajectory) -> Trajectory:
    """The trajectory under its task's id, so that the same question is asked after a restart."""
    return trajectory.model_copy(update={"id": f"tr_{trajectory.metadata['task']}"})
