"""Audits that share a call: the teacher is asked for its next action in several situations at once (batch prompting).

Paid once are the system message and the instructions; models that think do so shorter for each of several questions
(DRQA, arXiv 2508.17803, section 2). A teacher that is asked so need not answer as it would alone: the certified risk is
of the teacher alone. Only texts are asked together: a call with tools, images or a form of answers has its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from agentcascade._util.gathering import Gatherer, Gone
from agentcascade.billing.door import Bill, Door
from agentcascade.billing.shares import Share, SharedBill, split_completion
from agentcascade.config.sections import AuditConfig
from agentcascade.errors import BudgetExceeded
from agentcascade.messages import text_of
from agentcascade.prompts.prompts import Prompts
from agentcascade.prompts.together import SharedPrompt, read_answers, share_situations
from agentcascade.protocols import ChatModel
from agentcascade.types import Account, CacheUse, Completion, Message

SHARED_OPTIONS = ("temperature", "top_p", "reasoning_effort")
"""Options that the audits of a call must have alike; with any other one an audit has a call of its own."""
LIMITS = ("max_tokens", "max_completion_tokens")
OWN_OPTIONS = ("seed", "timeout", "n")
TEXTS = ("system", "developer", "user", "assistant")
UNFIT = frozenset({400, 413, 422})
"""HTTP statuses by which a provider refuses a prompt, too long a one among them: each audit alone may fit."""


class AuditQuestion(NamedTuple):
    """What the teacher is asked by an audit.

    Args:
        model: The teacher.
        messages: The conversation.
        options: What goes with it.
        namespace: Whose money it is.
        accounts: Budgets into which it must fit.
        bill: Where its part is noted, where it is no batch's.
        cache_use: What the step's request says of the response cache.
    """

    model: ChatModel
    messages: Sequence[Message]
    options: Mapping[str, Any]
    namespace: str
    accounts: tuple[Account, ...]
    bill: Bill | None = None
    cache_use: CacheUse = "auto"

    @property
    def head(self) -> Sequence[Message]:
        """Messages that those of a call have in common: the system's."""
        first = self.messages[0]
        return [first] if first["role"] in TEXTS[:2] else []

    @property
    def size(self) -> int:
        return sum(len(text_of(message)) for message in self.messages[len(self.head) :])

    @property
    def key(self) -> Hashable | None:
        """What the audits of one call have in common; None for one that shares none."""
        given = {name: value for name, value in self.options.items() if value not in (None, [], ())}
        named = given.keys() - {*SHARED_OPTIONS, *LIMITS, *OWN_OPTIONS}
        if named or int(given.get("n") or 1) > 1 or not all(map(_is_text, self.messages)) or not self.size:
            return None
        options = {name: given[name] for name in (*SHARED_OPTIONS, *LIMITS) if name in given}
        keys = frozenset(account for account in self.accounts if account.scope == "key")
        head = json.dumps([dict(message) for message in self.head], sort_keys=True)
        return id(self.model), self.namespace, keys, json.dumps(options, sort_keys=True), head, self.cache_use


def _is_text(message: Message) -> bool:
    plain = message["role"] in TEXTS and isinstance(message.get("content"), str)
    return plain and not any(message.get(name) for name in ("tool_calls", "function_call", "audio", "refusal"))


def groups_of(questions: Sequence[AuditQuestion], settings: AuditConfig) -> list[list[int]]:
    """Indices of the questions that share a call, or have their own; in order."""
    groups: list[list[int]] = []
    open_groups: dict[Hashable, tuple[list[int], int]] = {}
    for index, question in enumerate(questions):
        key = question.key if settings.together > 1 else None
        if key is None:
            groups.append([index])
            continue
        group, size = open_groups.get(key, ([], 0))
        if not group or len(group) >= settings.together or size + question.size > settings.together_characters:
            group, size = [], 0
            groups.append(group)
        group.append(index)
        open_groups[key] = group, size + question.size
    return groups


def shared_call(
    questions: Sequence[AuditQuestion], prompts: Prompts
) -> tuple[list[Message], dict[str, Any], SharedPrompt]:
    """Messages and options of a call about all of them, and how its answer is read."""
    first = questions[0]
    shared = share_situations([question.messages[len(question.head) :] for question in questions], prompts)
    options = {name: value for name, value in first.options.items() if name in (*SHARED_OPTIONS, *LIMITS, "timeout")}
    limits = {**getattr(first.model, "defaults", {}), **options}
    options |= {name: limits[name] * len(questions) for name in LIMITS if limits.get(name)}
    return [*first.head, {"role": "user", "content": shared.text}], options, shared


def read_shared(
    completion: Completion, questions: Sequence[AuditQuestion], shared: SharedPrompt
) -> list[Completion | None]:
    """Each question's answer with its part of the bill; None where it has none that can be read."""
    parts = split_completion(completion, [question.size for question in questions])
    texts = read_answers(text_of(completion.messages[0]), shared.codes)
    return [None if not text else _of_shared(part, text, len(questions)) for part, text in zip(parts, texts)]


def _of_shared(part: Completion, text: str, situations: int) -> SharedCompletion:
    messages = ({"role": "assistant", "content": text},)
    return SharedCompletion(**{**dict(part), "messages": messages, "situations": situations})


class SharedCompletion(Completion):
    """Completion of one audit out of a call about `situations` of them: alone the teacher may say something else."""

    situations: int


class AuditSharing:
    """Audits under way that wait a moment for others to share a call with.

    Args:
        door: Through which the teacher is asked.
        settings: The configuration's ``audit``.
        prompts: Templates of the question.
        seconds: Within which a call ends.
    """

    def __init__(self, door: Callable[[], Door], settings: AuditConfig, prompts: Prompts, seconds: float) -> None:
        self._door, self._prompts, self._seconds, self._settings = door, prompts, seconds, settings
        self._gatherer: Gatherer[AuditQuestion, Completion | None] = Gatherer(
            settings.together, settings.together_characters, settings.together_seconds
        )

    async def ask(self, question: AuditQuestion) -> Completion | None:
        """The teacher's answer from a shared call; None where it is to be asked alone.

        Raises what `Door.call` raises, but for a budget that a part does not fit into, and prompts that are refused.
        """
        key = question.key
        if key is None or question.size > self._settings.together_characters:
            return None
        return await self._gatherer.ask(key, question, question.size, self._ask_shared)

    def flush(self) -> None:
        """Ask what waits, without waiting for more."""
        self._gatherer.flush()

    async def _ask_shared(self, questions: Sequence[AuditQuestion], gone: Gone) -> Sequence[Completion | None]:
        if len(questions) < 2:
            return [None] * len(questions)
        messages, options, shared = shared_call(questions, self._prompts)
        weights = [question.size for question in questions]
        bills = [question.bill for question in questions if question.bill is not None]
        try:
            completion = await self._door().call(
                questions[0].model,
                messages,
                options,
                role="teacher",
                purpose="audit",
                bill=SharedBill(bills, weights, gone),
                shares=[Share(weight, question.accounts) for weight, question in zip(weights, questions)],
                seconds=self._seconds,
                namespace=questions[0].namespace,
                cache_use=questions[0].cache_use,
            )
        except Exception as error:
            if isinstance(error, BudgetExceeded) or getattr(error, "status_code", None) in UNFIT:
                return [None] * len(questions)
            raise
        return read_shared(completion, questions, shared)
