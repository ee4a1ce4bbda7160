"""Judge of an episode: whether it succeeded, asked of a function or of a model where nobody says."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from agentcascade._util.gathering import Gatherer, Gone
from agentcascade.billing.door import SECONDS, Bill, Door, Tab
from agentcascade.billing.shares import Share, SharedBill
from agentcascade.errors import BudgetExceeded, InvalidAction
from agentcascade.messages import text_of
from agentcascade.prompts import yes_no
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.together import SharedPrompt, read_verdicts, share_verdicts
from agentcascade.prompts.transcripts import render_step
from agentcascade.protocols import ChatModel, Judge
from agentcascade.types import Account, CacheUse, Completion, Judgement, Message, Purpose, Role, Trajectory

OPTIONS: Mapping[str, Any] = {"temperature": 0.0}
MOST_TOGETHER = 64
"""Questions of one call."""
CHARACTERS = 60_000
"""Of the episodes of one call, together."""
UNFIT = frozenset({400, 413, 422})
"""HTTP statuses by which a provider refuses a prompt, too long a one among them: each question alone may fit."""


class JudgeQuestion(NamedTuple):
    """An episode to be judged, and who pays for it.

    Args:
        trajectory: What the judge is shown.
        accounts: Budgets into which its part of a call must fit.
        bill: Where its part is noted.
    """

    trajectory: Trajectory
    accounts: tuple[Account, ...] = ()
    bill: Bill | None = None


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
    """Judge that asks a chat model. Raises `InvalidAction` when it answers neither yes nor no.

    Args:
        model: Is asked, at its effort.
        question: Whose answer is yes or no.
        prompts: Templates of the question.
        together: The most episodes of one namespace that are asked about in one call; 1: each has its own.
        characters: The most characters of the episodes of one call; a longer one is asked about alone.
        wait_seconds: For which a question waits for others to share a call with.
        max_tokens: The model's limit for an answer to one question; an answer to several has as many times that.
    """

    def __init__(
        self,
        model: ChatModel,
        question: str,
        prompts: Prompts = DEFAULT,
        *,
        together: int = 1,
        characters: int = CHARACTERS,
        wait_seconds: float = 1.0,
        max_tokens: int | None = None,
    ) -> None:
        self.model: ChatModel = model
        self._question, self._prompts = question, prompts
        self._wait_seconds = wait_seconds
        self.together: int = min(together, MOST_TOGETHER)
        self._characters, self._max_tokens = characters, max_tokens
        self._gatherer: Gatherer[JudgeQuestion, bool | None] = Gatherer(self.together, characters, wait_seconds)

    def asking(self, together: int) -> ModelJudge:
        """The same judge, asked about another number of episodes at once."""
        return ModelJudge(
            self.model,
            self._question,
            self._prompts,
            together=together,
            characters=self._characters,
            wait_seconds=self._wait_seconds,
            max_tokens=self._max_tokens,
        )

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
        """Judge a trajectory through `door`, within `accounts` and so many seconds, on `bill`.

        Where several may share a call it waits a moment for others; it is asked alone where none come, or where the
        shared answer holds no verdict on it.
        """
        tab = _Tee(bill)
        success = None
        if self.together > 1 and (size := len(self._episode(trajectory))) <= self._characters:
            keys = frozenset(account for account in accounts if account.scope == "key")
            success = await self._gatherer.ask(
                (id(door), trajectory.namespace, keys, cache_use, seconds),
                JudgeQuestion(trajectory, tuple(accounts), tab),
                size,
                lambda questions, gone: self._ask_shared(questions, door, seconds, cache_use, gone),
            )
        if success is None:
            success = await self._ask_alone(trajectory, door, accounts, tab, seconds, cache_use)
        return Judgement(success, tuple(tab.calls))

    async def ask_all(
        self, questions: Sequence[JudgeQuestion], door: Door, seconds: float = SECONDS, *, at_once: int = 4
    ) -> list[Judgement | Exception]:
        """Judge many trajectories, as many together as may share a call; unreadable ones once more, each alone.

        Args:
            questions: What is asked, of any namespaces: no call mixes them.
            door: Through which. Each question's part of a bill must fit into its own budgets.
            seconds: Within which each call ends.
            at_once: Calls that are under way at a time.

        Returns:
            Of each question the verdict with its part of the bills, or why there is none; in the latter case, too, its
            own `bill` has its part.
        """
        answers: dict[int, Judgement | Exception] = {}
        free = asyncio.Semaphore(at_once)

        async def judge_group(indices: Sequence[int]) -> None:
            tabs = [_Tee(questions[i].bill or Tab()) for i in indices]
            group = [questions[i]._replace(bill=tab) for i, tab in zip(indices, tabs)]
            async with free:
                try:
                    verdicts: Sequence[bool | None] = await self._ask_shared(group, door, seconds, "auto")
                except Exception as error:
                    answers.update(dict.fromkeys(indices, error))
                    return
                for index, question, tab, success in zip(indices, group, tabs, verdicts):
                    try:
                        if success is None:
                            success = await self._ask_alone(question.trajectory, door, question.accounts, tab, seconds)
                        answers[index] = Judgement(success, tuple(tab.calls))
                    except Exception as error:
                        answers[index] = error

        await asyncio.gather(*map(judge_group, self.groups([q.trajectory for q in questions])))
        return [answers[index] for index in range(len(questions))]

    async def _ask_alone(
        self,
        trajectory: Trajectory,
        door: Door,
        accounts: Sequence[Account],
        bill: Bill,
        seconds: float,
        cache_use: CacheUse = "auto",
    ) -> bool:
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
        return self.read(completion)

    async def _ask_shared(
        self,
        questions: Sequence[JudgeQuestion],
        door: Door,
        seconds: float,
        cache_use: CacheUse,
        gone: Gone = lambda _: False,
    ) -> list[bool | None]:
        """The verdicts of one call about all of them, which are of one namespace; None for what is to be asked alone:
        where the answer holds no verdict, the call does not fit into somebody's budget, or the prompt is refused."""
        alone: list[bool | None] = [None] * len(questions)
        if len(questions) < 2:
            return alone
        if len({question.trajectory.namespace for question in questions}) > 1:
            raise ValueError("a shared call holds episodes of one namespace, not of several")
        shared = self.share([q.trajectory for q in questions])
        weights = [len(self._episode(q.trajectory)) for q in questions]
        try:
            completion = await door.call(
                self.model,
                [{"role": "user", "content": shared.text}],
                self.options(len(questions)),
                role="teacher",
                purpose="judge",
                bill=SharedBill([q.bill or Tab() for q in questions], weights, gone),
                shares=[Share(weight, q.accounts) for weight, q in zip(weights, questions)],
                seconds=seconds,
                namespace=questions[0].trajectory.namespace,
                cache_use=cache_use,
            )
        except Exception as error:
            if isinstance(error, BudgetExceeded) or getattr(error, "status_code", None) in UNFIT:
                return alone
            raise
        return self.read_together(completion, shared)

    def groups(self, trajectories: Sequence[Trajectory]) -> list[list[int]]:
        """Indices of trajectories that are asked about together: of one namespace, and no more than a call may hold."""
        groups: list[list[int]] = []
        open_groups: dict[str, tuple[list[int], int]] = {}
        for index, trajectory in enumerate(trajectories):
            size = len(self._episode(trajectory)) if self.together > 1 else 0
            group, characters = open_groups.get(trajectory.namespace, ([], 0))
            if not group or len(group) >= self.together or characters + size > self._characters:
                group, characters = [], 0
                groups.append(group)
            group.append(index)
            open_groups[trajectory.namespace] = group, characters + size
        return groups

    def messages(self, trajectory: Trajectory) -> list[Message]:
        """What the model is asked of a trajectory."""
        prompts, quoting = self._prompts, self._prompts.quoting
        text = prompts.render(
            "judge",
            question=self._question,
            episode=quoting.fence("episode", self._episode(trajectory), trajectory.id),
            note=prompts.render("judge_note") if quoting.on else "",
        )
        return [{"role": "user", "content": text}]

    def share(self, trajectories: Sequence[Trajectory]) -> SharedPrompt:
        """What the model is asked of several."""
        return share_verdicts(self._question, [self._episode(t) for t in trajectories], self._prompts)

    def options(self, count: int = 1) -> Mapping[str, Any]:
        """The options of a call about so many."""
        if self._max_tokens is None or count == 1:
            return OPTIONS
        return {**OPTIONS, "max_tokens": self._max_tokens * count}

    def _episode(self, trajectory: Trajectory) -> str:
        """An episode as the model is shown it, quoted."""
        prompts = self._prompts
        steps = "\n".join(render_step(step, prompts) for step in trajectory.steps)
        return prompts.render("episode", goal=prompts.quoting.text(trajectory.goal), steps=steps)

    def read(self, completion: Completion) -> bool:
        """Whether the answer says that the goal was reached. Raises `InvalidAction` for one that says neither."""
        answer = text_of(completion.messages[0])
        success = yes_no.verdict(answer)
        if success is None:
            raise InvalidAction(f"the judge {self.model.name} answered neither yes nor no: {answer[:80]!r}")
        return success

    def read_together(self, completion: Completion, shared: SharedPrompt) -> list[bool | None]:
        """The verdicts of an answer to several questions; None where it holds none that can be read."""
        return read_verdicts(text_of(completion.messages[0]), shared.codes)


class _Tee(Tab):
    """A question's own bill, which is handed on to `bill`."""

    def __init__(self, bill: Bill) -> None:
        super().__init__()
        self._bill = bill

    def add_call(self, role: Role, purpose: Purpose, completion: Completion | None) -> None:
        super().add_call(role, purpose, completion)
        self._bill.add_call(role, purpose, completion)

    def add_failure(self, what: str, error: BaseException) -> None:
        self._bill.add_failure(what, error)

    def model_time(self) -> AbstractContextManager[None]:
        return self._bill.model_time()
