"""Drafts for the teacher: a student's distinct candidates with their votes, behind the history.

What the student wrote before it was deferred is shown to the teacher, which checks and refines it ("Rethinking Thinking
Tokens: LLMs as Improvement Operators", parallel-distill-refine: drafts in parallel, a bounded workspace, one refined
answer). Drafts stand last, so that the prompt cache of the history holds. A draft is a model's text, and hostile: it is
quoted (`quoting`) up to a mark that no draft holds. Their words are the templates ``drafts`` and ``draft``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentcascade.messages import text_of
from agentcascade.prompts.additions import Rendered, with_addition_behind
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.quoting import mark_of
from agentcascade.protocols import TokenCounter
from agentcascade.types import Message, Sample

MARK = "0a1b2c"
"""As long as one is."""
HEADER = "\n".join(DEFAULT.templates["drafts"].text.split("\n")[:2])
"""What the default template begins with."""
DRAFT_FRAME, DRAFT_HEADING = 70, 12
"""Tokens of what the default templates say around all drafts, and above each, for estimates."""
CHARACTERS = 40
"""A token has fewer: a draft with more for each token of the budget is not counted, it is left out."""


class DraftPrompt(NamedTuple):
    """Messages to send, and what was added to them."""

    messages: Sequence[Message]
    shown: int
    """Distinct drafts."""
    tokens: int
    """Tokens that they add."""


def distinct(samples: Sequence[Sample]) -> list[tuple[str, int]]:
    """Texts of the distinct actions with their votes, most votes first; without thoughts, and without invalid ones.

    >>> from agentcascade.types import Action, Sample
    >>> go, look = (Action(key=word, text=word, reasoning="why") for word in ("go", "look"))
    >>> votes = [Sample(message={}, action=action) for action in (go, look, look)]
    >>> distinct([*votes, Sample(message={}, invalid="no action")])
    [('look', 2), ('go', 1)]
    """
    texts: dict[str, str] = {}
    votes: dict[str, int] = {}
    for sample in samples:
        if sample.action is not None:
            texts.setdefault(sample.action.key, sample.action.text)
            votes[sample.action.key] = votes.get(sample.action.key, 0) + sample.weight
    return [(texts[key], votes[key]) for key in sorted(votes, key=lambda key: -votes[key])]


def with_drafts(
    messages: Sequence[Message],
    samples: Sequence[Sample],
    *,
    budget: int,
    count: TokenCounter,
    prompts: Prompts = DEFAULT,
    user_after_tools: bool = True,
) -> DraftPrompt:
    """Put the distinct drafts among `samples` behind `messages`, which are not changed.

    Args:
        messages: A conversation.
        samples: The student's, all of one vote.
        budget: Tokens that the drafts may add. One that does not fit is left out whole.
        count: Counts the tokens of a text.
        prompts: Templates, and the quoting of the drafts.
        user_after_tools: Whether the model that is asked takes a user's message behind tools' results.

    Returns:
        The messages to send; the same where there is no draft, no room, or no place.
    """
    blocks, tokens = _fit(distinct(samples), sum(s.weight for s in samples), budget, count, prompts)
    if not blocks:
        return DraftPrompt(messages, 0, 0)
    values = {"drafts": "\n\n".join(blocks)}
    if prompts.quoting.on:
        first = next((text_of(message) for message in messages if message.get("role") == "user"), "")
        values["mark"] = mark_of(f"drafts\0{first}", blocks)
    text = prompts.render("drafts", **values)
    sent = with_addition_behind(messages, text, Rendered("drafts", values), user_after_tools=user_after_tools)
    return DraftPrompt(messages, 0, 0) if sent is None else DraftPrompt(sent, len(blocks), tokens)


def _fit(
    drafts: Sequence[tuple[str, int]], total: int, budget: int, count: TokenCounter, prompts: Prompts
) -> tuple[list[str], int]:
    """Blocks of the drafts that fit into `budget` tokens with the frame, and what they take."""
    frame = prompts.templates["drafts"].blocks(mark=MARK if prompts.quoting.on else "")
    tokens = sum(map(count, frame)) + len(frame)
    blocks: list[str] = []
    for text, votes in drafts:
        if len(text) > CHARACTERS * budget:
            continue
        block = prompts.render(
            "draft", number=str(len(blocks) + 1), votes=str(votes), total=str(total), text=prompts.quoting.text(text)
        )
        needed = count(block) + 2
        if tokens + needed <= budget:
            blocks.append(block)
            tokens += needed
    return blocks, tokens if blocks else 0


def shows_drafts(messages: Sequence[Message]) -> bool:
    """Whether the last message of a logged request holds drafts, as the default template says them."""
    return bool(messages) and isinstance(messages[-1], Mapping) and HEADER in text_of(messages[-1])
