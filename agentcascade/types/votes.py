"""Votes: actions, the samples that say them, and the tally over their keys."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from agentcascade.types.base import Frozen, Message


class Action(Frozen):
    """Action of an assistant message: the key it votes under, and what a demonstration would show.

    >>> from agentcascade import Action
    >>> Action(key="take mug", text="take mug", reasoning="The mug is wanted.").key
    'take mug'
    """

    key: str = Field(description="the same for samples that do the same")
    text: str = Field(description="as a demonstration shows it")
    reasoning: str = ""


class Sample(Frozen):
    """One student completion: its message, and its action or why it has none."""

    message: Message
    action: Action | None = None
    invalid: str | None = None
    struck: str | None = Field(default=None, description="action key that it would vote for, which is known to fail")
    logprob: float | None = None
    tokens: int | None = None
    member: str = Field(default="", description="model of a committee that gave it; empty where there is one student")
    weight: int = Field(default=1, ge=1, description="votes that it counts")
    score: float | None = Field(default=None, ge=0, le=1, description="the verifier's, of its action")


class Tally(Frozen):
    """Tally of votes over action keys; invalid samples count in `total` and in no class.

    >>> from agentcascade import Tally
    >>> tally = Tally(counts={"look": 3, "wait": 1}, total=5)
    >>> tally.top, tally.agreement
    (('look', 3), 0.6)
    """

    counts: Mapping[str, int] = Field(description="action key: votes")
    total: int = Field(ge=0, description="votes of all samples, the invalid ones among them")
    logprobs: Mapping[str, float] = Field(
        default_factory=dict, description="mean log-probability of each class' samples, where it is known of them all"
    )
    similarity: float | None = Field(default=None, description="score of the best demonstration shown")

    @property
    def top(self) -> tuple[str, int] | None:
        """The largest class and its votes; ties go to the key seen first."""
        return max(self.counts.items(), key=lambda kv: kv[1]) if self.counts else None

    @property
    def agreement(self) -> float:
        """Share of all samples in the largest class; 0.0 without samples."""
        return self.top[1] / self.total if self.top and self.total else 0.0
