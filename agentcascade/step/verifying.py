"""Where a step, or its shadow, puts its candidate to the soft verifier: split votes, high stakes, or always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentcascade.actions import voting
from agentcascade.actions.base import called
from agentcascade.config.verifier import Ask
from agentcascade.protocols import ChatModel, Router, Verdict
from agentcascade.step.demonstration_cache import teacher_dollars
from agentcascade.step.model_calls import ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.step.student import FIRST_SAMPLE, StudentPolicy
from agentcascade.step.verification import SoftVerifier
from agentcascade.types import Completion, Message, Mode, Sample, Situation, Tally, Verification, total


class Verifying:
    """The verifier at one student's part of one step.

    Args:
        verifier: Is asked.
        policy: Whose candidate it is asked about.
        request: As the caller sent it, with memory.
        record: The calls are on its bill.
    """

    def __init__(self, verifier: SoftVerifier, policy: StudentPolicy, request: Request, record: StepRecord) -> None:
        self._verifier, self._policy, self._request, self._record = verifier, policy, request, record
        self._said: Verification | None = None

    @classmethod
    def of(
        cls, policy: StudentPolicy, router: Router, mode: Mode, request: Request, record: StepRecord
    ) -> Verifying | None:
        """None where there is no verifier, or no vote to stand beside."""
        verifier = policy.context.verifier
        if verifier is None or mode != "cascade" or router is FIRST_SAMPLE:
            return None
        return cls(verifier, policy, request, record)

    def patient(self, router: Router) -> Router:
        """The router as it judges while samples come; under a drift alarm as it is: a split vote is then deferred."""
        return router if self._is_alarmed else self._verifier.patient(router)

    @property
    def _is_alarmed(self) -> bool:
        guard = self._policy.context.guard
        return guard is not None and guard.alarmed

    @property
    def words(self) -> str:
        """What the verifier said, as a reason ends; empty where it was not asked."""
        if self._said is None:
            return ""
        return ", verifier gave no score" if self._said.score is None else f", verifier {self._said.score:.2f}"

    async def take_split(self, chosen: Sample, votes: Tally, samples: list[Sample]) -> bool:
        """Whether a candidate that the vote would defer is taken."""
        verifier, asked = self._verifier, self._verifier.why(False, chosen, votes)
        if asked is None or self._is_alarmed or not self._may_be_taken(chosen, votes):
            return False
        if not self._pays():
            return False
        taken = await self._decide(asked, False, chosen, samples)
        verifier.learn(taken)
        return taken

    async def keep(self, chosen: Sample, votes: Tally, samples: list[Sample]) -> bool:
        """Whether a candidate that the vote accepts stays accepted."""
        asked = None if self._said is not None else self._verifier.why(True, chosen, votes)
        return asked is None or await self._decide(asked, True, chosen, samples)

    def _may_be_taken(self, chosen: Sample, votes: Tally) -> bool:
        """Whether calls with side effects have the agreement that `tools` demands of them: no score stands for it."""
        tools = self._policy.context.config.tools
        if chosen.action is None or not called(chosen.message) & set(tools.side_effects):
            return True
        return votes.counts.get(chosen.action.key, 0) / votes.total + 1e-9 >= tools.side_effects_agreement

    def _pays(self) -> bool:
        context, output = self._policy.context, round(self._policy.learned.statistics.answer_tokens)
        prompt = self._request.tokens(context.count)
        return self._verifier.pays(prompt, teacher_dollars(context, self._request, output))

    async def _decide(self, asked: Ask, accepted: bool, chosen: Sample, samples: list[Sample]) -> bool:
        said = await score(self._verifier, asked, chosen, self._policy, self._request, self._record)
        taken = self._verifier.settings.takes(accepted, said.score)
        self._said = said.model_copy(update={"accepted": taken})
        self._record.add_verification(self._said)
        note_score(samples, said)
        return taken


async def score(
    verifier: SoftVerifier, asked: Ask, candidate: Sample, policy: StudentPolicy, request: Request, record: StepRecord
) -> Verification:
    """What the verifier says of a candidate, on the step's bill; whatever fails is noted there, and is no score."""
    calls, billed = ModelCalls(policy.context, request, record), len(record.calls)

    async def ask(
        model: ChatModel, messages: Sequence[Message], options: Mapping[str, Any], seconds: float
    ) -> Completion:
        return await calls.ask(model, messages, "score", options, seconds)

    said, notes = await verifier.score(asked, candidate, request.remembered, request.tools, ask)
    for note in notes:
        record.add_note(note)
    own = [call for call in record.calls[billed:] if call.purpose == "score"]
    return said.model_copy(update={"dollars": total(own) if own else Decimal(0)})


def verifying_seconds(verifier: SoftVerifier | None) -> float:
    """What a verification may add to the student's part of a step."""
    return 0.0 if verifier is None else 2 * verifier.settings.timeout_seconds


def note_score(samples: list[Sample], said: Verification) -> None:
    """Give the samples of a candidate its score, in place, for the log."""
    if said.score is not None:
        for i, sample in enumerate(samples):
            if sample.action is not None and sample.action.key == said.action:
                samples[i] = sample.model_copy(update={"score": said.score})


async def score_for_log(
    policy: StudentPolicy,
    router: Router,
    situation: Situation,
    samples: list[Sample],
    request: Request,
    record: StepRecord,
) -> None:
    """Score the candidates of a shadow: whatever led after some number of samples, where it would have been asked.

    So a log holds what rules on fewer samples would have asked. Nothing is asked twice.
    """
    verifier = policy.context.verifier
    if verifier is None or not samples:
        return
    for chosen, asked in candidates(verifier, router, situation, samples):
        note_score(samples, await score(verifier, asked, chosen, policy, request, record))


def candidates(
    verifier: SoftVerifier, router: Router, situation: Situation, samples: Sequence[Sample]
) -> list[tuple[Sample, Ask]]:
    """The distinct candidates after two samples and more, and after the first where it is the only one."""
    found: dict[str, tuple[Sample, Ask]] = {}
    for size in range(min(2, len(samples)), len(samples) + 1):
        votes = voting.tally(samples[:size])
        chosen = voting.winner(samples[:size], votes)
        if chosen is None or chosen.action is None or chosen.action.key in found:
            continue
        accepted = router.judge(situation, votes, 0) is Verdict.ACCEPT
        asked = verifier.why(accepted, chosen, votes)
        if asked is not None:
            found[chosen.action.key] = chosen, asked
    return list(found.values())


def would_accept(
    policy: StudentPolicy, router: Router, situation: Situation, votes: Tally, samples: Sequence[Sample]
) -> bool:
    """Whether the step would have been the student's, with the scores that the samples of a shadow have."""
    accepted, verifier = router.judge(situation, votes, 0) is Verdict.ACCEPT, policy.context.verifier
    chosen = voting.winner(samples, votes)
    if verifier is None or chosen is None or verifier.why(accepted, chosen, votes) is None:
        return accepted
    return verifier.settings.takes(accepted, chosen.score)
