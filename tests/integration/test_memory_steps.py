"""Memory in an agent's step: what both models see, what is remembered, and who pays."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentcascade import ScriptedModel, Turn, build
from agentcascade.cascade import Cascade
from agentcascade.ledger.ledger import Ledger
from agentcascade.models.pricing import Price
from agentcascade.storage import open_database
from agentcascade.storage.histories import read_recalls
from agentcascade.types import Mode

ASK = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "What is the dog of Ann called?"}]
REX = Turn(id="t1", speaker="Ann", text="I adopted a dog called Rex")


def cascade(tmp_path: Path, mode: Mode = "cascade", said: str = "look", **more: Any) -> Cascade:
    fixed = {"name": "fixed", "options": {"tiers": "low"}}
    memory: Any = {"enabled": True, "history": "user-1", "router": fixed, **more.pop("memory", {})}
    bank: Any = {"url": f"sqlite:///{tmp_path / 'agent.db'}", **more.pop("bank", {})}
    return build(
        teacher=ScriptedModel([said]),
        student=ScriptedModel([said]),
        mode=mode,
        bank=bank,
        retrieval={"embedder": "hashing", "index": "exact", "k": 0},
        memory=memory,
        **more,
    )


def shown(model: Any) -> str:
    """The last user message of the last request."""
    return str([m for m in model.requests[-1] if m["role"] == "user"][-1]["content"])


@pytest.mark.parametrize("mode", ["teacher", "collect", "shadow", "cascade", "student"])
async def test_every_mode_has_the_memory_behind_the_last_user_message(tmp_path: Path, mode: Mode) -> None:
    async with cascade(tmp_path, mode) as made:
        await made.context.memory.append("user-1", [REX])  # type: ignore[union-attr]
        answer = await made.episode().complete(ASK)
        asked = made.context.student if mode in ("cascade", "student") else made.context.teacher
        assert asked.requests[-1][0] == ASK[0]  # type: ignore[union-attr]
        assert shown(asked).startswith(ASK[1]["content"])
        assert "# Memory" in shown(asked)
        assert "Rex" in shown(asked)
        assert answer.agentcascade.failures == ()


async def test_the_teacher_may_go_without(tmp_path: Path) -> None:
    async with cascade(tmp_path, "teacher", memory={"teacher_sees_memory": False}) as made:
        await made.context.memory.append("user-1", [REX])  # type: ignore[union-attr]
        await made.episode().complete(ASK)
        assert made.context.teacher.requests[-1] == ASK  # type: ignore[union-attr]


async def test_the_block_fits_into_the_prompts_token_budget(tmp_path: Path) -> None:
    async with cascade(tmp_path, "student", prompt={"token_budget": 65, "min_demonstrations": 0}) as made:
        turns = [Turn(speaker="Ann", text=f"My dog number {i} is called Rex the dog {i}") for i in range(20)]
        await made.context.memory.append("user-1", turns)  # type: ignore[union-attr]
        await made.episode().complete(ASK)
        block = shown(made.context.student).partition("# Memory")[2]
        assert block
        assert made.context.count("# Memory" + block) <= 65


async def test_steps_are_remembered_across_episodes_and_restarts(tmp_path: Path) -> None:
    async with cascade(tmp_path, "student", said="Rex bit the postman") as made:
        await made.episode(id="first").complete([{"role": "user", "content": "What did Rex do on Monday?"}])
    async with cascade(tmp_path, "student") as made:
        await made.episode(id="second").complete([{"role": "user", "content": "Whom did Rex bite?"}])
        assert "Rex bit the postman" in shown(made.context.student)


async def test_what_stands_in_the_prompt_is_not_told_again(tmp_path: Path) -> None:
    async with cascade(tmp_path, "student", said="Rex sleeps") as made:
        episode = made.episode()
        messages: list[dict[str, Any]] = [{"role": "user", "content": "What does Rex do?"}]
        for _ in range(3):
            answer = await episode.complete(messages)
            messages += [
                {"role": "assistant", "content": answer.choices[0].message.content},
                {"role": "user", "content": "And what does Rex do now?"},
            ]
        assert "# Memory" not in shown(made.context.student)


async def test_tenants_never_see_each_others_memory(tmp_path: Path) -> None:
    async with cascade(tmp_path, "student") as made:
        await made.context.memory.append("user-1", [REX], namespace="acme")  # type: ignore[union-attr]
        await made.episode(namespace="globex").complete(ASK)
        assert "Rex" not in shown(made.context.student)
        await made.episode(namespace="acme").complete(ASK)
        assert "Rex" in shown(made.context.student)


async def test_a_memory_that_fails_never_fails_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cascade(tmp_path, "student") as made:

        async def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the memory is gone")

        for name in ("recall", "append"):
            monkeypatch.setattr(made.context.memory, name, broken)
        answer = await made.episode().complete(ASK)
        assert answer.choices[0].message.content == "look"
        assert any("the memory is gone" in failure for failure in answer.agentcascade.failures)
        assert made.context.student.requests[-1] == ASK  # type: ignore[union-attr]


class Paid(ScriptedModel):
    """A memory model at a dollar a thousand tokens of either kind."""

    def __init__(self) -> None:
        super().__init__(["- Ann's dog is called Rex [1]"], price=Price(input=Decimal(1000), output=Decimal(1000)))


def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentcascade.assembly import components

    real = components.make_model
    monkeypatch.setattr(
        components, "make_model", lambda config, count: Paid() if config.name == "paid" else real(config, count)
    )


PAID = {"tiers": {"summary": {"low": "llm:large"}}, "models": {"large": {"name": "paid"}}}


async def test_the_memorys_calls_are_on_the_steps_bill_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paying(monkeypatch)
    async with cascade(tmp_path, "student", memory=PAID) as made:
        made.context.student.price = Price(input=Decimal(1), output=Decimal(1))  # type: ignore[union-attr]
        await made.context.memory.append("user-1", [REX])  # type: ignore[union-attr]
        decision = (await made.episode().complete(ASK)).agentcascade
    (call,) = [c for c in decision.calls if c.purpose == "memory"]
    spent = Decimal(call.usage.prompt + call.usage.completion) / 1000
    assert call.dollars == spent
    sampled = sum((c.dollars or Decimal(0) for c in decision.calls if c.purpose == "sample"), Decimal(0))
    assert decision.dollars == spent + sampled
    database = open_database(tmp_path / "agent.db")
    (line,) = Ledger(database).summary()
    assert (line.dollars, line.steps) == (decision.dollars, 1)
    ((recall, score),) = list(read_recalls(database))
    assert (recall.decision, recall.dollars, score) == (decision.id, spent, None)
    database.close()


async def test_a_budget_that_is_too_small_for_the_memory_leaves_the_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paying(monkeypatch)
    tiers = {"summary": {"low": "rules", "mid": "llm:large"}}
    options = {"router": {"name": "fixed", "options": {"tiers": {"summary": "mid"}}}}
    async with cascade(
        tmp_path, "student", memory={**PAID, "tiers": tiers, **options}, budgets={"per_episode": "0.01"}
    ) as made:
        made.context.student.price = Price(input=Decimal(1), output=Decimal(1))  # type: ignore[union-attr]
        await made.context.memory.append("user-1", [REX])  # type: ignore[union-attr]
        answer = await made.episode().complete(ASK)
    assert answer.choices[0].message.content == "look"
    assert not [c for c in answer.agentcascade.calls if c.purpose == "memory"]
    database = open_database(tmp_path / "agent.db")
    ((recall, _),) = list(read_recalls(database))
    assert "BudgetExceeded" in recall.left_out[0]
    assert recall.runs[-1].used == "low"
    database.close()
