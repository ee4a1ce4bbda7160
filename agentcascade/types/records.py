"""Records of steps and episodes: decisions, shadows and audits, drafts, outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from agentcascade.types.base import Frozen, Mode, Role, new_id, now
from agentcascade.types.calls import Call


class Rung(Frozen):
    """Rung of a ladder as one step asked it: a model at its effort, its votes, and what they cost."""

    model: str = Field(description="its name, with the effort where it has one: ``openai/gpt-5.1@high``")
    role: Role
    votes: Mapping[str, int] = Field(default_factory=dict, description="action key: votes of its samples")
    samples: int = Field(default=0, ge=0, description="drawn of it")
    agreement: float | None = Field(default=None, description="share of them in the largest class; None: no vote")
    dollars: Decimal | None = Field(default=None, description="of its calls; None: a price is unknown")
    accepted: bool = Field(default=False, description="whether it took the step")


class CarriedHistory(Frozen):
    """Carried history of a step (`history`): what stood in a prompt in place of older steps, and what that left out."""

    steps: int = Field(ge=0, description="older steps that the carried state stands for")
    tokens_before: int = Field(ge=0, description="of the whole conversation, counted here")
    tokens_after: int = Field(ge=0, description="of the bounded one, the carried state included")
    state_tokens: int = Field(default=0, ge=0, description="of the carried state")
    tier: Literal["low", "mid", "high"] = Field(default="low", description="that made it: low where a model failed")


class Verification(Frozen):
    """Verification of a step's candidate by the soft verifier: its score, what it cost, and what came of it."""

    model: str
    action: str = Field(description="action key that it was asked about")
    asked: Literal["split", "stakes", "always"] = Field(description="why: what of `verifier.ask` held")
    score: float | None = Field(default=None, ge=0, le=1, description="its probability of yes; None: it gave no score")
    read: Literal["logprobs", "scale"] | None = Field(default=None, description="what the score was read from")
    dollars: Decimal | None = Field(default=Decimal(0), description="of all its calls; None: a price is unknown")
    accepted: bool = Field(default=False, description="whether the candidate was taken, with the score or by the vote")
    failure: str = Field(default="", description="why there is no score: then the vote alone decides")


class Decision(Frozen):
    """Decision of the cascade at one step: who answered, why, and the bill. Every answer has it as ``agentcascade``.

    >>> from decimal import Decimal
    >>> from agentcascade import Decision
    >>> decision = Decision(episode="ep_1", step=0, mode="cascade", answered_by="student", reason="agreement 3/3",
    ...                     dollars=Decimal("0.002"), teacher_dollars=Decimal("0.010"))
    >>> decision.saved_dollars
    Decimal('0.008')
    """

    id: str = Field(default_factory=lambda: new_id("de"))
    episode: str = Field(description="its id")
    namespace: str = "default"
    step: int = Field(description="index in the episode, from 0")
    goal: str = Field(default="", description="its first 300 characters")
    cascade: str = Field(default="", description="the configured cascade that took the step")
    mode: Mode = Field(description="that the step was taken in")
    answered_by: Role
    reason: str = Field(description="why this model answered, e.g. 'agreement 3/3' or 'student failed: Timeout'")
    agreement: float | None = Field(default=None, description="share of the samples in the largest class, 0 to 1")
    votes: Mapping[str, int] = Field(default_factory=dict, description="action key: votes of the student's samples")
    samples: int = Field(default=0, description="drawn of the student")
    invalid_samples: int = Field(default=0, description="of these, without a usable action")
    struck: Mapping[str, int] = Field(
        default_factory=dict, description="action key: votes that were denied, since it is known to fail here"
    )
    prompts: int = Field(
        default=1, ge=1, description="different prompts that the samples were drawn from (sampling.vary)"
    )
    retried: int = Field(
        default=0,
        ge=0,
        description="of `samples`, drawn after the fault of the others, all invalid, was fed back",
    )
    rungs: tuple[Rung, ...] = Field(
        default=(), description="where several students are asked in turn: each that was asked, then the teacher"
    )
    verification: Verification | None = Field(
        default=None, description="what the verifier said of the candidate, where it was asked; of rungs the last"
    )
    action: str | None = Field(default=None, description="action key taken, if one could be parsed")
    demonstrations: tuple[str, ...] = Field(default=(), description="'trajectory:start-end' windows shown")
    dropped_demonstrations: int = Field(default=0, description="retrieved, but over the token budget")
    teacher_drafts: int = Field(
        default=0,
        ge=0,
        description="distinct candidates of the student that the teacher was shown: its answer is no label of its own",
    )
    history_carried: CarriedHistory | None = Field(
        default=None, description="older steps that stood in a prompt as a carried state; None: the whole history did"
    )
    calls: tuple[Call, ...] = Field(default=(), description="the bill, line by line")
    dollars: Decimal | None = Field(default=None, description="all calls of this step; None if any price is unknown")
    teacher_dollars: Decimal | None = Field(
        default=None,
        description="estimate: what the teacher alone, without demonstrations, would have cost for this step, with "
        "its own prompt cache over the episode",
    )
    cache_regret: Decimal | None = Field(
        default=None,
        description="of `dollars`, what the teacher's call cost more since the student took steps before it, which "
        "its prompt cache did not see; None where a price is unknown",
    )
    overhead_ms: float = Field(default=0.0, description="the step's wall time less model calls and embedding")
    embedding_ms: float = Field(default=0.0, description="wall time of embedding the query")
    seconds: float = Field(default=0.0, description="wall time of the whole step")
    failures: tuple[str, ...] = Field(default=(), description="what failed and was worked around")
    created_at: datetime = Field(default_factory=now)

    @property
    def saved_dollars(self) -> Decimal | None:
        """`teacher_dollars` − `dollars`; None when either is unknown."""
        if self.dollars is None or self.teacher_dollars is None:
            return None
        return self.teacher_dollars - self.dollars


class EpisodeEnd(Frozen):
    """What became of an episode."""

    episode: str
    namespace: str = "default"
    goal: str
    plan: str = ""
    mode: Mode
    success: bool | None
    steps: int = Field(ge=0)
    started_at: datetime
    finished_at: datetime = Field(default_factory=now)
    decision: str = Field(default="", description="its last step's, which the calls below are billed with")
    calls: tuple[Call, ...] = Field(default=(), description="the judge's")


class LoggedSample(Frozen):
    """One student sample as the log keeps it."""

    action: str | None = Field(description="action key; None when no action could be parsed")
    text: str = ""
    invalid: str | None = None
    logprob: float | None = Field(default=None, le=0, description="mean log-probability of its tokens, where known")
    tokens: int | None = Field(default=None, ge=0, description="generated tokens, where they are known one by one")
    member: str = Field(
        default="",
        exclude_if=lambda member: not member,  # what is logged of one student stays as it always was
        description="model of a committee that gave it; empty where there is one student",
    )
    weight: int = Field(default=1, ge=1, exclude_if=lambda weight: weight == 1, description="votes that it counts")
    retry: bool = Field(
        default=False,
        exclude_if=lambda retry: not retry,
        description="whether it was drawn after the fault of the samples before it was fed back",
    )
    score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        exclude_if=lambda score: score is None,
        description="the verifier's probability that its action is right; None: not asked, or no score",
    )


class Shadow(Frozen):
    """Both models at one step: a shadow (the teacher acted, the student was sampled) or an audit (the reverse).

    Nothing of a shadow's samples or of an audit's teacher reached the agent.
    """

    decision: str
    kind: Literal["shadow", "audit"] = "shadow"
    episode: str
    namespace: str = "default"
    step: int
    goal: str = ""
    category: str = ""
    observation: str = ""
    temperature: float | None = Field(default=None, description="of the samples")
    k: int | None = Field(default=None, ge=0, description="demonstrations that were asked for")
    window: str | None = Field(
        default=None,
        exclude_if=lambda window: window is None,
        description="'BEFORE/AFTER', their steps around the one that matches",
    )
    vary: str | None = Field(
        default=None,
        exclude_if=lambda vary: vary is None,
        description="how prompts differed between the samples; None: not at all",
    )
    history: str | None = Field(
        default=None,
        exclude_if=lambda history: history is None,
        description="'KEEP/EVERY/CARRY/TIER' of a bounded history (`history`); None: the whole history stood there",
    )
    asked_together: int | None = Field(
        default=None,
        ge=2,
        exclude_if=lambda situations: situations is None,
        description="situations in the call that asked the teacher of this (audit.together); None: it was asked alone",
    )
    similarity: float | None = Field(default=None, description="score of the best demonstration shown")
    propensity: float = Field(default=1.0, gt=0, le=1, description="with which probability this step was logged")
    teacher_action: str | None = None
    gold: str | None = Field(default=None, description="action key that is known to be right")
    samples: tuple[LoggedSample, ...] = ()
    accepted: bool = Field(default=False, description="whether the router would have taken the student's action")
    agreement: float | None = None
    demonstrations: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    failures: tuple[str, ...] = ()
    seconds: float = 0.0
    created_at: datetime = Field(default_factory=now)


class Draft(Frozen):
    """One step of an episode that is not finished yet, kept where every replica finds it."""

    namespace: str
    episode: str
    position: int = Field(ge=0)
    goal: str
    plan: str = ""
    mode: Mode
    model: str = ""
    cascade: str = ""
    observation: str
    reasoning: str = ""
    action: str
    created_at: datetime = Field(default_factory=now)


class Outcome(Frozen):
    """Outcome of an action in a situation: whether it failed there. The bank's shelf of failures is made of them."""

    id: str = Field(default_factory=lambda: new_id("fa"))
    namespace: str = "default"
    episode: str = ""
    step: int = Field(default=0, ge=0, description="index in the episode, from 0")
    goal: str = ""
    category: str = Field(default="", description="kind of task")
    observation: str = Field(description="that was acted on")
    before: str = Field(default="", description="the action before; empty at the first step")
    action: str
    result: str = Field(default="", description="the observation that followed, its first 300 characters")
    failed: bool
    created_at: datetime = Field(default_factory=now)
