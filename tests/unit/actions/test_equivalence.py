"""Samples that mean the same in other words, joined before a step is deferred."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcascade.actions.base import TextActions
from agentcascade.actions.equivalence import DryRun, Verifier, grouping
from agentcascade.cascade import Cascade
from agentcascade.config.load import CascadeConfig
from agentcascade.ledger.ledger import MemoryRecorder
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.types import Action, Message, Situation

PRICE = Price(input=Decimal(1), output=Decimal(1))
CONFIG = CascadeConfig.model_validate({"mode": "cascade", "retrieval": {"k": 0}, "sampling": {"staged": "never"}})
ASKED: list[Message] = [{"role": "user", "content": "Which is the largest?"}]


def cascade(said: Sequence[str], mergers: Sequence[Any] = (), config: CascadeConfig = CONFIG) -> Cascade:
    return Cascade(
        StepContext(
            config=config,
            router=Unanimity(len(said)),
            count=lambda text: len(text.split()),
            teacher=ScriptedModel(lambda messages, sample: "teacher's", name="teacher", price=PRICE),
            student=ScriptedModel(lambda messages, sample: said[sample], name="student", price=PRICE),
            actions=TextActions(),
            recorder=MemoryRecorder(),
            mergers=tuple(mergers),
        )
    )


def verifier(answer: str) -> tuple[Verifier, list[str]]:
    asked: list[str] = []

    def say(messages: Sequence[Message], sample: int) -> str:
        asked.append(str(messages[0]["content"]))
        return answer

    return Verifier(ScriptedModel(say, name="verifier", price=PRICE)), asked


async def test_a_verifier_saves_a_deferral_and_is_on_the_bill() -> None:
    judge, asked = verifier("[[1, 2]]")
    made = cascade(["max(a)", "sorted(a)[-1]", "max(a)"], [judge])
    completion, decision = await made.step(ASKED)
    assert completion.messages[0]["content"] == "max(a)"
    assert (decision.answered_by, decision.agreement) == ("student", 1.0)
    assert [(c.role, c.purpose, c.model) for c in decision.calls] == [
        ("student", "sample", "student"),
        ("student", "verify", "verifier"),
    ]
    assert all(c.dollars for c in decision.calls)
    assert "Which is the largest?" in asked[0]
    assert "1:\nmax(a)" in asked[0]
    await made.step(ASKED)
    assert len(asked) == 1, "the same candidates of the same task are asked about once"


async def test_nothing_is_asked_where_keys_agree_or_nothing_is_left_to_join() -> None:
    judge, asked = verifier("[[1, 2]]")
    _, decision = await cascade(["a", "a", "a "], [judge]).step(ASKED)
    assert (decision.answered_by, asked) == ("student", [])
    _, decision = await cascade(["", "", "a"], [judge]).step(ASKED)
    assert (decision.answered_by, asked) == ("teacher", [])


async def test_candidates_that_differ_go_to_the_teacher() -> None:
    judge, asked = verifier("[[1], [2]]")
    _, decision = await cascade(["a", "b"], [judge]).step(ASKED)
    assert (decision.answered_by, len(asked)) == ("teacher", 1)
    assert decision.agreement == 0.5


async def test_a_dry_run_joins_what_answers_the_same_and_comes_first() -> None:
    tried: list[str] = []

    def run(action: Action) -> str | None:
        tried.append(action.text)
        return {"one": "42", "other": "42"}.get(action.text)

    judge, asked = verifier("[[1, 2]]")
    _, decision = await cascade(["one", "other"], [DryRun(run), judge]).step(ASKED)
    assert (decision.answered_by, asked, tried) == ("student", [], ["one", "other"])
    _, decision = await cascade(["one", "writes"], [DryRun(run), judge]).step(ASKED)
    assert (decision.answered_by, len(asked)) == ("student", 1)


@pytest.mark.parametrize(
    "answer", ["I think 1 and 2.", "[[1, 2], [2]]", "[[1, 3]]", "[[true, 2]]", "[[]]", "[[1, 2", "{}"]
)
async def test_an_answer_that_is_no_grouping_joins_nothing(answer: str) -> None:
    judge, _ = verifier(answer)
    _, decision = await cascade(["a", "b"], [judge]).step(ASKED)
    assert decision.answered_by == "teacher"


async def test_layers_that_break_join_nothing_and_the_others_go_on() -> None:
    def broken(action: Action) -> str | None:
        raise OSError("the world is gone")

    class Swaps:
        name = "swaps"

        async def merge(self, situation: Situation, actions: Sequence[Action], ask: Any) -> Mapping[str, str]:
            one, other = (a.key for a in actions)
            return {one: other, other: one, "unknown": one}

    judge, asked = verifier("[[1, 2]]")
    _, decision = await cascade(["a", "b"], [DryRun(broken), Swaps(), judge]).step(ASKED)
    assert (decision.answered_by, len(asked)) == ("student", 1)
    assert decision.failures == ("dry run: OSError: the world is gone",)


async def test_shadows_keep_keys_as_they_are_written() -> None:
    judge, asked = verifier("[[1, 2]]")
    shadow = CONFIG.shadow.model_copy(update={"samples": 2})
    made = cascade(["a", "b"], [judge], CONFIG.model_copy(update={"mode": "shadow", "shadow": shadow}))
    await made.step(ASKED)
    await made.settle()
    recorder = made.context.recorder
    assert isinstance(recorder, MemoryRecorder)
    assert [s.action for s in recorder.shadows[0].samples] == ["a", "b"]
    assert asked == []


@given(st.integers(1, 6), st.randoms())
def test_a_grouping_is_read_as_it_was_meant(count: int, rng: Any) -> None:
    groups: dict[int, list[int]] = {}
    for number in range(1, count + 1):
        groups.setdefault(rng.randrange(3), []).append(number)
    text = f"Sure:\n```json\n{json.dumps([*groups.values()])}\n```"
    assert grouping(text, count) == [[n - 1 for n in group] for group in groups.values()]


@given(st.text(max_size=60), st.integers(1, 4))
def test_whatever_a_verifier_says_every_candidate_is_in_one_group(text: str, count: int) -> None:
    assert sorted(n for group in grouping(text, count) for n in group) == list(range(count))
