"""`LoggedStep`: situation, students' samples, the teacher's action, the gold action, token counts and prices."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pydantic import Field

from agentcascade.models.pricing import Price
from agentcascade.types import Frozen, LoggedSample, Usage


class StudentSamples(Frozen):
    """Samples that one student gave at a step, in the order in which they were drawn."""

    model: str = ""
    samples: tuple[LoggedSample, ...] = ()
    n: int | None = Field(
        default=None, ge=0, description="samples that were drawn; None: as many as at any step, what lacks was unusable"
    )
    temperature: float | None = None
    k: int | None = Field(default=None, ge=0, description="demonstrations that were asked for")
    window: str | None = Field(
        default=None,
        pattern=r"^\d{1,4}/\d{1,4}$",
        exclude_if=lambda window: window is None,
        description="'BEFORE/AFTER', their steps around the one that matches",
    )
    vary: str | None = Field(
        default=None,
        pattern="^(order|subsets)$",
        exclude_if=lambda vary: vary is None,
        description="how prompts differed between the samples (sampling.vary)",
    )
    history: str | None = Field(
        default=None,
        pattern=r"^\d{1,5}/\d{1,5}/\d{1,6}/(low|mid|high)(:.{1,200})?$",
        exclude_if=lambda history: history is None,
        description="'KEEP/EVERY/CARRY/TIER' of a bounded history, and its model behind it (history)",
    )
    demonstrations: tuple[str, ...] = Field(default=(), description="'trajectory:start-end' windows shown")
    similarity: float | None = Field(default=None, description="score of the best of them")
    prompt: Usage | None = Field(default=None, description="prompt tokens of one request, by class; None: not known")
    price: Price | None = Field(default=None, description="dollars per million tokens; None: not known")
    verifier: str | None = Field(
        default=None, exclude_if=lambda name: name is None, description="model that scored candidates (samples.score)"
    )
    verifier_dollars: Decimal | None = Field(
        default=None,
        exclude_if=lambda dollars: dollars is None,
        description="of one verification, on average; None: none was asked for, or its price is not known",
    )


class LoggedStep(Frozen):
    """One step that student and teacher both answered.

    `teacher` and `gold` are action keys: what the teacher did, and what is known to be right (`also_right`, too, where
    several answers are). `success` is the outcome of the whole episode as it was played. Every line of the log's JSONL
    form is one of these.
    """

    id: str
    episode: str = Field(default="", description="steps of one episode are not independent; default: the step's id")
    namespace: str = "default"
    step: int = Field(default=0, ge=0)
    goal: str = ""
    category: str = Field(default="", description="the type of the goal, where rules may differ by it")
    observation: str = ""
    students: tuple[StudentSamples, ...] = Field(description="one for each student that was asked, cheapest first")
    teacher: str | None = Field(default=None, description="the teacher's action key; None: it gave none")
    teacher_model: str = ""
    teacher_usage: Usage | None = None
    teacher_price: Price | None = None
    gold: str | None = None
    also_right: tuple[str, ...] = Field(default=(), description="further action keys that are right, beside `gold`")
    success: bool | None = None
    propensity: float = Field(default=1.0, gt=0, le=1, description="with which probability the step was logged")
    kind: str = Field(default="shadow", description="shadow, or audit: then only accepted steps were logged")
    asked_together: int | None = Field(
        default=None,
        ge=2,
        exclude_if=lambda situations: situations is None,
        description="situations in the call that asked the teacher of this (audit.together); None: it was asked alone",
    )
    accepted: bool | None = Field(default=None, description="what the router of the time made of the student's samples")
    created_at: datetime | None = None

    @property
    def cluster(self) -> str:
        """Cluster of the step for tests: its episode, or itself; steps of one cluster are not independent."""
        return f"{self.namespace}/{self.episode}" if self.episode else f"{self.namespace}//{self.id}"

    @property
    def right(self) -> frozenset[str]:
        """Action keys that are known to be right."""
        return frozenset(self.also_right) if self.gold is None else frozenset((self.gold, *self.also_right))

    @property
    def student(self) -> StudentSamples:
        """The first student's samples."""
        return self.students[0] if self.students else StudentSamples()


def action_type(key: str | None) -> str:
    """Type of an action: a tool call's name, or the first word of a text action."""
    text = key or ""
    called = text.endswith(")") and "(" in text
    words = text.split("(", 1)[0] if called else (text.split(":", 1)[0].split(None, 1) or [""])[0]
    return words.strip()[:60]


def usage_dollars(price: Price | None, usage: Usage | None) -> Decimal | None:
    """Dollars of a usage at a price; None where either is not known."""
    return None if price is None or usage is None else price.dollars(usage)
