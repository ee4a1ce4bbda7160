"""The answer in the ecosystem's own shape: an OpenAI `ChatCompletion` that also says what the cascade did."""

from __future__ import annotations

import time
from typing import Any

from openai.types.chat import ChatCompletion

from agentcascade.types import Completion, Decision, Message, Usage


class CascadeCompletion(ChatCompletion):
    """A `ChatCompletion` whose `agentcascade` field is the step's `Decision`."""

    agentcascade: Decision


def chat_completion(completion: Completion, message: Message, decision: Decision) -> CascadeCompletion:
    """`message` with usage and finish reason, as OpenAI's client would return it."""
    reason = completion.finish_reasons[0] if completion.finish_reasons else "stop"
    return CascadeCompletion.model_construct(
        id=decision.id,
        object="chat.completion",
        created=int(time.time()),
        model=completion.model,
        choices=[_choice({"role": "assistant", **message}, reason)],
        usage=_usage(completion.usage),
        agentcascade=decision,
    )


def _choice(message: Message, reason: Any) -> Any:
    from openai.types.chat import ChatCompletionMessage
    from openai.types.chat.chat_completion import Choice

    if message.keys() <= {"role", "content"}:  # the common case, without a walk through nested types
        plain = ChatCompletionMessage.model_construct(**message)
        return Choice.model_construct(index=0, finish_reason=reason, message=plain, logprobs=None)
    return Choice.construct(index=0, finish_reason=reason, message=message, logprobs=None)


def _usage(usage: Usage) -> Any:
    """OpenAI's convention: prompt tokens include cached ones, completion tokens include reasoning."""
    from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails

    return CompletionUsage.model_construct(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        prompt_tokens_details=PromptTokensDetails.model_construct(cached_tokens=usage.cached_input),
        completion_tokens_details=CompletionTokensDetails.model_construct(reasoning_tokens=usage.reasoning),
    )
