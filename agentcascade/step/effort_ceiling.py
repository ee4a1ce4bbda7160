"""Ceiling of effort (option ``max_effort``): the most that models may be asked to think for one request.

Rungs above it are not climbed; the teacher, which takes what is left, is asked at the ceiling. A model without a
configured effort thinks as its provider has it think.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentcascade.config.effort import LEVEL_TOKENS, LEVELS, Effort, parse_effort, plain_name
from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.models.effort import EffortModel
from agentcascade.protocols import ChatModel

OPTION = "max_effort"
"""Of a request; no model is sent it."""
HEADER = "x-agentcascade-max-effort"
"""The same for clients that can set headers alone: a level, or a number of tokens."""


def read_ceiling(options: Mapping[str, Any]) -> tuple[Mapping[str, Any], Effort | None]:
    """The options of a request without its ceiling, and the ceiling.

    Raises:
        InvalidRequest: It is no level and no number of tokens.
    """
    setting = options.get(OPTION)
    body = options.get("extra_body")
    if setting is None and isinstance(body, Mapping):
        setting = body.get(OPTION)
    if setting is None:
        return options, None
    rest = {name: value for name, value in options.items() if name != OPTION}
    if isinstance(body, Mapping) and OPTION in body:
        rest["extra_body"] = {name: value for name, value in body.items() if name != OPTION}
    try:
        ceiling = parse_effort(setting)
    except ValueError as error:
        raise InvalidRequest(f"{OPTION}: {error}") from None
    if ceiling.share is not None:
        raise InvalidRequest(f"{OPTION} is {ceiling}: a ceiling is a level or a number of tokens, not a share")
    return _under(rest, ceiling), ceiling


def split_ceiling(
    call: Mapping[str, Any], *, body: str = "extra_body", headers: str = "extra_headers"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client's call adds to its request, without a ceiling, and the ceiling as an option; a header goes first.

    Args:
        call: Its arguments.
        body: Names the one that holds further fields of the body.
        headers: Names the one that holds headers.
    """
    kept, found = dict(call), {}
    fields, named = call.get(body), call.get(headers)
    if isinstance(fields, Mapping) and OPTION in fields:
        found[OPTION] = fields[OPTION]
        kept[body] = {name: value for name, value in fields.items() if name != OPTION}
    if isinstance(named, Mapping):
        ours = [name for name in named if str(name).lower() == HEADER]
        for name in ours:
            if isinstance(named[name], (str, int)):
                found[OPTION] = named[name]
        if ours:
            kept[headers] = {name: value for name, value in named.items() if name not in ours}
    return kept, found


def _under(options: dict[str, Any], ceiling: Effort) -> dict[str, Any]:
    """The efforts that the request itself asks of the teacher, no higher than its ceiling."""
    most = ceiling.expected_tokens() or 0
    effort, thinking = options.get("reasoning_effort"), options.get("thinking")
    if LEVEL_TOKENS.get(str(effort), 0) > most:
        options["reasoning_effort"] = [level for level in LEVELS if LEVEL_TOKENS[level] <= most][-1]
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if isinstance(thinking, Mapping) and isinstance(budget, int) and budget > most:
        options["thinking"] = {**thinking, "budget_tokens": max(1024, int(most))}
    return options


def is_above(model: ChatModel | None, ceiling: Effort | None) -> bool:
    """Whether the model is configured to think more than that."""
    if ceiling is None or not isinstance(model, EffortModel):
        return False
    tokens, most = model.effort.expected_tokens(), ceiling.expected_tokens()
    return tokens is not None and most is not None and tokens > most


def capped(model: ChatModel, ceiling: Effort | None) -> ChatModel:
    """The model, asked to think no more than the ceiling; the least that it knows where all it knows is more."""
    if ceiling is None or not is_above(model, ceiling):
        return model
    assert isinstance(model, EffortModel)
    most = ceiling.expected_tokens() or 0
    under = [level for level in reversed(LEVELS) if LEVEL_TOKENS[level] <= most]
    over = [level for level in LEVELS if LEVEL_TOKENS[level] > most]
    for effort in (ceiling, *map(Effort, under), *map(Effort, over)):
        try:
            return model.at(effort)
        except ConfigError:
            continue
    return model


def is_one_model(one: ChatModel | None, others: Iterable[ChatModel | None]) -> bool:
    """Whether one of the others is the same model at another effort."""
    if one is None:
        return False
    named = [other.name for other in others if other is not None and (_has_effort(other) or _has_effort(one))]
    return any(name != one.name and plain_name(name) == plain_name(one.name) for name in named)


def _has_effort(model: ChatModel) -> bool:
    return isinstance(model, EffortModel)
