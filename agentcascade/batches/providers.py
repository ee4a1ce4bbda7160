"""Providers' batch interfaces by model, or `NoBatches` where there is none."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from agentcascade.batches.types import BatchProvider
from agentcascade.errors import NoBatches
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.effort import EffortModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.quirks import HOSTED_VLLM, RESPONSES_ROUTE
from agentcascade.protocols import ChatModel

TYPES = "openai/… (also at other servers that speak OpenAI's Batch API) and anthropic/…"


def provider_of(model: ChatModel) -> BatchProvider:
    """The batch interface of a model's provider.

    Raises:
        NoBatches: There is none that is spoken here.
    """
    if type(model) is OpenAIModel:  # not a subclass, which speaks another API
        from agentcascade.batches.openai import OpenAIBatches

        return OpenAIBatches(model)
    if type(model) is AnthropicModel:
        from agentcascade.batches.anthropic import AnthropicBatches

        return AnthropicBatches(model)
    raise NoBatches(
        f"{model.name} has no batch interface here: {_why_none(model)}; nothing was sent: leave --batch (audit.batch) "
        "out"
    )


def _why_none(model: ChatModel) -> str:
    """What of a model is not spoken, and what is instead."""
    if isinstance(model, EffortModel):
        return "requests of a batch have no effort: name the model without one"
    if model.name.startswith(RESPONSES_ROUTE):
        plain = model.name.removeprefix(RESPONSES_ROUTE)
        return (
            f"batches of OpenAI's Responses API are not spoken: name openai/{plain} if it takes chat completions, too"
        )
    if model.name.startswith("azure"):
        return "Azure's batches, which want a deployment of their own (Global Batch), are not spoken"
    if model.name.startswith(HOSTED_VLLM):
        return "replicas of vLLM have none: for many requests at once `agentcascade students sample` plays offline"
    if model.name.startswith("openai/"):
        return "its requests differ, or go to no address, so litellm makes them, and litellm's batches are not spoken"
    return f"those of {TYPES} are spoken"


def address_of(model: ChatModel) -> str:
    """The configured address of a model's endpoint without credentials; empty for the provider's own."""
    base = getattr(model, "api_base", None)
    parts = urlsplit(base if isinstance(base, str) else "")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
