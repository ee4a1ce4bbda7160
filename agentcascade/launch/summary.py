"""What one run of a program cost, how often a student would have agreed, what a cascade of both would have cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from agentcascade._util.control_characters import one_line
from agentcascade.ledger.failed_steps import ErrorKind, failed_steps
from agentcascade.ledger.ledger import Ledger, Spending, Summary
from agentcascade.steplog.database import export

if TYPE_CHECKING:
    from agentcascade.models.pricing import PriceTable
    from agentcascade.routers.tuning.columns import Columns
    from agentcascade.routers.tuning.costs import Bill
    from agentcascade.routers.tuning.replay import Replayed
    from agentcascade.steplog.types import LoggedStep
    from agentcascade.storage import Database

FEW_STEPS = 100
"""Below so many shadowed steps, shares are no more than a first impression."""
MOST_KINDS, MOST_CHARACTERS = 5, 160
"""Kinds of errors that are told, and characters of the words of one."""


class Vote(NamedTuple):
    """A rule's figures: the student acts where all of `n` samples agree."""

    n: int
    row: Replayed


@dataclass(frozen=True)
class RunSummary:
    """Figures of one run.

    Attributes:
        steps: Steps of the agent, by mode.
        spending: Calls, tokens and dollars by role and model.
        episodes: Number of conversations.
        students: By student, the rules as they would have done on its shadows; none without shadows.
        lost: Shadows that failed, of any student.
        failed: Kinds of errors that steps ended in; such steps are among `steps`.
    """

    steps: Sequence[Summary]
    spending: Sequence[Spending]
    episodes: int
    students: Sequence[Sequence[Vote]] = ()
    lost: int = 0
    failed: Sequence[ErrorKind] = ()

    def lines(self) -> list[str]:
        """The figures in words, a line each."""
        count = sum(s.steps for s in self.steps)
        if not self.spending and not count:
            return ["no request came through the proxy: nothing is recorded"]
        failed = sum(kind.steps for kind in self.failed)
        answered = max(0, count - failed)
        also = f", and {failed:,} that failed" if failed else ""
        conversations = f"{self.episodes:,} {_plural(self.episodes, 'conversation')}"
        said = [f"{answered:,} {_plural(answered, 'step')}{also} in {conversations}"]
        said += [_failure(kind) for kind in self.failed[:MOST_KINDS]]
        if rest := sum(kind.steps for kind in self.failed[MOST_KINDS:]):
            said.append(f"{rest:,} failed with other errors: see the records")
        said += [_spent(line) for line in self.spending]
        said += [line for votes in self.students for line in _student(votes)]
        if self.lost:
            said.append(f"{self.lost:,} {_plural(self.lost, 'shadow')} failed and are left out: see the records")
        if self.students and 0 < self.students[0][0].row.steps < FEW_STEPS:
            said.append(f"fewer than {FEW_STEPS} steps: a first impression; `agentcascade tune` wants more")
        return said


def summarize(database: Database, since: datetime, namespace: str, prices: PriceTable) -> RunSummary:
    """The figures of what was recorded from a time on.

    Args:
        database: Is read, and stays open.
        since: An aware time.
        namespace: In which the run was recorded.
        prices: Of models that the records have no dollars of.

    Raises:
        StorageError: It cannot be read.
    """
    ledger = Ledger(database)
    steps = list(export(database, since=since, namespace=namespace, prices=prices, kinds=("shadow",)))
    spending = ledger.spending(namespace=namespace, since=since)
    return RunSummary(
        steps=[s for s in ledger.summary("mode", namespace=namespace, since=since) if s.steps],
        spending=spending,
        episodes=sum(bool(s.steps) for s in ledger.summary("episode", namespace=namespace, since=since)),
        students=_replayed(steps, spending),
        lost=_lost(steps),
        failed=failed_steps(database, namespace=namespace, since=since),
    )


def _replayed(steps: Sequence[LoggedStep], spending: Sequence[Spending]) -> list[list[Vote]]:
    """By student: one sample alone, and all of them agreeing."""
    from agentcascade.routers.tuning.columns import arms, columns
    from agentcascade.routers.tuning.replay import replay
    from agentcascade.routers.tuning.rules import Threshold

    def votes(log: Columns) -> list[Vote]:
        sizes = (1, log.most) if log.most > 1 else (1,)
        return [Vote(n, replay(log, Threshold(n, n), [_bill(steps, spending)])) for n in sizes]

    answered = [step for step in steps if step.students and any(s.samples for s in step.students)]
    logs = [columns(answered, arm=arm) for arm in arms(answered)] if answered else []
    return [votes(log) for log in logs if len(log) and log.most]


def _bill(steps: Sequence[LoggedStep], spending: Sequence[Spending]) -> Bill:
    """As the students' samples were bought: of one request for all of them, or of one each."""
    from agentcascade.routers.tuning.costs import Bill

    once = sum(drawn.prompt.prompt for step in steps for drawn in step.students if drawn.prompt is not None)
    bought = sum(line.usage.prompt for line in spending if line.role == "student")
    return Bill("separate" if bought > 1.5 * once else "one-call")


def _lost(steps: Sequence[LoggedStep]) -> int:
    from agentcascade.routers.tuning.columns import failed

    return sum(bool(step.students) and failed(step.students[0]) for step in steps)


def _spent(line: Spending) -> str:
    tokens = line.usage
    cached = f" ({tokens.cached_input:,} of them cached)" if tokens.cached_input else ""
    return (
        f"{line.role} {line.model}: {_money(line)}, {line.calls:,} {_plural(line.calls, 'call')}, "
        f"{tokens.prompt:,} tokens read{cached}, {tokens.output + tokens.reasoning:,} written"
    )


def _failure(kind: ErrorKind) -> str:
    words = one_line(kind.words)
    cut = f"{words[: MOST_CHARACTERS - 1]}…" if len(words) > MOST_CHARACTERS else words
    return f"{kind.steps:,} failed with {one_line(kind.name)[:80]}" + (
        f": {json.dumps(cut, ensure_ascii=False)}" if cut else ""
    )


def _money(line: Spending) -> str:
    if line.dollars is not None:
        return f"{'~' if line.estimated_calls else ''}${line.dollars:,.4f}"
    known = f" (≥ ${line.known_dollars:,.4f})" if line.known_dollars else ""
    return f"price unknown{known}"


def _student(votes: Sequence[Vote]) -> list[str]:
    said = []
    for n, row in votes:
        who = row.arm.student or "the student"
        differs = row.risks["teacher-disagreement"]
        if n == 1:
            agreed = "an unknown share" if differs is None else f"{row.acceptance - differs:.0%}"
            said.append(f"{who} would have agreed with the teacher on {agreed} of {row.steps:,} steps")
            continue
        wrong = "" if differs is None else f", on {differs:.0%} of all otherwise than the teacher"
        said.append(
            f"a cascade that lets {who} act where {n} samples agree: on {row.acceptance:.0%} of the steps{wrong}; "
            f"{_saving(row)}"
        )
    return said


def _saving(row: Replayed) -> str:
    if row.unit != "dollars":
        return "what that saves is unknown, since a price is (server.prices, student.price)"
    cost, alone = Decimal(row.cost) * row.steps, Decimal(row.teacher_cost) * row.steps
    verb = "saved" if cost <= alone else "cost more by"
    return f"it would have {verb} {abs(row.saving.value):.0%}: ${cost:,.4f} in place of ${alone:,.4f}"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
