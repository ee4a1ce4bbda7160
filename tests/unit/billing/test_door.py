"""The one door to every model: nothing goes around it, and what went through it is booked, whatever happened."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import agentcascade
from agentcascade import build
from agentcascade.actions.equivalence import Verifier
from agentcascade.bank.shortening import Shortener, ShorteningTask
from agentcascade.bench.memory.scoring import MemoryScorer
from agentcascade.billing import bill, door, reservation
from agentcascade.billing.door import Door, Tab
from agentcascade.billing.surcharges import refuse_surcharges
from agentcascade.billing.worst_case import DEFAULT_OUTPUT_TOKENS, PlannedCall
from agentcascade.envs.memory_qa.types import Question
from agentcascade.episodes import stateless
from agentcascade.episodes.judge import ModelJudge
from agentcascade.errors import BudgetExceeded, InvalidRequest, StorageError, UnknownPrice, bill_of
from agentcascade.ledger.ledger import Ledger
from agentcascade.memory.budget import QuestionBudget
from agentcascade.memory.result_cache import AnswerCache
from agentcascade.models.pricing import Price
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Account, Completion, Step, Trajectory, Usage
from tests.billed import ASK, KEY, PRICE, CancelledAt, Provider, over, said
from tests.cascades import known

SOURCES = Path(agentcascade.__file__).parent

ADAPTERS = {
    "billing/door.py": "the door itself",
    "models/pricing.py": "a model around a model",
    "models/callers.py": "a model around a model",
    "models/effort.py": "a model around a model",
    "models/scripted.py": "a model",
    "models/litellm.py": "a model: litellm",
    "models/openai.py": "a model: OpenAI's client",
    "models/openai_client.py": "a model: the caller's client",
    "vllm/replicas.py": "a model: litellm's router",
    "envs/bfcl/text_calls.py": "a model around a model",
    "envs/intercode_sql/models.py": "a model around one that plays what was recorded",
}
"""What implements `ChatModel` calls what is below it."""
AGENTS = {"episode", "self.episode", "self._episode", "self"}
"""`complete` and `stream` of an episode are a step, whose calls are the door's."""
SENDING = {"complete", "stream", "acompletion", "create", "parse"}


def calls_of_models() -> list[str]:
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        name = str(path.relative_to(SOURCES))
        if name in ADAPTERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, method = ast.unparse(node.func.value), node.func.attr
            if method not in SENDING or owner in AGENTS:
                continue
            if method in ("create", "parse") and not owner.endswith("completions"):
                continue
            if owner == "httpx" and node.args and ast.unparse(node.args[0]) == "'GET'":  # reads a list, asks no model
                continue
            found.append(f"{name}:{node.lineno}: {owner}.{method}")
    return found


def test_no_source_calls_a_model_around_the_door() -> None:
    assert calls_of_models() == []


def planned(model: Any = None, messages: Any = ASK, n: int = 1, **options: Any) -> PlannedCall:
    return PlannedCall(
        model or ScriptedModel(["x"], name="openai/m", price=PRICE), messages, options, n, token_counter()
    )


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 1, "max_tokens": 100_000}, 100_000),
        ({"max_tokens": 5, "extra_body": {"max_tokens": 900}}, 900),
        ({"max_tokens": 10, "thinking": {"type": "enabled", "budget_tokens": 50}}, 60),
    ],
)
def test_the_worst_answer_is_as_long_as_the_largest_limit(options: Any, most: int) -> None:
    assert planned(**options).output_tokens == most


def test_a_call_without_a_limit_is_held_to_the_models_own_or_sent_with_one() -> None:
    known = ScriptedModel(["x"], name="openai/gpt-4o", price=PRICE)
    assert (planned(known).output_tokens, dict(planned(known).limit_to_set)) == (16384, {})
    assert dict(planned().limit_to_set) == {"max_tokens": DEFAULT_OUTPUT_TOKENS}
    reasoning = ScriptedModel(["x"], name="openai/gpt-9-nano", price=PRICE)
    assert dict(planned(reasoning).limit_to_set) == {"max_completion_tokens": DEFAULT_OUTPUT_TOKENS}
    own = PlannedCall(known, ASK, {}, 1, token_counter(), 100)
    assert (own.output_tokens, dict(own.limit_to_set)) == (100, {"max_tokens": 100})


@pytest.mark.parametrize("value", ["100", 0, -5, True, 1.5, [1]])
def test_a_limit_that_is_none_is_refused_where_it_has_to_hold(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="max_tokens"):
        assert planned(max_tokens=value).requested_limit
    assert planned(max_tokens=value).output_tokens == DEFAULT_OUTPUT_TOKENS


def test_images_tools_and_schemas_count_in_the_worst_prompt() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "high"}}
    many = [{"role": "user", "content": [{"type": "text", "text": "x"}, *[picture] * 500]}]
    assert planned(messages=many).prompt_tokens > 380_000
    tool = {"type": "function", "function": {"name": "f", "description": "words " * 500}}
    assert planned(tools=[tool]).prompt_tokens > 500
    assert (
        planned(response_format={"type": "json_schema", "json_schema": {"description": "words " * 500}}).prompt_tokens
        > 500
    )


def test_several_answers_are_reserved_as_several_requests_each_in_its_own_price_tier() -> None:
    long = Price(input=1, output=1, long_context=((1000, PRICE.model_copy(update={"input": Decimal(2)})),))
    model = ScriptedModel(["x"], name="openai/m", price=long)
    words = [{"role": "user", "content": "word " * 600}]
    one = planned(model, words, max_tokens=10).worst_case_dollars()
    assert planned(model, words, n=3, max_tokens=10).worst_case_dollars() == 3 * one < Decimal("0.0021")


def test_a_server_that_is_known_to_give_several_answers_at_once_is_asked_once() -> None:
    model = ScriptedModel(["x"], name="openai/m", price=PRICE)
    before = planned(model, n=3, max_tokens=10).worst_case_dollars()
    model.confirmed_n = True  # type: ignore[attr-defined]
    assert planned(model, n=3, max_tokens=10).worst_case_dollars() == before - 2 * PRICE.dollars(
        Usage(input=planned(model).prompt_tokens)
    )


def test_writing_a_cache_is_reserved_at_its_own_price() -> None:
    price = Price(input=1, output=1, cache_write=Decimal("1.25"), cache_write_1h=2)
    model = ScriptedModel(["x"], name="anthropic/m", price=price)
    marked = [{"role": "user", "content": [{"type": "text", "text": "hi " * 500, "cache_control": {}}]}]
    plain = [{"role": "user", "content": "hi " * 500}]
    assert (
        planned(model, marked, max_tokens=1).worst_case_dollars()
        > Decimal("1.9") * planned(model, plain, max_tokens=1).worst_case_dollars()
    )
    tool = {"type": "function", "function": {"name": "f"}}
    of_tool = [planned(model, plain, max_tokens=1, tools=[t]) for t in ({**tool, "cache_control": {}}, tool)]
    assert of_tool[0].worst_case_dollars() > Decimal("1.9") * of_tool[1].worst_case_dollars(), "a mark on a tool"
    automatic = ScriptedModel(["x"], name="openai/gpt-6", price=price)  # it caches what nobody marks, at a price
    assert known(planned(automatic, plain, max_tokens=1).request_dollars()) > Decimal("0.00062")


@pytest.mark.parametrize(
    "options",
    [
        {"service_tier": "priority"},
        {"web_search_options": {"search_context_size": "high"}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "a"}},
        {"extra_body": {"plugins": [{"id": "web"}]}},
        {"extra_body": {"model": "a/dearer-one"}},
        {"tools": [{"type": "web_search_preview"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "mcp", "server_url": "http://127.0.0.1:1/"}]},
        {"tools": [{"googleSearch": {}}]},
    ],
)
def test_what_is_not_billed_by_the_token_is_refused_within_a_budget(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="within a budget"):
        refuse_surcharges(planned(**options).caller_options, ASK)


@pytest.mark.parametrize("part", [{"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}])
def test_parts_that_nobody_can_count_are_refused_within_a_budget(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="within a budget"):
        refuse_surcharges([{}], [{"role": "user", "content": [part]}])


def test_what_costs_tokens_alone_passes() -> None:
    free: dict[str, Any] = {
        "service_tier": "flex", "modalities": ["text"], "logit_bias": {"1": 2}, "logprobs": True, "user": "me",
        "tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}],
        "prediction": {"type": "content", "content": "x " * 500}, "reasoning_effort": "high",
    }  # fmt: skip
    refuse_surcharges(planned(**free).caller_options, ASK)
    assert planned(max_tokens=1, **free).output_tokens > 500, "a prediction that is not said is billed"


@pytest.mark.parametrize(
    "usage",
    [Usage(), Usage(input=5), Usage(output=5), Usage(input=5, output=1), Usage(input=10**18, output=10**18)],
)
def test_usage_that_cannot_be_true_is_counted_here(usage: Usage) -> None:
    price = PRICE.dollars(usage) if usage.input < 10**9 else Decimal(10) ** 12
    found = bill.bookable(said(usage=usage, dollars=price), planned(max_tokens=200))
    assert found.estimated
    assert 100 <= found.usage.completion <= 200
    assert 5 <= found.usage.prompt <= 50
    assert found.dollars == PRICE.dollars(found.usage)


@pytest.mark.parametrize("dollars", [Decimal("0.0123"), None, Decimal(0), Decimal(-5)])
def test_usage_that_is_reported_is_the_bill(dollars: Decimal | None) -> None:
    usage = Usage(input=9, output=90, reasoning=400)
    found = bill.bookable(said(usage=usage, dollars=dollars), planned(max_tokens=5))
    assert (found.usage, found.estimated) == (usage, False)
    assert found.dollars == (dollars if dollars and dollars > 0 else PRICE.dollars(usage))


def test_requests_whose_answers_were_lost_are_booked_at_their_worst() -> None:
    ask = planned(max_tokens=50, n=3)
    own = said(usage=Usage(input=9, output=100), dollars=Decimal("0.01"), calls=3, lost=2)
    found = bill.bookable(own, ask)
    one, together = known(ask.request_dollars()), known(ask.request_dollars(3))
    assert (found.dollars, found.estimated, found.lost) == (Decimal("0.01") + 2 * one, True, 0)
    assert found.usage.completion == 200
    assert bill.bookable(found, ask) == found
    alone = Completion(model="m", messages=(), dollars=Decimal(0), calls=1, lost=1)
    assert bill.bookable(alone, ask).dollars == together > 2 * one, "one request for all three answers"


@pytest.mark.parametrize(("confirmed", "supported", "requests"), [(False, True, 3), (True, True, 1), (True, False, 3)])
def test_a_call_of_which_nothing_is_known_is_booked_as_it_was_reserved(
    confirmed: bool, supported: bool, requests: int
) -> None:
    """A server that gave several answers at once may have stopped to do so."""
    model = ScriptedModel(["x"], name="openai/m", price=PRICE, supports_n=supported)
    model.confirmed_n = confirmed  # type: ignore[attr-defined]
    call = planned(model, n=3, max_tokens=10)
    lost = bill.bill_of_lost(call)
    assert lost.usage == Usage(input=requests * call.prompt_tokens, output=30)
    assert (lost.dollars, lost.calls) == (call.worst_case_dollars(), requests)


async def test_a_call_that_is_lost_while_the_others_are_asked_for_is_booked_with_all_their_prompts() -> None:
    """Its server was known to give several answers when it was reserved, and stopped to before it was sent."""

    class Stopped(ScriptedModel):
        confirmed_n, bills_failures = True, False

        async def complete(self, messages: Any, **options: Any) -> Completion:
            self.supports_n = False
            raise TimeoutError

    model = Stopped(["x"], name="openai/m", price=PRICE)
    call = planned(model, n=3, max_tokens=10)
    reserved = call.worst_case_dollars()
    with pytest.raises(TimeoutError):
        await model.complete(ASK)
    lost = bill.bill_of_lost(call)
    assert (lost.calls, lost.usage.prompt) == (3, 3 * call.prompt_tokens)
    assert known(lost.dollars) > reserved


async def test_a_budget_holds_where_calls_are_lost(tmp_path: Path) -> None:
    class Silent(ScriptedModel):
        confirmed_n, bills_failures = True, False

        async def complete(self, messages: Any, **options: Any) -> Completion:
            raise TimeoutError

    model = Silent(["x"], name="openai/m", price=PRICE)
    limit = planned(model, n=3, max_tokens=10).worst_case_dollars()
    database = open_database(tmp_path / "a.db")
    account = Account(scope="namespace", name="default", limit=limit)
    budgets, tab = DatabaseBudgets(database), Tab()
    with pytest.raises(TimeoutError):
        await Door(budgets=budgets, count=token_counter()).call(
            model, ASK, {"n": 3, "max_tokens": 10}, role="student", purpose="sample", bill=tab, accounts=(account,)
        )  # fmt: skip
    budgets.close()
    assert budgets.balance(account).spent == limit == tab.calls[0].dollars
    database.close()


def test_an_answer_at_another_tier_than_was_asked_is_booked_at_its_price() -> None:
    usage = Usage(input=9, output=90)
    found = bill.bookable(said(usage=usage, fields={"service_tier": "priority"}), planned())
    assert (found.dollars, found.estimated) == (2 * PRICE.dollars(usage), True)


@pytest.fixture(params=["sqlite", "postgresql"])
async def budgets(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DatabaseBudgets]:
    url = tmp_path / "a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = open_database(url)
    yield DatabaseBudgets(database)
    database.close()


async def every_suspension(
    make: Callable[[], Any], budgets: DatabaseBudgets, provider: Provider, exact: bool = False
) -> int:
    """Cancel `make()` at each of its suspensions in turn; the books must hold after each. How many there were."""
    at = 0
    while True:
        work = CancelledAt(make(), at)
        with suppress(asyncio.CancelledError):
            await work
        await over(budgets)
        spent, reserved = budgets.balance(KEY)
        assert reserved == 0, f"suspension {at}"
        assert spent >= provider.bill, f"suspension {at}"
        if exact:
            assert spent == provider.bill, f"suspension {at}"
        if not work.hit:
            return at
        at += 1


@pytest.mark.parametrize("linger", [10.0, 0.0])
async def test_a_call_cancelled_at_any_suspension_is_booked_and_holds_nothing(
    budgets: DatabaseBudgets, linger: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LINGER_SECONDS", linger)
    provider, entrance = Provider(), Door(budgets=budgets)

    def call() -> Any:
        options = {"max_tokens": 40}
        return entrance.call(provider, ASK, options, role="teacher", purpose="act", bill=Tab(), accounts=[KEY])

    assert await every_suspension(call, budgets, provider, exact=linger > 0) >= 3


async def test_an_answer_that_comes_in_the_moment_its_caller_goes_is_booked(budgets: DatabaseBudgets) -> None:
    """Of a model that bills its own failures: this is none, so it says nothing."""

    class Answering(Provider):
        bills_failures = True

        async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
            usage = self.generate(messages, 30)
            reached.set()
            await answered
            return said("word " * 30, usage=usage, dollars=PRICE.dollars(usage))

    provider, entrance = Answering(), Door(budgets=budgets)
    for turns in range(8):
        answered, reached, tab = asyncio.get_running_loop().create_future(), asyncio.Event(), Tab()
        call = asyncio.ensure_future(
            entrance.call(provider, ASK, {"max_tokens": 40}, role="teacher", purpose="act", bill=tab, accounts=[KEY])
        )
        await reached.wait()
        answered.set_result(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        await over(budgets)
        assert budgets.balance(KEY) == (provider.bill, Decimal(0)), f"{turns} turns of the loop after the answer"
        assert len(tab.calls) == 1


async def test_a_stream_cancelled_at_any_suspension_is_booked_as_far_as_it_was_read(budgets: DatabaseBudgets) -> None:
    provider, entrance, tabs = Provider(words=8), Door(budgets=budgets), []

    def call() -> Any:
        tabs.append(Tab())
        return entrance.call(
            provider, ASK, {"max_tokens": 40}, role="teacher", purpose="act", bill=tabs[-1], accounts=[KEY],
            on_delta=lambda delta: None,
        )  # fmt: skip

    assert await every_suspension(call, budgets, provider) >= 10
    assert budgets.balance(KEY).spent < 3 * provider.bill, "what was not generated is not booked"
    assert all(c.estimated for tab in tabs[3:9] for c in tab.calls)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fails", [ConnectionError, TimeoutError, None])
async def test_what_breaks_or_says_nothing_of_its_usage_is_booked(
    tmp_path: Path, fails: type[BaseException] | None, stream: bool
) -> None:
    database = open_database(tmp_path / "a.db")
    kept, provider, tab = DatabaseBudgets(database), Provider(reports=False, fails=fails), Tab()
    show = (lambda delta: None) if stream else None
    call = Door(budgets=kept).call(
        provider, ASK, {"max_tokens": 40}, role="teacher", purpose="act", bill=tab, accounts=[KEY], on_delta=show
    )
    if fails is None:
        await call
    else:
        with pytest.raises(fails) as failed:
            await call
        assert bill_of(failed.value) is not None
    assert kept.balance(KEY).spent >= provider.bill > 0
    assert kept.balance(KEY).reserved == 0
    (line,) = tab.calls
    assert line.estimated
    assert line.dollars == kept.balance(KEY).spent
    database.close()


async def test_an_error_that_says_that_nothing_was_done_costs_nothing(tmp_path: Path) -> None:
    class Refused(Exception):
        status_code = 400

    database = open_database(tmp_path / "a.db")
    kept, tab = DatabaseBudgets(database), Tab()
    for error in (Refused(), ConnectionRefusedError()):
        with pytest.raises(type(error)):
            await Door(budgets=kept).call(
                ScriptedModel([error], price=PRICE), ASK, {}, role="teacher", purpose="act", bill=tab, accounts=[KEY]
            )  # fmt: skip
    assert kept.balance(KEY) == (Decimal(0), Decimal(0))
    assert tab.calls == []
    database.close()


@pytest.mark.parametrize("change", ["insert", "clear"])
@pytest.mark.parametrize("on_delta", [None, lambda delta: None])
async def test_a_model_that_changes_its_list_of_messages_changes_nobody_elses(change: str, on_delta: Any) -> None:
    class Changes(Provider):
        async def complete(self, messages: Any, **options: Any) -> Completion:
            messages.clear() if change == "clear" else messages.insert(0, {"role": "system", "content": "mine"})
            return said()

        async def stream(self, messages: Any, on_delta: Any, **options: Any) -> Completion:
            return await self.complete(messages, **options)

    conversation = list(ASK)
    await Door().call(
        Changes(), conversation, {}, role="student", purpose="act", bill=Tab(), on_delta=on_delta
    )  # fmt: skip
    assert conversation == ASK


async def test_a_hanging_model_is_ended_by_the_door_and_booked_at_its_worst(tmp_path: Path) -> None:
    class Hangs(Provider):
        async def complete(self, messages: Any, **options: Any) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    database = open_database(tmp_path / "a.db")
    kept = DatabaseBudgets(database)
    with pytest.raises(TimeoutError):
        await Door(budgets=kept).call(
            Hangs(), ASK, {"max_tokens": 9}, role="teacher", purpose="act", bill=Tab(), accounts=[KEY], seconds=0.05
        )
    assert kept.balance(KEY) == (planned(Hangs(), max_tokens=9).worst_case_dollars(), Decimal(0))
    database.close()


async def test_many_at_once_without_a_limit_stay_within_the_budget(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    kept, provider = DatabaseBudgets(database), Provider(words=64_000)
    poor = KEY.model_copy(update={"limit": Decimal(2)})
    calls = [
        Door(budgets=kept).call(provider, ASK, {}, role="teacher", purpose="act", bill=Tab(), accounts=[poor])
        for _ in range(64)
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert 0 < sum(isinstance(a, Completion) for a in answers) < 10
    assert kept.balance(poor).spent == provider.bill <= 2
    assert all(isinstance(a, (Completion, BudgetExceeded)) for a in answers)
    database.close()


async def test_a_database_that_hangs_refuses_or_lets_through_and_books_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentcascade.config.sections import BudgetsConfig

    class Hanging:
        def __init__(self) -> None:
            self.booked: list[Decimal] = []

        async def reserve(self, accounts: Sequence[Account], dollars: Decimal, seconds: float) -> str:
            await asyncio.Event().wait()
            raise AssertionError

        async def settle(self, reservation: str, dollars: Decimal) -> None:
            raise AssertionError

        async def book(self, accounts: Sequence[Account], dollars: Decimal) -> None:
            self.booked.append(dollars)

    monkeypatch.setattr(reservation, "BUDGET_SECONDS", 0.02)
    for settings, passes in ((BudgetsConfig(when_unavailable="refuse"), False), (BudgetsConfig(), True)):
        provider, tab, hanging = Provider(), Tab(), Hanging()
        call = Door(budgets=hanging, settings=settings).call(
            provider, ASK, {"max_tokens": 5}, role="teacher", purpose="act", bill=tab, accounts=[KEY]
        )  # fmt: skip
        if passes:
            await call
            await asyncio.sleep(0)
            assert hanging.booked == [provider.bill]
            assert tab.failures
        else:
            with pytest.raises(StorageError):
                await call
            assert provider.sent == 0


async def test_a_budget_over_a_model_without_a_price_is_an_error() -> None:
    model, kept = ScriptedModel(["x"]), DatabaseBudgets(open_database("sqlite:///:memory:"))
    with pytest.raises(UnknownPrice, match="set price"):
        await Door(budgets=kept).call(model, ASK, {}, role="teacher", purpose="act", bill=Tab(), accounts=[KEY])
    assert model.requests == []


class Spy:
    """A model that knows whether it was called through the door."""

    supports_n = True

    def __init__(self, name: str, answer: str = "yes") -> None:
        self.name, self.answer, self.calls = name, answer, 0
        self.around: list[Any] = []

    def dollars(self, usage: Usage) -> Decimal | None:
        return PRICE.dollars(usage)

    async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
        self.calls += 1
        if not INSIDE.get():
            self.around.append(messages)
        text = self.answer if "Result:" not in str(messages) else "1: 9"
        usage = Usage(input=10, output=5)
        return said(text, model=self.name, usage=usage, dollars=PRICE.dollars(usage)).model_copy(
            update={"messages": ({"role": "assistant", "content": text},) * n}
        )

    async def stream(self, messages: Any, on_delta: Any, **options: Any) -> Completion:
        on_delta({"content": self.answer})
        return await self.complete(messages, **options)


INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Spy]]:
    """Makes spies; none of them may have been called around the door at the end, and all must have been called."""
    made: list[Spy] = []
    through = Door.call

    async def call(self: Door, *arguments: Any, **options: Any) -> Completion:
        token = INSIDE.set(True)
        try:
            return await through(self, *arguments, **options)
        finally:
            INSIDE.reset(token)

    def make(name: str, answer: str = "yes") -> Spy:
        made.append(Spy(name, answer))
        return made[-1]

    monkeypatch.setattr(Door, "call", call)
    yield make
    assert [spy.name for spy in made if spy.around] == []
    assert [spy.name for spy in made if not spy.calls] == []


def cascade_of(folder: Path, **options: Any) -> Any:
    return build(
        bank={"url": f"sqlite:///{folder}/c.db"},
        retrieval={"embedder": "hashing", "index": "exact", "k": 0},
        actions={"format": "text"},
        budgets={"per_namespace": 100},
        **options,
    )


def booked(cascade: agentcascade.Cascade) -> Decimal:
    (account,) = cascade.config.budgets.of_namespace("default")
    assert isinstance(cascade.context.budgets, DatabaseBudgets)
    balance = cascade.context.budgets.balance(account)
    assert balance.reserved == 0
    return balance.spent


async def test_steps_shadows_audits_plans_thoughts_and_judges_go_through_the_door(
    spies: Callable[..., Spy], tmp_path: Path
) -> None:
    one = PRICE.dollars(Usage(input=10, output=5))
    modes: list[dict[str, Any]] = [
        {"mode": "shadow"},
        {"mode": "cascade", "audit": {"rate": 1.0}},
        {"mode": "collect", "collect": {"plan": True, "first_thought": True}},
    ]
    for number, options in enumerate(modes):
        folder = tmp_path / str(number)
        folder.mkdir()
        judge = ModelJudge(spies(f"judge {number}"), "Did it?")
        student = spies(f"student {number}") if number < 2 else None
        cascade = cascade_of(folder, teacher=spies(f"teacher {number}"), student=student, judge=judge, **options)
        episode = cascade.episode("do it")
        await episode.complete(ASK)
        async for _ in (stream := cascade.episode("do it").stream(ASK)):
            pass
        await stream.aclose()
        await episode.finish()
        await cascade.settle()
        assert booked(cascade) == one * {0: 5, 1: 5, 2: 7}[number]
        await cascade.aclose()


async def test_verifiers_and_memory_go_through_the_door(spies: Callable[..., Spy], tmp_path: Path) -> None:
    answers = iter(["go there", "walk there", "run there"] * 9)

    class Several(Spy):
        async def complete(self, messages: Any, *, n: int = 1, **options: Any) -> Completion:
            whole = await super().complete(messages, n=n, **options)
            texts = [{"role": "assistant", "content": next(answers)} for _ in range(n)]
            return whole.model_copy(update={"messages": tuple(texts)})

    student = spies("student")
    student.__class__ = Several
    cascade = cascade_of(
        tmp_path,
        mode="cascade",
        teacher=spies("teacher"),
        student=student,
        mergers=[Verifier(spies("verifier", "[[1], [2], [3]]"))],
        prompt={"min_demonstrations": 0},
    )
    await cascade.episode("do it").complete(ASK)
    assert booked(cascade) == PRICE.dollars(Usage(input=10, output=5)) * 3
    await cascade.aclose()
    budget = QuestionBudget(
        {"large": spies("memory")}, AnswerCache(10, None), token_counter(), seconds=9, dollars=Decimal(1)
    )
    calls = budget.module_calls()
    await calls.ask("large", ASK, 10)
    assert [c.purpose for c in calls.calls] == ["memory"]


async def test_rewriting_scoring_and_judging_answers_go_through_the_door(
    spies: Callable[..., Spy], tmp_path: Path
) -> None:
    kept = DatabaseBudgets(open_database(tmp_path / "b.db"))
    trajectory = Trajectory(goal="g", success=True, steps=(Step(observation="o", reasoning="r " * 9, action="a"),))
    shortener = Shortener(
        SimpleNamespace(database=kept._database),  # type: ignore[arg-type]
        spies("editor", '{"1": "short"}'),
        token_counter(),
        door=Door(budgets=kept),
        accounts=lambda namespace: [KEY],
    )
    await shortener.run([ShorteningTask(1, trajectory, {0: 3})])
    assert kept.balance(KEY) == (PRICE.dollars(Usage(input=10, output=5)), Decimal(0))
    question = Question(id="q", text="who?", answers=("me",), evidence=())
    await MemoryScorer("locomo", "judge", spies("answerer"), spies("grader", "1"))(question, "a memory", ())


async def test_a_budget_of_nothing_buys_neither_plan_nor_judge(tmp_path: Path) -> None:
    teacher, judge = Spy("teacher"), Spy("judge")
    cascade = cascade_of(
        tmp_path, mode="collect", teacher=teacher, judge=ModelJudge(judge, "Did it?"),
        collect={"plan": True, "first_thought": True},
    )  # fmt: skip
    poor = [KEY.model_copy(update={"limit": Decimal(0)})]
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            await cascade.episode("x", accounts=poor).complete(ASK)
        with pytest.raises(BudgetExceeded):
            await cascade.episode("x", accounts=poor).finish()
    assert (teacher.calls, judge.calls) == (0, 0)
    await cascade.aclose()


async def test_a_plan_whose_first_step_never_comes_is_in_the_ledger(tmp_path: Path) -> None:
    class Tires(Spy):
        async def complete(self, messages: Any, **options: Any) -> Completion:
            if self.calls:
                raise ValueError("no more")
            return await super().complete(messages, **options)

    cascade = cascade_of(tmp_path, mode="collect", teacher=Tires("t"), collect={"plan": True, "first_thought": True})
    with pytest.raises(ValueError, match="no more"):
        await cascade.episode("x").complete(ASK)
    await asyncio.to_thread(cascade.context.recorder.flush)
    (line,) = Ledger(cascade.context.database).spending()
    assert (line.calls, line.known_dollars) == (1, booked(cascade))
    await cascade.aclose()


async def test_a_judgement_is_bought_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    judge = Spy("judge")
    cascade = cascade_of(tmp_path, mode="teacher", teacher=Spy("t"), judge=ModelJudge(judge, "Did it?"))
    await cascade.episode("x", id="ep_1").complete(ASK)
    found = await stateless.find_recorded(cascade.engine, "default", "ep_1")
    await asyncio.gather(*(stateless.finish(cascade.engine, found, None) for _ in range(5)))
    for _ in range(3):
        await stateless.finish(cascade.engine, found, None)
    assert judge.calls == 1
    await cascade.episode("x", id="ep_1").complete(ASK)
    await stateless.finish(cascade.engine, found, None)
    assert judge.calls == 2, "an episode that went on is judged anew"
    await cascade.aclose()
