"""Student policy of a step: demonstrations into its prompt, samples, votes, and what an action must satisfy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from agentcascade._util.bounds import off_loop
from agentcascade.actions import voting
from agentcascade.actions.base import called, parse_as, slow
from agentcascade.actions.equivalence import merged
from agentcascade.actions.refusals import refusal
from agentcascade.config.effort import plain_name
from agentcascade.errors import InvalidAction, describe
from agentcascade.models.thinking_quirks import thinker
from agentcascade.protocols import ChatModel, Router, Verdict
from agentcascade.step import history, variation
from agentcascade.step.batch_sizes import BatchSizes
from agentcascade.step.context import StepContext
from agentcascade.step.demonstration_cache import DemonstrationCache
from agentcascade.step.model_calls import ModelCalls, StudentReply
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.sample_batches import FeedbackStatistics, SampleStatistics
from agentcascade.types import Completion, Message, Mode, Purpose, Sample, Situation, Tally

log = logging.getLogger("agentcascade.student")


TEXT = {"role", "content"}
"""Fields of a message that is a text alone: no tool calls, whose ids differ, and no thoughts."""
Draw = Callable[[list[Sample], Tally, int], Awaitable[None]]
"""Samples so far, their votes and the votes to come: adds the next samples."""


class Learned(NamedTuple):
    """What was learnt of a student, which twins of a cascade share."""

    statistics: SampleStatistics
    demonstrations: DemonstrationCache
    feedback: FeedbackStatistics


class Shown(NamedTuple):
    """The request as a rung below was shown it."""

    model: str
    request: Request
    asked: Sequence[ChatModel]
    """With it."""


def new_learned() -> Learned:
    """Of a student that was not asked yet."""
    return Learned(SampleStatistics(), DemonstrationCache(), FeedbackStatistics())


class StudentPolicy:
    """What a cascade asks of the student of its context. Shadows ask the same.

    Args:
        context: Its student is asked, and its router judges the samples.
        learned: Of the same student, by this cascade and its twins.
    """

    def __init__(self, context: StepContext, learned: Learned) -> None:
        self.context = context
        self.learned = learned

    @property
    def name(self) -> str:
        """Of who is asked."""
        return self.context.student.name if self.context.student is not None else ""

    @property
    def models(self) -> Sequence[ChatModel]:
        """Those that are asked."""
        return [self.context.student] if self.context.student is not None else []

    @property
    def seconds(self) -> float:
        """Deadline of the student's part of a step."""
        return self.context.config.sampling.timeout_seconds

    @property
    def keeps_exchanges(self) -> bool:
        """Whether an open tool exchange of a student's goes on with one sample, without a vote (`tools.keep_model`)."""
        return True

    def kept_for(self, model: str) -> StudentPolicy | None:
        """The policy that goes on with a tool exchange of `model`; None where that is another student."""
        student = self.context.student
        return self if student is not None and student.name == model else None

    async def shown_as_below(
        self, below: Sequence[Shown], situation: Situation, mode: Mode, request: Request, record: StepRecord
    ) -> Request | None:
        """As `add_demonstrations`; where a rung below was the same model, what that was shown, to the byte."""
        for rung in reversed(below):
            if plain_name(rung.model) == plain_name(self.name):
                return rung.request.sent_before() if thinker(self.name).keeps_cache else rung.request
        return await self.add_demonstrations(situation, mode, request, record)

    async def add_demonstrations(
        self, situation: Situation, mode: Mode, request: Request, record: StepRecord
    ) -> Request | None:
        """The request, its history bounded, with demonstrations for the situation; None to defer for want of them."""
        context = self.context
        request = await history.bound(context, request, record)
        k = context.config.retrieval.k if request.k is None else request.k
        if context.bank is None or k == 0:
            return request
        settings = context.config.prompt
        window = {} if request.window is None else {"window": request.window}
        retrieved = await context.bank.retrieve(situation, k, **window)
        record.add_embedding(retrieved.embedding_seconds)
        room = max(0, settings.token_budget - request.memory_tokens)
        output = round(self.learned.statistics.answer_tokens)
        prompt = await self.learned.demonstrations.choose(
            context, situation, request, retrieved.demonstrations, room, output
        )
        record.add_demonstrations(prompt)
        if len(prompt.shown) < settings.min_demonstrations and mode == "cascade":
            record.reason = f"{len(prompt.shown)} demonstrations, {settings.min_demonstrations} needed"
            if prompt.dropped:
                record.reason += f" ({prompt.dropped} over prompt.token_budget {settings.token_budget})"
            return None
        return request.with_demonstrations(prompt.messages, prompt.tokens)

    async def sample_and_vote(
        self,
        router: Router,
        situation: Situation,
        n: int,
        request: Request,
        record: StepRecord,
        purpose: Purpose = "sample",
        *,
        samples: list[Sample],
    ) -> Verdict:
        """Sample until the router has a verdict, all at once or in batches, or until there are `n` samples.

        They are added to `samples` as they come, so that what breaks off leaves those that came.
        """
        calls = ModelCalls(self.context, request, record)
        draw = self._make_draw(router, situation, n, request, record, calls, purpose)
        while True:
            votes = voting.tally(samples, record.similarity)
            remaining = max(0, n - votes.total)
            verdict = router.judge(situation, votes, remaining) if samples else None
            if (
                verdict is Verdict.DEFER
                and purpose == "sample"
                and await self._merged(samples, situation, calls, record)
            ):
                continue
            if verdict is not None:
                self.learned.statistics.add_vote(samples)
                return verdict
            before = len(samples)
            if remaining:
                await draw(samples, votes, remaining)
            if len(samples) == before:  # a router that has no verdict is no reason to go on buying
                return Verdict.DEFER

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
        """Add `n` samples, whatever they say, until that time of the event loop. Raises `TimeoutError`."""
        async with asyncio.timeout_at(until):
            await self.sample_and_vote(_All(n), situation, n, request, record, purpose, samples=samples)

    def samples_voted_on(self, samples: Sequence[Sample], n: int) -> Sequence[Sample]:
        """Of all `samples` of a step those on which a router that wants `n` votes would have voted."""
        return samples[:n]

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
        """How samples are bought, a batch at a time."""
        statistics = self.learned.statistics
        sizes = BatchSizes(self.context, statistics, router, situation, n, request)

        async def draw(samples: list[Sample], votes: Tally, remaining: int) -> None:
            size = min(max(sizes.next(votes), 1), remaining)
            more = size < remaining
            batch = await variation.sample(self.context, request, record, size, votes.total, purpose, more=more)
            await self.read_into(samples, batch.replies, situation, request)
            if batch.call is not None:
                statistics.add_request(batch.call, size)

        return draw

    async def _merged(self, samples: list[Sample], situation: Situation, calls: ModelCalls, record: StepRecord) -> bool:
        """Whether layers that look further than at keys found samples that mean the same."""
        mergers = self.context.mergers
        if not mergers or len({s.action.key for s in samples if s.action}) < 2:
            return False

        async def ask(model: ChatModel, messages: Sequence[Message]) -> Completion:
            return await calls.ask(model, messages, "verify", {"temperature": 0.0})

        return await merged(samples, situation, mergers, ask, record.add_failure)

    async def allow_side_effects(
        self, chosen: Sample, samples: list[Sample], situation: Situation, request: Request, record: StepRecord
    ) -> bool:
        """Whether a call with side effects has the agreement that `tools` demands; buys the samples for it."""
        settings = self.context.config.tools
        named = called(chosen.message) & set(settings.side_effects)
        if not named or chosen.action is None:
            return True
        more = settings.side_effects_samples - len(samples)
        if more > 0:
            await self._add_samples(more, samples, situation, request, record)
        votes = voting.tally(samples)
        record.add_votes(votes, samples)
        share = votes.counts.get(chosen.action.key, 0) / votes.total
        if share + 1e-9 >= settings.side_effects_agreement:
            return True
        record.reason = (
            f"agreement {share:.2f} on {', '.join(sorted(named))}, {settings.side_effects_agreement:g} needed"
        )
        return False

    async def _add_samples(
        self, more: int, samples: list[Sample], situation: Situation, request: Request, record: StepRecord
    ) -> None:
        batch = await variation.sample(self.context, request, record, more, len(samples))
        await self.read_into(samples, batch.replies, situation, request)

    async def read_into(
        self, samples: list[Sample], replies: Sequence[StudentReply], situation: Situation, request: Request
    ) -> None:
        """Add replies as samples, in their order; of replies that say the same text, one is parsed and checked."""
        read: dict[tuple[object, ...], Sample] = {}
        for index, reply in enumerate(replies):
            text, is_text = reply.message.get("content"), reply.message.keys() == TEXT
            key = (text, *reply[1:]) if is_text and isinstance(text, str) else (index,)
            if key not in read:
                read[key] = await self._sample(reply, situation, request)
            samples.append(read[key])

    async def _sample(self, reply: StudentReply, situation: Situation, request: Request) -> Sample:
        sample = await parse(self.context, reply.message, situation, request)
        refused = refusal(reply.message, sample.action, reply.finish_reason)
        if refused is not None:
            sample = Sample(message=reply.message, invalid=refused)
        elif self.context.failures is not None and sample.action is not None:
            known = await self.context.failures.complaint(sample.action, situation)
            if known is not None:
                sample = Sample(message=reply.message, invalid=known, struck=sample.action.key)
        if reply.logprob is None and reply.tokens is None:
            return sample
        return sample.model_copy(update={"logprob": reply.logprob, "tokens": reply.tokens})


async def parse(context: StepContext, message: Message, situation: Situation, request: Request) -> Sample:
    """The message as a sample, with its action or with what makes it unusable.

    It was paid for: parsing it never raises, and what is long or slow to check is parsed in a thread.
    """
    formats, asked = context.actions, request.options.get("response_format")
    try:
        heavy = slow(formats, message, request.tools, asked)
        action = await off_loop(heavy, parse_as, formats, message, request.tools, asked)
        complaint = next((c for v in context.validators if (c := v(action, situation))), None)
    except InvalidAction as error:
        return Sample(message=message, invalid=str(error))
    except Exception as error:  # of a format or a validator of the caller's own
        log.warning("an answer cannot be parsed, it votes for nothing: %s", describe(error))
        return Sample(message=message, invalid=f"it cannot be parsed: {describe(error)}")
    return Sample(message=message, action=None if complaint else action, invalid=complaint)


class FirstSample:
    """Router of mode ``student``: whatever it says is taken."""

    name = "student"

    def samples(self, situation: Situation) -> int:
        return 1

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        if remaining:
            return None
        return Verdict.ACCEPT if tally.counts else Verdict.DEFER


FIRST_SAMPLE = FirstSample()


class _All:
    """Router that wants every sample and has no opinion."""

    name = "shadow"

    def __init__(self, n: int) -> None:
        self._n = n

    def samples(self, situation: Situation) -> int:
        return self._n

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        return None if remaining else Verdict.DEFER
