"""Outlook of a cascade: what it costs beside its teacher, which acceptance it needs, and what would help, in words.

Before anything is recorded it goes by assumptions, which it names; tokens and acceptance that were measured take their
place one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from agentcascade.actions.equivalence import Verifier
from agentcascade.actions.voting import Seat
from agentcascade.economics.forecast import Forecast, Plan, Policy, Scorer, StepTokens, forecast, unpriced
from agentcascade.economics.levers import EVEN, Lever, levers, student_price_for, together
from agentcascade.economics.measured import (
    Measured,
    frame_tokens,
    measure,
    recent_trajectories,
    window_tokens,
)
from agentcascade.ledger.recorded_steps import recorded_steps
from agentcascade.protocols import Router
from agentcascade.step.committee import call_dollars, seats_of
from agentcascade.step.context import StepContext
from agentcascade.storage import Database

PROMPT, NEW, ANSWER, EPISODE_STEPS = 1000.0, 150.0, 100.0, 10.0
"""Assumed where nothing is measured: tokens of a conversation, of what a step adds to it, of an answer; steps."""
OTHER = 0.05
"""Share by which students' own prompts differ from the teacher's where they are told apart."""
STEP, HEAD = 70.0, 50.0
"""Likewise, tokens of a step of a demonstration, and of what stands around the steps."""
SHOWN_LEVERS = 3


class Source(NamedTuple):
    """Where a figure comes from, in words with the figure."""

    what: str
    measured: bool


@dataclass(frozen=True)
class Outlook:
    """What can be said of a cascade's dollars.

    Args:
        name: Of the cascade.
        plan: What it asks at a step.
        tokens: Of a step.
        sources: Where these come from.
        measured: What was recorded of it.
        costs: The forecast; None where a price is not known.
        unknown: Names of the models without a price.
        steps_ratio: Steps of the cascade's episodes for one of the teacher's.
    """

    name: str
    plan: Plan
    tokens: StepTokens
    sources: tuple[Source, ...]
    measured: Measured
    costs: Forecast | None
    unknown: tuple[str, ...] = ()
    steps_ratio: float = 1.0

    @property
    def label(self) -> str:
        """The cascade, by its name where it has one."""
        return f"cascade {self.name}" if self.name else "the cascade"

    @property
    def pays(self) -> bool:
        """Whether it can save, and does where its acceptance was measured; False where a price is not known."""
        if self.costs is None or not self.costs.can_save:
            return False
        return self.measured.acceptance is None or self.costs.most.saving(self.measured.acceptance) > 0

    def lines(self) -> list[str]:
        """The outlook in words, the verdict first."""
        if self.costs is None:
            return [
                f"what {self.label} saves cannot be said: the price of {' and of '.join(self.unknown)} is not "
                "known. Set price: {input: …, output: …} in dollars per million tokens"
            ]
        return [self._verdict(self.costs), *self._record(self.costs), *self._levers(self.costs), self._basis()]

    def _verdict(self, costs: Forecast) -> str:
        least, most = costs
        accepted = _between(f"${least.accepted:.3g}", f"${most.accepted:.3g}")
        share = _between(_share(least.accepted_share), _share(most.accepted_share))
        longer = f", in episodes {self.steps_ratio:.2f} times as long" if self.steps_ratio != 1 else ""
        said = f"an accepted step costs {accepted}, {share} of the teacher's ${most.teacher:.3g}{longer}"
        if not costs.can_save:
            assumed = "" if all(source.measured for source in self.sources) else ", by what is assumed below"
            if least.break_even is not None:
                return f"{self.label} saves only where votes are settled early: {said}"
            return f"{self.label} cannot save{assumed}, whatever its students get right: {said}"
        needed = _between(_share(least.break_even), _share(most.break_even))
        return f"{self.label} saves where more than {needed} of its steps are accepted: {said}"

    def _record(self, costs: Forecast) -> list[str]:
        seen = self.measured
        if seen.acceptance is None:
            return []
        saving = costs.most.saving(seen.acceptance)
        verdict = (
            f"which saves {saving:.0%}" if saving > 0 else f"which costs {-saving:.0%} more than the teacher alone"
        )
        of = "of the shadowed steps would have been" if seen.shadowed else "of its steps were"
        said = f"measured: {_share(seen.acceptance)} {of} accepted, {verdict} at these prices"
        if seen.dollars is not None and seen.teacher_alone:
            ratio = float(seen.dollars / seen.teacher_alone)
            said += f"; its bills are {ratio:.2f} of what the teacher alone would have cost for the same steps"
        return [said]

    def _levers(self, costs: Forecast) -> list[str]:
        found = levers(self.plan, self.tokens, self.steps_ratio)
        said = [f"{one.change} ({_needs(one)})" for one in found[:SHOWN_LEVERS]]
        if not any(one.after.can_save for one in found):
            combined = together(self.plan, self.tokens, self.steps_ratio)
            said += [f"{combined.change} ({_needs(combined)})"] if combined is not None else []
        acceptance = EVEN if self.measured.acceptance is None else self.measured.acceptance
        factor = student_price_for(self.plan, self.tokens, acceptance, self.steps_ratio)
        if factor is not None and factor < 1:
            at = "half the steps" if self.measured.acceptance is None else f"the measured {_share(acceptance)}"
            said.append(f"students at {factor:.2g} of their price (break even at {at} accepted)")
        if not said:
            return []
        head = "helps" if costs.can_save else "helps most"
        return [
            f"{head}: {'; '.join(said)}. What each does to the acceptance itself is not reckoned: agentcascade tune"
        ]

    def _basis(self) -> str:
        told = [", ".join(s.what for s in self.sources if s.measured is known) for known in (True, False)]
        parts = [f"{how}: {what}" for how, what in zip(("measured", "assumed"), told) if what]
        alike = "; in episodes as long as the teacher's, longer ones need more" if self.steps_ratio == 1 else ""
        return f"tokens, {'; '.join(parts)}{alike}"


def outlook(
    context: StepContext,
    *,
    measured: Measured | None = None,
    windows: Callable[[int, int], float] | None = None,
    steps_ratio: float = 1.0,
) -> Outlook | None:
    """What a cascade costs beside its teacher.

    Args:
        context: Of the cascade.
        measured: Its recorded steps.
        windows: (steps before, steps after) → tokens of a demonstration of its bank.
        steps_ratio: Steps of its episodes for one of the teacher's.

    Returns:
        The outlook; None for a cascade without a teacher or without a student, which saves nothing by itself.
    """
    plan = plan_of(context)
    if plan is None:
        return None
    seen = measured or Measured()
    tokens, sources = tokens_of(plan, seen, windows, frame_tokens(context.count, context.prompts))
    unknown = unpriced(plan)
    costs = None if unknown else forecast(plan, tokens, steps_ratio)
    return Outlook(context.name, plan, tokens, sources, seen, costs, tuple(unknown), steps_ratio)


def recorded_outlook(context: StepContext, database: Database | None = None) -> Outlook | None:
    """`outlook` by what the cascade's database holds of its steps and its bank.

    Raises:
        StorageError: It cannot be read.
    """
    database = database or context.database
    plan = plan_of(context)
    if plan is None or database is None:
        return outlook(context)
    steps, shadows = recorded_steps(database, cascade=context.name)
    students = {model.name for policy in plan.policies for model, _ in policy.members}
    measured = measure(steps, teacher=plan.teacher.name, students=students, shadowed=shadows)
    banked = recent_trajectories(database, context.config.bank.namespace) if plan.k else []
    windows = window_tokens(banked, context.count, context.prompts) if banked else None
    return outlook(context, measured=measured, windows=windows)


def plan_of(context: StepContext) -> Plan | None:
    """What a cascade asks at a step; None without a teacher or a student."""
    config, teacher, student = context.config, context.teacher, context.student
    if teacher is None or student is None:
        return None
    if config.sampling.across == "students" and context.students:
        models = [student, *(further.model for further in context.students)]
        members = sorted(zip(models, seats_of(context)), key=lambda pair: call_dollars(*pair))
        policies: tuple[Policy, ...] = (Policy(context.router, tuple(members)),)
    else:
        links = [(student, context.router), *((further.model, further.router) for further in context.students)]
        policies = tuple(Policy(router, ((model, _samples(router)),)) for model, router in links)
    retrieval = config.retrieval
    return Plan(
        scorer=scorer_of(context),
        teacher=teacher,
        policies=policies,
        k=retrieval.k,
        window=(retrieval.window_before, retrieval.window_after),
        sticky=retrieval.sticky == "always",
        staged=config.sampling.staged,
        cached_from=config.sampling.cached_from_tokens,
        caching=config.caching,
        place=config.prompt.place,
        token_budget=config.prompt.token_budget,
        audits=config.audit.rate,
        teacher_sees_demonstrations=config.prompt.teacher_sees_demonstrations,
        draft_tokens=config.prompt.draft_tokens if config.prompt.teacher_sees_drafts else 0,
        varied=config.sampling.vary != "none" and retrieval.k > 1,
        history=None if config.history is None else (config.history.keep, config.history.every),
        verifier=next((merger.model for merger in context.mergers if isinstance(merger, Verifier)), None),
    )


def scorer_of(context: StepContext) -> Scorer | None:
    """The soft verifier of a cascade, as a plan asks it."""
    if context.verifier is None:
        return None
    settings = context.verifier.settings
    asked, always = {*settings.ask}, "always" in settings.ask
    return Scorer(
        context.verifier.model,
        split=always or "split" in asked,
        accepted=always or "stakes" in asked,
        every=always,
        context_tokens=settings.context_tokens,
    )


def tokens_of(
    plan: Plan, seen: Measured, windows: Callable[[int, int], float] | None, frame: float = 0.0
) -> tuple[StepTokens, tuple[Source, ...]]:
    """Tokens of a step, each measured where it can be, and where each comes from.

    Demonstrations are those of `windows` where there is a bank, scaled to what prompts were measured to be longer by.
    """
    sources: list[Source] = []

    def known(what: str, value: float | None, otherwise: float) -> float:
        chosen = otherwise if value is None else value
        sources.append(Source(f"{what} of {chosen:,.0f}", value is not None))
        return chosen

    prompt = known("prompts", seen.prompt, PROMPT)
    taught = known("teacher's answers", seen.teacher_answer, ANSWER)
    answer = known("student's answers", seen.answer, taught)
    own = [tokens.prompt for tokens in seen.students.values() if tokens.prompt is not None]
    if own and any(abs(each - prompt) > OTHER * prompt for each in own):
        sources.append(Source(f"students' own prompts of {_between(f'{min(own):,.0f}', f'{max(own):,.0f}')}", True))
    thought, student_thought = seen.teacher_reasoning or 0.0, seen.reasoning or 0.0
    if seen.teacher_answer is None and seen.answer is None:
        sources.append(Source("no thinking before them", False))
    for whose, tokens in (("teacher's", thought), ("student's", student_thought)):
        if tokens >= 0.5:
            sources.append(Source(f"{whose} thinking of {tokens:,.0f}", True))
    demonstration = windows or (lambda before, after: HEAD + STEP * (before + 1 + after))
    if plan.k:
        each = demonstration(*plan.window)
        if seen.demonstration is not None and each:
            factor, unscaled, frame = seen.demonstration / each, demonstration, 0.0  # of which it has its share
            each, demonstration = seen.demonstration, lambda before, after: factor * unscaled(before, after)
        where = windows is not None or seen.demonstration is not None
        size = f"{plan.k} demonstrations of {each:,.0f} (windows {plan.window[0]}/{plan.window[1]})"
        sources.append(Source(size, where))
    steps = seen.episode_steps or EPISODE_STEPS
    new = NEW if seen.new is None else seen.new
    if seen.steps:
        sources.append(Source(f"{seen.steps:,} steps of {seen.episodes:,} episodes", True))
    if abs(seen.deferred - 1) > OTHER:
        sources.append(Source(f"teacher's answers to deferred steps {seen.deferred:.2f} as dear as to all", True))
    return StepTokens(
        prompt, min(new, prompt), answer, taught, demonstration, student_thought, thought, steps, frame,
        seen.students, seen.deferred,
    ), tuple(sources)  # fmt: skip


def _samples(router: Router) -> Seat:
    """What one student gives: as many samples as its router asks for."""
    n = getattr(router, "n", None)
    return Seat(n if isinstance(n, int) and n > 0 else 1)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.2f}"


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _needs(lever: Lever) -> str:
    needed = lever.after.most.break_even
    return f"then from {needed:.2f}" if needed is not None else f"still {lever.accepted_share:.2f} of the teacher's"
