"""Demonstration cache: which demonstrations a prompt shows, and where, so that the provider's prompt cache hits.

Fresh demonstrations fit better. At the end of the first user message they stand before the history, and all that
follows a change is billed in full; behind it, before the new observation, only they are. The earlier ones, kept where
they stood, are read from the cache with all the rest. Of these three the planner takes the one with the least

    dollars of this prompt and of the next one like it, each with what the cache holds of it by then
    + (mean score of the fresh − mean score of the shown) × sensitivity × dollars of a teacher's call

The sensitivity says how many agreements, and so deferrals, one unit of score is worth. What was sent is remembered in
this process alone, for as long as the cache lives; where it is lost, nothing counts as cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from agentcascade._util.lru_cache import LRUCache
from agentcascade._util.threads import apart
from agentcascade.models.prompt_cache import CacheTerms, PromptParts, fingerprint, shared_messages
from agentcascade.models.quirks import model_quirks
from agentcascade.models.tokens import TOKENS_PER_MESSAGE
from agentcascade.prompts import demonstrations
from agentcascade.prompts.demonstrations import Place, Prompt, observation_start
from agentcascade.step.caching import student_terms, teacher_terms
from agentcascade.step.context import StepContext
from agentcascade.step.request import Request
from agentcascade.types import Demonstration, Message, Situation

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank

EPISODES = 2_000
"""Remembered at once."""
MARGIN = 1e-9
"""Relative; a smaller saving is none."""


class SentPrompt(NamedTuple):
    """What the student was sent last."""

    shown: tuple[Demonstration, ...]
    messages: tuple[int, ...]
    """Fingerprints."""
    at: float
    """On the cache's clock."""


class PlannedPrompt(NamedTuple):
    """A prompt that may be sent."""

    prompt: Prompt
    fresh: bool
    tokens: int
    stable: int
    """Tokens in front that the next prompt of this kind begins with."""
    cached: int
    """Tokens in front that the provider holds now."""
    head: int
    """Tokens in front of demonstrations that stand first."""

    def dollars(self, context: StepContext, terms: CacheTerms) -> float | None:
        """Of this prompt alone."""
        return _prompt_dollars(context, terms, self.tokens, self.cached, self.stable)

    def next_dollars(self, context: StepContext, terms: CacheTerms) -> float | None:
        """Of the next one of its kind: what a step adds is the same for all, and left out."""
        return _prompt_dollars(context, terms, self.tokens, self.stable, self.stable)


def _prompt_dollars(context: StepContext, terms: CacheTerms, tokens: int, cached: int, stable: int) -> float | None:
    assert context.student is not None
    usage = terms.usage(tokens, cached, cached=stable if terms.marked else None)
    dollars = context.student.dollars(usage)
    return None if dollars is None else float(dollars)


class DemonstrationCache:
    """The demonstrations that the episodes of a cascade were shown last."""

    def __init__(self) -> None:
        self._sent: LRUCache[tuple[str, str], SentPrompt] = LRUCache(EPISODES)

    async def choose(
        self,
        context: StepContext,
        situation: Situation,
        request: Request,
        retrieved: Sequence[Demonstration],
        room: int,
        output: int,
    ) -> Prompt:
        """The prompt with demonstrations that is expected to cost least, or as `sticky` and `place` say.

        Args:
            context: Of the step.
            situation: Names the episode.
            request: Without demonstrations.
            retrieved: Fresh demonstrations, best first.
            room: Tokens that demonstrations may add.
            output: Tokens of an answer.
        """
        messages, sticky, place = request.remembered, context.config.retrieval.sticky, _place(context, request)

        def built(shown: Sequence[Demonstration], *where: Place) -> list[Prompt]:
            return demonstrations.build_at(
                messages,
                shown,
                where,
                budget=room,
                count=context.count,
                prompts=context.prompts,
                task=situation.goal,
            )

        terms = student_terms(context, request) if sticky != "never" or place == "auto" else CacheTerms()
        if place == "auto" and terms.never:
            place = "first"
        if sticky == "never" and place != "auto":
            return built(retrieved, place)[0]
        key = situation.namespace, situation.episode
        last = self._sent.get(key)
        places: list[Place] = [place] if place != "auto" else ["first", "last"]
        if place == "auto" and observation_start(messages) is None:
            places = ["first"]  # before the first answer it is the same place
        prompts = [(prompt, True) for prompt in built(retrieved, *places)]
        if sticky == "never" and request.parts(context.count).ends[-1] + prompts[0][0].tokens < terms.minimum:
            return prompts[0][0]
        if sticky != "never" and last is not None and context.bank is not None:
            again = await self._kept(context.bank, situation, last, prompts[0][0], built, places[0])
            if again is not None:
                prompts.append((again, False))
        chosen = prompts[-1 if sticky == "always" and not prompts[-1][1] else 0][0]
        if sticky != "always" and len(prompts) > 1 and chosen.shown:
            warm = last if last is not None and context.clock() - last.at <= terms.seconds else None
            planned = _planned(request.parts(context.count), messages, prompts, warm, sticky != "never")
            chosen = cheapest(context, request, planned, terms, output).prompt
        if chosen.shown:
            prints = _prints(chosen, messages, request.parts(context.count))
            self._sent.put(key, SentPrompt(chosen.shown, prints, context.clock()))
        return chosen

    async def _kept(
        self,
        bank: Bank,
        situation: Situation,
        last: SentPrompt,
        fresh: Prompt,
        built: Callable[..., list[Prompt]],
        place: Place,
    ) -> Prompt | None:
        """The prompt with all that the episode was shown last; None where that is what is fresh, or is gone."""
        if not last.shown or _windows(last.shown) == _windows(fresh.shown):
            return None
        scores = await apart(bank.scores, situation, last.shown)
        kept = [d.model_copy(update={"score": s}) for d, s in zip(last.shown, scores) if s is not None]
        (again,) = built(sorted(kept, key=lambda d: -d.score), place)
        return again if len(again.shown) == len(last.shown) else None


def _place(context: StepContext, request: Request) -> Literal["auto", "first", "last"]:
    """Where demonstrations may stand: as configured, but never where a provider would refuse them."""
    place = context.config.prompt.place
    if place == "auto" and not context.config.caching:
        return "first"
    if place != "first" and request.remembered and request.remembered[-1].get("role") in ("tool", "function"):
        sees = context.config.prompt.teacher_sees_demonstrations
        models = (context.student, *(s.model for s in context.students), context.teacher if sees else None)
        if not all(model_quirks(model.name).user_after_tools for model in models if model is not None):
            return "first"
    return place


def _planned(
    parts: PromptParts,
    messages: Sequence[Message],
    prompts: Sequence[tuple[Prompt, bool]],
    last: SentPrompt | None,
    sticky: bool,
) -> list[PlannedPrompt]:
    """What the provider has cached of each prompt: the messages in front that it shares with the last one.

    Of the message that the demonstrations stand in, its own text in front of them is shared as well.
    """
    ends = parts.ends
    first = next((i for i, m in enumerate(messages) if m.get("role") == "user"), 0)
    planned = []
    for prompt, fresh in prompts:
        at = _composed(prompt.messages, messages)
        is_behind = at == len(messages) or getattr(prompt.messages[at], "before", False)
        tokens = ends[-1] + prompt.tokens + TOKENS_PER_MESSAGE
        stays = not is_behind and (sticky or not fresh)
        stable = tokens if stays else ends[at if is_behind else at + 1]
        cached = 0
        if last is not None:
            shared = shared_messages(_prints(prompt, messages, parts), last.messages)
            cached = ends[min(shared, len(messages))] + (prompt.tokens if shared > at else 0)
            if shared >= first:
                cached = max(cached, ends[first + 1])
        planned.append(PlannedPrompt(prompt, fresh, tokens, stable, min(cached, tokens), ends[first + 1]))
    return planned


def _prints(prompt: Prompt, messages: Sequence[Message], parts: PromptParts) -> tuple[int, ...]:
    """Fingerprints of the prompt, which differs in one message from those that `parts` are of."""
    at = _composed(prompt.messages, messages)
    return (*parts.prints[:at], *map(fingerprint, prompt.messages[at : at + 1]), *parts.prints[at + 1 :])


def _composed(prompt: Sequence[Message], messages: Sequence[Message]) -> int:
    """Index of the message that holds the demonstrations."""
    return next((i for i, (a, b) in enumerate(zip(prompt, messages)) if a is not b), len(messages))


def cheapest(
    context: StepContext, request: Request, planned: Sequence[PlannedPrompt], terms: CacheTerms, output: int
) -> PlannedPrompt:
    """The prompt that is expected to cost least, with the next one; the first, fresh one where a price is not known.

    Demonstrations that stay cost agreement, this time where they are kept and the next time wherever they stand first,
    unless fresh ones follow them then.
    """
    first, *_ = planned
    kept = next((one for one in planned if not one.fresh), None)
    lost = 0.0
    if kept is not None:
        call = teacher_dollars(context, request, output)
        if call is None:
            planned, kept = [one for one in planned if one.fresh], None
        else:
            worse = max(0.0, _score(first.prompt.shown) - _score(kept.prompt.shown))
            lost = min(1.0, worse * context.config.retrieval.sticky_sensitivity) * call
    best, lowest = first, float("inf")
    for one in planned:
        now, then = one.dollars(context, terms), one.next_dollars(context, terms)
        if now is None or then is None:
            return first
        if one.stable >= one.tokens:  # it stays, or is followed by fresh ones in its place
            afresh = _prompt_dollars(context, terms, one.tokens, first.head, first.head)
            then = min(then + lost, then + lost if afresh is None else afresh)
        dollars = now + then + (0.0 if one.fresh else lost)
        if dollars < lowest * (1 - MARGIN):
            best, lowest = one, dollars
    return best


def teacher_dollars(context: StepContext, request: Request, output: int) -> float | None:
    """Of the call that a deferral takes: its cache is cold where the student takes the steps."""
    if context.teacher is None:
        return None
    prompt = request.tokens(context.count)
    usage = teacher_terms(context, request).usage(prompt, output=output)
    dollars = context.teacher.dollars(usage)
    return None if dollars is None else float(dollars)


def _windows(shown: Sequence[Demonstration]) -> set[tuple[str, int, int]]:
    return {(d.trajectory, d.start, len(d.steps)) for d in shown}


def _score(shown: Sequence[Demonstration]) -> float:
    return sum(d.score for d in shown) / len(shown)
