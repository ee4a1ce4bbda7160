"""Usage reports of providers, read into disjoint token classes, or counted where they cannot be true.

OpenAI's `prompt_tokens` include cached tokens, and so do litellm's for every provider; Anthropic's own `input_tokens`
do not. `completion_tokens` include reasoning tokens everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite as _isfinite
from typing import Any

from agentcascade.models import message_fields
from agentcascade.models.quirks import USAGE_FIELDS
from agentcascade.models.tokens import count_messages, token_counter
from agentcascade.types import Message, Tool, Usage

MAX_TOKENS = 50_000_000
"""That no single request has: a report of more is nonsense."""
MAX_CHARACTERS_PER_TOKEN = 16
"""On the average of a text: where a report says that there are more, the text is counted."""


def usage_from(raw: object) -> Usage | None:
    """`raw` (a mapping, or an object with `model_dump`) as `Usage`; None when it reports no token counts.

    Where reports hold which count stands in `quirks.USAGE_FIELDS`. Inconsistent reports (more cached tokens than prompt
    tokens) are cut to what is possible, never negative.
    """
    report = _mapping(raw)
    if all(report.get(name) is None for name in USAGE_FIELDS["prompt"]):
        return None
    counts = {name: _first_count(report, paths) for name, paths in _PATHS.items()}
    cached, written, hour = counts["cached"], counts["cache_write"], counts["cache_write_1h"]
    hour = min(hour, written)
    if report.get("prompt_tokens") is None and "input_tokens_details" not in report:  # Anthropic's own
        fresh = counts["prompt"]
    else:
        prompt = counts["prompt"]
        cached = min(cached, prompt)
        written = min(written, prompt - cached)
        hour = min(hour, written)
        fresh = prompt - cached - written
    reasoning = min(counts["completion"], counts["reasoning"])
    return Usage(
        input=fresh,
        cached_input=cached,
        cache_write=written - hour,
        cache_write_1h=hour,
        output=counts["completion"] - reasoning,
        reasoning=reasoning,
    )


def usage_or_estimate(
    raw: object, messages: Sequence[Message], answers: Sequence[Message], tools: Sequence[Tool] | None = None
) -> tuple[Usage, bool]:
    """(usage of one request, whether it was estimated): the server's report, and never less than what was received.

    Counted from the texts is what the report lacks, or says in another type, below zero, beyond `MAX_TOKENS`, or as so
    little that the texts cannot be so short.
    """
    report = _mapping(raw)
    reported = usage_from(report) or Usage()
    prompt, completion = reported, reported
    if not _is_plausible(report, "prompt", reported.prompt, _characters(messages)):
        counted = _count_prompt(messages, tools)
        if not 0 < reported.prompt < MAX_TOKENS or counted > 4 * reported.prompt:
            prompt = Usage(input=counted)
    if not _is_plausible(report, "completion", reported.completion, _characters(answers)):
        counted = _count_answers(answers)
        # A report of nothing is believed of an answer that holds nothing.
        is_believable = 0 <= reported.completion < MAX_TOKENS and not _is_invalid(report, "completion")
        if not is_believable or counted > 4 * reported.completion:
            completion = Usage(output=max(counted, reported.completion if reported.completion < MAX_TOKENS else 0))
    if prompt is reported and completion is reported:
        return reported, False
    return prompt.model_copy(update={"output": completion.output, "reasoning": completion.reasoning}), True


def count_usage(messages: Sequence[Message], answers: Sequence[Message], tools: Sequence[Tool] | None = None) -> Usage:
    """Tokens counted here, of a request and what came of it."""
    return Usage(input=_count_prompt(messages, tools), output=_count_answers(answers))


def _is_plausible(report: Mapping[str, Any], what: str, tokens: int, characters: int) -> bool:
    if _is_invalid(report, what):
        return False
    return tokens < MAX_TOKENS and tokens * MAX_CHARACTERS_PER_TOKEN >= characters


def _is_invalid(report: Mapping[str, Any], what: str) -> bool:
    """Whether the report has no count of `what`, or something that is none."""
    value = next((v for name in USAGE_FIELDS[what] if (v := report.get(name)) is not None), None)
    return isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0


def _count_prompt(messages: Sequence[Message], tools: Sequence[Tool] | None) -> int:
    count = token_counter()
    return count_messages(messages, count) + (count(str(tools)) if tools else 0)


def _count_answers(answers: Sequence[Message]) -> int:
    count = token_counter()
    return sum(count(text) for answer in answers for text in message_fields.texts_of(answer) if text)


def _characters(messages: Sequence[Message]) -> int:
    return sum(len(text) for message in messages for text in message_fields.texts_of(message, opaque=False))


def isfinite(value: float) -> bool:
    """Also of whole numbers that no float can hold: they are nonsense like an infinity."""
    return abs(value) < 2**63 and _isfinite(value)


def _mapping(value: object) -> Mapping[str, Any]:
    if type(value) is dict or isinstance(value, Mapping):
        return value
    if value is None:
        return {}
    dump = getattr(value, "model_dump", None)
    report = dump(warnings=False) if callable(dump) else {}  # a client's object may hold what its class does not allow
    return report if isinstance(report, Mapping) else {}


def _first_count(report: Mapping[str, Any], paths: Sequence[tuple[Sequence[str], str]]) -> int:
    """The first count above zero at one of `paths` into the report; 0 without any."""
    for parents, name in paths:
        inside = report
        for parent in parents:
            inside = _mapping(inside.get(parent))
        value = inside.get(name)
        if value is None:
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value >= 1:
            return int(value)
    return 0


_PATHS: Mapping[str, Sequence[tuple[Sequence[str], str]]] = {
    name: [(path.split(".")[:-1], path.split(".")[-1]) for path in paths] for name, paths in USAGE_FIELDS.items()
}
