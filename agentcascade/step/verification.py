"""Soft verifier: a small model's score of a step's candidate, beside the vote (`verifier`).

"When Reasoning Beats Scale: A 1.5B Reasoning Model Outranks 13B LLMs as Discriminator" (arXiv 2505.03786), section 3:
the probability of "yes" at the answer token is a soft score. It is asked where the vote is split or the stakes are
high; its calls go through the one door, on the step's bill, as purpose ``score``. A verifier that fails, is slow or
answers nonsense gives no score: that is recorded, and the vote alone decides. It is shown what the caller sent and the
candidate, both quoted; never a label.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from agentcascade.actions.base import called
from agentcascade.config.verifier import Ask as Asked
from agentcascade.config.verifier import VerifierConfig
from agentcascade.errors import describe
from agentcascade.messages import text_of
from agentcascade.prompts.prompts import DEFAULT, Prompts
from agentcascade.prompts.verdict_score import scale_score, verdict, yes_probability
from agentcascade.prompts.verification import Form, verification
from agentcascade.protocols import ChatModel, Router, Verdict
from agentcascade.types import Completion, Message, Sample, Situation, Tally, Tool, Usage, Verification

AskFor = Callable[[ChatModel, Sequence[Message], Mapping[str, Any], float], Awaitable[Completion]]
FORGET = 0.99
"""Weight of the verifications before, at each one."""
TOP_LOGPROBS = 10
FRAME_TOKENS = 150
"""Of the question around what is quoted."""
ANSWER_TOKENS = 60
"""Of an answer, before one was seen."""
WITHOUT_LOGPROBS = "it tells no log-probabilities of its verdict: its score is read from a scale of 0 to 10"


class SoftVerifier:
    """Scores candidates with a chat model; remembers whether it tells log-probabilities, and what asking it is worth.

    Args:
        model: Is asked.
        settings: The section `verifier`.
        side_effects: Tools whose calls are high stakes (`tools.side_effects`).
        prompts: Templates of the question, and the quoting.
    """

    def __init__(
        self,
        model: ChatModel,
        settings: VerifierConfig,
        side_effects: Sequence[str] = (),
        prompts: Prompts = DEFAULT,
    ) -> None:
        self.model: ChatModel = model
        self.settings: VerifierConfig = settings
        self._prompts = prompts
        self._side_effects = frozenset(side_effects)
        self._form: Form = "scale" if settings.read == "scale" or not may_tell_logprobs(model) else "word"
        self._took, self._asked = 1.0, 2.0
        self._answer_tokens = float(ANSWER_TOKENS)

    @property
    def form(self) -> Form:
        """How the next answer is asked for."""
        return self._form

    def why(self, accepted: bool, chosen: Sample, votes: Tally) -> Asked | None:
        """Why a candidate is put to it; None where it is not."""
        if chosen.action is None or not votes.total:
            return None
        share = votes.counts.get(chosen.action.key, 0) / votes.total
        return self.settings.asks(accepted, share, bool(called(chosen.message) & self._side_effects))

    def patient(self, router: Router) -> Router:
        """`router`, which does not defer before all samples are drawn: the candidate is the majority of all."""
        asks_split = "split" in self.settings.ask or "always" in self.settings.ask
        return _Patient(router) if asks_split else router

    def pays(self, prompt: int, teacher: float | None) -> bool:
        """Whether a split vote is worth asking about: its dollars against P(taken) of the teacher's.

        Args:
            prompt: Tokens of what the caller sent.
            teacher: Dollars of the call that a deferral takes; None: not known.
        """
        prompt = min(prompt, self.settings.context_tokens) + FRAME_TOKENS
        cost = self.model.dollars(Usage(input=prompt, output=round(self._answer_tokens)))
        if self.settings.worth == "always" or cost is None or teacher is None:
            return True
        return float(cost) < self._took / self._asked * teacher

    def learn(self, taken: bool) -> None:
        """A split vote was put to it, and its candidate taken or not. The prior is one of two."""
        self._took = FORGET * self._took + (1 - FORGET) + taken
        self._asked = FORGET * self._asked + (1 - FORGET) * 2 + 1

    async def score(
        self, asked: Asked, candidate: Sample, messages: Sequence[Message], tools: Sequence[Tool] | None, ask: AskFor
    ) -> tuple[Verification, tuple[str, ...]]:
        """What it says of a candidate, without its dollars, and what is to be noted of how it went.

        Args:
            asked: Why.
            candidate: A sample with an action.
            messages: What the agent was asked.
            tools: That it has.
            ask: Makes a call of a model, with options, within so many seconds.
        """
        action = candidate.action
        assert action is not None
        notes: list[str] = []
        score, failure, form = None, "", self._form
        try:
            score = await self._ask(form, candidate, messages, tools, ask)
            if score is None and self._form != form:
                notes.append(f"verifier {self.model.name}: {WITHOUT_LOGPROBS}")
                form = self._form
                score = await self._ask(form, candidate, messages, tools, ask)
            failure = "" if score is not None else "its answer holds no verdict"
        except Exception as error:
            failure = describe(error)
        if failure:
            notes.append(f"verifier {self.model.name}: no score: {failure}")
        read: Literal["logprobs", "scale"] = "logprobs" if form == "word" else "scale"
        said = Verification(
            model=self.model.name,
            action=action.key,
            asked=asked,
            score=score,
            read=None if score is None else read,
            failure=failure,
        )
        return said, tuple(notes)

    async def _ask(
        self,
        form: Form,
        candidate: Sample,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        ask: AskFor,
    ) -> float | None:
        settings = self.settings
        prompt = verification(
            messages,
            shown(candidate),
            budget=settings.context_tokens,
            form=form,
            think=settings.think,
            tools=tools,
            prompts=self._prompts,
        )
        options: dict[str, Any] = {"temperature": settings.temperature, "timeout": settings.timeout_seconds}
        if form == "word":
            options |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        completion = await ask(self.model, prompt, options, settings.timeout_seconds)
        self._answer_tokens += 0.1 * (completion.usage.completion - self._answer_tokens)
        text = text_of(completion.messages[0]) if completion.messages else ""
        if form == "scale":
            return scale_score(text)
        score = yes_probability(text, tokens_of(completion))
        if score is None and verdict(text) is not None:
            self._form = "scale"  # none are told, or none of the verdict's word: it is cut into several tokens
        return score


def shown(candidate: Sample) -> Message:
    """A candidate as a verifier reads it: the action alone, without the student's reasons for it."""
    assert candidate.action is not None
    if calls := candidate.message.get("tool_calls"):
        return {"role": "assistant", "content": "", "tool_calls": calls}
    return {"role": "assistant", "content": candidate.action.text}


def tokens_of(completion: Completion) -> Sequence[Any] | None:
    """The answer's tokens with their log-probabilities; None where the provider told none."""
    fields = completion.choice_fields[0] if completion.choice_fields else {}
    told = fields.get("logprobs") if isinstance(fields, Mapping) else None
    content = told.get("content") if isinstance(told, Mapping) else None
    return content if isinstance(content, Sequence) and not isinstance(content, str) and content else None


def may_tell_logprobs(model: ChatModel) -> bool:
    """False where it is known that nothing of the kind is told: Anthropic's messages, and what an adapter drops."""
    if getattr(model, "speaks_messages", False):
        return False
    drops: Any = getattr(model, "drops", None)
    return not (callable(drops) and "logprobs" in drops({"logprobs": True, "top_logprobs": TOP_LOGPROBS}))


class _Patient:
    """A router that defers only when all samples are drawn."""

    def __init__(self, router: Router) -> None:
        self._router, self.name = router, router.name

    def samples(self, situation: Situation) -> int:
        return self._router.samples(situation)

    def judge(self, situation: Situation, tally: Tally, remaining: int) -> Verdict | None:
        verdict = self._router.judge(situation, tally, remaining)
        return None if verdict is Verdict.DEFER and remaining else verdict
