"""The answer in the ecosystem's own shape: OpenAI's `ChatCompletion` and its chunks, with what the cascade did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from agentcascade.models import message_fields
from agentcascade.types import Completion, Decision, Delta, Message, Usage


class CascadeCompletion(ChatCompletion):
    """A `ChatCompletion` whose `agentcascade` field is the step's `Decision`."""

    agentcascade: Decision


class CascadeChunk(ChatCompletionChunk):
    """A part of a streamed answer; the last one has `usage` and, in `agentcascade`, the `Decision`."""

    agentcascade: Decision | None = None


def chat_completion(completion: Completion, messages: Sequence[Message], decision: Decision) -> CascadeCompletion:
    """`messages` with usage and finish reasons, as OpenAI's client would return them."""
    return CascadeCompletion.model_construct(
        id=decision.id,
        object="chat.completion",
        created=int(time.time()),
        choices=[
            _choice(i, {"role": "assistant", **m}, _reason(completion, i), _beside(completion, i))
            for i, m in enumerate(messages)
        ],
        usage=_usage(completion.usage),
        agentcascade=decision,
        **_answer(completion),
    )


def as_json(completion: Completion, messages: Sequence[Message], decision: Decision, said: Any) -> dict[str, Any]:
    """The same as plain data for a wire; `said` stands in the field `agentcascade`."""
    return {
        "id": decision.id,
        "object": "chat.completion",
        "created": int(time.time()),
        **_answer(completion),
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": None, **m},
                "logprobs": None,
                "finish_reason": _reason(completion, i),
                **_beside(completion, i),
            }
            for i, m in enumerate(messages)
        ],
        "usage": usage_json(completion.usage),
        "agentcascade": said,
    }


def _reason(completion: Completion, index: int) -> str:
    reasons = completion.finish_reasons
    return reasons[index] if index < len(reasons) else "stop"


OURS = frozenset({"id", "object", "created", "choices", "usage", "agentcascade"})
"""Fields of an answer that a provider cannot set."""


def _answer(completion: Completion) -> dict[str, Any]:
    """What the provider said beside its choices, its own name of the model among it."""
    return {"model": completion.model, **{k: v for k, v in completion.fields.items() if k not in OURS}}


def _beside(completion: Completion, index: int) -> Mapping[str, Any]:
    """What the choice said beside its message, such as log-probabilities."""
    found = completion.choice_fields
    return found[index] if index < len(found) else {}


def _choice(index: int, message: Message, reason: Any, beside: Mapping[str, Any]) -> Any:
    from openai.types.chat import ChatCompletionMessage
    from openai.types.chat.chat_completion import Choice

    if message.keys() <= {"role", "content"}:  # the common case, without a walk through nested types
        plain = ChatCompletionMessage.model_construct(**message)
        if not beside:
            return Choice.model_construct(index=index, finish_reason=reason, message=plain, logprobs=None)
    return Choice.construct(
        None, **{"logprobs": None, **beside, "index": index, "finish_reason": reason, "message": message}
    )


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's convention: prompt tokens include cached ones, completion tokens include reasoning."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _usage(usage: Usage) -> Any:
    from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails

    return CompletionUsage.model_construct(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        prompt_tokens_details=PromptTokensDetails.model_construct(cached_tokens=usage.cached_input),
        completion_tokens_details=CompletionTokensDetails.model_construct(reasoning_tokens=usage.reasoning),
    )


class Chunks:
    """The chunks of one streamed answer, as plain data."""

    def __init__(self, model: str, id: str) -> None:
        self._head = {"id": id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._begun: set[int] = set()

    def part(self, delta: Delta, index: int = 0) -> dict[str, Any]:
        """The first of a choice also says the role. What the provider's chunk said beside the delta is handed on."""
        beside = delta.get(message_fields.EXTRA) or {}
        delta = {k: v for k, v in delta.items() if k not in ("role", message_fields.EXTRA)}
        self._head |= {k: v for k, v in (beside.get("answer") or {}).items() if k not in OURS}
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        more = beside.get("choice") or {}
        return self._chunk([{"logprobs": None, **more, "index": index, "delta": delta, "finish_reason": None}])

    def end(self, completion: Completion, said: Any, *, usage_apart: bool) -> list[dict[str, Any]]:
        """Finish reasons, then usage and `said`: in a chunk without choices where the caller asked for usage."""
        self._head |= {k: v for k, v in completion.fields.items() if k not in OURS}
        made = [
            self._chunk([{"index": i, "delta": {}, "logprobs": None, "finish_reason": _reason(completion, i)}])
            for i in range(len(completion.messages))
        ]
        last = self._chunk([]) if usage_apart else made.pop()
        last |= {"usage": usage_json(completion.usage), "agentcascade": said}
        return [*made, last]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": choices}


def chunk(data: dict[str, Any]) -> CascadeChunk:
    """One chunk as OpenAI's client would return it."""
    return CascadeChunk.construct(None, **data)
