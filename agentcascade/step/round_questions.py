"""Questions of a round of audits, asked by the provider's batch interface: several in one request, or each alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentcascade.batches.types import BatchRequest
from agentcascade.errors import StorageError
from agentcascade.prompts.prompts import Prompts
from agentcascade.protocols import ChatModel
from agentcascade.step.audit_together import AuditQuestion, groups_of, read_shared, shared_call
from agentcascade.step.kept_rounds import AskedBy, KeptRounds
from agentcascade.types import Account, Completion, Message, new_id

if TYPE_CHECKING:
    from agentcascade.batches.run import Batches
    from agentcascade.batches.types import BatchAnswer
    from agentcascade.config.sections import AuditConfig

MOST_SECONDS = 2 * 24 * 3600.0
"""Until a round is given up: a batch has 24 hours, and those before it in the provider's queue have theirs."""


class RoundQuestions:
    """Asks teachers the questions of rounds, which budgets hold and batches bill.

    Args:
        batches: Sends and bills them.
        settings: The configuration's ``audit``.
        job: What the batches are for.
        prompts: Templates of the question that audits share (``audit.together``).
        kept: Keeps the keys of the requests, for a process that comes after this one.
    """

    def __init__(
        self, batches: Batches, settings: AuditConfig, job: str, prompts: Prompts, kept: KeptRounds | None
    ) -> None:
        self._batches, self._settings, self._job, self._prompts, self._kept = batches, settings, job, prompts, kept
        self._models: dict[int, ChatModel] = {}

    @property
    def models(self) -> list[ChatModel]:
        """Those that were asked."""
        return list(self._models.values())

    async def ask(self, asked: Mapping[int, AuditQuestion], kept_round: str) -> list[BatchAnswer | Exception]:
        """The answers, in the order of the questions; one batch for each teacher, namespace and set of budgets.

        Each question has an answer of its own, paid by who asked, whatever other rounds ask: what one of them has taken
        nobody else would find.

        Args:
            asked: By their indices in the round.
            kept_round: Its id in the database, where it is kept.
        """
        places, questions = list(asked), list(asked.values())
        groups: dict[tuple[int, str, tuple[Account, ...]], list[int]] = {}
        for index, question in enumerate(questions):
            groups.setdefault((id(question.model), question.namespace, question.accounts), []).append(index)
            self._models[id(question.model)] = question.model
        answers: dict[int, BatchAnswer | Exception] = {}
        own = kept_round or new_id("ar")

        async def ask(indices: Sequence[int]) -> None:
            asking = AskedBy(self._kept, kept_round, [places[i] for i in indices])
            group = [questions[i] for i in indices]
            answers.update(zip(indices, await self._ask_group(group, asking, f"{own}:{indices[0]}")))

        await asyncio.gather(*(ask(indices) for indices in groups.values()))
        return [answers[index] for index in range(len(questions))]

    async def _ask_group(
        self, questions: Sequence[AuditQuestion], asking: AskedBy, own: str
    ) -> list[BatchAnswer | Exception]:
        """The answers to questions that are paid alike; what a shared request did not answer is sent again, alone."""
        groups = groups_of(questions, self._settings)
        alone = [group[0] for group in groups if len(group) == 1]
        answers: dict[int, BatchAnswer | Exception] = {}
        shared = [[questions[i] for i in group] for group in groups if len(group) > 1]
        calls = [shared_call(of_call, self._prompts) for of_call in shared]
        first = questions[0]
        requests = [(first, messages, _without_timeout(options)) for messages, options, _ in calls]
        asked = [group for group in groups if len(group) > 1]
        codes = [call[2].codes for call in calls]
        given = await self._send_all(requests, lambda keys: asking.note(keys, asked, codes), own)
        for group, of_call, call, answer in zip(asked, shared, calls, given):
            parts: Sequence[Completion | None] = [None] * len(group)
            if not isinstance(answer, Exception) and answer.completion is not None:
                parts = read_shared(answer.completion, of_call, call[2])
            for index, part in zip(group, parts):
                if part is None:
                    alone.append(index)
                else:
                    assert not isinstance(answer, Exception)
                    answers[index] = answer._replace(completion=part)
        again = [(questions[i], questions[i].messages, questions[i].options) for i in alone]
        single = [[i] for i in alone]
        answers.update(zip(alone, await self._send_all(again, lambda keys: asking.note(keys, single), own)))
        return [answers[index] for index in range(len(questions))]

    async def _send_all(
        self,
        asked: Sequence[tuple[AuditQuestion, Sequence[Message], Mapping[str, Any]]],
        note: Callable[[Mapping[int, str]], Awaitable[None]],
        own: str,
    ) -> list[BatchAnswer | Exception]:
        """The answers to these requests; `note` gets each one's key, by its index, before it is sent."""
        requests: dict[int, BatchRequest] = {}
        answers: dict[int, BatchAnswer | Exception] = {}
        for index, (question, messages, options) in enumerate(asked):
            try:  # one that no budget can hold is no reason to lose the others
                self._batches.poller.door.plan(question.model, messages, options, question.accounts)
                requests[index] = BatchRequest(messages, options)
            except Exception as error:
                answers[index] = error
        try:
            async with asyncio.timeout(MOST_SECONDS):
                given = await self._complete(asked[0][0], requests, note, own) if requests else []
            answers.update(zip(requests, given))
        except StorageError:  # what was sent is asked for when the database is there again
            raise
        except Exception as error:
            answers.update(dict.fromkeys(requests, error))
        return [answers[index] for index in range(len(asked))]

    async def _complete(
        self,
        first: AuditQuestion,
        requests: Mapping[int, BatchRequest],
        note: Callable[[Mapping[int, str]], Awaitable[None]],
        own: str,
    ) -> list[BatchAnswer]:
        return await self._batches.complete_all(
            first.model,
            list(requests.values()),
            job=self._job,
            role="teacher",
            purpose="audit",
            namespace=first.namespace,
            accounts=first.accounts,
            on_keys=lambda keys: note(dict(zip(requests, keys))),
            own=own,
        )


def _without_timeout(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "timeout"}
