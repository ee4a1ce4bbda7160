"""A student that is sampled offline: a refusal is no vote of the log, as in a cascade."""

from __future__ import annotations

from agentcascade.actions.base import TextActions
from agentcascade.bench.sampling import StepPrompt, with_samples
from agentcascade.steplog.types import LoggedStep
from agentcascade.vllm.offline import SamplingSettings


def test_a_refusal_of_a_sampled_student_is_no_vote() -> None:
    step = LoggedStep(id="s", students=(), teacher="look")
    answer = {"samples": [{"text": text, "logprob": -0.1, "tokens": 3} for text in ("I can't help with that.", "look")]}
    sampling = SamplingSettings(n=2)
    made = with_samples(StepPrompt(step, []), answer, sampling, model="m", formats=TextActions(), price=None)
    refused, given = made.student.samples
    assert (refused.action, refused.text, refused.tokens, given.action) == (None, "I can't help with that.", 3, "look")
    assert str(refused.invalid).startswith("a refusal")
