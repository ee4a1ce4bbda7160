"""Committee of students (`sampling.across: students`): each gives its samples, and all vote together.

Errors of different models are less alike than those of one model's samples, so their agreement is worth more. Members
are asked from the cheapest to the dearest, in waves of as few as could settle the vote (`voting.next_members`); who
could change nothing any more is not asked. What does not come from a member counts as no vote, and is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil, inf

from agentcascade.actions import voting
from agentcascade.actions.voting import Seat
from agentcascade.errors import BudgetExceeded, ConfigError, InvalidRequest, UnknownPrice, describe
from agentcascade.protocols import ChatModel, Router
from agentcascade.step import variation
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import NOTHING, ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.student import Draw, StudentPolicy
from agentcascade.types import Purpose, Sample, Situation, Tally, Usage

PROMPT_TOKENS, ANSWER_TOKENS = 1000, 100
"""Of the call by whose dollars members are ordered: the order is the same at every step, so that logs show it."""


def call_dollars(model: ChatModel, seat: Seat) -> float:
    """What a member's call of common length costs; infinite where its price is not known."""
    requests = 1 if model.supports_n else seat.samples
    dollars = model.dollars(Usage(input=PROMPT_TOKENS * requests, output=ANSWER_TOKENS * seat.samples))
    return inf if dollars is None else float(dollars)


class Member:
    """A student of a committee."""

    def __init__(self, student: StudentPolicy, seat: Seat) -> None:
        assert student.context.student is not None
        self.student: StudentPolicy = student
        self.seat: Seat = seat
        self.model: ChatModel = student.context.student
        self.name: str = self.model.name


class Committee(StudentPolicy):
    """What a cascade asks of several students that vote together.

    Args:
        context: Its student is the first member, its `students` are the others, and its router judges all votes.
        students: The same, each with a context of its own.
        kept: Name of the member that goes on with a tool exchange of its own, and is asked first.
    """

    def __init__(self, context: StepContext, students: Sequence[StudentPolicy], kept: str = "") -> None:
        super().__init__(context, students[0].learned)
        seats = seats_of(context)
        members = [Member(student, seat) for student, seat in zip(students, seats)]
        if twice := [m.name for i, m in enumerate(members) if any(m.name == other.name for other in members[:i])]:
            raise ConfigError(
                f"'{twice[0]}' sits twice in the committee: a member's further votes are its `samples` or its "
                "`weight`, and another model that is served under the same name needs one of its own"
            )
        # Stable: of equals, as configured.
        self.members: list[Member] = sorted(members, key=lambda m: (m.name != kept, call_dollars(m.model, m.seat)))
        self._students, self._kept = students, bool(kept)

    @property
    def models(self) -> Sequence[ChatModel]:
        return [member.model for member in self.members]

    @property
    def keeps_exchanges(self) -> bool:
        """A member that called a tool reads the result alone; where nobody knows whose call it was, all vote."""
        return self._kept

    def kept_for(self, model: str) -> Committee | None:
        """The committee with this member in front, which is asked alone where one vote is enough."""
        if all(member.name != model for member in self.members):
            return None
        return Committee(self.context, self._students, kept=model)

    @property
    def seconds(self) -> float:
        """`sampling.timeout_seconds` for every member's call, but half of the step's own deadline is the teacher's."""
        one = super().seconds
        return min(one * len(self.members), max(one, self.context.config.deadline_seconds / 2))

    async def sample_all(
        self,
        n: int,
        situation: Situation,
        request: Request,
        record: StepRecord,
        purpose: Purpose,
        *,
        samples: list[Sample],
        until: float,
    ) -> None:
        """Those of all members, `shadow.samples` of each where that is set. Who is late has no vote, as live."""
        more = self.context.config.shadow.samples
        await self._ask(self.members, more, samples, situation, request, record, purpose, until)

    def samples_voted_on(self, samples: Sequence[Sample], n: int) -> Sequence[Sample]:
        chosen: list[Sample] = []
        for member in self.members:
            if sum(s.weight for s in chosen) < n:
                chosen += [s for s in samples if s.member == member.name][: member.seat.samples]
        return chosen

    def _make_draw(
        self,
        router: Router,
        situation: Situation,
        n: int,
        request: Request,
        record: StepRecord,
        calls: ModelCalls,
        purpose: Purpose,
    ) -> Draw:
        staged = self.context.config.sampling.staged != "never"
        waiting = list(self.members)
        while waiting and sum(m.seat.votes for m in waiting[:-1]) >= n:
            waiting.pop()

        async def draw(samples: list[Sample], votes: Tally, remaining: int) -> None:
            seats = [m.seat for m in waiting]
            size = voting.next_members(router, situation, votes, n, seats) if staged else len(waiting)
            wave, waiting[:size] = waiting[:size], []
            few = [ceil(n / m.seat.weight) for m in wave if n < m.seat.votes]  # then nobody else is asked
            await self._ask(wave, min(few, default=None), samples, situation, request, record, purpose)

        return draw

    async def _ask(
        self,
        members: Sequence[Member],
        each: int | None,
        samples: list[Sample],
        situation: Situation,
        request: Request,
        record: StepRecord,
        purpose: Purpose = "sample",
        until: float | None = None,
    ) -> None:
        """Add to `samples` those of some members, asked side by side, in the members' order, `each` of every member.

        Where it is cancelled those are added that came. Raises `InvalidRequest`.
        """
        answers: dict[str, list[Sample] | InvalidRequest] = {}

        async def ask(member: Member, size: int, drawn: int) -> None:
            answers[member.name] = await self._ask_one(member, size, drawn, situation, request, record, purpose, until)

        calls, drawn = [], len(samples)
        for member in members:
            size = each or member.seat.samples
            calls.append(ask(member, size, drawn))
            drawn += size
        try:
            await asyncio.gather(*calls)
        finally:
            given = [answers.get(member.name, ()) for member in members]
            samples += [sample for answer in given if not isinstance(answer, InvalidRequest) for sample in answer]
        if refused := next((answer for answer in given if isinstance(answer, InvalidRequest)), None):
            raise refused

    async def _ask_one(
        self,
        member: Member,
        size: int,
        drawn: int,
        situation: Situation,
        request: Request,
        record: StepRecord,
        purpose: Purpose,
        until: float | None = None,
    ) -> list[Sample] | InvalidRequest:
        """A member's samples, of which each that failed, or did not come until then, votes for nothing."""
        student = member.student
        try:
            async with asyncio.timeout_at(until):
                batch = await variation.sample(student.context, request, record, size, drawn, purpose)
            samples: list[Sample] = []
            await student.read_into(samples, batch.replies, situation, request)
            if batch.call is not None:
                student.learned.statistics.add_request(batch.call, size)
        except InvalidRequest as error:  # of the caller's: whoever is asked refuses it
            return error
        except Exception as error:
            record.add_failure("student", error, member.name)
            if not isinstance(error, (BudgetExceeded, UnknownPrice)):
                self.context.health.add_failure(member.name, error)
            samples = [Sample(message=NOTHING, invalid=f"no answer: {describe(error)}")] * size
        seat = {"member": member.name, "weight": member.seat.weight}
        return [sample.model_copy(update=seat) for sample in samples]

    async def _add_samples(
        self, more: int, samples: list[Sample], situation: Situation, request: Request, record: StepRecord
    ) -> None:
        """Of members that were not asked yet, then as many of each: none outvotes the others by repeating itself."""
        silent = [m for m in self.members if all(s.member != m.name for s in samples)]
        while silent and more > 0:
            member = silent.pop(0)
            await self._ask([member], None, samples, situation, request, record)
            more -= member.seat.samples
        if more > 0:
            each, left = divmod(more, len(self.members))
            for members, size in ((self.members[:left], each + 1), (self.members[left:], each)):
                if size:
                    await self._ask(members, size, samples, situation, request, record)


def committee_of(context: StepContext) -> str:
    """Who sits in the committee, in the order in which they are asked, in words; empty where there is none."""
    if context.config.sampling.across != "students" or not context.students or context.student is None:
        return ""
    models = [context.student, *(further.model for further in context.students)]
    members = sorted(zip(models, seats_of(context)), key=lambda pair: call_dollars(*pair))
    said = []
    for model, seat in members:
        dollars = call_dollars(model, seat)
        price = "price unknown" if dollars == inf else f"${dollars:.3g}"
        said.append(f"{model.name} ({seat.votes} vote{'s' * (seat.votes > 1)}, {price})")
    total = sum(seat.votes for _, seat in members)
    needed = getattr(context.router, "needed", None)
    rule = f"{needed} of {total} votes must agree" if needed else f"router {context.router.name} on {total} votes"
    length = f"dollars of a call of {PROMPT_TOKENS:,} prompt and {ANSWER_TOKENS} answer tokens"
    return f"committee, {rule}; asked in this order ({length}): {', '.join(said)}"


def seats_of(context: StepContext) -> list[Seat]:
    """Of the students of a context, in the order in which they are configured."""
    first = context.config.student
    own = Seat() if first is None else Seat(first.samples, first.weight)
    return [own, *(further.seat for further in context.students)]
