"""How sure a model was of its tokens, where its provider tells: read off a response, and asked for without harm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple, Protocol

from agentcascade.types import Completion

REFUSED = {400, 404, 422, 501}
"""HTTP statuses of a parameter that a server does not take."""


class Told(NamedTuple):
    """Mean log-probability and number of the tokens of one choice; None where they are not told."""

    logprob: float | None = None
    tokens: int | None = None


NOT_TOLD = Told()


def told(choice: Any) -> Told:
    """What a chat completion's choice, the client's object or plain data, says of its tokens."""
    logprobs = _get(choice, "logprobs")
    content = _get(logprobs, "content") if logprobs else None
    if not content:
        return NOT_TOLD
    values = [_get(token, "logprob") for token in content]
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


class Model(Protocol):
    tells_logprobs: bool
    """Whether requests may ask for log-probabilities; set to False by the first refusal."""


async def asked(send: Callable[[dict[str, Any]], Awaitable[Any]], request: dict[str, Any], model: Model) -> Any:
    """`send(request)`, without log-probabilities where the model's provider does not tell them or refuses to."""
    if not request.get("logprobs"):
        return await send(request)
    if model.tells_logprobs:
        try:
            return await send(request)
        except Exception as error:
            if getattr(error, "status_code", None) not in REFUSED or "logprob" not in str(error).lower():
                raise
        model.tells_logprobs = False
    return await send({k: v for k, v in request.items() if k not in ("logprobs", "top_logprobs")})


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)
