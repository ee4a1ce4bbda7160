"""Prompts: demonstrations, plans and quoted text in the messages of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = ["FOOTER", "HEADER", "Prompts", "build", "with_text"]

if TYPE_CHECKING:
    from agentcascade.messages import with_text as with_text
    from agentcascade.prompts.demonstrations import FOOTER as FOOTER
    from agentcascade.prompts.demonstrations import HEADER as HEADER
    from agentcascade.prompts.demonstrations import build as build
    from agentcascade.prompts.prompts import Prompts as Prompts
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "FOOTER": "demonstrations",
            "HEADER": "demonstrations",
            "Prompts": "prompts",
            "build": "demonstrations",
            "with_text": "agentcascade.messages",
        },
    )
