"""Demonstration cache: an episode's next prompt begins as its last one did, so that the provider's cache hits.

Fresh demonstrations fit better, but they stand before the conversation, and all that follows a change is billed in
full. The earlier ones are kept where what the cache saves is more than what the student is expected to lose:

    saving = dollars of the fresh prompt − dollars of the kept one, each with what the cache would read of it
    loss   = (mean score of the fresh − mean score of the kept) × sensitivity × dollars of a teacher's call

The sensitivity says how many agreements, and so deferrals, one unit of score is worth. What was kept is remembered
in this process alone; where it is lost, the demonstrations are fresh.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.models.tokens import TOKENS_PER_MESSAGE, count_messages
from agentcascade.prompts import demonstrations
from agentcascade.prompts.demonstrations import Prompt
from agentcascade.protocols import ChatModel, TokenCounter
from agentcascade.step.context import StepContext
from agentcascade.step.sample_batches import caches
from agentcascade.types import Demonstration, Message, Situation, Usage

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank

EPISODES = 2_000
"""Remembered at once."""


class SentPrompt(NamedTuple):
    """What the student was sent last."""

    shown: tuple[Demonstration, ...]
    messages: tuple[int, ...]
    """Hashes."""


class CachedPrompt(NamedTuple):
    """A prompt, its tokens, and how many of them the provider would find in its cache."""

    prompt: Prompt
    tokens: int
    cached: int

    def dollars(self, model: ChatModel) -> float | None:
        """Of one request: what the step's later ones send again is read from the cache, whichever prompt it is."""
        dollars = model.dollars(Usage(input=self.tokens - self.cached, cached_input=self.cached))
        return None if dollars is None else float(dollars)


class DemonstrationCache:
    """The demonstrations that the episodes of a cascade were shown last."""

    def __init__(self) -> None:
        self._sent: LRUCache[tuple[str, str], SentPrompt] = LRUCache(EPISODES)

    async def choose(
        self,
        context: StepContext,
        situation: Situation,
        messages: Sequence[Message],
        fresh: Prompt,
        room: int,
        output: int,
    ) -> Prompt:
        """`fresh`, or the prompt with the windows that the episode was shown before.

        `messages` are without demonstrations, `room` is their token budget, `output` the tokens of an answer.
        """
        key = situation.namespace, situation.episode
        last, chosen = self._sent.get(key), fresh
        if last is not None and context.bank is not None and _windows(last.shown) != _windows(fresh.shown):
            kept = await _kept(context.bank, situation, last.shown)
            again = demonstrations.build(messages, kept, budget=room, count=context.count, prompts=context.prompts)
            whole = len(again.shown) == len(last.shown) > 0
            if whole and (
                context.config.retrieval.sticky == "always" or saves_more(context, messages, last, again, fresh, output)
            ):
                chosen = again
        if chosen.shown:
            self._sent.put(key, SentPrompt(chosen.shown, tuple(map(_hash, chosen.messages))))
        return chosen


def saves_more(
    context: StepContext,
    messages: Sequence[Message],
    last: SentPrompt,
    kept: Prompt,
    fresh: Prompt,
    output: int,
) -> bool:
    """Whether keeping saves more than it is expected to lose; False where a price is not known."""
    student, teacher, settings = context.student, context.teacher, context.config
    if student is None or teacher is None or not fresh.shown:
        return False
    prompts = [
        cached_prompt(p, last, messages, student, context.count, settings.sampling.cached_from_tokens)
        for p in (kept, fresh)
    ]
    with_kept, with_fresh = (o.dollars(student) for o in prompts)
    call = teacher.dollars(Usage(input=count_messages(messages, context.count), output=output))
    if with_kept is None or with_fresh is None or call is None:
        return False
    lost = max(0.0, _score(fresh.shown) - _score(kept.shown)) * settings.retrieval.sticky_sensitivity
    return with_fresh - with_kept > min(1.0, lost) * float(call)


def cached_prompt(
    prompt: Prompt,
    last: SentPrompt,
    messages: Sequence[Message],
    student: ChatModel,
    count: TokenCounter,
    cached_from: int,
) -> CachedPrompt:
    """What the provider has cached of a prompt: the messages that it shares with the last one, in front.

    Of the message that the demonstrations stand in, its own text in front of them is shared as well.
    """
    sizes = [count_messages([m], count) - TOKENS_PER_MESSAGE for m in prompt.messages]
    shared = 0
    for message, size, earlier in zip(prompt.messages, sizes, last.messages):
        if _hash(message) != earlier:
            break
        shared += size
    first = next((i for i, m in enumerate(messages) if m.get("role") == "user"), 0)
    shared = max(shared, count_messages(messages[: first + 1], count) - TOKENS_PER_MESSAGE)
    total = sum(sizes) + TOKENS_PER_MESSAGE
    return CachedPrompt(prompt, total, shared if shared >= cached_from and caches(student, total) else 0)


async def _kept(bank: Bank, situation: Situation, shown: Sequence[Demonstration]) -> list[Demonstration]:
    """The windows as they score now, best first; without those that the bank no longer holds."""
    scores = await apart(bank.scores, situation, shown)
    kept = [d.model_copy(update={"score": s}) for d, s in zip(shown, scores) if s is not None]
    return sorted(kept, key=lambda d: -d.score)


def _windows(shown: Sequence[Demonstration]) -> set[tuple[str, int, int]]:
    return {(d.trajectory, d.start, len(d.steps)) for d in shown}


def _score(shown: Sequence[Demonstration]) -> float:
    return sum(d.score for d in shown) / len(shown)


def _hash(message: Message) -> int:
    return hash(json.dumps(message, sort_keys=True, default=str))
