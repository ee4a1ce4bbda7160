"""Actions of an agent: formats that read them off a message, keys that tell them apart, votes over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcascade._util.lazy import public_names

__all__ = [
    "ActionFormat",
    "AutoActions",
    "DryRun",
    "JsonActions",
    "RegexActions",
    "TextActions",
    "ToolCallActions",
    "Validator",
    "Verifier",
    "make_format",
    "one_of",
    "parse_as",
]

if TYPE_CHECKING:
    from agentcascade.actions.base import ActionFormat as ActionFormat
    from agentcascade.actions.base import AutoActions as AutoActions
    from agentcascade.actions.base import JsonActions as JsonActions
    from agentcascade.actions.base import RegexActions as RegexActions
    from agentcascade.actions.base import TextActions as TextActions
    from agentcascade.actions.base import ToolCallActions as ToolCallActions
    from agentcascade.actions.base import Validator as Validator
    from agentcascade.actions.base import one_of as one_of
    from agentcascade.actions.base import parse_as as parse_as
    from agentcascade.actions.equivalence import DryRun as DryRun
    from agentcascade.actions.equivalence import Verifier as Verifier
    from agentcascade.actions.formats import make_format as make_format
else:  # to a type checker `__getattr__` would stand for every name
    __getattr__, __dir__ = public_names(
        __name__,
        {
            "ActionFormat": "base",
            "AutoActions": "base",
            "DryRun": "equivalence",
            "JsonActions": "base",
            "RegexActions": "base",
            "TextActions": "base",
            "ToolCallActions": "base",
            "Validator": "base",
            "Verifier": "equivalence",
            "make_format": "formats",
            "one_of": "base",
            "parse_as": "base",
        },
    )
