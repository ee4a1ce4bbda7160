"""Judge of an episode: whether it succeeded, asked of a function or of a model where nobody says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.billing.door import SECONDS, Bill, Door, Tab
from agentcascade.errors import InvalidAction
from agentcascade.messages import text_of
from agentcascade.prompts import yes_no
from agentcascade.prompts.demonstrations import render_step
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.protocols import ChatModel, Judge
from agentcascade.types import Account, CacheUse, Call, Completion, Judgement, Message, Trajectory

OPTIONS: Mapping[str, Any] = {"temperature": 0.0}


async def ask(
    judge: Judge,
    trajectory: Trajectory,
    door: Door | None = None,
    accounts: Sequence[Account] = (),
    bill: Bill | None = None,
    seconds: float = SECONDS,
    cache_use: CacheUse = "auto",
) -> Judgement:
    """Ask a judge whether a trajectory reached its goal; its own errors are raised.

    A model is asked through `door`, within `accounts`, and on `bill`, which knows of a call that failed, too.
    """
    if isinstance(judge, ModelJudge):
        return await judge.ask(trajectory, door or Door(), accounts, bill or Tab(), seconds, cache_use)
    verdict = judge(trajectory)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    return verdict if isinstance(verdict, Judgement) else Judgement(bool(verdict))


class ModelJudge:
    """Judge that asks a chat model. Raises `InvalidAction` when it answers neither yes nor no."""

    def __init__(self, model: ChatModel, question: str, prompts: Prompts = DEFAULT) -> None:
        self.model, self._question, self._prompts = model, question, prompts

    async def __call__(self, trajectory: Trajectory) -> Judgement:
        return await self.ask(trajectory, Door(), (), Tab())

    async def ask(
        self,
        trajectory: Trajectory,
        door: Door,
        accounts: Sequence[Account],
        bill: Bill,
        seconds: float = SECONDS,
        cache_use: CacheUse = "auto",
    ) -> Judgement:
        """Judge a trajectory through `door`, within `accounts` and so many seconds, on `bill`."""
        completion = await door.call(
            self.model,
            self.messages(trajectory),
            OPTIONS,
            role="teacher",
            purpose="judge",
            bill=bill,
            accounts=accounts,
            seconds=seconds,
            namespace=trajectory.namespace,
            cache_use=cache_use,
        )
        return Judgement(self.read(completion), (Call.of("teacher", "judge", completion),))

    def messages(self, trajectory: Trajectory) -> list[Message]:
        """What the model is asked of a trajectory."""
        prompts, quoting = self._prompts, self._prompts.quoting
        steps = "\n".join(render_step(step, prompts) for step in trajectory.steps)
        episode = prompts.render("episode", goal=quoting.text(trajectory.goal), steps=steps)
        text = prompts.render(
            "judge",
            question=self._question,
            episode=quoting.fence("episode", episode, trajectory.id),
            note=prompts.render("judge_note") if quoting.on else "",
        )
        return [{"role": "user", "content": text}]

    def read(self, completion: Completion) -> bool:
        """Whether the answer says that the goal was reached. Raises `InvalidAction` for one that says neither."""
        answer = text_of(completion.messages[0])
        success = yes_no.verdict(answer)
        if success is None:
            raise InvalidAction(f"the judge {self.model.name} answered neither yes nor no: {answer[:80]!r}")
        return success
