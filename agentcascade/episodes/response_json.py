"""Responses in OpenAI's shape, as JSON: a chat completion with the decision of the cascade, and its chunks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentcascade.models import message_fields
from agentcascade.types import Completion, Decision, Delta, Message, Usage

OWN_FIELDS = frozenset({"id", "object", "created", "choices", "usage", "agentcascade"})
"""Fields of a response that a provider cannot set."""


def as_json(completion: Completion, messages: Sequence[Message], decision: Decision, field: Any) -> dict[str, Any]:
    """Chat completion as JSON, with `field` in its field ``agentcascade``."""
    return {
        "id": decision.id,
        "object": "chat.completion",
        "created": int(time.time()),
        **answer_fields(completion),
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": None, **m},
                "logprobs": None,
                "finish_reason": finish_reason(completion, i),
                **choice_fields(completion, i),
            }
            for i, m in enumerate(messages)
        ],
        "usage": usage_json(completion.usage),
        "agentcascade": field,
    }


def finish_reason(completion: Completion, index: int) -> str:
    reasons = completion.finish_reasons
    return reasons[index] if index < len(reasons) else "stop"


def answer_fields(completion: Completion) -> dict[str, Any]:
    """Fields of the provider's response beside its choices, its own name of the model among them."""
    return {"model": completion.model, **{k: v for k, v in completion.fields.items() if k not in OWN_FIELDS}}


def choice_fields(completion: Completion, index: int) -> Mapping[str, Any]:
    """Fields of a choice beside its message, such as log-probabilities."""
    fields = completion.choice_fields
    return fields[index] if index < len(fields) else {}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Usage as JSON, by OpenAI's convention: prompt tokens include cached ones, completion tokens reasoning."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class Chunks:
    """Chunks of one streamed answer, as plain data."""

    def __init__(self, model: str, id: str) -> None:
        self._head = {"id": id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._begun: set[int] = set()

    def part(self, delta: Delta, index: int = 0) -> dict[str, Any]:
        """Chunk of a delta; the first of a choice also has the role. The provider's own fields are handed on."""
        extra = delta.get(message_fields.EXTRA) or {}
        delta = {k: v for k, v in delta.items() if k not in ("role", message_fields.EXTRA)}
        self._head |= {k: v for k, v in (extra.get("answer") or {}).items() if k not in OWN_FIELDS}
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice_fields = extra.get("choice") or {}
        return self._chunk([{"logprobs": None, **choice_fields, "index": index, "delta": delta, "finish_reason": None}])

    def end(self, completion: Completion, field: Any, *, usage_apart: bool) -> list[dict[str, Any]]:
        """Last chunks: finish reasons, then usage and `field`, in a chunk without choices where usage was asked for."""
        self._head |= {k: v for k, v in completion.fields.items() if k not in OWN_FIELDS}
        chunks = [
            self._chunk([{"index": i, "delta": {}, "logprobs": None, "finish_reason": finish_reason(completion, i)}])
            for i in range(len(completion.messages))
        ]
        last = self._chunk([]) if usage_apart else chunks.pop()
        last |= {"usage": usage_json(completion.usage), "agentcascade": field}
        return [*chunks, last]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": choices}
