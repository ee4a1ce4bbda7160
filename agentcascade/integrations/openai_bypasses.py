"""What of a wrapped OpenAI client goes past the cascade: beta paths, old completions, conversations kept elsewhere.

Such an attribute works as ever, and is said in the log the first time it is used. What asks no model to act, such as
embeddings, files and images, is no bypass.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from openai import AsyncOpenAI

from agentcascade.integrations.openai_chat import AsyncCascadeChat, CascadeChat
from agentcascade.integrations.openai_control import Wrapped

log = logging.getLogger("agentcascade.integrations")
BYPASSES = ("completions", "realtime", "conversations", "batches", "evals")
"""Attributes of a client through which models act unseen."""
BETA_BYPASSES = ("responses", "assistants", "threads", "realtime", "chatkit")


def warn_of_bypass(name: str) -> None:
    """Say in the log that what is reached by this attribute goes past the cascade."""
    log.warning(
        "client.%s bypasses the cascade: no decision, no budget, no record. client.chat.completions and "
        "client.responses do not",
        name,
    )


def bypasses(kind: type[Any]) -> dict[str, Any]:
    """Attributes of a wrapped client's class that warn once, each, for a client of class `kind`."""
    return {name: _warning(kind, name, f"{name}") for name in BYPASSES if hasattr(kind, name)}


def beta_of(client: Any, plain: Any, wrapped: Wrapped) -> Any:
    """`client.beta`, a copy of `plain`: its chat is the cascade's, and of everything else that acts it warns."""
    kind = type(plain)
    chat = AsyncCascadeChat if isinstance(client, AsyncOpenAI) else CascadeChat
    chat_property: Any = cached_property(lambda self: chat(client, wrapped))
    chat_property.__set_name__(kind, "chat")
    body = {name: _warning(kind, name, f"beta.{name}") for name in BETA_BYPASSES if hasattr(kind, name)}
    return type(kind.__name__, (kind,), {**body, "chat": chat_property, "__module__": kind.__module__})(client)


def _warning(kind: type[Any], name: str, shown: str) -> Any:
    """The attribute `name` of `kind`, which says once for each client that it is used."""

    def read(self: Any) -> Any:
        warn_of_bypass(shown)
        inherited = getattr(kind, name)
        return inherited.func(self) if isinstance(inherited, cached_property) else inherited.__get__(self, kind)

    attribute: Any = cached_property(read)
    attribute.__set_name__(kind, name)
    return attribute
