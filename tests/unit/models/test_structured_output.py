"""Answers of a fixed form: what is asked of vLLM, and what is refused before anything is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from agentcascade import ScriptedModel, build
from agentcascade.actions.base import canonical_text
from agentcascade.actions.formats import make_format
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.config.sections import ActionsConfig, SamplingConfig
from agentcascade.errors import ConfigError
from agentcascade.models import structured_output
from agentcascade.types import Completion, Message, Situation

SCHEMA = {"type": "object", "properties": {"move": {"enum": ["a", "b"]}}, "required": ["move"]}
VLLM = "hosted_vllm/tiny"


class Vllm(ScriptedModel):
    """Answers from a script, and keeps what it was asked for besides messages."""

    def __init__(self, *answers: str) -> None:
        super().__init__(list(answers), name=VLLM)
        self.options: list[dict[str, Any]] = []

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        self.options.append(options)
        known = ("n", "temperature", "seed", "tools", "timeout")
        return await super().complete(messages, **{k: v for k, v in options.items() if k in known})


def made(student: ScriptedModel, teacher: ScriptedModel | None = None, **settings: Any) -> Cascade:
    settings.setdefault("router", {"name": "unanimity", "options": {"n": 1}})
    return build(
        teacher=teacher or ScriptedModel(["taught"]),
        student=student,
        retrieval={"k": 0},
        bank={"url": "sqlite://"},
        **settings,
    )


ASK: list[Message] = [{"role": "user", "content": "go"}]


def test_choices_of_a_request_bind_the_student_alone() -> None:
    student, teacher = Vllm("look"), Vllm("look")
    with made(student, teacher, sampling={"constrain": "choice"}, actions={"format": "text"}) as cascade:
        episode = cascade.sync_episode()
        answer = episode.complete(ASK, choices=["look", "go north", "look", " "], response_format={"type": "text"})
        assert answer.agentcascade.answered_by == "student"
        assert student.options[0]["structured_outputs"] == {"choice": ["look", "go north"]}
        assert "choices" not in student.options[0]
        assert "response_format" not in student.options[0], "two forms would contradict each other"
        cascade.sync_episode(mode="teacher").complete(ASK, choices=["look"], response_format={"type": "text"})
        assert not {"choices", "structured_outputs"} & teacher.options[0].keys()
        assert teacher.options[0]["response_format"] == {"type": "text"}


def test_choices_of_the_environment_are_asked_at_each_step() -> None:
    seen: list[Situation] = []

    def choices(situation: Situation) -> list[str]:
        seen.append(situation)
        return [f"step {situation.step}"]

    student = Vllm("Thought: x\nAction: step 0", "Thought: x\nAction: step 1")
    settings: dict[str, Any] = {"sampling": {"constrain": "choice"}, "actions": {"format": "react"}}
    with made(student, choices=choices, **settings) as cascade:
        episode = cascade.sync_episode()
        episode.complete(ASK)
        episode.complete([*ASK, {"role": "assistant", "content": "Action: step 0"}, {"role": "user", "content": "b"}])
    assert [s.step for s in seen] == [0, 1]
    for step, asked in enumerate(student.options):
        assert re.fullmatch(asked["structured_outputs"]["regex"], f"Thought: some.\nAction: step {step}")
        assert not re.fullmatch(asked["structured_outputs"]["regex"], "Thought: some.\nAction: step 7")


def test_without_known_choices_the_teacher_answers_and_the_reason_is_kept() -> None:
    def broken(situation: Situation) -> list[str]:
        raise RuntimeError("the world is gone")

    for choices, said in ((None, "admissible actions of this step are not known"), (broken, "the world is gone")):
        settings: dict[str, Any] = {"sampling": {"constrain": "choice"}, "actions": {"format": "text"}}
        with made(Vllm("look"), choices=choices, **settings) as cascade:
            decision = cascade.sync_episode().complete(ASK).agentcascade
            assert decision.answered_by == "teacher"
            assert any(said in failure for failure in decision.failures)


@pytest.mark.parametrize(
    ("kind", "value", "asked"),
    [
        ("schema", SCHEMA, {"json": SCHEMA}),
        ("regex", "[a-z]+", {"regex": "[a-z]+"}),
        ("grammar", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
    ],
)
def test_the_other_forms_are_passed_on_as_they_are(kind: str, value: Any, asked: dict[str, Any]) -> None:
    student = Vllm('{"move": "a"}')
    with made(student, sampling={"constrain": kind, "constraint": value}) as cascade:
        cascade.sync_episode().complete(ASK)
    assert student.options[0]["structured_outputs"] == asked


def test_shadows_are_constrained_as_samples_are() -> None:
    student = Vllm("look", "look")
    settings: dict[str, Any] = {
        "sampling": {"constrain": "choice"},
        "actions": {"format": "text"},
        "shadow": {"samples": 2},
    }
    with made(student, mode="shadow", **settings) as cascade:
        cascade.sync_episode().complete(ASK, choices=["look"])
        cascade.close()
    assert [o["structured_outputs"] for o in student.options] == [{"choice": ["look"]}]


@pytest.mark.parametrize(
    ("sampling", "actions", "said"),
    [
        ({"constraint": "x"}, {}, "sampling.constraint needs sampling.constrain"),
        ({"constrain": "choice", "constraint": "x"}, {}, "choices come with each request"),
        ({"constrain": "choice"}, {"format": "tools"}, "needs actions.format text, auto, react, not 'tools'"),
        ({"constrain": "regex"}, {}, "'regex' needs sampling.constraint, a text"),
        ({"constrain": "regex", "constraint": "["}, {}, "is not a regular expression"),
        ({"constrain": "grammar", "constraint": {"a": 1}}, {}, "'grammar' needs sampling.constraint, a text"),
        ({"constrain": "schema", "constraint": "{}"}, {}, "a JSON schema, not '{}'"),
        ({"constrain": "schema", "constraint": {"type": "nonsense"}}, {}, "a JSON schema, not {'type': 'nonsense'}"),
    ],
)
def test_what_cannot_be_is_an_error_when_the_cascade_is_built(
    sampling: dict[str, Any], actions: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(Vllm("look"), sampling=sampling, actions=actions)
    assert said in str(caught.value)


def test_other_providers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs a student of vLLM, 'hosted_vllm/NAME', not 'openai/gpt-4\.1-mini'"):
        build(
            teacher=ScriptedModel(["x"]),
            student="openai/gpt-4.1-mini",
            sampling={"constrain": "choice"},
            retrieval={"k": 0},
            bank={"url": "sqlite://"},
        )
    sampling = SamplingConfig(constrain="choice")
    structured_output.check_config(sampling, ActionsConfig(), ["openai/gpt-4.1-mini", VLLM])
    assert structured_output.vllm_option(sampling, ActionsConfig(), "openai/gpt-4.1-mini", {"choices": ["a"]}) == {}


def test_a_misspelt_form_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.constrain: Input should be 'none', 'choice'"):
        CascadeConfig.load(sampling={"constrain": "choices"})  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["go to shelf 1", "a.b", "x|y", "f(x) [1]{2}", "back\\slash", "50% + 3?", "a/b-c"])
def test_commands_with_signs_of_regular_expressions_are_taken_literally(command: str) -> None:
    pattern = structured_output.react_pattern([command, "other"])
    answer = f"Thought: why\nAction: {command}"
    assert re.fullmatch(pattern, answer)
    assert make_format("react").parse({"role": "assistant", "content": answer}).key == canonical_text(command)
