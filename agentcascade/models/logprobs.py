"""Token log-probabilities of a response: how sure a model was, where its provider tells."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from agentcascade.models.message_fields import get_field
from agentcascade.types import Completion


class ChoiceLogprobs(NamedTuple):
    """Mean log-probability (natural logarithm, at most 0) and number of the tokens of one choice; None: not told."""

    mean: float | None = None
    tokens: int | None = None


NOT_TOLD = ChoiceLogprobs()


def read_logprobs(choice: Any) -> ChoiceLogprobs:
    """What a chat completion's choice, the client's object or plain data, says of its tokens."""
    logprobs = get_field(choice, "logprobs")
    content = get_field(logprobs, "content") if logprobs else None
    if not content:
        return NOT_TOLD
    values = [get_field(token, "logprob") for token in content]
    if not all(isinstance(v, (int, float)) and isfinite(v) for v in values):
        return ChoiceLogprobs(None, len(values))
    return ChoiceLogprobs(min(0.0, fmean(values)), len(values))  # rounding makes some servers say more than 0


def completion_fields(choices: Sequence[ChoiceLogprobs]) -> dict[str, Any]:
    """The fields `logprobs` and `tokens` of a `Completion`; {} where nothing was told."""
    if all(choice is NOT_TOLD for choice in choices):
        return {}
    return {"logprobs": tuple(c.mean for c in choices), "tokens": tuple(c.tokens for c in choices)}


def join_fields(completions: Sequence[Completion]) -> dict[str, Any]:
    """Those of several completions, one after the other."""
    if not any(c.tokens or c.logprobs for c in completions):
        return {}
    padded = [(c, (None,) * len(c.messages)) for c in completions]
    return {
        "logprobs": tuple(v for c, nones in padded for v in c.logprobs or nones),
        "tokens": tuple(v for c, nones in padded for v in c.tokens or nones),
    }
