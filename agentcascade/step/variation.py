"""Samples of varied prompts (`sampling.vary`): side by side, each prompt in a request of its own, on the step's bill.

A provider that bills the prompt of n samples once bills each of these, and waves are planned so (`sample_batches`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agentcascade.errors import InvalidRequest
from agentcascade.prompts.variation import variants, varied
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import NOTHING, Batch, ModelCalls, StudentReply
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request
from agentcascade.types import Call, Purpose, Usage, total


def prompts_of(context: StepContext, request: Request) -> int:
    """How many different prompts the samples of a request are drawn from."""
    return variants(request.prompt, context.config.sampling.vary)


async def sample(
    context: StepContext,
    request: Request,
    record: StepRecord,
    size: int,
    drawn: int,
    purpose: Purpose = "sample",
    *,
    more: bool = False,
) -> Batch:
    """`ModelCalls.sample`, in which each sample has the prompt of its number, where prompts are varied.

    A prompt whose request fails leaves its samples without a vote, as long as another one is answered.
    """
    count = prompts_of(context, request)
    if count == 1:
        return await ModelCalls(context, request, record).sample(size, drawn, purpose, more=more)
    record.add_prompts(min(count, drawn + size))
    numbers: dict[int, list[int]] = {}
    for number in range(drawn, drawn + size):
        numbers.setdefault(number % count, []).append(number)

    async def ask(variant: int, of_variant: list[int]) -> Batch:
        prompt = varied(request.prompt, context.config.sampling.vary, variant, context.prompts)
        calls = ModelCalls(context, replace(request, prompt=prompt), record)
        return await calls.sample(len(of_variant), of_variant[0], purpose, more=more)

    answers = await asyncio.gather(*(ask(*one) for one in numbers.items()), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in failed:
        if len(failed) == len(answers) or isinstance(error, InvalidRequest) or not isinstance(error, Exception):
            raise error
        record.add_failure("student", error)
    replies: dict[int, StudentReply] = {}
    for answer, of_variant in zip(answers, numbers.values()):
        given = [StudentReply(NOTHING)] * len(of_variant) if isinstance(answer, BaseException) else answer.replies
        replies |= dict(zip(of_variant, given))
    calls = [answer.call for answer in answers if isinstance(answer, Batch) and answer.call is not None]
    return Batch([replies[number] for number in range(drawn, drawn + size)], _sum(calls))


def _sum(calls: list[Call]) -> Call | None:
    """One line for calls that ran side by side."""
    if not calls:
        return None
    summed = {
        "usage": sum((call.usage for call in calls), Usage()),
        "dollars": total(calls),
        "seconds": max(call.seconds for call in calls),
        "requests": sum(call.requests for call in calls),
        "estimated": any(call.estimated for call in calls),
    }
    return calls[0].model_copy(update=summed)
