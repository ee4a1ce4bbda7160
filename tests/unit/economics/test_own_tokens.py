"""Students whose prompts are others than their teacher's (recorded runs, tokenizers) are forecast by their own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from agentcascade import ScriptedModel
from agentcascade.bench.economics import _beside_the_teacher_alone
from agentcascade.bench.records import EpisodeRecord
from agentcascade.config.load import CascadeConfig
from agentcascade.economics.measured import measure
from agentcascade.economics.outlook import outlook
from agentcascade.models.pricing import Price
from agentcascade.models.tokens import token_counter
from agentcascade.routers.step.consistency import AgreementThreshold
from agentcascade.step.context import FurtherStudent, StepContext
from agentcascade.types import Call, Decision, Usage

PRICES = {"t": Price(input="30", output="60"), "a": Price(input="1", output="2"), "b": Price(input="2", output="4")}
TOKENS = {"t": (3000, 150), "a": (300, 20), "b": (400, 40)}
"""(prompt, answer): GPT-4's took ten turns, the members answered at once."""


def call(name: str) -> Call:
    read, wrote = TOKENS[name]
    usage = Usage(input=read, output=wrote)
    role: Any = "teacher" if name == "t" else "student"
    purpose: Any = "act" if name == "t" else "sample"
    return Call(role=role, purpose=purpose, model=name, usage=usage, dollars=PRICES[name].dollars(usage))


def decision(number: int, *names: str, **more: Any) -> Decision:
    answered: Any = "teacher" if "t" in names else "student"
    calls = tuple(call(name) for name in names)
    bill: dict[str, Any] = {"calls": calls, "dollars": sum(c.dollars or Decimal(0) for c in calls)}
    drawn = len([name for name in names if name != "t"])
    return Decision(
        episode=f"e{number}", step=0, mode="cascade", answered_by=answered, reason="r", samples=drawn, **bill, **more
    )


def context() -> StepContext:
    models = {name: ScriptedModel(["x"], name=name, price=price) for name, price in PRICES.items()}
    config = CascadeConfig(retrieval={"k": 0}, sampling={"across": "students"})
    router = AgreementThreshold(n=2)
    return StepContext(
        config=config, router=router, count=token_counter(), teacher=models["t"], student=models["a"],
        students=(FurtherStudent(models["b"], router),),
    )  # fmt: skip


def test_each_member_is_forecast_by_its_own_prompt_and_answer() -> None:
    recorded = [decision(n, "a", "b", *(["t"] if n % 2 else [])) for n in range(40)]
    told = outlook(context(), measured=measure(recorded, teacher="t", students={"a", "b"}))
    assert told is not None
    assert told.costs is not None
    members = PRICES["a"].dollars(Usage(input=300, output=20)) + PRICES["b"].dollars(Usage(input=400, output=40))
    alone = PRICES["t"].dollars(Usage(input=3000, output=150))
    assert told.costs.most.accepted == members
    assert told.costs.most.teacher == alone
    assert told.costs.most.deferred == members + alone
    assert told.costs.most.break_even is not None
    assert abs(Decimal(told.costs.most.break_even) - members / alone) < Decimal("1e-9")
    assert "students' own prompts of 300 to 400" in "\n".join(told.lines())


def test_prompts_with_demonstrations_are_not_taken_for_the_conversations() -> None:
    recorded = [decision(n, "a", "t", demonstrations=("d:0-1",)) for n in range(40)]
    measured = measure(recorded, teacher="t", students={"a"})
    assert measured.students["a"].prompt is None
    assert measured.students["a"].answer == 20
    few = measure(recorded[:3], teacher="t", students={"a"})
    assert few.students == {}


def test_deferred_steps_are_as_dear_as_they_were() -> None:
    """Students defer what is hard: a forecast that takes them for any step promises too much."""
    recorded = [decision(n, "a", "b", *(["t"] if n % 2 else [])) for n in range(40)]
    measured = measure(recorded, teacher="t", students={"a", "b"})
    even, hard = (outlook(context(), measured=replace(measured, deferred=factor)) for factor in (1.0, 1.5))
    assert even is not None
    assert hard is not None
    assert even.costs is not None
    assert hard.costs is not None
    assert hard.costs.most.deferred - even.costs.most.deferred == even.costs.most.teacher / 2
    assert (hard.costs.most.break_even or 0) > 0.3 > (even.costs.most.break_even or 1)
    assert "teacher's answers to deferred steps 1.50 as dear as to all" in "\n".join(hard.lines())


def test_a_run_says_what_the_teacher_that_it_played_cost() -> None:
    """Its deferred steps, twice as dear, are no sample of what the teacher reads."""
    plain = [decision(n, "t").model_copy(update={"mode": "teacher"}) for n in range(20)]
    costly = call("t").model_copy(update={"usage": Usage(input=6000, output=300), "dollars": Decimal("0.198")})
    steps = [decision(n, "a") if n % 2 else decision(n, "t").model_copy(update={"calls": (costly,)}) for n in range(20)]
    kinds = {"teacher": plain, "cascade": steps}
    records = [
        EpisodeRecord(
            policy=policy, seed=0, index=n, task=str(n), success=True, steps=1, teacher_steps=0, seconds=0.1,
            dollars=sum((c.dollars or Decimal(0) for c in step.calls), Decimal(0)), decisions=(step,),
        )
        for policy, taken in kinds.items()
        for n, step in enumerate(taken)
    ]  # fmt: skip
    measured = _beside_the_teacher_alone(measure([*plain, *steps], teacher="t", students={"a"}), records, "t")
    assert measured.prompt == 3000
    assert measured.teacher_alone == Decimal("0.099")
    assert measured.deferred == 2
