"""Forecast of a step's dollars, before a model is called: prices, prompts, demonstrations, samples, prompt caches.

A demonstration stands in the student's prompt alone, a deferred step pays for both models, an audited one too. What a
vote will buy is not known beforehand, so costs come as the least and the most (`vote_paths`); where a student's samples
come in one request and all are needed, the two are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple

from agentcascade.actions.voting import Seat
from agentcascade.economics.break_even import StepCosts
from agentcascade.economics.vote_paths import VotePath, vote_paths
from agentcascade.errors import UnknownPrice
from agentcascade.models.prompt_cache import CacheTerms, configured_terms
from agentcascade.prompts.drafts import DRAFT_FRAME, DRAFT_HEADING
from agentcascade.protocols import ChatModel, Router
from agentcascade.types import Usage

VERIFIER_TOKENS, VERIFIER_ANSWER = 150, 20
"""Of a verifier's prompt beside the samples in it, and of its answer."""
FRAME_TOKENS, SCORE_ANSWER = 150, 60
"""Of the soft verifier's question beside the conversation in it, and of its answer: assumed, not measured."""


class StudentTokens(NamedTuple):
    """Mean tokens of one student's calls: its prompt without demonstrations (None: not known), an answer, thinking."""

    prompt: float | None
    answer: float
    reasoning: float = 0.0


@dataclass(frozen=True)
class StepTokens:
    """Mean tokens of a step.

    Args:
        prompt: The conversation, with tools, as the teacher reads it.
        new: Of these, what the step before had not sent yet: its answer, and the observation that followed.
        answer: One answer of the student.
        reasoning: Of the student's thinking before it.
        teacher_answer: One answer of the teacher.
        teacher_reasoning: Of its thinking before it.
        demonstration: (steps before, steps after) → tokens of one demonstration with such a window.
        episode_steps: Steps of an episode, the first of which finds nothing in a prompt cache.
        frame: Tokens of what stands around all demonstrations of a prompt.
        students: By name, those whose own tokens are known: their tokenizers, answers and conversations may be others
            than the teacher's.
        deferred: What the teacher's answer to a deferred step costs, for one to any step: students defer what is hard.
    """

    prompt: float
    new: float
    answer: float
    teacher_answer: float
    demonstration: Callable[[int, int], float]
    reasoning: float = 0.0
    teacher_reasoning: float = 0.0
    episode_steps: float = 10.0
    frame: float = 0.0
    students: Mapping[str, StudentTokens] = field(default_factory=dict)
    deferred: float = 1.0

    def of(self, student: str) -> tuple[float, StudentTokens]:
        """(prompt, tokens) of a student: its own as far as they are known, else as of any."""
        known = self.students.get(student, StudentTokens(None, self.answer, self.reasoning))
        return self.prompt if known.prompt is None else known.prompt, known


class Policy(NamedTuple):
    """Students whose votes one router judges: one student with its samples, or the members of a committee.

    Attributes:
        router: Judges them.
        members: (model, samples and weight), in the order in which they are asked. Of one student, its samples are
            bought in waves; a member of a committee gives all of its own at once.
    """

    router: Router
    members: tuple[tuple[ChatModel, Seat], ...]

    @property
    def seats(self) -> list[Seat]:
        """What is asked one at a time: a sample, or a member."""
        if len(self.members) > 1:
            return [seat for _, seat in self.members]
        return [Seat() for _, seat in self.members for _ in range(seat.samples)]


class Scorer(NamedTuple):
    """The soft verifier as a plan asks it (`verifier`): of split votes, of accepted ones, or of both.

    Attributes:
        model: Is asked.
        split: Whether a vote that would be deferred is put to it: all samples are then bought before.
        accepted: Whether some accepted votes are, and may then be deferred.
        every: Whether every accepted vote is.
        context_tokens: Most that it reads of the conversation.
    """

    model: ChatModel
    split: bool
    accepted: bool = False
    every: bool = False
    context_tokens: int = 4000


@dataclass(frozen=True)
class Plan:
    """What a cascade asks at a step, as far as it costs dollars: the part of a configuration that a forecast needs.

    Args:
        teacher: Answers deferred steps.
        policies: One, or the links of a chain in turn.
        k: Demonstrations in a student's prompt.
        window: Steps that each shows before and after the one that matches.
        sticky: Whether an episode's demonstrations stay, so that the provider finds the prompt before in its cache.
        staged: `sampling.staged`. For auto what is done before anything is learnt; later it costs no more on average.
        cached_from: Shortest prompt that the student's provider reads from its cache; None: as published.
        caching: Whether breakpoints are set for models that cache only what is marked.
        place: `prompt.place`: behind the history, fresh demonstrations leave it in the cache.
        token_budget: Most tokens of demonstrations.
        audits: Share of the accepted steps that the teacher answers as well.
        teacher_sees_demonstrations: When it answers a deferred step.
        draft_tokens: Most tokens of the student's drafts in a deferred step's prompt; 0: the teacher sees none.
        varied: Whether each sample has a prompt of its own, and pays for it (`sampling.vary`).
        verifier: Asked which samples mean the same, where they differ.
        scorer: Asked how likely a candidate is right.
        history: (steps that stand as they are, steps after which older ones leave a student's prompt, which then begins
            anew for its cache); None: it is never bounded. How much shorter it then is, is measured or not known.
    """

    teacher: ChatModel
    policies: tuple[Policy, ...]
    k: int
    window: tuple[int, int]
    sticky: bool = False
    staged: str = "auto"
    cached_from: int | None = None
    caching: bool = True
    place: str = "auto"
    token_budget: int = 8000
    audits: float = 0.0
    teacher_sees_demonstrations: bool = False
    draft_tokens: int = 0
    varied: bool = False
    verifier: ChatModel | None = None
    scorer: Scorer | None = None
    history: tuple[int, int] | None = None

    def warm_steps(self, tokens: StepTokens) -> float:
        """Steps of a student's prompts in a row that begin alike."""
        steps = tokens.episode_steps
        if self.history is None or steps <= self.history[0]:
            return steps
        return 1 / (1 / max(1.0, steps) + 1 / self.history[1])

    def terms(self, model: ChatModel) -> CacheTerms:
        """Terms on which the model's provider caches its prompts."""
        minimum = None if model is self.teacher else self.cached_from
        return configured_terms(model, caching=self.caching, minimum=minimum)

    def demonstration_tokens(self, tokens: StepTokens) -> float:
        """What the demonstrations add to a student's prompt: as many as fit into the budget, each whole."""
        each = tokens.demonstration(*self.window) if self.k else 0.0
        number = min(self.k, max(0.0, self.token_budget - tokens.frame) // each) if each else 0
        return tokens.frame + each * number if number else 0.0


class Forecast(NamedTuple):
    """Dollars of a step, with the least and with the most that a vote may buy."""

    least: StepCosts
    most: StepCosts

    @property
    def break_even(self) -> tuple[float | None, float | None]:
        """Acceptance at which the cascade costs as much as its teacher, at the least and at the most."""
        return self.least.break_even, self.most.break_even

    @property
    def can_save(self) -> bool:
        """Whether some acceptance pays off even where every vote buys the most."""
        return self.most.break_even is not None


def forecast(plan: Plan, tokens: StepTokens, steps_ratio: float = 1.0) -> Forecast:
    """What a step of the cascade costs beside one of its teacher.

    Raises:
        UnknownPrice: Of a model that may be asked; it names all of them.
    """
    if unknown := unpriced(plan):
        raise UnknownPrice(f"the price of {' and of '.join(unknown)} is not known")
    shown = plan.demonstration_tokens(tokens)
    alone = teacher_dollars(plan, tokens, 0.0)
    drafts = draft_tokens(plan, tokens)
    fresh = replace(tokens, new=tokens.new + drafts)  # drafts stand behind what is cached
    behind = teacher_dollars(plan, fresh, drafts + (shown if plan.teacher_sees_demonstrations else 0.0))
    behind *= Decimal(tokens.deferred)
    accepted, deferred = _students(plan, tokens, shown)
    audits = Decimal(plan.audits) * alone
    least, most = (
        StepCosts(alone, choose(accepted) + audits, choose(deferred) + behind, steps_ratio) for choose in (min, max)
    )
    return Forecast(least, most)


def unpriced(plan: Plan) -> list[str]:
    """Names of the models that have no known price."""
    models = [plan.teacher, *(model for policy in plan.policies for model, _ in policy.members)]
    models += [plan.verifier] if plan.verifier is not None else []
    models += [plan.scorer.model] if plan.scorer is not None else []
    return list(dict.fromkeys(m.name for m in models if m.dollars(Usage(input=1000, output=1000)) is None))


def draft_tokens(plan: Plan, tokens: StepTokens) -> float:
    """What the drafts of the student that was asked last add to the teacher's prompt, where they all differ."""
    if not plan.draft_tokens:
        return 0.0
    samples = sum(seat.samples for seat in plan.policies[-1].seats)
    return min(float(plan.draft_tokens), DRAFT_FRAME + samples * (tokens.answer + DRAFT_HEADING))


def teacher_dollars(plan: Plan, tokens: StepTokens, shown: float) -> Decimal:
    """One answer of the teacher, of whose prompt an automatic cache has what the step before sent."""
    prompt = tokens.prompt + shown
    usage = prompt_usage(plan.terms(plan.teacher), prompt, tokens.new, tokens.episode_steps)
    return _dollars(plan.teacher, usage, tokens.teacher_answer, tokens.teacher_reasoning)


def prompt_usage(terms: CacheTerms, prompt: float, new: float, episode_steps: float) -> Usage:
    """A mean prompt of an episode whose steps each begin as the one before; `new` tokens are not in the cache."""
    whole, cached = round(prompt), round(max(0.0, prompt - new) * (1 - 1 / max(1.0, episode_steps)))
    if whole < terms.minimum:
        return Usage(input=whole)
    return terms._replace(minimum=0, block=1).usage(whole, cached)


def _students(plan: Plan, tokens: StepTokens, shown: float) -> tuple[list[Decimal], list[Decimal]]:
    """What the students' side may cost in an accepted step, and in a deferred one."""
    accepted: list[Decimal] = []
    before = [Decimal(0)]
    for policy in plan.policies:
        paths = [_patient(plan, policy, path) for path in _paths(plan, policy)]
        bought = [(path.accepted, _path(plan, policy, path, tokens, shown)) for path in paths]
        spent = [end for taken, dollars in bought for end in _scored(plan, tokens, taken, dollars)]
        accepted += [b + dollars for b in before for taken, dollars in spent if taken]
        before = [b + dollars for b in (min(before), max(before)) for taken, dollars in spent if not taken] or before
    return accepted or before, before


def _patient(plan: Plan, policy: Policy, path: VotePath) -> VotePath:
    """The path with the samples that are bought before a split vote is put to the verifier."""
    left = len(policy.seats) - sum(path.waves)
    if plan.scorer is None or not plan.scorer.split or path.accepted or left <= 0:
        return path
    return path._replace(waves=(*path.waves, left))


def _scored(plan: Plan, tokens: StepTokens, accepted: bool, dollars: Decimal) -> list[tuple[bool, Decimal]]:
    """How a vote may end, and what it has cost then: with the verifier asked, or without."""
    scorer = plan.scorer
    if scorer is None or not (scorer.accepted if accepted else scorer.split):
        return [(accepted, dollars)]
    prompt = min(tokens.prompt, scorer.context_tokens) + FRAME_TOKENS
    more = dollars + _dollars(scorer.model, Usage(input=round(prompt)), SCORE_ANSWER, 0.0)
    unasked = [] if accepted and scorer.every else [(accepted, dollars)]
    return [*unasked, (True, more), (False, more)]


def _paths(plan: Plan, policy: Policy) -> Sequence[VotePath]:
    one = policy.members[0][0] if len(policy.members) == 1 else None
    staged = plan.staged == "always" or (plan.staged == "auto" and (one is None or not one.supports_n or plan.varied))
    return sorted(vote_paths(policy.router, policy.seats, staged=staged))


def _path(plan: Plan, policy: Policy, path: VotePath, tokens: StepTokens, shown: float) -> Decimal:
    spent, asked, samples = Decimal(0), 0, 0
    for size in path.waves:
        if len(policy.members) > 1:
            wave = policy.members[asked : asked + size]
            spent += sum(
                (_requests(plan, model, seat.samples, tokens, shown, again=False) for model, seat in wave), Decimal(0)
            )
            samples += sum(seat.samples for _, seat in wave)
        else:
            spent += _requests(plan, policy.members[0][0], size, tokens, shown, again=asked > 0)
            samples += size
        asked += size
    if plan.verifier is not None and samples > 1 and not path.accepted:
        usage = Usage(input=round(samples * tokens.answer) + VERIFIER_TOKENS)
        spent += _dollars(plan.verifier, usage, VERIFIER_ANSWER, 0.0)
    return spent


def _requests(plan: Plan, model: ChatModel, samples: int, tokens: StepTokens, shown: float, *, again: bool) -> Decimal:
    """One wave of a student's samples: one request where its endpoint takes n, else as many side by side."""
    own_prompt, own = tokens.of(model.name)
    prompt, new = own_prompt + shown, min(tokens.new, own_prompt)
    terms = plan.terms(model)
    if again and not plan.varied:
        usage = terms.usage(round(prompt), round(prompt))
    elif plan.sticky or not shown:
        usage = prompt_usage(terms, prompt, new, plan.warm_steps(tokens))
    elif plan.place == "last" or (plan.place == "auto" and plan.caching):
        usage = prompt_usage(terms, prompt, new + shown, plan.warm_steps(tokens))
    else:
        usage = Usage(input=round(prompt))
    requests, answers = (1, samples) if model.supports_n and not plan.varied else (samples, 1)
    return requests * _dollars(model, usage, own.answer * answers, own.reasoning * answers)


def _dollars(model: ChatModel, prompt: Usage, answer: float, reasoning: float) -> Decimal:
    dollars = model.dollars(prompt + Usage(output=round(answer), reasoning=round(reasoning)))
    if dollars is None:
        raise UnknownPrice(f"the price of {model.name} is not known")
    return dollars
