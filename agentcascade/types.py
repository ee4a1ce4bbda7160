"""The data that flows between the parts: frozen, plain, without behaviour beyond reading itself.

Token counts are disjoint: a token is in exactly one class, so a bill is a dot product.
Dollars are `Decimal`; ``None`` dollars mean "price unknown", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Account",
    "Action",
    "CacheUse",
    "Call",
    "CarriedHistory",
    "Completion",
    "Decision",
    "Delta",
    "Demonstration",
    "Draft",
    "EpisodeEnd",
    "Judgement",
    "LoggedSample",
    "MODULES",
    "Message",
    "Mode",
    "ModuleName",
    "ModuleRun",
    "Outcome",
    "Purpose",
    "Recall",
    "Role",
    "Rung",
    "Sample",
    "Scope",
    "Shadow",
    "Situation",
    "Step",
    "TIERS",
    "Tally",
    "Tier",
    "Tool",
    "Trajectory",
    "Tried",
    "Turn",
    "Usage",
    "Verification",
]

Message: TypeAlias = dict[str, Any]
"""One chat message in OpenAI's shape."""

Tool: TypeAlias = dict[str, Any]
"""One tool definition in OpenAI's shape (``{"type": "function", "function": {...}}``)."""

Delta: TypeAlias = dict[str, Any]
"""A part of an assistant message, as the `delta` of OpenAI's streaming chunks."""

Mode = Literal["teacher", "collect", "shadow", "cascade", "student"]
"""Mode of an episode: who is asked, and who acts."""
Role = Literal["teacher", "student"]
"""Role of a model in a step."""
Purpose = Literal[
    "act",
    "sample",
    "shadow",
    "audit",
    "plan",
    "first-thought",
    "verify",
    "score",
    "judge",
    "memory",
    "history",
    "other",
]
"""Purpose of a model call, in bills and spans."""
CacheUse = Literal["auto", "use", "no-cache", "no-store"]
"""Of the response cache by one request. auto: at temperature 0; use: whatever the temperature; no-cache: ask anew, and
keep that answer; no-store: ask anew, and keep nothing."""


DERIVED = "cv_"
"""Begins the ids of episodes that are told apart by their first words alone."""


def new_id(prefix: str) -> str:
    """A short random identifier such as ``ep_3f2a…``."""
    return f"{prefix}_{uuid4().hex[:20]}"


def now() -> datetime:
    return datetime.now(UTC)


class Frozen(BaseModel):
    """Base of every value here: immutable, unknown fields refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    def _repr_html_(self) -> str:
        """In a notebook: a table of what it says, every text escaped."""
        from agentcascade._util.notebook import html_of_model

        return html_of_model(self)


class Usage(Frozen):
    """Usage of a model call: its tokens in disjoint classes, so that a bill is a dot product.

    >>> from agentcascade import Usage
    >>> usage = Usage(input=100, cached_input=900, output=20) + Usage(input=50, output=5, reasoning=30)
    >>> usage.prompt, usage.completion
    (1050, 55)
    """

    input: int = Field(default=0, ge=0, description="prompt tokens billed at the full input price")
    cached_input: int = Field(default=0, ge=0, description="prompt tokens read from the provider's cache")
    cache_write: int = Field(default=0, ge=0, description="prompt tokens written to the provider's cache")
    cache_write_1h: int = Field(default=0, ge=0, description="likewise, into Anthropic's one-hour cache")
    output: int = Field(default=0, ge=0, description="visible completion tokens")
    reasoning: int = Field(default=0, ge=0, description="hidden reasoning tokens")

    @property
    def prompt(self) -> int:
        """All prompt tokens, however billed."""
        return self.input + self.cached_input + self.cache_write + self.cache_write_1h

    @property
    def completion(self) -> int:
        """All generated tokens, visible or not."""
        return self.output + self.reasoning

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            cached_input=self.cached_input + other.cached_input,
            cache_write=self.cache_write + other.cache_write,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


class Step(Frozen):
    """Step of an agent, one model call: what it observed, what it reasoned, what it did.

    >>> from agentcascade import Step
    >>> Step(observation="You see a mug.", reasoning="The mug is wanted.", action="take mug").action
    'take mug'
    """

    observation: str = Field(description="what was said since the step before")
    reasoning: str = Field(default="", description="of the answer, what is no action")
    action: str = Field(description="as a demonstration shows it")


class Trajectory(Frozen):
    """Trajectory of an episode: its ordered steps, and what became of it. The bank holds them.

    >>> from agentcascade import Step, Trajectory
    >>> steps = (Step(observation="You see a mug.", action="take mug"), Step(observation="You have it.", action="done"))
    >>> trajectory = Trajectory(goal="take the mug", steps=steps, success=True)
    >>> len(trajectory.steps), trajectory.namespace
    (2, 'default')
    """

    id: str = Field(default_factory=lambda: new_id("tr"))
    namespace: str = "default"
    goal: str
    plan: str = ""
    category: str = Field(default="", description="kind of task")
    steps: tuple[Step, ...]
    success: bool = Field(description="whether it reached its goal")
    model: str = Field(default="", description="that took the last step")
    metadata: Mapping[str, Any] = Field(default_factory=dict, description="kept with it, and not read")
    created_at: datetime = Field(default_factory=now)


class Situation(Frozen):
    """Situation of an agent when a step begins: the query of retrieval and the router's input.

    >>> from agentcascade import Situation, Step
    >>> before = (Step(observation="You see a mug.", action="take mug"),)
    >>> Situation(goal="take the mug", history=before, observation="You have it.").step
    1
    """

    goal: str
    plan: str = ""
    history: tuple[Step, ...] = Field(default=(), description="the steps so far, oldest first")
    observation: str = Field(default="", description="to act on: what was said since the last step")
    category: str = Field(default="", description="kind of task")
    namespace: str = Field(default="default", description="whose demonstrations and budgets")
    episode: str = Field(default="", description="its id")

    @property
    def step(self) -> int:
        """Index of the step about to be taken, from 0."""
        return len(self.history)


class Tried(Frozen):
    """Failed action that was tried in the situation of a demonstration's step, and what came of it."""

    step: int = Field(ge=0, description="index of the step in its trajectory")
    action: str
    result: str = Field(description="the observation that followed")


class Demonstration(Frozen):
    """Demonstration: a window of a banked trajectory, retrieved for one step.

    >>> from agentcascade import Demonstration, Step
    >>> window = (Step(observation="You see a mug.", action="take mug"),)
    >>> Demonstration(trajectory="tr_1", goal="take a mug", steps=window, start=3, match=3, length=9, score=0.8).score
    0.8
    """

    trajectory: str = Field(description="id of the trajectory it was cut from")
    goal: str
    plan: str = ""
    steps: tuple[Step, ...]
    start: int = Field(ge=0, description="index in the trajectory of the window's first step")
    match: int = Field(ge=0, description="index in the trajectory of the step that matched")
    length: int = Field(ge=1, description="steps in the whole trajectory")
    score: float = Field(description="weighted mean of the keys' cosine similarities")
    tried: tuple[Tried, ...] = Field(default=(), description="what is known to fail in the situations of its steps")


class Completion(Frozen):
    """Completion of a chat model: the `n` assistant messages of one call, and its bill.

    >>> from agentcascade import Completion, Usage
    >>> message = {"role": "assistant", "content": "look"}
    >>> Completion(model="mine", messages=(message,), usage=Usage(input=12, output=1)).usage.completion
    1
    """

    model: str = Field(description="name of the model that was asked; `fields` may hold what its provider calls it")
    messages: tuple[Message, ...]
    finish_reasons: tuple[str, ...] = Field(default=(), description="of each message, as OpenAI calls them")
    usage: Usage = Usage()
    dollars: Decimal | None = Field(default=None, description="None: the price is unknown")
    seconds: float = Field(default=0.0, description="wall time")
    calls: int = Field(
        default=1, ge=0, description="provider requests behind it (n parallel calls count n; 0: it shared another's)"
    )
    logprobs: tuple[float | None, ...] = Field(
        default=(), description="mean log-probability of each message's tokens, where it was asked for and told"
    )
    tokens: tuple[int | None, ...] = Field(default=(), description="generated tokens of each message, likewise")
    estimated: bool = Field(
        default=False,
        description="whether tokens were counted here, all or some, since the server reported none or nonsense",
    )
    lost: int = Field(
        default=0,
        ge=0,
        description="requests that were sent and whose answers never came: they may be billed, and `usage` lacks them",
    )
    fields: Mapping[str, Any] = Field(
        default_factory=dict, description="what the provider's answer says beside its choices, such as service_tier"
    )
    choice_fields: tuple[Mapping[str, Any], ...] = Field(
        default=(), description="of each message, what its choice says beside it, such as logprobs"
    )
    cached_response: bool = Field(
        default=False, description="whether it was kept from an earlier identical request: `dollars` is 0"
    )
    avoided_dollars: Decimal | None = Field(default=None, description="what such an answer cost when it was bought")


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


class Call(Frozen):
    """One line of the ledger: who was called, what for, and what it cost."""

    role: Role
    purpose: Purpose = "act"
    model: str
    usage: Usage
    dollars: Decimal | None
    seconds: float = 0.0
    requests: int = Field(
        default=1,
        ge=0,
        description="provider requests behind it, each of which paid for its prompt; 0: a part of another line's",
    )
    estimated: bool = Field(
        default=False, description="whether tokens were counted here, all or some: the provider did not say"
    )
    cached_response: bool = Field(
        default=False,
        description="whether the response cache answered: nobody was asked, `dollars` is 0, and `usage` was not bought",
    )
    avoided_dollars: Decimal | None = Field(default=None, description="what such an answer cost when it was bought")

    @classmethod
    def of(cls, role: Role, purpose: Purpose, completion: Completion) -> Call:
        """The ledger line of a completion."""
        return cls(
            role=role,
            purpose=purpose,
            model=completion.model,
            usage=completion.usage,
            dollars=completion.dollars,
            seconds=completion.seconds,
            requests=completion.calls,
            estimated=completion.estimated,
            cached_response=completion.cached_response,
            avoided_dollars=completion.avoided_dollars,
        )


class Judgement(NamedTuple):
    """Whether an episode succeeded, and what it cost to know."""

    success: bool
    calls: tuple[Call, ...] = ()


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


Scope = Literal["key", "namespace", "episode", "collection"]
"""Scope of a budget: whose spending is limited."""


class Account(Frozen):
    """Something that may spend no more than its limit in one period."""

    scope: Scope
    name: str
    limit: Decimal = Field(ge=0, description="dollars")
    period: Literal["total", "day", "month"] = "total"


Tier = Literal["low", "mid", "high"]
"""Tier of a memory module: how much it may cost."""


ModuleName = Literal["filter", "entity", "temporal", "topic", "summary"]
"""Name of a memory module."""


TIERS: tuple[Tier, ...] = ("low", "mid", "high")
"""Tiers of a memory module, the cheapest first."""


MODULES: tuple[ModuleName, ...] = ("filter", "entity", "temporal", "topic", "summary")
"""Memory modules, in the order in which their tiers are chosen."""


class Turn(Frozen):
    """Turn of a history that `Memory` holds: something said, seen or written.

    >>> from agentcascade import Turn
    >>> Turn(text="My dog is called Rex.", speaker="Ann", session="monday").speaker
    'Ann'
    """

    id: str = Field(default_factory=lambda: new_id("tu"), description="unique within its history")
    text: str
    speaker: str = ""
    session: str = Field(default="", description="what belongs together: a conversation, a day, a document")
    at: datetime | None = Field(default=None, description="when; None where it is not known or did not parse")


class ModuleRun(Frozen):
    """What one module did for one question."""

    module: ModuleName
    asked: Tier = Field(description="the tier that the router chose")
    used: Tier | None = Field(description="the tier that answered; None where the module was left out")
    probability: float = Field(default=1.0, ge=0, le=1, description="with which the router chose `asked`")
    milliseconds: float = 0.0
    items: int = Field(default=0, ge=0, description="pieces that it handed on")
    dollars: Decimal | None = Decimal(0)
    cached: bool = Field(default=False, description="answered from an earlier identical query, at no cost")
    failures: tuple[str, ...] = ()


class Recall(Frozen):
    """Recall of a memory: the text made for one question, where it comes from, and what it cost.

    >>> from agentcascade import build_memory
    >>> with build_memory(stored=False, retrieval={"embedder": "hashing"}) as memory:
    ...     memory.append_sync("ann", ["My dog is called Rex."])
    ...     recall = memory.recall_sync("What is the dog called?", "ann")
    >>> recall.text, len(recall.sources), recall.dollars
    ('- My dog is called Rex.', 1, Decimal('0'))
    """

    id: str = Field(default_factory=lambda: new_id("re"))
    history: str
    namespace: str = "default"
    episode: str = ""
    decision: str = Field(default="", description="the step that it was made for and billed with")
    question: str
    text: str
    sources: tuple[str, ...] = Field(default=(), description="ids of the turns it draws on, most useful first")
    tokens: int = Field(default=0, ge=0, description="of `text`")
    runs: tuple[ModuleRun, ...] = ()
    left_out: tuple[str, ...] = Field(default=(), description="what a deadline, a dollar cap, a budget or a limit cost")
    calls: tuple[Call, ...] = ()
    dollars: Decimal | None = Field(default=Decimal(0), description="None as soon as one price is unknown")
    seconds: float = 0.0
    router: str = ""
    tradeoff: float = Field(default=0.0, description="λ: the weight of cost against quality that the router was given")
    created_at: datetime = Field(default_factory=now)

    @property
    def tiers(self) -> Mapping[ModuleName, Tier]:
        """The tiers that the router chose."""
        return {run.module: run.asked for run in self.runs}


def total(calls: Sequence[Call]) -> Decimal | None:
    """The sum; None as soon as one price is unknown."""
    prices = [c.dollars for c in calls]
    return None if any(p is None for p in prices) else sum((p for p in prices if p is not None), Decimal(0))
