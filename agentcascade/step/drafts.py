"""Drafts of a deferred step (`prompt.teacher_sees_drafts`): the samples that were not accepted, for its teacher alone.

They are in no answer, no demonstration and no later history, and nothing that labels an answer sees them: shadows and
audits ask a teacher of their own request, and a decision says how many drafts its teacher was shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentcascade.models.quirks import model_quirks
from agentcascade.prompts.drafts import DraftPrompt, with_drafts
from agentcascade.step.context import StepContext
from agentcascade.types import Message, Sample


def behind(context: StepContext, messages: Sequence[Message], samples: Sequence[Sample]) -> DraftPrompt:
    """The teacher's messages with the drafts behind them, where these are configured and there are some."""
    settings = context.config.prompt
    if not settings.teacher_sees_drafts or not samples or context.teacher is None:
        return DraftPrompt(messages, 0, 0)
    return with_drafts(
        messages,
        samples,
        budget=settings.draft_tokens,
        count=context.count,
        prompts=context.prompts,
        user_after_tools=model_quirks(context.teacher.name).user_after_tools,
    )
