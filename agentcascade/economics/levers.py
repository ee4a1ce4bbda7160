"""Levers on what a cascade costs: one change of its configuration each, and the acceptance that it needs then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from agentcascade.economics.forecast import Forecast, Plan, Policy, StepTokens, forecast
from agentcascade.protocols import ChatModel
from agentcascade.routers.agreement import Agreement
from agentcascade.types import Usage

EVEN = 0.5
"""Acceptance at which a cheaper student is to pay off, where none is measured."""


class Lever(NamedTuple):
    """A change, in words, and the forecast with it."""

    change: str
    after: Forecast

    @property
    def accepted_share(self) -> float:
        """Dollars of an accepted step for one of the teacher's."""
        return self.after.most.accepted_share or 0.0


class _Changed:
    """A student for reckoning: at another price, or at an endpoint that takes n."""

    def __init__(self, model: ChatModel, *, supports_n: bool | None = None, factor: Decimal = Decimal(1)) -> None:
        self._model, self._factor = model, factor
        self.name, self.supports_n = model.name, model.supports_n if supports_n is None else supports_n

    def dollars(self, usage: Usage) -> Decimal | None:
        dollars = self._model.dollars(usage)
        return None if dollars is None else dollars * self._factor


def levers(plan: Plan, tokens: StepTokens, steps_ratio: float = 1.0) -> list[Lever]:
    """The changes that make an accepted step cheaper, the strongest first. Raises `UnknownPrice`.

    What they do to the acceptance itself cannot be reckoned: `agentcascade tune` on a log that holds both does.
    """
    now = forecast(plan, tokens, steps_ratio).most
    found = [Lever(change, forecast(changed, tokens, steps_ratio)) for change, changed in _changes(plan, tokens)]
    return sorted((one for one in found if one.after.most.accepted < now.accepted), key=lambda one: one.accepted_share)


def together(plan: Plan, tokens: StepTokens, steps_ratio: float = 1.0) -> Lever | None:
    """Fewer and smaller demonstrations that stay with their episode: what helps where no single change does."""
    fewer = replace(plan, k=max(1, plan.k // 2), window=_halved(plan.window), sticky=True)
    if fewer == plan or not plan.k:
        return None
    words = (
        f"retrieval.k {fewer.k}, window_before/after {fewer.window[0]}/{fewer.window[1]} and sticky: always together"
    )
    return Lever(words, forecast(fewer, tokens, steps_ratio))


def student_price_for(plan: Plan, tokens: StepTokens, acceptance: float, steps_ratio: float = 1.0) -> float | None:
    """The factor on the students' price at which the cascade breaks even at an acceptance; None: not even at 0."""
    free = plan
    for i, policy in enumerate(plan.policies):
        members = tuple((_Changed(model, factor=Decimal(0)), seat) for model, seat in policy.members)
        free = _with(free, i, policy._replace(members=members))  # type: ignore[arg-type]
    costs, others = (forecast(one, tokens, steps_ratio).most for one in (plan, free))
    spent, rest = costs.dollars(acceptance), others.dollars(acceptance)
    if rest >= costs.teacher or spent <= rest:
        return None
    return float((costs.teacher - rest) / (spent - rest))


def _changes(plan: Plan, tokens: StepTokens) -> Iterator[tuple[str, Plan]]:
    if plan.k > 1:
        fewer = max(1, plan.k // 2)
        yield f"retrieval.k {fewer} instead of {plan.k}", replace(plan, k=fewer)
    if plan.k and plan.window != (0, 0):
        small, (before, after) = _halved(plan.window), plan.window
        words = f"retrieval.window_before/after {small[0]}/{small[1]} instead of {before}/{after}"
        yield words, replace(plan, window=small)
    prompt = round(tokens.prompt + plan.demonstration_tokens(tokens))
    students = [model for policy in plan.policies for model, _ in policy.members]
    if plan.k and not plan.sticky and any(prompt >= plan.terms(model).minimum for model in students):
        yield "retrieval.sticky: always, for the prompt cache", replace(plan, sticky=True)
    for i, policy in enumerate(plan.policies):
        if (smaller := _fewer_samples(policy)) is not None:
            n = len(policy.seats)
            words = f"{n - 1} sample{'s' * (n > 2)} of {policy.members[0][0].name} instead of {n}"
            yield words, _with(plan, i, smaller)
        several = [model.name for model, seat in policy.members if seat.samples > 1 and not model.supports_n]
        if several:
            members = tuple((_Changed(m, supports_n=True), seat) for m, seat in policy.members)
            words = f"an endpoint that takes n in one request, for {', '.join(several)}"
            yield words, _with(plan, i, policy._replace(members=members))  # type: ignore[arg-type]
    if plan.teacher_sees_demonstrations and plan.k:
        yield "prompt.teacher_sees_demonstrations: false", replace(plan, teacher_sees_demonstrations=False)
    if plan.draft_tokens:
        yield "prompt.teacher_sees_drafts: false", replace(plan, draft_tokens=0)
    if plan.audits:
        yield f"no audits (audit.rate {plan.audits:g})", replace(plan, audits=0.0)


def _fewer_samples(policy: Policy) -> Policy | None:
    """One sample fewer of a single student; of fewer than two there is no agreement."""
    router, n = policy.router, len(policy.seats)
    if len(policy.members) > 1 or n < 3 or not isinstance(router, Agreement):
        return None
    needed = n - 1 if router.needed == n else min(router.needed, n - 1)
    (model, seat), *_ = policy.members
    return Policy(Agreement(n - 1, needed), ((model, seat._replace(samples=n - 1)),))


def _halved(window: tuple[int, int]) -> tuple[int, int]:
    return window[0] // 2, window[1] // 2


def _with(plan: Plan, place: int, policy: Policy) -> Plan:
    return replace(plan, policies=(*plan.policies[:place], policy, *plan.policies[place + 1 :]))
