"""Every provider's usage report, read into disjoint token classes.

OpenAI's `prompt_tokens` include cached tokens, and so do litellm's for every provider; Anthropic's own `input_tokens`
do not. `completion_tokens` include reasoning tokens everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite as _isfinite
from typing import Any

from agentcascade.models import message_fields
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.types import Message, Tool, Usage

ABSURD = 50_000_000
"""Tokens that no single request has: a report of more is nonsense."""
LONGEST = 16
"""Characters of a token, at most, on the average of a text: where a report says less, the text is counted."""


def usage_from(raw: object) -> Usage | None:
    """`raw` (a mapping, or an object with `model_dump`) as `Usage`; None when it reports no token counts.

    Understands OpenAI chat and responses, Anthropic, litellm's merged form, DeepSeek and vLLM. Inconsistent reports
    (more cached tokens than prompt tokens) are cut to what is possible, never negative.
    """
    report = _mapping(raw)
    if report.get("prompt_tokens") is None and report.get("input_tokens") is None:
        return None
    prompt_details = _mapping(report.get("prompt_tokens_details") or report.get("input_tokens_details"))
    output_details = _mapping(report.get("completion_tokens_details") or report.get("output_tokens_details"))
    cached = _count(report, "cache_read_input_tokens", "prompt_cache_hit_tokens") or _count(
        prompt_details, "cached_tokens"
    )
    written = _count(report, "cache_creation_input_tokens") or _count(
        prompt_details, "cache_creation_tokens", "cache_write_tokens"
    )
    by_age = _mapping(report.get("cache_creation") or prompt_details.get("cache_creation_token_details"))
    hour = min(written, _count(by_age, "ephemeral_1h_input_tokens"))
    if report.get("prompt_tokens") is None and "input_tokens_details" not in report:
        fresh = _count(report, "input_tokens")
    else:
        prompt = _count(report, "prompt_tokens", "input_tokens")
        cached = min(cached, prompt)
        written = min(written, prompt - cached)
        hour = min(hour, written)
        fresh = prompt - cached - written
    completion = _count(report, "completion_tokens", "output_tokens")
    reasoning = min(completion, _count(output_details, "reasoning_tokens"))
    return Usage(
        input=fresh,
        cached_input=cached,
        cache_write=written - hour,
        cache_write_1h=hour,
        output=completion - reasoning,
        reasoning=reasoning,
    )


def billed(
    raw: object, messages: Sequence[Message], answers: Sequence[Message], tools: Sequence[Tool] | None = None
) -> tuple[Usage, bool]:
    """(usage of one request, whether it was estimated): the server's report, and never less than what was received.

    Counted from the texts is what the report lacks, or says in another type, below zero, beyond `ABSURD`, or as so
    little that the texts cannot be so short.
    """
    told = _mapping(raw)
    found = usage_from(told) or Usage()
    prompt, completion = found, found
    if not _plausible(told, ("prompt_tokens", "input_tokens"), found.prompt, _size(messages)):
        counted = _prompt(messages, tools)
        if not 0 < found.prompt < ABSURD or counted > 4 * found.prompt:
            prompt = Usage(input=counted)
    if not _plausible(told, ("completion_tokens", "output_tokens"), found.completion, _size(answers)):
        counted = _completion(answers)
        # A report of nothing is believed of an answer that holds nothing.
        if not 0 <= found.completion < ABSURD or counted > 4 * found.completion or _invalid(told):
            completion = Usage(output=max(counted, found.completion if found.completion < ABSURD else 0))
    if prompt is found and completion is found:
        return found, False
    return prompt.model_copy(update={"output": completion.output, "reasoning": completion.reasoning}), True


def counted(messages: Sequence[Message], answers: Sequence[Message], tools: Sequence[Tool] | None = None) -> Usage:
    """Tokens counted here."""
    return Usage(input=_prompt(messages, tools), output=_completion(answers))


def _plausible(told: Mapping[str, Any], names: tuple[str, str], tokens: int, characters: int) -> bool:
    value = next((v for n in names if (v := told.get(n)) is not None), None)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        return False
    return tokens < ABSURD and tokens * LONGEST >= characters


def _invalid(told: Mapping[str, Any]) -> bool:
    value = next((v for n in ("completion_tokens", "output_tokens") if (v := told.get(n)) is not None), None)
    return isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0


def _prompt(messages: Sequence[Message], tools: Sequence[Tool] | None) -> int:
    count = token_counter()
    return count_messages(messages, count) + (count(str(tools)) if tools else 0)


def _completion(answers: Sequence[Message]) -> int:
    count = token_counter()
    return sum(count(text) for answer in answers for text in message_fields.texts(answer) if text)


def _size(messages: Sequence[Message]) -> int:
    return sum(len(text) for message in messages for text in message_fields.texts(message, opaque=False))


def isfinite(value: float) -> bool:
    """Also of whole numbers that no float can hold: they are nonsense like an infinity."""
    return abs(value) < 2**63 and _isfinite(value)


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump(warnings=False) if callable(dump) else {}  # a client's object may hold what its class does not allow
    return found if isinstance(found, Mapping) else {}


def _count(report: Mapping[str, Any], *names: str) -> int:
    """The first of `names` that is reported, as a count that is not negative."""
    for name in names:
        value = report.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
            return max(0, int(value))
    return 0
