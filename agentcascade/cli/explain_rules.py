"""What would have taken a deferred step: the votes that were missing, the nearest threshold, rung by rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentcascade._util.control_characters import one_line
from agentcascade.config.load import CascadeConfig, variants
from agentcascade.errors import AgentCascadeError
from agentcascade.ledger.reasons import Explained
from agentcascade.ledger.stored_decision import ShadowSeen
from agentcascade.routers.agreement import Agreement
from agentcascade.types import Decision

SHOWN = 160
"""Characters of an action."""


class Ballot(NamedTuple):
    """One vote that deferred: of a single student, of a committee, or of a rung."""

    model: str
    """Empty where there is one student"""
    action: str
    votes: int
    total: int
    where: str
    """Key of the router that judged it"""


def quoted(text: str) -> str:
    """Somebody's text in one line, in quotes, cut."""
    line = one_line(text)
    return f"'{line if len(line) <= SHOWN else line[: SHOWN - 1] + '…'}'"


def ways(decision: Decision, explained: Explained, settings: CascadeConfig | None) -> list[str]:
    """What would have made the step the student's, in sentences; none where no rule of votes would have.

    Args:
        decision: A deferred one.
        explained: Its reason.
        settings: The configuration of today, by which the missing votes are counted; None: it is not known.
    """
    if explained.code not in ("agreement", "side-effects", "failed") or decision.mode != "cascade":
        return []
    settings = of_cascade(decision, settings)
    found: list[str] = []
    for ballot in ballots(decision):
        found += _ways(ballot, _router(ballot, settings), explained.code == "side-effects")
    return found


def of_cascade(decision: Decision, settings: CascadeConfig | None) -> CascadeConfig | None:
    """The configuration of the cascade that took the step."""
    if settings is None:
        return None
    try:
        return variants(settings).get(decision.cascade, settings)
    except AgentCascadeError:
        return None


def ballots(decision: Decision) -> list[Ballot]:
    """The votes of a decision that led to nothing, in the order in which they were cast."""
    rungs = [rung for rung in decision.rungs if rung.role == "student"]
    if not rungs:
        return _ballot("", decision.votes, decision.samples - _retried(decision), decision.agreement, "router")
    found: list[Ballot] = []
    for i, rung in enumerate(rungs):
        if not rung.accepted:
            where = "router" if i == 0 else f"students.{i - 1}.router"
            found += _ballot(rung.model, rung.votes, rung.samples, rung.agreement, where)
    return found


def _retried(decision: Decision) -> int:
    """Samples that were not voted on, since their fault was fed back."""
    return decision.samples - decision.retried if decision.retried else 0


def _ballot(model: str, votes: Mapping[str, int], samples: int, agreement: float | None, where: str) -> list[Ballot]:
    if not votes:
        return []
    action, most = max(votes.items(), key=lambda vote: vote[1])
    total = round(most / agreement) if agreement else max(samples, sum(votes.values()))
    return [Ballot(model, action, most, total, where)]


def _ways(ballot: Ballot, router: object, stakes: bool) -> list[str]:
    of = f" of {ballot.model}" if ballot.model else ""
    lead = f"{ballot.votes} of {ballot.total} votes{of} were for {quoted(ballot.action)}"
    needed, n = getattr(router, "needed", None), getattr(router, "n", ballot.total)
    if router is not None and not isinstance(router, Agreement):
        name = getattr(router, "name", "")
        return [f"{lead}; the router '{name}' weighs more than votes: `agentcascade replay` says what it would take"]
    said: list[str] = []
    if needed is not None and needed > ballot.votes:
        missing = needed - ballot.votes
        votes = "1 more vote" if missing == 1 else f"{missing} more votes"
        said.append(f"{lead}: {votes} would have been enough ({ballot.where} wants {needed} of {n})")
    elif needed is not None and not stakes:
        said.append(f"{lead}: today's {ballot.where} ({needed} of {n}) would take that; it was another one then")
        return said
    else:
        said.append(lead)
    if stakes:
        return said
    size = max(n, ballot.total)
    rule = f"{ballot.where}: {{name: threshold, options: {{n: {size}, needed: {ballot.votes}}}}} would have taken it"
    if 2 * ballot.votes <= size:
        rule += ", but that is no majority: such a rule takes guesses"
    said.append(rule)
    return said


def _router(ballot: Ballot, settings: CascadeConfig | None) -> object:
    """What judges these votes today; None where that is not known."""
    from agentcascade.assembly.committee import committee_router
    from agentcascade.assembly.components import make_router

    if settings is None:
        return None
    try:
        if ballot.where != "router":
            return make_router(settings.students[int(ballot.where.split(".")[1])].router)
        if settings.sampling.across == "students":
            return committee_router(settings)
        return make_router(settings.router)
    except (AgentCascadeError, IndexError):
        return None


def shadow_words(decision: Decision, seen: ShadowSeen) -> list[str]:
    """What the other model did at the step, which nobody was given."""
    if seen.kind == "audit":
        is_same = seen.teacher_action is not None and seen.teacher_action == decision.action
        did = "did the same" if is_same else f"did {quoted(seen.teacher_action or 'nothing that could be parsed')}"
        return [f"audited: asked behind the answer, the teacher {did}"]
    votes: dict[str, int] = {}
    for sample in seen.samples:
        if sample.action is not None:
            votes[sample.action] = votes.get(sample.action, 0) + sample.weight
    total = sum(sample.weight for sample in seen.samples)
    if not votes:
        return [f"shadowed: none of the student's {total} samples had a usable action"]
    action, most = max(votes.items(), key=lambda vote: vote[1])
    verb = "would have taken" if seen.accepted else "would not have taken"
    same = "the same as the teacher" if action == seen.teacher_action else "not what the teacher did"
    return [
        f"shadowed: {most} of {total} votes of the student were for {quoted(action)}, {same}; in mode cascade the "
        f"router {verb} it"
    ]


def teacher_agreed(decision: Decision, cast: Sequence[Ballot]) -> str:
    """Whether the teacher did what most votes said: of one step, so no reason to change a rule."""
    if decision.answered_by != "teacher" or decision.action is None or not cast:
        return ""
    last = cast[-1]
    if decision.action == last.action:
        return "the teacher did what most votes said (one step says little: `agentcascade replay` asks the whole log)"
    if 2 * last.votes <= last.total:
        return ""
    return "the teacher did something else than most votes said, by the keys of their actions"
