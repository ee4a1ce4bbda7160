"""Chat models: adapters of providers, what they do differently, prices, tokens, tool-call ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["ClientModel", "LiteLLMModel", "OpenAIModel", "Price", "PriceTable", "ScriptedModel"]

if TYPE_CHECKING:
    from agentcascade.models.litellm import LiteLLMModel as LiteLLMModel
    from agentcascade.models.openai import OpenAIModel as OpenAIModel
    from agentcascade.models.openai_client import ClientModel as ClientModel
    from agentcascade.models.pricing import Price as Price
    from agentcascade.models.pricing import PriceTable as PriceTable
    from agentcascade.models.scripted import ScriptedModel as ScriptedModel
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "ClientModel": "openai_client",
            "LiteLLMModel": "litellm",
            "OpenAIModel": "openai",
            "Price": "pricing",
            "PriceTable": "pricing",
            "ScriptedModel": "scripted",
        },
    )
