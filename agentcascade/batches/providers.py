"""Providers' batch interfaces by model, or `NoBatches` where there is none."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from agentcascade.batches.types import BatchProvider
from agentcascade.errors import NoBatches
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.openai import OpenAIModel
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
        f"{model.name} has no batch interface here: those of {TYPES} are spoken; nothing was sent: leave --batch "
        "(audit.batch) out"
    )


def address_of(model: ChatModel) -> str:
    """The configured address of a model's endpoint without credentials; empty for the provider's own."""
    base = getattr(model, "api_base", None)
    parts = urlsplit(base if isinstance(base, str) else "")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
