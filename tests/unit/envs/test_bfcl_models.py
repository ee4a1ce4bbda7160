"""Recorded models of BFCL as chat models, verdicts in its world, and what a log is told to be right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.base import ToolCallActions
from agentcascade.assembly.components import make_model
from agentcascade.bench.suites.bfcl import BfclSuite
from agentcascade.config.sections import ModelConfig
from agentcascade.envs.bfcl import calls, labels, recorded, tasks
from agentcascade.envs.bfcl.calls import Call
from agentcascade.envs.bfcl.environment import BfclEnvironment, play
from agentcascade.envs.bfcl.models import LIBRARY, PREFIX, RecordedModel
from agentcascade.envs.recorded.models import plurality
from agentcascade.errors import ConfigError, EnvironmentFailed, UnknownPrice
from agentcascade.steplog.types import LoggedStep, StudentSamples
from agentcascade.types import Completion, LoggedSample, Message
from tests.bfcl_rows import ALL, RECORDED, RIGHT, STUDENTS, TEACHER, Write, answers, data_folder, said

QWEN = f"{PREFIX}qwen2.5-coder-1.5b"
SHIPPED = "simple_python_0"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    yield from data_folder(tmp_path, monkeypatch)


def model(name: str, **settings: Any) -> RecordedModel:
    made: Any = make_model(ModelConfig(name=name, **settings), len)
    return made  # type: ignore[no-any-return]


def in_world(made: RecordedModel, task: str, world: BfclEnvironment | None = None) -> BfclEnvironment:
    world = world or BfclEnvironment()
    world.reset(task)
    made.bind(world)
    return world


def ask(made: RecordedModel, n: int = 1) -> Completion:
    return asyncio.run(made.complete([{"role": "user", "content": "whatever"}], n=n))


def test_a_recorded_model_answers_and_costs_what_it_did(data: Write) -> None:
    made = model(PREFIX + STUDENTS[0])
    world = in_world(made, "simple_1")
    completion = ask(made)
    assert completion.messages == (recorded.answer(STUDENTS[0], "simple_1").message,)
    assert (completion.usage.input, completion.usage.output, completion.finish_reasons) == (100, 10, ("tool_calls",))
    assert completion.dollars == (Decimal("0.15") * 100 + Decimal("0.6") * 10) / 10**6, "list price of August 2024"
    renamed: Message = json.loads(json.dumps(completion.messages[0]).replace("call_0", "s_1a2b"))
    assert not world.answer(renamed), "the recorded verdict, whatever ids the calls were given on the way"

    dear = model(PREFIX + STUDENTS[0], price={"input": "3", "output": "15"})
    in_world(dear, "simple_1")
    assert ask(dear).dollars == Decimal("0.00045")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("gpt-4o-mini", ConfigError, "no recorded answers of 'gpt-4o-mini': did you mean 'gpt-4o-mini-2024-07-18-FC'"),
        ("nameless", UnknownPrice, r"recorded/bfcl/nameless has no price of its time: .*--price NAME=IN/OUT"),
        (f"{TEACHER}*3", ConfigError, "only models with samples can vote with themselves: qwen2.5-coder-0.5b"),
        ("qwen2.5-coder-1.5b*11", ConfigError, r"there are 10 samples of each task, so \*10 is the most"),
    ],
)
def test_models_that_cannot_play_are_refused(data: Write, name: str, error: type[Exception], says: str) -> None:
    data(answers=[*RECORDED, *answers("nameless", ALL, RIGHT)])
    with pytest.raises(error, match=says):
        model(PREFIX + name)


def test_what_was_not_recorded_is_not_made_up(data: Write) -> None:
    tokenless = [{**row, "output_tokens": None} for row in answers(TEACHER, {"simple_0": said("Rome")}, RIGHT)]
    data(answers=[*RECORDED[:8], *tokenless])
    made = model(PREFIX + STUDENTS[0])
    with pytest.raises(ConfigError, match="only in `agentcascade bench bfcl`"):
        ask(made)
    in_world(made, "simple_0")
    with pytest.raises(
        ConfigError, match=r"one recorded answer of a task, and 2 were asked for: --samples 1, .*--member"
    ):
        ask(made, 2)
    ask(made)
    with pytest.raises(ConfigError, match="one recorded answer of a task, and 2 were asked for"):
        ask(made)

    teacher = model(PREFIX + TEACHER)
    world = in_world(teacher, "simple_0")
    with pytest.raises(UnknownPrice, match=r"the tokens of .* on 'simple_python_0' were not recorded"):
        ask(teacher)
    in_world(teacher, "simple_1", world)
    with pytest.raises(EnvironmentFailed, match="no recorded answer of 'gpt-4-1106-preview-FC' to 'simple_python_1'"):
        ask(teacher)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BFCL_DATA", raising=False)


def test_a_students_samples_and_those_of_its_own_plurality_are_different_ones(shipped: None) -> None:
    student, teacher = model(QWEN), model(f"{QWEN}*7")
    world = in_world(student, SHIPPED)
    teacher.bind(world)
    own = [answer for n in (1, 2) for answer in ask(student, n).messages]
    every = recorded.samples("qwen2.5-coder-1.5b", lenient=True)[SHIPPED]
    completion = ask(teacher)
    assert len(own) == 3
    assert completion.usage.input == every.prompt_tokens
    tokens = sum(answer.output_tokens or 0 for answer in every.answers)
    assert completion.usage.output + sum(ask_tokens(student, SHIPPED)) == tokens, "seven and three are all"
    in_world(student, SHIPPED, world)
    assert [*ask(student, 3).messages] == own, "the same samples whenever the task is played"


def ask_tokens(made: RecordedModel, task: str) -> list[int]:
    in_world(made, task)
    return [count for count in ask(made, 3).tokens if count is not None]


def test_a_plurality_is_the_largest_class_and_never_one_that_cannot_vote(data: Write) -> None:
    def one(*of: Call, text: str = "") -> recorded.Answer:
        return recorded.Answer("simple_python_0", "m", of, text, None)

    rome, oslo = Call("weather_get", {"city": "Rome"}), Call("weather_get", {"city": "Oslo"})
    unknown = Call("weather", {"city": "Rome"})
    assert plurality([one(oslo), one(unknown), one(unknown), one(rome), one(rome)], LIBRARY).calls == (rome,)
    assert plurality([one(unknown), one(text="?")], LIBRARY).text == "?"
    assert plurality([one(unknown), one(unknown)], LIBRARY).calls == (unknown,)


class Live:
    """A live model's message, without recordings."""

    def __init__(self, *calls_: Call, text: str = "") -> None:
        self._message = calls.message(calls_, text)

    async def message(self, messages: list[Message], *, tools: Any) -> Message:
        assert [tool["function"]["name"] for tool in tools] == ["weather_get"]
        return self._message


@pytest.mark.parametrize(
    ("task", "answer", "right"),
    [
        ("simple_0", Live(Call("weather_get", {"city": "rome"})), True),
        ("simple_0", Live(Call("weather_get", {"city": "Paris"})), False),
        ("simple_0", Live(text="weather_get(city='Rome')"), False),
        ("simple_0", Live(), False),
        ("parallel_3", Live(Call("weather_get", {"city": "Oslo"}), Call("weather_get", {"city": "Rome"})), True),
        ("relevance_0", Live(text="I cannot know."), True),
        ("relevance_0", Live(Call("weather_get", {"city": "Rome"})), False),
    ],
)
def test_live_answers_are_judged_by_the_check(data: Write, task: str, answer: Live, right: bool) -> None:
    assert asyncio.run(play(BfclEnvironment(), task, answer)).success is right


@pytest.mark.parametrize(
    "broken", [{"tool_calls": [{}]}, {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]
)
def test_a_broken_answer_is_a_wrong_one(data: Write, broken: Message) -> None:
    world = BfclEnvironment()
    world.reset("simple_0")
    assert not world.answer({"role": "assistant", "content": None, **broken})


def step(*members: tuple[str, Any], teacher: Any, task: str = "simple_python_0") -> LoggedStep:
    def key(answer: Any) -> str:
        given_ = calls.read(answer, "tools") if isinstance(answer, list) else ()
        return ToolCallActions().parse(calls.message(given_, answer if isinstance(answer, str) else "")).key

    drawn = [StudentSamples(model=name, samples=(LoggedSample(action=key(answer)),)) for name, answer in members]
    made = LoggedStep(id="1", students=tuple(drawn), teacher=key(teacher), teacher_model=PREFIX + TEACHER)
    return BfclSuite().label(made, task)


def test_gold_is_the_right_answer_that_most_gave_else_the_teachers_else_a_possible_one(data: Write) -> None:
    live = ("a", "b", "c")
    several = step(*zip(live, (said("Rome"), said("Roma", days=1), said("Roma", days=1))), teacher=said("Rome"))
    assert several.gold == 'weather_get({"city":"Roma","days":1})'
    assert several.also_right == ('weather_get({"city":"Rome"})',), "the teacher's is right, too"
    assert step(*zip(live, (said("Paris"), said("Bonn"))), teacher=said("Rome")).gold == 'weather_get({"city":"Rome"})'
    neither = step(("a", said("Paris")), teacher=said("Bonn"))
    assert neither.gold == 'weather_get({"city":"Rome","days":1})'
    assert step(("a", said("Paris")), teacher=said("Paris"), task="irrelevance_0").gold == labels.NO_CALL


def test_the_recorded_verdict_goes_before_the_check(data: Write) -> None:
    data(answers=[*RECORDED[:8], *answers(TEACHER, {"simple_0": said("Paris")}, {"simple_0": True})])
    assert step((PREFIX + STUDENTS[0], said("Bonn")), teacher=said("Paris")).gold == 'weather_get({"city":"Paris"})'


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"\w{1,9}", fullmatch=True)


@given(st.lists(st.tuples(names, st.dictionaries(st.text(), values, max_size=3)), min_size=1, max_size=3))
def test_a_vote_key_gives_its_calls_back(made: list[tuple[str, dict[str, Any]]]) -> None:
    key = ToolCallActions().parse(calls.message(tuple(Call(*call) for call in made))).key
    found = labels._calls(key)
    assert found is not None
    assert ToolCallActions().parse(calls.message(found)).key == key


@given(st.text())
def test_a_key_of_another_form_has_no_calls(key: str) -> None:
    labels._calls(key)


def test_train_and_test_share_no_first_function(shipped: None) -> None:
    def of(split: str) -> list[str]:
        found, _ = BfclSuite().tasks(split, 2000, 0, workers=1, on_progress=lambda done, total: None)
        return [task.id for task in found]

    train, test, python = of("train"), of("test"), of("python")
    assert sorted(train + test) == sorted(python)
    assert len(python) == 1000
    assert 150 < len(train) < 350

    def first(ids: list[str]) -> set[str]:
        return {tasks.task(id).functions[0]["name"] for id in ids}

    assert not first(train) & first(test)
    assert len(of("shipped")) == 1296
