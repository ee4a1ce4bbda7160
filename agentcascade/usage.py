"""Every provider's usage report, read into disjoint token classes.

OpenAI's `prompt_tokens` include cached tokens, and so do litellm's for every provider; Anthropic's own `input_tokens`
do not. `completion_tokens` include reasoning tokens everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from agentcascade.types import Usage


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


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else {}


def _count(report: Mapping[str, Any], *names: str) -> int:
    """The first of `names` that is reported, as a count that is not negative."""
    for name in names:
        value = report.get(name)
        if isinstance(value, (int, float)) and isfinite(value):
            return max(0, int(value))
    return 0
