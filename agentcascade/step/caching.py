"""Prompt caching of a step's calls: breakpoints at the end of what the next step's prompt will begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentcascade.messages import with_text
from agentcascade.models.breakpoints import has_breakpoints, with_breakpoints
from agentcascade.models.prompt_cache import NO_CACHE, CacheTerms, cache_terms
from agentcascade.models.quirks import model_quirks
from agentcascade.prompts.additions import Composed, Rendered
from agentcascade.prompts.demonstrations import Shown
from agentcascade.protocols import ChatModel
from agentcascade.step.context import StepContext
from agentcascade.step.request import Request
from agentcascade.types import Message

PASSING = ("memory", "drafts", "refused")
"""Templates of what stands in one step's prompt alone."""


def student_terms(context: StepContext, request: Request) -> CacheTerms:
    """Terms on which the student's provider caches its prompts, as they are sent."""
    return _terms(context, context.student, request, context.config.sampling.cached_from_tokens)


def teacher_terms(context: StepContext, request: Request) -> CacheTerms:
    """The same of the teacher."""
    return _terms(context, context.teacher, request, None)


def _terms(context: StepContext, model: ChatModel | None, request: Request, minimum: int | None) -> CacheTerms:
    if model is None:
        return NO_CACHE
    terms = context.terms(model, minimum)
    if terms.never and request.has_breakpoints:
        return cache_terms(model, minimum=minimum)
    return terms


class CachedRequest(NamedTuple):
    """Messages and options as they are sent, and how many breakpoints were set in them."""

    messages: Sequence[Message]
    options: Mapping[str, Any]
    breakpoints: int = 0


def cached_request(
    context: StepContext,
    model: ChatModel,
    messages: Sequence[Message],
    options: Mapping[str, Any],
    episode: str,
    *,
    repeats: bool = False,
) -> CachedRequest:
    """The request with breakpoints where its model needs them; as it is where the caller set any, or `caching` is off.

    Args:
        context: Of the step.
        model: That is asked.
        messages: The prompt, additions included.
        options: Of the call, `tools` among them.
        episode: Its id: where breakpoints were no use lately, some episodes try again.
        repeats: Whether the step sends the whole prompt more than once, for samples that are bought in waves.
    """
    quirks, tools = model_quirks(model.name), options.get("tools")
    if not context.config.caching or quirks.prompt_cache != "marked":
        return CachedRequest(messages, options)
    defaults = [o for o in (options, getattr(model, "defaults", None)) if isinstance(o, Mapping)]
    bodies = [o["extra_body"] for o in defaults if isinstance(o.get("extra_body"), Mapping)]
    if has_breakpoints(messages, tools, [*defaults, *bodies]):
        return CachedRequest(messages, options)
    if not context.breakpoint_worth.tries(model.name, episode):
        return CachedRequest(messages, options)
    stable = _Stable(messages)
    if not repeats:
        stable = _stable_prompt(messages, context.config.retrieval.sticky != "never")
    marked = with_breakpoints(stable.messages, tools, quirks, context.count)
    if not marked.breakpoints:
        return CachedRequest(messages, options)
    sent = list(marked.messages)
    if stable.additions:
        for text in stable.additions:
            sent[-1] = with_text(sent[-1], text)
    sent += messages[len(sent) :]
    changed = options if marked.tools is tools else {**options, "tools": marked.tools}
    return CachedRequest(sent, changed, marked.breakpoints)


class _Stable(NamedTuple):
    """The messages in front that the next request will begin with, and what was added to the last of them since."""

    messages: Sequence[Message]
    additions: tuple[str, ...] = ()


def _stable_prompt(messages: Sequence[Message], sticky: bool) -> _Stable:
    """What stays of a prompt: memory and drafts are others at the next step, and demonstrations that do not stick."""
    for i, message in enumerate(messages):
        if not isinstance(message, Composed):
            continue
        base, additions = _stable_base(message, sticky)
        if base is None:
            return _Stable(messages[:i])
        if additions:
            return _Stable([*messages[:i], base], additions)
    return _Stable(messages)


def _stable_base(message: Composed, sticky: bool) -> tuple[Message | None, tuple[str, ...]]:
    """The message below its first addition that will not stay, None where one stands before it, and what is above."""
    layers: list[Composed] = []
    below: Message = message
    while isinstance(below, Composed):
        layers.insert(0, below)
        below = below.base
    if any(layer.before for layer in layers):
        return None, ()
    for depth, layer in enumerate(layers):
        addition = layer.addition
        passes = isinstance(addition, Rendered) and addition.template in PASSING
        if passes or (isinstance(addition, Shown) and not sticky):
            return layer.base, tuple(upper.text for upper in layers[depth:])
    return message, ()
