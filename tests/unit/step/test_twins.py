"""Copies of a cascade (another teacher, a further student): each asks its own models, is seen, and is waited for."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from agentcascade import ScriptedModel, build
from agentcascade.assembly.resources import fingerprint
from agentcascade.billing.door import NullObserver
from agentcascade.cascade import Cascade
from agentcascade.errors import ConfigError

ASK = [{"role": "user", "content": "Task: go"}]


def make(folder: Path, **changed: Any) -> Cascade:
    options: dict[str, Any] = {
        "teacher": ScriptedModel(["go"], name="placeholder"),
        "student": ScriptedModel(["go"], name="student"),
        "bank": {"url": f"sqlite:///{folder}/a.db"},
        "retrieval": {"k": 0},
    }
    return build(**options | changed)


class Calls(NullObserver):
    def __init__(self) -> None:
        self.models: list[str] = []

    def call(self, role: Any, purpose: Any, model: str, **request: Any) -> Any:
        self.models.append(model)
        return super().call(role, purpose, model, **request)


async def test_audits_and_further_students_of_a_twin_know_its_own_teacher(tmp_path: Path) -> None:
    own = ScriptedModel(["stay"], name="own teacher")
    links = [{"name": "agentcascade.models.scripted:ScriptedModel", "options": {"script": ["x"]}}]
    async with make(tmp_path, audit={"rate": 1.0, "risk": 0.1}, students=links, memory={"enabled": True}) as cascade:
        twin = cascade.twin(teacher=own)
        await twin.episode("go").complete(ASK)
        await cascade.settle()  # those of the twin are waited for with the cascade's own
        assert len(own.requests) == 1
        assert len(cascade.context.teacher.requests) == 0  # type: ignore[union-attr]
        engine = twin.engine
        assert [policy.context.teacher for policy in engine._policies] == [own] * 2
        for part in (engine._audits, engine._shadows, engine._memory):
            assert part is not None
            assert part._context.teacher is own
        assert engine.state is cascade.engine.state


def test_nothing_of_a_context_can_be_set_and_a_twin_forgets_what_was_learnt_of_another_student(tmp_path: Path) -> None:
    with make(tmp_path) as cascade:
        for name in ("teacher", "observer", "guard", "bank"):
            with pytest.raises(FrozenInstanceError):
                setattr(cascade.context, name, None)
            with pytest.raises(AttributeError):
                cascade.context = None  # type: ignore[misc, assignment]
        (learned,) = cascade.engine.state.learned
        assert cascade.twin(teacher=ScriptedModel(["x"])).engine.state.learned == (learned,)
        assert cascade.twin(student=ScriptedModel(["x"])).engine.state.learned != (learned,)
        with pytest.raises(TypeError, match="teachers"):
            cascade.twin(teachers=[])  # type: ignore[call-arg]


async def test_calls_of_every_student_are_seen_by_the_observer_given_to_build(tmp_path: Path) -> None:
    seen = Calls()
    second = {"name": "agentcascade.models.scripted:ScriptedModel", "options": {"script": ["go"], "name": "second"}}
    unsure = ScriptedModel(["a", "b", "c"], name="first")
    async with make(tmp_path, student=unsure, students=[second], observer=seen) as cascade:
        answer = await cascade.episode("go").complete(ASK)
    assert answer.agentcascade.answered_by == "student"
    assert {"first", "second"} <= set(seen.models)


async def test_a_student_that_never_works_is_said_once_and_again_when_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentcascade.student")
    broken = ScriptedModel([ConnectionError("no route.")] * 5 + ["go"] * 9, name="shy")
    async with make(tmp_path, student=broken, router={"options": {"n": 1}}) as cascade:
        for _ in range(5):
            assert (await cascade.episode("go").complete(ASK)).agentcascade.answered_by == "teacher"
        (said,) = caplog.records
        assert "shy has not worked yet" in said.getMessage()
        assert "ConnectionError: no route. Check its name" in said.getMessage()
        assert (await cascade.episode("go").complete(ASK)).agentcascade.answered_by == "student"
    assert "works again" in caplog.records[-1].getMessage()


def test_a_price_holds_for_a_model_of_ones_own_class(tmp_path: Path) -> None:
    price = {"input": 1, "output": 2}
    own = {"name": "agentcascade.models.scripted:ScriptedModel", "options": {"script": ["go"]}, "price": price}
    with make(tmp_path, student=own, router={"options": {"n": 1}}) as cascade:
        decision = cascade.sync_episode("go").complete(ASK).agentcascade
    assert decision.dollars is not None
    assert decision.dollars > 0


def test_a_clients_model_outside_wrap_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agentcascade\.wrap.*'openai/gpt'"):
        make(tmp_path, student="client/gpt")


def test_configurations_that_differ_in_a_key_alone_do_not_share_a_memory(tmp_path: Path) -> None:
    from agentcascade.config.load import CascadeConfig

    one, two, same = (
        CascadeConfig.load(memory={"models": {"small": {"name": "openai/x", "api_key": key}}}) for key in "abb"
    )
    assert fingerprint(one.memory) != fingerprint(two.memory) == fingerprint(same.memory)
