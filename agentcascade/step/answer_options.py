"""Options of a request that say what an answer must hold, and which of them only the teacher can honour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentcascade.errors import InvalidRequest
from agentcascade.protocols import ChatModel


def _given(value: Any) -> bool:
    return value not in (None, False, [], {})


def _present(value: Any) -> bool:
    return value is not None


def _more_than_text(value: Any) -> bool:
    return any(m != "text" for m in ([value] if isinstance(value, str) else value or ()))


TEACHERS_ALONE: Mapping[str, Callable[[Any], bool]] = {
    "logprobs": _given, "top_logprobs": _given, "functions": _given, "function_call": _present, "logit_bias": _given,
    "audio": _given, "modalities": _more_than_text, "web_search_options": _present, "moderation": _given,
}  # fmt: skip
"""Options that a student's answer does not honour, and when they ask for anything."""
ESSENTIAL = frozenset({*TEACHERS_ALONE, "stop", "response_format", "tools", "tool_choice"})
"""Options without which an answer is another one than was asked for. All others are hints, which a model may lack."""


def teachers_alone(options: Mapping[str, Any]) -> str | None:
    """The option for whose sake the teacher must answer; None where a student may."""
    return next((name for name, asks in TEACHERS_ALONE.items() if name in options and asks(options[name])), None)


def dropped(model: ChatModel | None, options: Mapping[str, Any]) -> list[str]:
    """Names of those options that a model's adapter leaves out, since its provider has no such thing."""
    drops: Callable[[Mapping[str, Any]], set[str]] | None = getattr(model, "drops", None)
    return sorted(drops(options)) if drops is not None else []


def check_essential(model: ChatModel, options: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest`, naming it, for an essential option that the model's provider does not have."""
    for name in dropped(model, options):
        asks = TEACHERS_ALONE.get(name, _given)
        if name in ESSENTIAL and asks(options[name]):
            raise InvalidRequest(f"{name}: {model.name} has no such parameter: leave it out, or ask another model")
