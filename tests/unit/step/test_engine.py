"""The step: what is accepted, what is deferred, what is recorded, and that nothing on the student's side is fatal."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.actions.base import ToolCallActions, one_of
from agentcascade.errors import ConfigError, EmptyCompletion, InvalidRequest
from agentcascade.routers.step.consistency import AgreementThreshold, AlwaysTeacher
from agentcascade.types import Completion, Recall, Usage
from tests.cascades import DEMONSTRATION, MESSAGES, FakeBank, Model, act, known, make, recorded


async def test_agreeing_samples_are_taken_and_the_teacher_is_not_asked():
    student, teacher = Model("s", [act("look"), act("look  "), act("look")]), Model("t", act("go"))
    completion, decision = await make(student, teacher).step(MESSAGES)
    assert completion.messages[0]["content"] == act("look")
    assert (decision.answered_by, decision.reason, decision.agreement) == ("student", "agreement 3/3", 1.0)
    assert decision.action == "look"
    assert teacher.requests == []
    assert student.requests[0]["n"] == 3


async def test_disagreement_defers_this_one_step():
    student = Model("s", [act("look"), act("go"), act("look")], [act("take")] * 3)
    teacher = Model("t", act("open"))
    cascade = make(student, teacher)
    completion, decision = await cascade.step(MESSAGES)
    assert completion.messages[0]["content"] == act("open")
    assert (decision.answered_by, decision.reason) == ("teacher", "agreement 2/3")
    assert decision.votes == {"look": 2, "go": 1}
    _, following = await cascade.step(MESSAGES)
    assert following.answered_by == "student"
    assert len(teacher.requests) == 1


async def test_the_bill_counts_every_call_and_the_teacher_alone_is_estimated():
    student = Model("s", [act("look"), act("go"), act("look")], [act("take")] * 3)
    teacher = Model("t", act("open"), price="10")
    cascade = make(student, teacher)
    _, deferred = await cascade.step(MESSAGES)
    assert [(c.role, c.purpose, c.dollars) for c in deferred.calls] == [
        ("student", "sample", Decimal(130)),
        ("teacher", "act", Decimal(1100)),
    ]
    assert (deferred.dollars, deferred.teacher_dollars) == (Decimal(1230), Decimal(1100))
    assert deferred.saved_dollars == -130
    _, accepted = await cascade.step(MESSAGES)
    assert (accepted.dollars, accepted.teacher_dollars) == (Decimal(130), Decimal(1100))
    assert accepted.saved_dollars == 970


async def test_the_estimate_leaves_the_demonstrations_out():
    student, teacher = Model("s", act("look")), Model("t", act("go"), price="10")
    _, decision = await make(student, teacher, FakeBank(DEMONSTRATION)).step(MESSAGES)
    shown = student.requests[0]["messages"][1]["content"]
    assert "Goal: g" in shown
    assert decision.demonstrations == ("tr_1:0-1",)
    added = (1100 - known(decision.teacher_dollars)) / 10
    assert 0 < added <= len(shown.split())


async def test_an_unknown_price_is_unknown_not_zero():
    _, decision = await make(Model("s", act("look"), price=None), Model("t", act("go"))).step(MESSAGES)
    assert decision.dollars is None
    assert decision.saved_dollars is None


async def test_an_invalid_sample_votes_for_nothing():
    student, teacher = Model("s", [act("look"), "no action", act("look")]), Model("t", act("go"))
    _, decision = await make(student, teacher).step(MESSAGES)
    assert (decision.answered_by, decision.reason, decision.invalid_samples) == ("teacher", "agreement 2/3", 1)


async def test_a_validator_drops_impossible_actions():
    check = one_of(lambda s: ["go"])
    _, decision = await make(Model("s", act("fly")), Model("t", act("go")), validators=[check]).step(MESSAGES)
    assert (decision.answered_by, decision.invalid_samples, decision.action) == ("teacher", 3, "go")


async def test_samples_that_say_the_same_are_checked_once_and_each_votes():
    checked: list[str] = []

    def check(action, situation):
        checked.append(action.text)
        return "no way" if action.text == "fly" else None

    student = Model("s", [act("look"), act("fly"), act("look"), act("fly"), act("look")])
    router = AgreementThreshold(n=5, threshold=0.6)
    _, decision = await make(student, Model("t", act("go")), validators=[check], router=router).step(MESSAGES)
    assert checked == ["look", "fly"]
    assert (decision.votes, decision.samples, decision.invalid_samples) == ({"look": 3}, 5, 2)


async def test_tool_arguments_that_are_not_json_defer():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}
    student = Model("s", {"role": "assistant", "content": None, "tool_calls": [call]})
    teacher = Model("t", "done")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    _, decision = await make(student, teacher, actions=ToolCallActions()).step(MESSAGES, tools=tools)
    assert (decision.answered_by, decision.invalid_samples) == ("teacher", 3)
    assert teacher.requests[0]["tools"] == tools


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        (Model("s", RuntimeError("boom Bearer sk-secret-123456")), "student failed: RuntimeError"),
        (Model("s", EmptyCompletion("nothing")), "agreement 0/3"),
        (Model("s", [""]), "agreement 0/3"),
        (Model("s", act("look"), delay=60), "student failed: TimeoutError"),
    ],
)
async def test_a_failing_student_never_fails_the_step(student, reason):
    teacher = Model("t", act("go"))
    cascade = make(student, teacher, sampling={"timeout_seconds": 0.5})
    completion, decision = await cascade.step(MESSAGES)
    assert completion.messages[0]["content"] == act("go")
    assert (decision.answered_by, decision.reason) == ("teacher", reason)
    assert "secret" not in decision.model_dump_json()


async def test_what_an_empty_answer_cost_is_on_the_bill():
    error = EmptyCompletion("nothing")
    error.completion = Completion(model="s", messages=(), usage=Usage(input=7), dollars=Decimal(7))
    _, decision = await make(Model("s", error), Model("t", act("go"))).step(MESSAGES)
    assert [c.dollars for c in decision.calls] == [7, 110]


async def test_a_failing_bank_defers_and_is_recorded():
    bank = FakeBank(error=RuntimeError("disk gone"))
    student, teacher = Model("s", act("look")), Model("t", act("go"))
    _, decision = await make(student, teacher, bank).step(MESSAGES)
    assert decision.answered_by == "teacher"
    assert decision.failures == ("student: RuntimeError: disk gone",)
    assert student.requests == []


async def test_an_empty_bank_defers_unless_told_otherwise():
    student, teacher = Model("s", act("look")), Model("t", act("go"))
    _, decision = await make(student, teacher, FakeBank()).step(MESSAGES)
    assert (decision.answered_by, decision.reason) == ("teacher", "0 demonstrations, 1 needed")
    relaxed = make(student, teacher, FakeBank(), prompt={"min_demonstrations": 0})
    assert (await relaxed.step(MESSAGES))[1].answered_by == "student"


async def test_a_demonstration_longer_than_the_budget_is_dropped_and_said():
    cascade = make(Model("s", act("look")), Model("t", act("go")), FakeBank(DEMONSTRATION), prompt={"token_budget": 5})
    _, decision = await cascade.step(MESSAGES)
    assert decision.dropped_demonstrations == 1
    assert "1 over prompt.token_budget 5" in decision.reason


async def test_a_failing_teacher_raises_its_own_error_and_leaves_a_record():
    class ProviderError(Exception): ...

    cascade = make(Model("s", [act("a"), act("b"), act("c")]), Model("t", ProviderError("quota")))
    with pytest.raises(ProviderError):
        await cascade.step(MESSAGES)
    (decision,) = recorded(cascade).decisions
    assert decision.dollars == 130
    assert "ProviderError: quota" in decision.failures[-1]


async def test_the_deadline_holds_whatever_happens_inside():
    cascade = make(Model("s", [act("a"), act("b"), act("c")]), Model("t", act("go"), delay=60), deadline_seconds=0.5)
    with pytest.raises(TimeoutError):
        await cascade.step(MESSAGES)
    assert recorded(cascade).decisions[0].answered_by == "teacher"


async def test_cancellation_propagates_and_is_recorded():
    cascade = make(Model("s", act("look"), delay=5), Model("t", act("go")))
    task = asyncio.create_task(cascade.step(MESSAGES))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(recorded(cascade).decisions) == 1


async def test_mode_teacher_passes_through():
    student, teacher = Model("s", act("look")), Model("t", act("go"))
    _, decision = await make(student, teacher, FakeBank(DEMONSTRATION)).step(MESSAGES, mode="teacher")
    assert student.requests == []
    assert teacher.requests[0]["messages"] == MESSAGES
    assert decision.dollars == decision.teacher_dollars == 110


async def test_mode_student_takes_the_first_sample_with_demonstrations():
    student = Model("s", act("look"))
    _, decision = await make(student, None, FakeBank(DEMONSTRATION), mode="student").step(MESSAGES)
    assert (student.requests[0]["n"], decision.answered_by) == (1, "student")
    assert "Goal: g" in student.requests[0]["messages"][1]["content"]


async def test_mode_student_without_teacher_hands_on_what_it_said():
    completion, decision = await make(Model("s", "I am lost"), mode="student").step(MESSAGES)
    assert completion.messages[0]["content"] == "I am lost"
    assert decision.invalid_samples == 1
    with pytest.raises(EmptyCompletion, match=r"set teacher\.name"):
        await make(Model("s", [""]), mode="student").step(MESSAGES)


async def test_the_teacher_sees_demonstrations_only_when_configured():
    for shown in (False, True):
        teacher = Model("t", act("go"))
        cascade = make(
            Model("s", [act("a"), act("b"), act("c")]),
            teacher,
            FakeBank(DEMONSTRATION),
            prompt={"teacher_sees_demonstrations": shown},
        )
        await cascade.step(MESSAGES)
        assert ("Goal: g" in teacher.requests[0]["messages"][1]["content"]) is shown


class Reminding:
    async def recall(self, question, history, **options):
        return Recall(text="The code is 1234.", history=history, question=question)


@pytest.mark.parametrize("demonstrations", [True, False])
@pytest.mark.parametrize("memory", [True, False])
async def test_the_teacher_sees_a_memory_only_when_configured(memory, demonstrations):
    student, teacher = Model("s", [act("a"), act("b"), act("c")]), Model("t", act("go"))
    settings: dict[str, Any] = {"memory": {"teacher_sees_memory": memory, "remember": False}}
    reminding: Any = Reminding()
    settings["prompt"] = {"teacher_sees_demonstrations": demonstrations}
    cascade = make(student, teacher, FakeBank(DEMONSTRATION), **settings).twin(memory=reminding)
    for messages in (
        MESSAGES,
        [*MESSAGES, {"role": "assistant", "content": act("go")}, {"role": "user", "content": "ok"}],
    ):
        await cascade.step(messages)
        sent = teacher.requests[-1]["messages"]
        assert "1234" in str(student.requests[-1]["messages"])
        assert ("1234" in str(sent)) is memory
        assert ("Goal: g" in str(sent)) is demonstrations
        assert memory or demonstrations or sent == messages


@pytest.mark.parametrize(("needed", "less"), [(1, True), (2, False)])
async def test_the_teachers_bill_alone_is_less_by_the_demonstrations_that_it_was_shown(needed, less):
    settings = {"teacher_sees_demonstrations": True, "min_demonstrations": needed}
    student, teacher = Model("s", [act("a"), act("b"), act("c")]), Model("t", act("go"))
    _, decision = await make(student, teacher, FakeBank(DEMONSTRATION), prompt=settings).step(MESSAGES)
    assert ("Goal: g" in teacher.requests[0]["messages"][1]["content"]) is less
    alone, bill = known(decision.teacher_dollars), known(decision.calls[-1].dollars)
    assert alone < bill if less else alone == bill


async def test_a_router_may_send_the_step_straight_to_the_teacher():
    student = Model("s", act("look"))
    _, decision = await make(student, Model("t", act("go")), router=AlwaysTeacher()).step(MESSAGES)
    assert (decision.reason, student.requests) == ("router 'teacher' chose the teacher", [])


async def test_staged_sampling_buys_no_more_than_could_settle_the_vote():
    student = Model("s", [act("a"), act("b")])
    student.supports_n = False
    _, decision = await make(student, Model("t", act("go"))).step(MESSAGES)
    assert [r["n"] for r in student.requests] == [2]
    assert (decision.answered_by, decision.samples) == ("teacher", 2)
    agreeing = Model("s", act("a"))
    _, decision = await make(agreeing, Model("t", act("go")), sampling={"staged": "always"}).step(MESSAGES)
    assert [r["n"] for r in agreeing.requests] == [2, 1]
    assert decision.answered_by == "student"
    assert len({r["seed"] for r in agreeing.requests}) == 2


async def test_a_seed_of_none_is_none_given():
    student = Model("s", act("a"))
    _, decision = await make(student, Model("t", act("go"))).step(MESSAGES, seed=7, options={"seed": None})
    assert (decision.answered_by, decision.failures) == ("student", ())
    assert {r["seed"] for r in student.requests} == {7}


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "x"}], [{"content": "x"}]])
async def test_unusable_messages_are_refused_before_anything_is_bought(messages):
    student = Model("s", act("look"))
    with pytest.raises(InvalidRequest):
        await make(student, Model("t", act("go"))).step(messages)
    assert student.requests == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [("cascade", "needs a teacher"), ("student", "needs a student"), ("collect", "needs a teacher")],
)
async def test_a_mode_without_its_model_is_a_config_error(mode, message):
    with pytest.raises(ConfigError, match=message):
        await make(None, None).step(MESSAGES, mode=mode)


async def test_overhead_leaves_the_models_out():
    _, decision = await make(Model("s", act("look"), delay=0.2), Model("t", act("go"))).step(MESSAGES)
    assert 0 < decision.overhead_ms < 150
