"""Vote keys of recorded answers: the canonical key of tool calls by which a cascade compares samples."""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.actions.base import ToolCallActions
from agentcascade.actions.refusals import refusal
from agentcascade.envs.bfcl.recorded import Answer
from agentcascade.errors import InvalidAction
from agentcascade.types import Tool

DECLINED = "no call"
"""Key of every answer without a call, where these count as alike"""


def key(answer: Answer, tools: Sequence[Tool] | None = None, *, declined_alike: bool = False) -> str | None:
    """What an answer votes for; None where it votes for nothing: an unknown tool, arguments that do not fit its schema,
    a refusal in a stock phrase.

    Without a call it votes for its text, as in a cascade; `declined_alike`: or for calling nothing, whatever it says.
    """
    if declined_alike and not answer.calls:
        return DECLINED
    try:
        action = ToolCallActions().parse(answer.message, tools)
    except InvalidAction:
        return None
    return None if refusal(answer.message, action) else action.key
