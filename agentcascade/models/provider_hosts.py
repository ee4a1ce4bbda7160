"""Provider hosts: whether a model is asked at its provider's own address, where its list price holds.

Servers of one's own, gateways and resellers speak OpenAI's or Anthropic's API and call their models what they like:
what they charge is not on the provider's list.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from agentcascade.models.quirks import without_route

HOSTS: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai.com",),
    "anthropic": ("anthropic.com",),
    "azure": ("azure.com", "azure.us", "azure.cn", "azure-api.net"),
    "cerebras": ("cerebras.ai",),
    "cohere": ("cohere.ai", "cohere.com"),
    "dashscope": ("aliyuncs.com",),
    "deepseek": ("deepseek.com",),
    "fireworks_ai": ("fireworks.ai",),
    "gemini": ("googleapis.com",),
    "groq": ("groq.com",),
    "mistral": ("mistral.ai",),
    "moonshot": ("moonshot.ai", "moonshot.cn"),
    "openrouter": ("openrouter.ai",),
    "perplexity": ("perplexity.ai",),
    "together_ai": ("together.ai", "together.xyz"),
    "xai": ("x.ai",),
}
"""Domains of providers, by litellm's names. Others are asked where their user says: their list prices hold anywhere."""
BASE_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "anthropic": ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
}


def environment_base(provider: str) -> str | None:
    """The address that the environment gives a provider's models; None where it gives none."""
    return next((v for name in BASE_VARIABLES.get(provider, ()) if (v := os.environ.get(name))), None)


def is_at_provider(name: str, api_base: str | None) -> bool:
    """Whether the model of a litellm name is asked at its provider's own host.

    Args:
        name: ``openai/gpt-4.1``; a bare name is OpenAI's, or Anthropic's where it begins with ``claude``.
        api_base: The address that the configuration gives; None: the environment's, else the provider's own.
    """
    provider, slash, _ = without_route(name).partition("/")
    if not slash:
        provider = "anthropic" if name.startswith("claude") else "openai"
    hosts = HOSTS.get(provider)
    base = api_base or environment_base(provider)
    if hosts is None or not base:
        return True
    try:
        host = (urlsplit(base if "://" in base else f"//{base}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return any(host == own or host.endswith(f".{own}") for own in hosts)
