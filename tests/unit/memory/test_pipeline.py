"""From a question to a memory: tiers, fall-backs, deadlines and budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from agentcascade.errors import ConfigError, InvalidRequest
from agentcascade.types import MODULES, Completion, Message, Recall, Turn, Usage
from tests.memory_parts import Slow, Spy, history, make_memory

QUESTION = "What is the name of the dog that Ann adopted?"


class Model:
    """A chat model of the tests: says what it is told, or what `answer` makes of the messages."""

    supports_n = False

    def __init__(
        self, answer: Any = "- Ann's dog is called Rex [3]", *, name: str = "model", price: str | None = "0.001"
    ):
        self.name, self.answer, self.price = name, answer, price
        self.prompts: list[Sequence[Message]] = []
        self.seconds = 0.0

    async def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        self.prompts.append(list(messages))
        if self.seconds:
            await asyncio.sleep(self.seconds)
        said = self.answer(messages) if callable(self.answer) else self.answer
        if isinstance(said, Exception):
            raise said
        usage = Usage(input=10, output=5)
        return Completion(
            model=self.name,
            messages=({"role": "assistant", "content": said},),
            usage=usage,
            dollars=self.dollars(usage),
        )

    def dollars(self, usage: Usage) -> Decimal | None:
        return None if self.price is None else Decimal(self.price) * (usage.input + usage.output) / 15


def reply(messages: Sequence[Message]) -> str:
    """What an able model would say to each of the prompts."""
    text = messages[-1]["content"]
    return "1: 9\n2: 1" if "Rate how much" in text else "- Ann adopted a dog called Rex on 7 May 2023 [1]"


@pytest.mark.parametrize("tier", ["low", "mid", "high"])
async def test_each_tier_finds_the_answer(tier: str) -> None:
    with make_memory(tier) as memory:
        await memory.append("ann", history(extra=100))
        recall = await memory.recall(QUESTION, "ann")
    assert "Rex" in recall.text
    assert "t2" in recall.sources
    assert recall.tokens == memory.count(recall.text)
    assert [run.module for run in recall.runs] == list(MODULES)
    assert {(run.asked, run.used, run.probability) for run in recall.runs} == {(tier, tier, 1.0)}
    assert recall.dollars == 0
    assert recall.calls == ()


async def test_mid_puts_a_date_to_yesterday() -> None:
    with make_memory({"temporal": "mid", "summary": "low"}) as memory:
        await memory.append("ann", history())
        recall = await memory.recall("When did Ann adopt a dog?", "ann")
    assert "yesterday = 07 May 2023" in recall.text


async def test_the_router_sees_what_each_module_would_read() -> None:
    spy = Spy("mid")
    with make_memory(spy) as memory:
        await memory.append("ann", history(extra=100))
        await memory.recall(QUESTION, "ann", tradeoff=0.7)
    assert [module for module, _, _ in spy.asked] == list(MODULES)
    assert {strength for _, _, strength in spy.asked} == {0.7}
    states = {module: state for module, state, _ in spy.asked}
    assert states["entity"].read is states["topic"].read or (states["entity"].read == states["topic"].read).all()
    assert (states["filter"].read != states["entity"].read).any()
    assert all(state.question == QUESTION and state.query.shape == state.read.shape for state in states.values())


async def test_an_empty_history_gives_an_empty_memory() -> None:
    for tier in ("low", "mid", "high"):
        with make_memory(tier) as memory:
            recall = await memory.recall(QUESTION, "nobody")
            assert (recall.text, recall.sources, recall.tokens) == ("", (), 0)
            assert all(not run.failures for run in recall.runs)


async def test_a_question_that_the_history_says_nothing_of() -> None:
    with make_memory("low") as memory:
        await memory.append("ann", history())
        recall = await memory.recall("Which quantum chromodynamics lecture was cancelled?", "ann")
    assert recall.text == ""


@pytest.mark.parametrize("question", ["", "   \n"])
async def test_no_question_is_an_error_that_says_so(question: str) -> None:
    with make_memory() as memory, pytest.raises(InvalidRequest, match="a memory needs a question"):
        await memory.recall(question, "ann")


async def test_the_text_stays_within_its_budget_and_says_what_did_not_fit() -> None:
    with make_memory("low") as memory:
        await memory.append("ann", history())
        whole = await memory.recall("dog painting market", "ann")
        small = await memory.recall("dog painting market", "ann", token_budget=30)
        none = await memory.recall("dog painting market", "ann", token_budget=0)
    assert whole.tokens > 30 >= small.tokens > 0
    assert any("token budget of 30" in line for line in small.left_out)
    assert none.text == ""
    assert not any("token budget" in line for line in whole.left_out)


async def test_what_the_agent_sees_already_is_not_told_again() -> None:
    with make_memory("low") as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann", visible="... " + history()[2].text + " ...")
    assert "Rex" not in recall.text


async def test_a_deadline_leaves_out_what_would_come_too_late() -> None:
    with make_memory("high") as memory:
        await memory.append("ann", history(extra=300))
        await memory.prepare("ann")
        await memory.recall(QUESTION, "ann")
        memory.pipeline._usual_milliseconds = {(m, "high"): 100_000.0 for m in MODULES} | {
            (m, "mid"): 100_000.0 for m in MODULES
        }
        recall = await memory.recall(QUESTION, "ann", deadline_seconds=20)
        assert {run.used for run in recall.runs} == {"low"}
        assert any("deadline" in line for line in recall.left_out)
        assert "Rex" in recall.text
        late = await memory.recall(QUESTION, "ann", deadline_seconds=1e-9)
        assert {run.used for run in late.runs} == {None}
        assert late.text != ""  # what was retrieved is handed on as it is


async def test_a_history_that_is_not_embedded_in_time_is_searched_by_words() -> None:
    class Sluggish(Slow):
        def embed(self, texts: Sequence[str]) -> Any:
            time.sleep(0.01 * len(texts))
            return super().embed(texts)

    with make_memory("low", embedder=Sluggish()) as memory:
        await memory.append("ann", history(extra=300))
        recall = await memory.recall(QUESTION, "ann", deadline_seconds=0.5)
        assert any("not embedded yet" in line for line in recall.left_out)
        assert "Rex" in recall.text


async def test_language_models_write_facts_that_are_billed_and_cited() -> None:
    model = Model(reply)
    with make_memory("high", axis="implementation", models={"large": model}) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
        again = await memory.recall(QUESTION, "ann")
    assert "Ann adopted a dog called Rex on 7 May 2023" in recall.text
    assert recall.sources != ()
    assert len(recall.calls) == 5
    assert recall.dollars == Decimal("0.005")
    assert [run.dollars for run in recall.runs] == [Decimal("0.001")] * 5
    assert {call.purpose for call in recall.calls} == {"memory"}
    assert again.text == recall.text
    assert not again.calls
    assert again.dollars == 0
    assert all(run.cached for run in again.runs)


async def test_reasoning_steps_cost_calls_and_only_the_result_counts() -> None:
    def thinking(messages: Sequence[Message]) -> str:
        return f"Let me see... [9] nonsense\nResult:\n{reply(messages[:2])}"

    model = Model(thinking)
    with make_memory("high", axis="reasoning", models={"large": model}) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
    assert len(recall.calls) == 10  # a draft and its revision, five times
    assert "Let me see" not in recall.text
    assert "Rex" in recall.text


async def test_capacity_asks_the_model_of_the_tier() -> None:
    models = {size: Model(reply, name=size) for size in ("small", "medium", "large")}
    tiers = {"filter": "low", "entity": "mid", "temporal": "high", "topic": "low", "summary": "high"}
    with make_memory(tiers, axis="capacity", models=models) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
    assert sorted(call.model for call in recall.calls) == ["large", "large", "medium", "small", "small"]


async def test_axes_can_be_mixed() -> None:
    model = Model(reply)
    tiers = {"summary": {"low": "llm:large"}, "topic": {"low": "deep"}}
    with make_memory("low", tiers=tiers, models={"large": model}) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
    assert len(recall.calls) == 1
    assert recall.text == "- Ann adopted a dog called Rex on 7 May 2023"


@pytest.mark.parametrize(
    "said", [RuntimeError("the provider is down"), "", "I would rather not.", "1: nine, 2: ten"], ids=repr
)
async def test_a_model_that_fails_or_talks_nonsense_falls_to_the_next_lower_tier(said: Any) -> None:
    filters = {"filter": "high", "entity": "low", "temporal": "low", "topic": "low", "summary": "low"}
    with make_memory(filters, axis="implementation", models={"large": Model(said)}) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
    run = recall.runs[0]
    assert (run.asked, run.used) == ("high", "mid")
    assert len(run.failures) == 1
    assert any("filter ran mid instead of high" in line for line in recall.left_out)
    assert "Rex" in recall.text


async def test_a_model_that_hangs_costs_no_more_than_the_deadline() -> None:
    model = Model(reply)
    model.seconds = 60
    with make_memory("high", axis="implementation", models={"large": model}) as memory:
        await memory.append("ann", history())
        await memory.prepare("ann")
        started = time.perf_counter()
        recall = await memory.recall(QUESTION, "ann", deadline_seconds=1.5)
    assert time.perf_counter() - started < 20
    assert all(run.used != "high" for run in recall.runs)
    assert any("TimeoutError" in failure for run in recall.runs for failure in run.failures)


async def test_a_cap_in_dollars_holds_and_is_said() -> None:
    model = Model(reply, price="0.001")
    model.seconds = 0.01
    with make_memory("high", axis="implementation", models={"large": model}) as memory:
        await memory.append("ann", history())
        free = await memory.recall(QUESTION, "ann", max_dollars=Decimal(0))
        assert free.calls == ()
        assert {run.used for run in free.runs} == {"mid"}
        assert sum("memory's cap" in line for line in free.left_out) == 5
        some = await memory.recall("Where did Ann adopt the dog?", "ann", max_dollars=Decimal("0.06"))
        assert 0 < len(some.calls) < 5
        assert some.dollars is not None
        assert some.dollars <= Decimal("0.06")


async def test_an_unknown_price_is_never_zero() -> None:
    model = Model(reply, price=None)
    with make_memory("high", axis="implementation", models={"large": model}) as memory:
        await memory.append("ann", history())
        capped = await memory.recall(QUESTION, "ann", max_dollars=Decimal(1))
        assert any("price of model is not known" in line for line in capped.left_out)
        recall = await memory.recall(QUESTION, "ann")
        assert recall.dollars is None


async def test_a_broken_embedder_leaves_the_search_to_words() -> None:
    broken = [False]
    with make_memory("mid", embedder=Slow(lambda: broken[0])) as memory:
        await memory.append("ann", history())
        await memory.recall(QUESTION, "ann")
        broken[0] = True
        recall = await memory.recall("What did Bob paint?", "ann")
        assert "sunsets" in recall.text
        assert any("the embedder is broken" in line for line in recall.left_out)


async def test_exploring_logs_how_likely_each_tier_was() -> None:
    seen = set()
    with make_memory("low", explore=0.6) as memory:
        await memory.append("ann", history())
        for i in range(30):
            recall = await memory.recall(f"{QUESTION} {i}", "ann")
            seen |= {(run.asked, round(run.probability, 9)) for run in recall.runs}
            assert recall == await again(memory, recall)
    assert seen == {("low", 0.6), ("mid", 0.2), ("high", 0.2)}


async def again(memory: Any, recall: Recall) -> Recall:
    """The same question once more: the same tiers, since draws hang on seed and question."""
    other = await memory.recall(recall.question, "ann")
    assert other.tiers == recall.tiers
    return recall


async def test_a_history_handed_over_with_the_question() -> None:
    slow = Slow()
    with make_memory("low", embedder=slow) as memory:
        recall = await memory.recall(QUESTION, turns=history())
        known = slow.texts
        await memory.recall(QUESTION, turns=history())
        assert slow.texts == known
        assert "Rex" in recall.text
        plain = await memory.recall("Who was painting?", turns=["Bob was painting a sunset", "nothing else"])
        assert "Bob" in plain.text


async def test_namespaces_never_see_each_others_histories() -> None:
    with make_memory("low") as memory:
        await memory.append("ann", history(), namespace="one")
        await memory.append("ann", [Turn(text="The dog of Ann is called Secret")], namespace="two")
        one = await memory.recall(QUESTION, "ann", namespace="one")
        two = await memory.recall(QUESTION, "ann", namespace="two")
        three = await memory.recall(QUESTION, "ann", namespace="three")
    assert "Rex" in one.text
    assert "Secret" not in one.text
    assert "Secret" in two.text
    assert "Rex" not in two.text
    assert three.text == ""


def test_without_an_event_loop() -> None:
    with make_memory("low") as memory:
        memory.append_sync("ann", history())
        assert "Rex" in memory.recall_sync(QUESTION, "ann").text
    memory.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axis": "lokal"}, "memory.axis 'lokal' is unknown.*local"),
        ({"tiers": {"filtr": {"low": "rules"}}}, "names a module 'filtr'.*filter"),
        ({"tiers": {"filter": {"lo": "rules"}}}, "names a tier 'lo'.*low"),
        ({"tiers": {"filter": {"low": "rulez"}}}, r"memory.tiers.filter.low 'rulez' is unknown.*rules"),
        ({"tiers": {"filter": {"low": "llm:huge"}}}, "is not llm:SIZE"),
        ({"tiers": {"filter": {"low": "llm:small:cot:more"}}}, "is not llm:SIZE"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_memory(**settings)


async def test_a_tier_that_was_slow_once_is_tried_again() -> None:
    with make_memory("mid") as memory:
        await memory.append("ann", history())
        memory.pipeline._usual_milliseconds = {(m, "mid"): 25_000.0 for m in MODULES}
        used = []
        for i in range(12):
            recall = await memory.recall(f"{QUESTION} {i}", "ann", deadline_seconds=20)
            used.append({run.module: run.used for run in recall.runs}["filter"])
        assert (used[0], used[-1]) == ("low", "mid")
