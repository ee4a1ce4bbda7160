"""An OpenAI client without OpenAI: its requests are answered here, by the warehouse's rule and by offline/imitator."""

import asyncio
import json
from typing import Any

import httpx
import openai
from warehouse import expert

from agentcascade.assembly.components import make_model
from agentcascade.config.sections import ModelConfig
from agentcascade.models.tokens import count_messages, token_counter

COUNT = token_counter()
IMITATOR = make_model(ModelConfig(name="offline/imitator"), COUNT)


def answer(request: httpx.Request) -> httpx.Response:
    body: dict[str, Any] = json.loads(request.content)
    messages, n = body["messages"], body.get("n") or 1
    if body["model"] == "expert":
        texts = [expert(messages, 0)] * n
    else:
        asked = IMITATOR.complete(messages, n=n, temperature=body.get("temperature"), seed=body.get("seed"))
        texts = [m["content"] for m in asyncio.run(asked).messages]
    said = [{"role": "assistant", "content": text} for text in texts]
    choices = [{"index": i, "finish_reason": "stop", "message": m} for i, m in enumerate(said)]
    usage = {"prompt_tokens": count_messages(messages, COUNT), "completion_tokens": count_messages(said, COUNT)}
    return httpx.Response(
        200, json={"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices,
                   "usage": usage | {"total_tokens": sum(usage.values())}},
    )  # fmt: skip


def offline_client() -> openai.OpenAI:
    """A client whose models are called ``expert`` and ``imitator``."""
    return openai.OpenAI(api_key="none", http_client=httpx.Client(transport=httpx.MockTransport(answer)))
