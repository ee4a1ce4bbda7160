"""Responses as objects of OpenAI's: `ChatCompletion` and its chunks, with the decision of the cascade."""

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

from agentcascade.episodes.response_json import answer_fields, choice_fields, finish_reason
from agentcascade.types import Completion, Decision, Message, Usage

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
            _choice(i, {"role": "assistant", **m}, finish_reason(completion, i), choice_fields(completion, i))
            for i, m in enumerate(messages)
        ],
        "usage": _usage(completion.usage),
        "agentcascade": decision,
        **answer_fields(completion),
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


def _usage(usage: Usage) -> Any:
    return _of_values(
        CompletionUsage,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        prompt_tokens_details=_of_values(PromptTokensDetails, cached_tokens=usage.cached_input),
        completion_tokens_details=_of_values(CompletionTokensDetails, reasoning_tokens=usage.reasoning),
    )


def chunk(data: dict[str, Any]) -> CascadeChunk:
    """Chunk object, as OpenAI's client would return it."""
    return CascadeChunk.construct(None, **data)
