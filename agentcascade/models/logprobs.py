"""Token log-probabilities of a response: how sure a model was, where its provider tells."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from agentcascade.models import message_fields as shapes
from agentcascade.types import Completion


class Told(NamedTuple):
    """Mean log-probability and number of the tokens of one choice; None where they are not told."""

    logprob: float | None = None
    tokens: int | None = None


NOT_TOLD = Told()


def told(choice: Any) -> Told:
    """What a chat completion's choice, the client's object or plain data, says of its tokens."""
    logprobs = shapes.get(choice, "logprobs")
    content = shapes.get(logprobs, "content") if logprobs else None
    if not content:
        return NOT_TOLD
    values = [shapes.get(token, "logprob") for token in content]
    if not all(isinstance(v, (int, float)) and isfinite(v) for v in values):
        return Told(None, len(values))
    return Told(min(0.0, fmean(values)), len(values))  # rounding makes some servers say a little more than 0


def fields(found: Sequence[Told]) -> dict[str, Any]:
    """A completion's own fields; nothing where nothing was told."""
    if all(one is NOT_TOLD for one in found):
        return {}
    return {"logprobs": tuple(one.logprob for one in found), "tokens": tuple(one.tokens for one in found)}


def merged(answers: Sequence[Completion]) -> dict[str, Any]:
    """Those of several completions, one after the other."""
    if not any(a.tokens or a.logprobs for a in answers):
        return {}
    nothing = [(None,) * len(a.messages) for a in answers]
    return {
        "logprobs": tuple(v for a, none in zip(answers, nothing) for v in a.logprobs or none),
        "tokens": tuple(v for a, none in zip(answers, nothing) for v in a.tokens or none),
    }
