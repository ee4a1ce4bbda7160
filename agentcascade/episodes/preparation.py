"""Preparation of a collected episode: the teacher's plan and its first thought, before the first step (`collect`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from agentcascade.messages import text_of
from agentcascade.prompts import planning
from agentcascade.step.context import StepContext
from agentcascade.step.model_calls import ModelCalls
from agentcascade.step.record import StepRecord
from agentcascade.step.request import Request


@dataclass
class Prepared:
    """What is there of an episode's plan and first thought; empty for what is not."""

    plan: str = ""
    thought: str = ""


async def prepare(context: StepContext, known: Prepared, request: Request, record: StepRecord) -> None:
    """Ask the teacher for what the configuration wants and `known` lacks, on the bill of `record`.

    Where it fails there is no first step: a decision of its own holds what it cost.
    """
    settings = context.config.collect
    if settings.plan or known.plan:
        planning.place_of_plan(request.messages)
    try:
        if settings.plan and not known.plan:
            known.plan = await _ask(context, request, record, "plan")
        if settings.first_thought and not known.thought:
            answer = await _ask(context, request, record, "first-thought")
            known.thought = planning.first_thought(answer, context.prompts.quoting)
    except BaseException as error:
        record.end_in(error)
        if context.recorder is not None:
            free = Decimal(0) if record.has_cost_nothing and context.teacher is not None else None
            context.recorder.record(record.close(free, free))
        raise


async def _ask(
    context: StepContext, request: Request, record: StepRecord, purpose: Literal["plan", "first-thought"]
) -> str:
    """The teacher's text."""
    asking = planning.asking(request.messages, purpose.replace("-", "_"), context.prompts)
    answer = await ModelCalls(context, replace(request, messages=asking, remembered=(), prompt=()), record).ask_teacher(
        asking, purpose
    )
    return text_of(answer.messages[0]).strip()
