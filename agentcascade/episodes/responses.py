"""Responses in OpenAI's shape: `ChatCompletion` and its chunks, with the decision of the cascade."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from openai import BaseModel
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_message_function_tool_call import (
    ChatCompletionMessageFunctionToolCall,
    Function,
)
from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails

from agentcascade.models import message_fields
from agentcascade.types import Completion, Decision, Delta, Message, Usage

__all__ = ["CascadeChunk", "CascadeCompletion"]

Built = TypeVar("Built", bound=BaseModel)


class CascadeCompletion(ChatCompletion):
    """OpenAI's `ChatCompletion`, with the step's `Decision` in its field ``agentcascade``."""

    agentcascade: Decision


class CascadeChunk(ChatCompletionChunk):
    """OpenAI's `ChatCompletionChunk`; the last one has ``usage`` and, in ``agentcascade``, the `Decision`."""

    agentcascade: Decision | None = None


def chat_completion(completion: Completion, messages: Sequence[Message], decision: Decision) -> CascadeCompletion:
    """Chat completion of `messages` with usage and finish reasons, as OpenAI's client would return it."""
    values = {
        "id": decision.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [
            _choice(i, {"role": "assistant", **m}, _finish_reason(completion, i), _choice_fields(completion, i))
            for i, m in enumerate(messages)
        ],
        "usage": _usage(completion.usage),
        "agentcascade": decision,
        **_answer_fields(completion),
    }
    if any(isinstance(value, (dict, list)) for value in completion.fields.values()):
        made = CascadeCompletion.construct(None, **values)
    else:
        made = _of_values(CascadeCompletion, **values)
    made._request_id = decision.id  # what the SDK notes of a response, and programs log
    return made


def _of_values(kind: type[Built], **values: Any) -> Built:
    """An object of OpenAI's whose `values` have their types already.

    Its `construct`, and so its `model_construct`, looks through each of them again, all that a `Decision` holds
    included: a third of what a step costs beside its models. pydantic's own, under it, does not, but goes through the
    fields one by one: a fifth of what is done here.
    """
    blank = _blank(kind)
    if blank is None or not blank.required <= values.keys():
        return super(BaseModel, kind).model_construct(**values)
    made, put = object.__new__(kind), object.__setattr__
    fields, given = blank.fields.copy(), values.keys() & blank.fields.keys()
    extra = {name: values.pop(name) for name in values.keys() - given}
    fields.update(values)
    put(made, "__dict__", fields)
    put(made, "__pydantic_fields_set__", given)
    put(made, "__pydantic_extra__", extra)
    put(made, "__pydantic_private__", None)
    return made


class _Blank(NamedTuple):
    """Fields of a class of OpenAI's, in their order, with their defaults; and those that have none."""

    fields: dict[str, Any]
    required: frozenset[str]


@lru_cache(maxsize=32)
def _blank(kind: type[BaseModel]) -> _Blank | None:
    """None for a class whose objects are more than fields, extra fields and defaults that do not change."""
    fields = kind.model_fields
    defaults = {name: None if field.is_required() else field.default for name, field in fields.items()}
    is_plain = (
        kind.model_config.get("extra") == "allow"
        and not kind.__private_attributes__
        and all(f.alias is None and f.validation_alias is None and not f.default_factory for f in fields.values())
        and all(value is None or isinstance(value, (str, int, float)) for value in defaults.values())
    )
    return _Blank(defaults, frozenset(n for n, f in fields.items() if f.is_required())) if is_plain else None


def as_json(completion: Completion, messages: Sequence[Message], decision: Decision, field: Any) -> dict[str, Any]:
    """Chat completion as JSON, with `field` in its field ``agentcascade``."""
    return {
        "id": decision.id,
        "object": "chat.completion",
        "created": int(time.time()),
        **_answer_fields(completion),
        "choices": [
            {
                "index": i,
                "message": {"role": "assistant", "content": None, **m},
                "logprobs": None,
                "finish_reason": _finish_reason(completion, i),
                **_choice_fields(completion, i),
            }
            for i, m in enumerate(messages)
        ],
        "usage": usage_json(completion.usage),
        "agentcascade": field,
    }


def _finish_reason(completion: Completion, index: int) -> str:
    reasons = completion.finish_reasons
    return reasons[index] if index < len(reasons) else "stop"


OWN_FIELDS = frozenset({"id", "object", "created", "choices", "usage", "agentcascade"})
"""Fields of a response that a provider cannot set."""


def _answer_fields(completion: Completion) -> dict[str, Any]:
    """Fields of the provider's response beside its choices, its own name of the model among them."""
    return {"model": completion.model, **{k: v for k, v in completion.fields.items() if k not in OWN_FIELDS}}


def _choice_fields(completion: Completion, index: int) -> Mapping[str, Any]:
    """Fields of a choice beside its message, such as log-probabilities."""
    fields = completion.choice_fields
    return fields[index] if index < len(fields) else {}


def _choice(index: int, message: Message, reason: Any, fields: Mapping[str, Any]) -> Any:
    plain = _plain_message(message)
    if plain is not None and not fields:
        return _of_values(Choice, index=index, finish_reason=reason, message=plain, logprobs=None)
    return Choice.construct(
        None, **{"logprobs": None, **fields, "index": index, "finish_reason": reason, "message": plain or message}
    )


def _plain_message(message: Message) -> ChatCompletionMessage | None:
    """A message of texts and calls of functions, without a walk through nested types; None for any other."""
    values = dict(message)
    for name, value in message.items():
        if name == "tool_calls" and isinstance(value, list):
            values[name] = calls = [_function_call(call) for call in value]
            if None in calls:
                return None
        elif value == []:  # OpenAI's `annotations`, in most answers
            values[name] = []
        elif value is not None and type(value) is not str:
            return None
    return _of_values(ChatCompletionMessage, **values)


def _function_call(call: Any) -> ChatCompletionMessageFunctionToolCall | None:
    """A call of a function as OpenAI writes it; None for any other."""
    if not isinstance(call, dict) or call.keys() != {"id", "type", "function"} or call["type"] != "function":
        return None
    function = call["function"]
    if not isinstance(function, dict) or function.keys() != {"name", "arguments"}:
        return None
    if not all(type(text) is str for text in (call["id"], *function.values())):
        return None
    return _of_values(ChatCompletionMessageFunctionToolCall, **{**call, "function": _of_values(Function, **function)})


def usage_json(usage: Usage) -> dict[str, Any]:
    """Usage as JSON, by OpenAI's convention: prompt tokens include cached ones, completion tokens reasoning."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _usage(usage: Usage) -> Any:
    return _of_values(
        CompletionUsage,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        prompt_tokens_details=_of_values(PromptTokensDetails, cached_tokens=usage.cached_input),
        completion_tokens_details=_of_values(CompletionTokensDetails, reasoning_tokens=usage.reasoning),
    )


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
            self._chunk([{"index": i, "delta": {}, "logprobs": None, "finish_reason": _finish_reason(completion, i)}])
            for i in range(len(completion.messages))
        ]
        last = self._chunk([]) if usage_apart else chunks.pop()
        last |= {"usage": usage_json(completion.usage), "agentcascade": field}
        return [*chunks, last]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": choices}


def chunk(data: dict[str, Any]) -> CascadeChunk:
    """Chunk object, as OpenAI's client would return it."""
    return CascadeChunk.construct(None, **data)
