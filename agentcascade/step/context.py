"""Context of a step: everything that one needs, made complete once and never changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from agentcascade.actions.base import ActionFormat, AutoActions, Validator
from agentcascade.actions.voting import Seat
from agentcascade.billing.door import Door, NullObserver
from agentcascade.errors import ConfigError
from agentcascade.models.prompt_cache import CacheTerms, configured_terms
from agentcascade.models.structured_output import Choices
from agentcascade.models.tool_call_ids import ToolCallIds
from agentcascade.prompts.prompts import Prompts, prompts_of
from agentcascade.protocols import (
    Budgets,
    ChatModel,
    Guard,
    Judge,
    Merger,
    Observer,
    Recorder,
    Router,
    Switch,
    TokenCounter,
)
from agentcascade.step.breakpoint_worth import BreakpointWorth
from agentcascade.step.carried_states import CarriedStates
from agentcascade.step.student_health import StudentHealth
from agentcascade.step.usual_thinking import UsualThinking
from agentcascade.types import Mode

if TYPE_CHECKING:
    from agentcascade.bank.bank import Bank
    from agentcascade.bank.failures import FailureShelf
    from agentcascade.bank.live_collection import LiveCollection
    from agentcascade.batches.run import Batches
    from agentcascade.billing.response_cache import ResponseCache
    from agentcascade.config.load import CascadeConfig
    from agentcascade.memory.memory import Memory
    from agentcascade.step.verification import SoftVerifier
    from agentcascade.storage import Database
    from agentcascade.storage.audit_rounds import AuditRoundStore

__all__ = ["ContextParts", "StepContext"]

MODELS = 100
"""Whose cache terms a cascade keeps."""


class FurtherStudent(NamedTuple):
    """A student beside the first.

    In a chain it is asked when those before it were not accepted, and `router` judges its samples; in a committee it
    has a `seat`.
    """

    model: ChatModel
    router: Router
    seat: Seat = Seat()


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What the steps of a cascade are made with. A twin with another part is `dataclasses.replace`.

    Attributes:
        config: The checked configuration; its sections hold every setting that is not a part of its own.
        router: Judges the first student's samples.
        count: Tokens of a text.
        name: Of the cascade, as decisions name it.
        teacher: Takes the steps that are deferred.
        student: Takes the steps on which its samples agree.
        students: Asked in order after `student`, or with it where they are a committee (`sampling.across: students`).
        bank: Where demonstrations are retrieved from and banked.
        failures: Which actions are known to fail in a situation.
        collection: Which live episodes are wanted as demonstrations.
        memory: What is recalled before a step and remembered after it.
        historian: Asked for the carried state of a run's older steps, where `history` has a model.
        carried_states: Those that were made.
        actions: Reads actions off messages.
        validators: Say which actions are impossible.
        mergers: Say which actions are the same though their keys differ.
        choices: Admissible actions, for ``sampling.constrain: choice``.
        verifier: Scores candidates beside the vote.
        judge: Says whether an episode succeeded where nobody else does.
        recorder: Keeps decisions, shadows, drafts, and ends of episodes.
        database: Where unfinished episodes of stateless callers are found.
        response_cache: Answers model calls that are equal to earlier ones.
        batches: By which audits are sent, where they can wait.
        audit_rounds: Keeps those until they are judged, whoever is there then.
        budgets: Reserved from before, and settled after, every model call.
        switch: Sends every step to the teacher while it is on.
        guard: Watches whether the certified risk still holds.
        observer: Is told of steps and calls.
        ids: Tool-call ids handed out, and whose they are.
        health: Which students fail.
        breakpoint_worth: Whether prompt-cache breakpoints are worth what they cost.
        usual_thinking: What relative efforts are shares of.
        clock: Seconds, by which providers' prompt caches forget.
    """

    config: CascadeConfig
    router: Router
    count: TokenCounter
    name: str = ""
    teacher: ChatModel | None = None
    student: ChatModel | None = None
    students: tuple[FurtherStudent, ...] = ()
    bank: Bank | None = None
    failures: FailureShelf | None = None
    collection: LiveCollection | None = None
    memory: Memory | None = None
    historian: ChatModel | None = None
    carried_states: CarriedStates = field(default_factory=CarriedStates)
    actions: ActionFormat = field(default_factory=AutoActions)
    validators: tuple[Validator, ...] = ()
    mergers: tuple[Merger, ...] = ()
    choices: Choices | None = None
    verifier: SoftVerifier | None = None
    judge: Judge | None = None
    recorder: Recorder | None = None
    database: Database | None = None
    response_cache: ResponseCache | None = None
    batches: Batches | None = None
    audit_rounds: AuditRoundStore | None = None
    budgets: Budgets | None = None
    switch: Switch | None = None
    guard: Guard | None = None
    observer: Observer = field(default_factory=NullObserver)
    ids: ToolCallIds = field(default_factory=ToolCallIds)
    health: StudentHealth = field(default_factory=StudentHealth)
    breakpoint_worth: BreakpointWorth = field(default_factory=BreakpointWorth)
    usual_thinking: UsualThinking = field(default_factory=UsualThinking)
    clock: Callable[[], float] = time.monotonic

    @cached_property
    def prompts(self) -> Prompts:
        """What models are told, and how others' texts are quoted in it."""
        return prompts_of(self.config.prompt)

    def terms(self, model: ChatModel, minimum: int | None) -> CacheTerms:
        """Terms on which the model's provider caches what this cascade sends; read off its prices once."""
        key, known = (id(model), minimum), self._terms
        if key not in known or known[key][0] is not model:
            if len(known) > MODELS:
                known.clear()
            known[key] = model, configured_terms(model, caching=self.config.caching, minimum=minimum)
        return known[key][1]

    @cached_property
    def _terms(self) -> dict[tuple[int, int | None], tuple[ChatModel, CacheTerms]]:
        return {}

    @cached_property
    def rungs(self) -> tuple[ChatModel, ...]:
        """The students, in the order in which they are asked where they are a chain."""
        first = () if self.student is None else (self.student,)
        return (*first, *(further.model for further in self.students))

    @cached_property
    def door(self) -> Door:
        """Where every model of the cascade is called."""
        return Door(
            budgets=self.budgets,
            observer=self.observer,
            count=self.count,
            settings=self.config.budgets,
            cache=self.response_cache,
        )


class ContextParts(TypedDict, total=False):
    """Fields of `StepContext`, any of which `Cascade.twin` and `Engine.twin` take by name."""

    config: CascadeConfig
    router: Router
    count: TokenCounter
    name: str
    teacher: ChatModel | None
    student: ChatModel | None
    students: tuple[FurtherStudent, ...]
    bank: Bank | None
    failures: FailureShelf | None
    collection: LiveCollection | None
    memory: Memory | None
    historian: ChatModel | None
    carried_states: CarriedStates
    actions: ActionFormat
    validators: tuple[Validator, ...]
    mergers: tuple[Merger, ...]
    choices: Choices | None
    verifier: SoftVerifier | None
    judge: Judge | None
    recorder: Recorder | None
    database: Database | None
    response_cache: ResponseCache | None
    batches: Batches | None
    audit_rounds: AuditRoundStore | None
    budgets: Budgets | None
    switch: Switch | None
    guard: Guard | None
    observer: Observer
    ids: ToolCallIds
    health: StudentHealth
    breakpoint_worth: BreakpointWorth
    usual_thinking: UsualThinking
    clock: Callable[[], float]


def check_models(mode: Mode, teacher: ChatModel | None, student: ChatModel | None) -> None:
    """Raises `ConfigError` when a mode lacks a model that it needs."""
    if mode in ("teacher", "collect", "shadow", "cascade") and teacher is None:
        raise ConfigError(f"mode '{mode}' needs a teacher: set teacher.name, e.g. 'anthropic/claude-sonnet-4-5'")
    if mode in ("shadow", "cascade", "student") and student is None:
        raise ConfigError(f"mode '{mode}' needs a student: set student.name, e.g. 'openai/gpt-4.1-mini'")
