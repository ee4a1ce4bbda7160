"""The student's side of a step: demonstrations into its prompt, samples, votes, and what an action must satisfy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentcascade._util.bounds import off_loop
from agentcascade.actions import voting
from agentcascade.actions.base import called, parse_as, slow
from agentcascade.actions.equivalence import merged
from agentcascade.errors import InvalidAction, describe
from agentcascade.models.tokens import count_messages
from agentcascade.prompts import demonstrations
from agentcascade.protocols import Router, Verdict
from agentcascade.step.demonstration_cache import Sticky
from agentcascade.step.model_calls import Caller, Request, Said
from agentcascade.step.record import StepRecord
from agentcascade.step.sample_batches import MOST, Outlook, Waves, billing
from agentcascade.types import Message, Mode, Purpose, Sample, Situation, Tally

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade


log = logging.getLogger("agentcascade.student")


class StudentSide:
    """What a cascade asks of its student. Shadows ask the same."""

    def __init__(self, cascade: Cascade) -> None:
        self._cascade = cascade
        self._outlook, self._sticky = Outlook(), Sticky()

    def of(self, cascade: Cascade) -> StudentSide:
        """That of a twin, which knows what this one has learnt."""
        twin = StudentSide(cascade)
        twin._outlook, twin._sticky = self._outlook, self._sticky
        return twin

    async def demonstrate(self, situation: Situation, mode: Mode, request: Request, record: StepRecord) -> bool:
        """Retrieve and put the demonstrations into the prompt; False to defer for want of them."""
        cascade = self._cascade
        k = cascade.config.retrieval.k if request.k is None else request.k
        if cascade.bank is None or k == 0:
            return True
        settings = cascade.config.prompt
        found = await cascade.bank.retrieve(situation, k)
        record.embedded(found.embedding_seconds)
        room = max(0, settings.token_budget - request.memory_tokens)
        prompt = demonstrations.build(
            request.remembered, found.demonstrations, budget=room, count=cascade.count, quoting=cascade.quoting
        )
        if cascade.config.retrieval.sticky != "never":
            output = round(self._outlook.answer_tokens)
            prompt = await self._sticky.choose(cascade, situation, request.remembered, prompt, room, output)
        record.demonstrated(prompt)
        if len(prompt.shown) < settings.min_demonstrations and mode == "cascade":
            record.reason = f"{len(prompt.shown)} demonstrations, {settings.min_demonstrations} needed"
            if prompt.dropped:
                record.reason += f" ({prompt.dropped} over prompt.token_budget {settings.token_budget})"
            return False
        request.prompt, request.demonstration_tokens = prompt.messages, prompt.tokens
        return True

    async def vote(
        self,
        router: Router,
        situation: Situation,
        n: int,
        request: Request,
        record: StepRecord,
        purpose: Purpose = "sample",
    ) -> tuple[list[Sample], Verdict]:
        """Sample until the router has a verdict, all at once or in waves, or until there are `n` samples."""
        size = self._sizes(router, situation, n, request)
        caller = Caller(self._cascade, request, record)
        samples: list[Sample] = []
        while True:
            votes, remaining = voting.tally(samples, record.similarity), n - len(samples)
            verdict = router.judge(situation, votes, remaining) if samples else None
            if (
                verdict is Verdict.DEFER
                and purpose == "sample"
                and await self._merged(samples, situation, caller, record)
            ):
                continue
            if verdict is not None:
                self._outlook.voted(samples)
                return samples, verdict
            if remaining <= 0:  # a router that has none is no reason to go on buying
                return samples, Verdict.DEFER
            wave, made = min(max(size(votes), 1), remaining), len(record.calls)
            for said in await caller.samples(wave, len(samples), purpose):
                samples.append(await self._sample(said, situation, request))
            if len(record.calls) > made:
                self._outlook.called(record.calls[-1], wave)

    def _sizes(self, router: Router, situation: Situation, n: int, request: Request) -> Callable[[Tally], int]:
        """Votes so far → samples to buy next, as `sampling.staged` says."""
        cascade, settings = self._cascade, self._cascade.config.sampling
        assert cascade.student is not None
        if settings.staged == "auto" and 1 < n <= MOST and self._outlook.known:
            prompt = count_messages(request.remembered, cascade.count) + request.demonstration_tokens
            prompt += cascade.count(json.dumps(request.tools)) if request.tools else 0
            outlook = self._outlook
            paid = billing(
                cascade.student,
                prompt,
                outlook.answer_tokens,
                cached_from=settings.cached_from_tokens,
                seconds=outlook.seconds,
                second_dollars=settings.second_dollars,
            )
            if paid is not None:
                waves = Waves(router, situation, n, paid, outlook.agree)
                return lambda votes: waves.next(votes)[0]
        staged = settings.staged == "always" or (settings.staged == "auto" and not cascade.student.supports_n)
        if not staged:
            return lambda votes: n - votes.total
        return lambda votes: voting.next_wave(router, situation, votes, n - votes.total)

    async def _merged(self, samples: list[Sample], situation: Situation, caller: Caller, record: StepRecord) -> bool:
        """Whether layers that look further than at keys found samples that mean the same."""
        mergers = self._cascade.mergers
        if not mergers or len({s.action.key for s in samples if s.action}) < 2:
            return False
        ask = lambda model, messages: caller.other(model, messages, "verify", {"temperature": 0.0})  # noqa: E731
        return await merged(samples, situation, mergers, ask, record.failed)

    async def may_act(
        self, chosen: Sample, samples: list[Sample], situation: Situation, request: Request, record: StepRecord
    ) -> bool:
        """Whether a call with side effects has the agreement that `tools` demands; buys the samples for it."""
        cascade = self._cascade
        settings = cascade.config.tools
        named = called(chosen.message) & set(settings.side_effects)
        if not named or chosen.action is None:
            return True
        more = settings.side_effects_samples - len(samples)
        if more > 0:
            drawn = await Caller(cascade, request, record).samples(more, len(samples))
            samples += [await self._sample(said, situation, request) for said in drawn]
        votes = voting.tally(samples)
        record.voted(votes, samples)
        share = votes.counts.get(chosen.action.key, 0) / votes.total
        if share + 1e-9 >= settings.side_effects_agreement:
            return True
        record.reason = (
            f"agreement {share:.2f} on {', '.join(sorted(named))}, {settings.side_effects_agreement:g} needed"
        )
        return False

    async def _sample(self, said: Said, situation: Situation, request: Request) -> Sample:
        sample = await self.parse(said.message, situation, request)
        if said.logprob is None and said.tokens is None:
            return sample
        return sample.model_copy(update={"logprob": said.logprob, "tokens": said.tokens})

    async def parse(self, message: Message, situation: Situation, request: Request) -> Sample:
        """The sample with its action, or with what makes it unusable. It was paid for: parsing it never raises, and
        what is long or slow to check is parsed in a thread.
        """
        formats, asked = self._cascade.actions, request.options.get("response_format")
        try:
            heavy = slow(formats, message, request.tools, asked)
            action = await off_loop(heavy, parse_as, formats, message, request.tools, asked)
            complaint = next((c for v in self._cascade.validators if (c := v(action, situation))), None)
        except InvalidAction as error:
            return Sample(message=message, invalid=str(error))
        except Exception as error:  # of a format or a validator of the caller's own
            log.warning("an answer cannot be parsed, it votes for nothing: %s", describe(error))
            return Sample(message=message, invalid=f"it cannot be parsed: {describe(error)}")
        return Sample(message=message, action=None if complaint else action, invalid=complaint)


class FirstSample:
    """Mode ``student``: whatever it says is taken."""

    name = "student"

    def samples(self, situation: Situation) -> int:
        return 1

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        if remaining:
            return None
        return Verdict.ACCEPT if tally.counts else Verdict.DEFER


FIRST_SAMPLE = FirstSample()
