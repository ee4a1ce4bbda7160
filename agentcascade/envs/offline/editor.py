"""`offline/editor`: shortens thoughts by rule, the offline stand-in for a teacher that rewrites what is banked.

It is not a language model: of each thought it keeps the first sentences that fit, or of the first sentence the first
words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from agentcascade.envs.offline.stand_in import StandIn
from agentcascade.errors import InvalidRequest
from agentcascade.models.tokens import count_messages
from agentcascade.prompts.additions import rendered
from agentcascade.types import Completion, Message, Tool, Usage


class Editor(StandIn):
    """Implements `ChatModel` for the prompts of `agentcascade bank shorten` alone."""

    name = "offline/editor"

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Tool] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Completion:
        """The same answer `n` times. Raises `InvalidRequest` for a prompt without steps."""
        asked = rendered(messages[-1], "shorten") if messages else None
        try:
            steps = json.loads((asked or {})["steps"])["steps"]
        except (ValueError, KeyError, TypeError):
            raise InvalidRequest("offline/editor only shortens what is banked: `agentcascade bank shorten`") from None
        answer = json.dumps({str(s["step"]): shorter(s["thought"], s["words"]) for s in steps})
        message: Message = {"role": "assistant", "content": answer}
        usage = Usage(input=count_messages(messages, self._count), output=n * self._count(answer))
        return Completion(
            model=self.name,
            messages=(message,) * n,
            finish_reasons=("stop",) * n,
            usage=usage,
            dollars=self.dollars(usage),
        )


def shorter(thought: str, words: int) -> str:
    """The first sentences of at most so many words."""
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", thought.strip()):
        if len(" ".join([*kept, sentence]).split()) > words:
            break
        kept.append(sentence)
    return " ".join(kept) or " ".join(thought.split()[:words])
