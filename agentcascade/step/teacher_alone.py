"""Counterfactual of a step: what the teacher alone would have paid for it, without demonstrations, with its own cache.

An agent of the teacher alone reads, at every step, what it sent at the step before from its provider's prompt cache.
So its cache is simulated over the episode, by its published terms (`models/prompt_cache`) and the time between steps:
it always hits, so savings are rather said too small. Where the teacher took the step and the one before, its bill is
that of the teacher alone. Where it comes back after the student, its bill holds what the switch cost as well: the cache
that was abandoned (`cache_regret`).

A step that the response cache answered costs the teacher alone nothing either: with the same cache it would have been
answered the same way, and nothing went to a provider whose prompt cache it could warm.

The state is this process' own. Of an episode that it did not see before, the prompt of the step before is read off the
conversation, and is taken to be in the cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from math import inf
from typing import NamedTuple

from agentcascade._util.lru_cache import LRUCache
from agentcascade.models.effort import EffortModel
from agentcascade.models.prompt_cache import CacheTerms, fingerprint, prompt_parts, shared_messages
from agentcascade.models.tokens import TOKENS_PER_MESSAGE
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.step.caching import teacher_terms
from agentcascade.step.context import StepContext
from agentcascade.step.effort_ceiling import capped
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import Call, Role, Usage, total

EPISODES = 5_000
"""Remembered at once."""
HEADS = 1_000
"""Tools and system prompts remembered at once."""
AS_BILLED = ("teacher", "collect", "shadow")
"""Modes in which the teacher takes every step, so that its bill is that of the teacher alone."""


class Alone(NamedTuple):
    """The teacher alone at a step: its dollars, and what was paid more since its cache was not what it would be."""

    dollars: Decimal | None
    regret: Decimal | None


class Sent(NamedTuple):
    """What the teacher alone would have sent last in an episode, and who really took that step."""

    messages: tuple[int, ...]
    """Fingerprints."""
    at: float
    by: Role


class TeacherAlone:
    """The teacher's own prompt cache over the episodes of a cascade, had it taken every step."""

    def __init__(self) -> None:
        self._sent: LRUCache[tuple[str, str, str], Sent] = LRUCache(EPISODES)
        self._heads: LRUCache[tuple[str, int], float] = LRUCache(HEADS)

    def estimate(self, context: StepContext, request: Request, record: StepRecord) -> Alone:
        """Dollars of the step with the teacher alone, and the step's cache regret; None where a price is unknown."""
        teacher, acts = context.teacher, record.acts
        if teacher is None:
            return Alone(None, None)
        if record.has_cost_nothing:
            return Alone(Decimal(0), Decimal(0))
        if record.is_cached:
            return Alone(Decimal(0), Decimal(0))
        if acts and record.mode in AS_BILLED and not record.teacher_shown and not record.teacher_spared:
            return Alone(billed := total(acts), None if billed is None else Decimal(0))
        terms = teacher_terms(context, request)
        shared, before = self._shared(context, request, record, terms)
        if acts and record.teacher_spared:  # alone it would read the whole history, mostly from its cache
            usage = sum((call.usage for call in acts), Usage())
            prompt = max(0, usage.prompt - record.teacher_shown) + record.teacher_spared
            whole = terms.usage(prompt, round(shared * prompt), output=usage.output)
            dollars = teacher.dollars(whole.model_copy(update={"reasoning": usage.reasoning}))
            return Alone(dollars, None if dollars is None else Decimal(0))
        if acts:
            return _of_bill(teacher, acts, record.teacher_shown, terms, shared, before)
        answer = record.answer_usage()
        if answer is None:
            return Alone(None, None)
        prompt, output = answer.prompt, answer.output + min(answer.reasoning, _most_thinking(teacher, request))
        dollars = teacher.dollars(terms.usage(prompt, round(shared * prompt), output=round(output)))
        return Alone(dollars, None if dollars is None else Decimal(0))

    def _shared(
        self, context: StepContext, request: Request, record: StepRecord, terms: CacheTerms
    ) -> tuple[float, Role | None]:
        """(share of the prompt that the teacher alone had cached, who took the step before; None: not known)."""
        if terms.never:
            return 0.0, None
        sees_memory = context.config.memory.teacher_sees_memory or request.remembered is request.messages
        messages = request.remembered if sees_memory else request.messages
        prints, ends = request.parts(context.count) if sees_memory else prompt_parts(messages, context.count)
        key = record.situation.namespace, record.situation.episode, context.teacher.name if context.teacher else ""
        last, now = self._sent.get(key), context.clock()
        answered = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].get("role") == "assistant"), 0)
        if last is None:
            shared, before = answered, None if answered else record.answered_by
        else:
            shared, before = shared_messages(prints, last.messages), last.by
            if now - last.at > terms.seconds:
                shared = 0
        self._sent.put(key, Sent(prints, now, record.answered_by))
        head = next((i for i, m in enumerate(messages) if m.get("role") not in ("system", "developer")), len(messages))
        if shared < head or (not shared and request.tools):
            shared = max(shared, self._head(key[2], request, prints[:head], terms, now))
        else:
            self._head(key[2], request, prints[:head], terms, now)
        return _share(ends, shared, request, context.count), before

    def _head(self, teacher: str, request: Request, prints: tuple[int, ...], terms: CacheTerms, now: float) -> int:
        """How many messages of tools and system prompt other episodes left in the cache."""
        key = teacher, hash((prints, fingerprint({"tools": request.tools or []})))
        at = self._heads.get(key)
        self._heads.put(key, now)
        return len(prints) if at is not None and now - at <= terms.seconds else 0


def _most_thinking(teacher: ChatModel, request: Request) -> float:
    """Tokens that the teacher would have thought at most: a student at a higher effort says nothing of it."""
    model = capped(teacher, request.ceiling)
    most = model.effort.expected_tokens() if isinstance(model, EffortModel) else None
    return inf if most is None else most


def _share(ends: Sequence[int], shared: int, request: Request, count: TokenCounter) -> float:
    """The share of a prompt's tokens that stand in its first `shared` messages, and in the tools before them."""
    if not shared:
        return 0.0
    tools = count(json.dumps(request.tools, default=str)) if request.tools else 0
    whole = ends[-1] + tools + TOKENS_PER_MESSAGE
    return (ends[min(shared, len(ends) - 1)] + tools) / whole


def _of_bill(
    teacher: ChatModel, acts: Sequence[Call], shown: int, terms: CacheTerms, shared: float, before: Role | None
) -> Alone:
    """The teacher's own bill, less demonstrations that it was shown, with the cache that it alone would have had."""
    usage, paid = sum((call.usage for call in acts), Usage()), total(acts)
    if shown:
        usage = _without(usage, shown)
        paid = teacher.dollars(usage)
    if terms.never or before == "teacher":
        return Alone(paid, None if paid is None else Decimal(0))
    read = min(terms.read(round(shared * usage.prompt)), usage.prompt)
    alone = teacher.dollars(_with_read(usage, read))
    if alone is None or paid is None:
        return Alone(alone, None)
    alone = min(alone, paid)
    return Alone(alone, paid - alone)


def _without(usage: Usage, tokens: int) -> Usage:
    """The usage with so many prompt tokens less, of those that were not read from the cache before others."""
    left = dict(usage)
    for name in ("input", "cache_write", "cache_write_1h", "cached_input"):
        taken = min(tokens, left[name])
        left[name] -= taken
        tokens -= taken
    return Usage(**left)


def _with_read(usage: Usage, read: int) -> Usage:
    """The usage with at least so many prompt tokens read from the cache, which are not written to it then."""
    left = dict(usage)
    more = max(0, read - usage.cached_input)
    for name in ("cache_write_1h", "cache_write", "input"):
        taken = min(more, left[name])
        left[name] -= taken
        left["cached_input"] += taken
        more -= taken
    return Usage(**left)
