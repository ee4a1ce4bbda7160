"""Batches against a local server that plays OpenAI's Batch API: sent once, resumed after any kill, billed exactly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from agentcascade._util import known_secrets
from agentcascade.batches import polling, sending
from agentcascade.batches.openai import OpenAIBatches
from agentcascade.batches.polling import BatchPoller
from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchAnswer, BatchRequest
from agentcascade.billing.batch_door import BatchDoor
from agentcascade.config.effort import Effort
from agentcascade.errors import BatchFailed, BudgetExceeded, NoBatches
from agentcascade.ledger.ledger import Ledger
from agentcascade.messages import text_of
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.effort import at_effort
from agentcascade.models.litellm import LiteLLMModel
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.pricing import BatchPriced, Price, PriceTable, listed_batch_price
from agentcascade.models.responses import ResponsesModel
from agentcascade.models.scripted import ScriptedModel
from agentcascade.models.tokens import token_counter
from agentcascade.protocols import ChatModel
from agentcascade.storage import open_database
from agentcascade.storage.batches import Batch, BatchStore
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.storage.tables import batch_requests, reservations
from agentcascade.storage.tables import batches as batches_table
from agentcascade.types import Account, Usage
from tests.batch_provider import USAGE, BatchProvider, Held, Json, completion, say

NAME = "openai/gpt-4o-mini"
BATCH = 0.075, 0.3
"""Dollars per million tokens of its input and output in a batch, as OpenAI lists them."""
ACCOUNT = Account(scope="namespace", name="default", limit=Decimal(1))


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider() as running:
        yield running


@pytest.fixture
def file(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path}/cascade.db"


def ask(*texts: str, **options: Any) -> list[BatchRequest]:
    return [BatchRequest([{"role": "user", "content": text}], {"max_tokens": 50, **options}) for text in texts]


class Asker:
    """One process that asks by batches."""

    def __init__(self, url: str, provider: BatchProvider, *, grace: float = 0, name: str = NAME) -> None:
        self.database = open_database(url)
        self.store, self.budgets = BatchStore(self.database), DatabaseBudgets(self.database)
        self.said: list[str] = []
        door = BatchDoor(token_counter(), budgets=self.budgets)
        self.poller = BatchPoller(self.store, door, tell=self.said.append, grace=timedelta(seconds=grace))
        self.batches = Batches(self.poller, seconds=0.01)
        self.model = OpenAIModel(name, api_base=provider.url, api_key="sk-test", timeout=60)

    async def ask(self, requests: list[BatchRequest], **options: Any) -> list[BatchAnswer]:
        given: dict[str, Any] = {"job": "test", "role": "teacher", "purpose": "other", "namespace": "default"}
        try:
            return await self.batches.complete_all(self.model, requests, **{"accounts": (ACCOUNT,), **given, **options})
        finally:
            await self.model.aclose()

    async def sent(self) -> Batch:
        """The batch that is under way, when it is."""
        while True:
            for batch in self.store.newest(open_only=True):
                if batch.provider_id:
                    return batch
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self.budgets.close()
        self.database.close()


def texts(answers: list[BatchAnswer]) -> list[list[str]]:
    return [[text_of(m) for m in a.completion.messages] if a.completion else [] for a in answers]


def check_money(asker: Asker, provider: BatchProvider, *, prices: tuple[float, float] = BATCH) -> None:
    """Ledger, budget and provider say the same, and nothing is set aside any more."""
    bill = provider.dollars(*prices)
    spent = Ledger(asker.database).summary("all")
    assert sum(float(s.dollars or 0) for s in spent) == pytest.approx(bill, abs=1e-12)
    balance = asker.budgets.balance(ACCOUNT)
    assert float(balance.spent) == pytest.approx(bill, abs=1e-12)
    assert balance.reserved == 0


async def test_answers_come_in_the_order_of_the_requests_and_are_billed_at_batch_prices(
    url: str, provider: BatchProvider
) -> None:
    provider.answer = lambda body: (200, completion(body, [body["messages"][-1]["content"].upper()]))
    asker = Asker(url, provider)
    answers = await asker.ask(ask("a", "b", "a"))
    assert texts(answers) == [["A"], ["B"], ["A"]]
    assert len(provider.sent()) == 3, "the same twice is asked twice"
    assert all(a.completion is not None and a.completion.model == NAME for a in answers)
    check_money(asker, provider)
    ledger = Ledger(asker.database)
    assert [(s.group, s.usage.prompt) for s in ledger.summary("mode")] == [("batch", 300)]
    bill = asker.store.bill()
    assert bill.dollars is not None
    assert (bill.requests, bill.ordinary) == (3, 2 * bill.dollars)
    assert texts(await asker.ask(ask("a", "b", "a"))) == [["A"], ["B"], ["A"]], "not taken yet: read again"
    assert len(provider.batches) == 1
    await asker.batches.take(answers)
    await asker.ask(ask("b"))
    assert len(provider.sent()) == 4
    check_money(asker, provider)
    asker.close()


POINTS = (
    (sending, "apart"),
    (polling, "apart"),
    (OpenAIBatches, "check"),
    (OpenAIBatches, "upload"),
    (OpenAIBatches, "create"),
    (OpenAIBatches, "get"),
    (OpenAIBatches, "find"),
    (BatchDoor, "reserve"),
    (BatchDoor, "settle"),
)
"""All that is awaited on the way of a batch."""


def run_killed(url: str, provider: BatchProvider, at: int) -> bool:
    """Ask in a child process that is gone, without a word, at its await number `at`; whether it came so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) == 9
    try:
        seen = 0

        def step() -> None:
            nonlocal seen
            if seen == at:
                os._exit(9)
            seen += 1

        for owner, name in POINTS:
            original = getattr(owner, name)

            def wrapped(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                async def awaited() -> Any:
                    step()  # what is done by then is what was done after the await before
                    return await _original(*args, **kwargs)

                return awaited()

            setattr(owner, name, wrapped)
        asker = Asker(url, provider)
        asyncio.run(asker.ask(ask("a", "b")))
        asker.close()
        os._exit(0)
    except BaseException:
        os._exit(7)


def test_a_command_that_is_killed_at_any_await_pays_once(tmp_path: Any) -> None:
    at, reached = 0, True
    empty = tmp_path / "empty.db"
    open_database(f"sqlite:///{empty}").close()
    with BatchProvider() as provider:  # all that is loaded is loaded once, and not in every child
        warm = Asker(f"sqlite:///{tmp_path}/warm.db", provider)
        asyncio.run(warm.ask(ask("a")))
        warm.close()
    while reached:
        with BatchProvider(say("look"), polls=0) as provider:
            url = f"sqlite:///{shutil.copy(empty, tmp_path / f'{at}.db')}"
            reached = run_killed(url, provider, at)
            asker = Asker(url, provider)
            answers = asyncio.run(asker.ask(ask("a", "b")))
            assert texts(answers) == [["look"], ["look"]], at
            assert len(provider.sent()) == 2, f"killed at {at}: {asker.said}"
            check_money(asker, provider)
            with asker.database.begin() as connection:
                assert connection.execute(select(reservations)).all() == [], at
                assert len(connection.execute(select(batch_requests)).all()) == 2, at
            asker.close()
        at += 1
    assert at > 15


async def test_a_creation_whose_answer_is_lost_is_found_again_and_not_repeated(
    file: str, provider: BatchProvider
) -> None:
    dropped = iter(["drop"])
    provider.hooks.append(
        lambda method, path: next(dropped, None) if (method, path) == ("POST", "/v1/batches") else None
    )
    asker = Asker(file, provider, grace=60)
    assert texts(await asker.ask(ask("a"))) == [["look"]]
    assert provider.count("POST", "/v1/batches") == 1
    assert any("found again at its provider" in line for line in asker.said)
    check_money(asker, provider)
    asker.close()


async def test_another_process_that_submits_is_left_alone(file: str, provider: BatchProvider) -> None:
    """Two commands at once: one batch."""
    one, other = Asker(file, provider, grace=60), Asker(file, provider, grace=60)
    both = await asyncio.gather(one.ask(ask("a", "b")), other.ask(ask("a", "b")))
    assert [texts(answers) for answers in both] == [[["look"], ["look"]]] * 2
    assert len(provider.sent()) == 2
    check_money(one, provider)
    one.close()
    other.close()


def refusing(body: Json) -> tuple[int, Any]:
    if body["messages"][0]["content"] == "bad":
        return 400, {"error": {"message": "no such thing", "type": "invalid_request_error", "code": None}}
    return say()(body)


async def test_a_request_that_fails_is_told_beside_those_that_do_not_and_is_free(
    file: str, provider: BatchProvider
) -> None:
    provider.answer = refusing
    asker = Asker(file, provider)
    answers = await asker.ask(ask("good", "bad"))
    assert texts(answers) == [["look"], []]
    assert answers[1].error == "no such thing"
    check_money(asker, provider)
    only = await asker.ask(ask("bad"))
    assert (only[0].completion, only[0].error) == (None, "no such thing"), "all failed: there is no output file"
    assert len(provider.batches) == 2, "what failed is sent anew"
    asker.close()


async def test_a_refused_parameter_is_left_out_the_second_time(file: str, provider: BatchProvider) -> None:
    def answer(body: Json) -> tuple[int, Any]:
        if "seed" in body:
            message = "Unsupported parameter: 'seed' is not supported with this model."
            return 400, {"error": {"message": message, "type": "invalid_request_error", "code": "unsupported"}}
        return say()(body)

    provider.answer = answer
    asker = Asker(file, provider)
    assert texts(await asker.ask(ask("a", "b", seed=5))) == [["look"], ["look"]]
    assert [len(held.requests) for held in provider.batches.values()] == [2, 2]
    check_money(asker, provider)
    asker.close()


async def test_what_expires_or_is_cancelled_is_not_billed_and_what_was_done_is(
    file: str, provider: BatchProvider
) -> None:
    provider.expires_after = 2
    asker = Asker(file, provider)
    answers = await asker.ask(ask("a", "b", "c"))
    assert texts(answers) == [["look"], ["look"], []]
    assert "could not be executed" in answers[2].error
    check_money(asker, provider)

    provider.expires_after, provider.polls = None, 10**6
    asking = asyncio.ensure_future(asker.ask(ask("d", "e", "f", "g")))
    await asker.poller.cancel(await asker.sent(), asker.model)
    answers = await asking
    assert texts(answers) == [["look"], ["look"], [], []]
    assert answers[3].error == "no result came of it (the batch is cancelled)"
    check_money(asker, provider)
    asker.close()


def broken(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Held, list[bytes]], list[bytes]]:
    return lambda held, lines: change(lines) if lines else lines


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [b"{ not JSON", *lines[1:]], "1 lines cannot be read; 1 requests have no result"),
        (lambda lines: lines[1:], "1 requests have no result"),
        (lambda lines: [*lines, lines[0]], "1 lines are there twice"),
        (lambda lines: [*lines, lines[0].replace(b'"bt_', b'"xx_')], "1 lines are of requests that nobody sent"),
        (lambda lines: [b'{"custom_id": "' + b"x" * 2**25 + b'"}', *lines], "1 lines cannot be read"),
    ],
)
async def test_odd_results_are_said_and_what_may_be_billed_is_booked(
    file: str, provider: BatchProvider, change: Callable[[list[bytes]], list[bytes]], problem: str
) -> None:
    provider.lines = broken(change)
    asker = Asker(file, provider)
    answers = await asker.ask(ask("a", "b"))
    (batch,) = asker.store.newest()
    assert batch.error == problem
    missing = [a for a in answers if a.completion is None]
    assert len(missing) == ("no result" in problem)
    calls = Ledger(asker.database).spending()
    assert [(s.calls, s.estimated_calls) for s in calls] == [(2, len(missing))]
    booked, billed = float(sum(s.known_dollars for s in calls)), provider.dollars(*BATCH)
    if missing:  # the provider says that it answered both: the worst case of the one that did not come
        low = billed / 2 + 50 * BATCH[1] / 1e6
        assert low < booked < low + 30 * BATCH[0] / 1e6
    else:
        assert booked == pytest.approx(billed, abs=1e-12)
    asker.close()


@pytest.mark.parametrize("dear_first", [True, False])
@pytest.mark.parametrize("other", ["dearer", "failed"])
async def test_results_that_come_twice_and_disagree_are_billed_by_the_dearer(
    file: str, provider: BatchProvider, dear_first: bool, other: str
) -> None:
    def twice(lines: list[bytes]) -> list[bytes]:
        result = json.loads(lines[0])
        if other == "failed":
            result |= {"response": None, "error": {"code": "batch_expired", "message": "late"}}
        else:
            usage = {"prompt_tokens": USAGE["prompt_tokens"], "completion_tokens": 2 * USAGE["completion_tokens"]}
            said = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "jump"}}
            result["response"]["body"] |= {"usage": usage, "choices": [said]}
        both = [json.dumps(result).encode(), lines[0]]
        return [*(both if dear_first else both[::-1]), *lines[1:]]

    provider.lines = broken(twice)
    asker = Asker(file, provider)
    answers = await asker.ask(ask("a"))
    first = [["jump"] if other == "dearer" else []] if dear_first else [["look"]]
    assert texts(answers) == first, "the first is taken"
    (batch,) = asker.store.newest()
    assert batch.error == "1 lines are there twice; 1 of them disagree: the first is taken, the dearest is billed"
    assert any("the dearest is billed" in line for line in asker.said)
    dearest = 2 if other == "dearer" else 1
    output = dearest * USAGE["completion_tokens"]
    dollars = (USAGE["prompt_tokens"] * BATCH[0] + output * BATCH[1]) / 1e6
    assert float(sum(s.known_dollars for s in Ledger(asker.database).spending())) == pytest.approx(dollars, abs=1e-12)
    spent, reserved = asker.budgets.balance(ACCOUNT)
    assert float(spent) == pytest.approx(dollars, abs=1e-11)
    assert reserved == 0
    asker.close()


KEY = "Zq7-a-key-0123456789xyzw"
HOSTILE = f"\x00 \ud800 \x1b[2J {KEY}"


def in_an_error(provider: BatchProvider) -> None:
    provider.answer = lambda body: (400, {"error": {"message": HOSTILE, "code": HOSTILE}})


def in_an_error_as_an_answer(provider: BatchProvider) -> None:
    provider.answer = lambda body: (200, {"error": {"message": HOSTILE}, "usage": USAGE})


def in_an_empty_answer(provider: BatchProvider) -> None:
    def answer(body: Json) -> tuple[int, Any]:
        empty = completion(body, [""])
        empty["choices"][0]["finish_reason"] = HOSTILE
        return 200, empty | {"model": HOSTILE, "id": HOSTILE}

    provider.answer = answer


def in_a_refused_batch(provider: BatchProvider) -> None:
    def state(method: str, path: str) -> tuple[int, Json] | None:
        if method == "POST" or not path.startswith("/v1/batches/"):
            return None
        errors = {"object": "list", "data": [{"code": HOSTILE, "message": HOSTILE}]}
        return 200, {"id": path.split("/")[-1], "object": "batch", "status": "failed", "errors": errors}

    provider.hooks.append(state)


def in_a_status(provider: BatchProvider) -> None:
    odd = iter([HOSTILE] * 2)

    def state(method: str, path: str) -> tuple[int, Json] | None:
        if method == "POST" or not path.startswith("/v1/batches/") or (status := next(odd, None)) is None:
            return None
        return 200, {"id": path.split("/")[-1], "object": "batch", "status": status}

    provider.hooks.append(state)


@pytest.mark.parametrize(
    "put", [in_an_error, in_an_error_as_an_answer, in_an_empty_answer, in_a_refused_batch, in_a_status]
)
async def test_texts_of_a_provider_that_no_database_takes_or_that_hold_its_key_end_no_batch(
    url: str, provider: BatchProvider, put: Callable[[BatchProvider], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(known_secrets, "FRESH_SECONDS", 0)
    provider.lines = lambda held, lines: [line.replace(b"\\\\ud800", b"\\ud800") for line in lines]
    put(provider)
    asker = Asker(url, provider)
    (answer,) = await asker.ask(ask("a"))
    (batch,) = asker.store.newest()
    with asker.database.begin() as connection:
        kept = repr([connection.execute(select(table)).all() for table in (batches_table, batch_requests)])
    assert batch.state == "ended"
    assert (answer.completion is None) == (put is not in_a_status)
    assert KEY not in kept + answer.error + "".join(asker.said)
    assert "\x1b" not in answer.error + "".join(asker.said)
    check_money(asker, provider)
    asker.close()


async def test_a_batch_that_another_process_gave_up_meanwhile_is_cancelled(file: str, provider: BatchProvider) -> None:
    """A machine that slept between claiming and creating; the other process has found nothing at the provider."""
    asker = Asker(file, provider)
    slept = iter([True])

    def give_up(method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/batches") and next(slept, False):
            (batch,) = asker.store.newest()
            assert asker.store.drop(batch.id, "submitting")

    provider.hooks.append(give_up)
    assert texts(await asker.ask(ask("a"))) == [["look"]]
    assert provider.count("POST", "/v1/batches/batch_0/cancel") == 1
    assert len(provider.batches) == 2
    assert asker.budgets.balance(ACCOUNT).reserved == 0
    asker.close()


def without_its_file(provider: BatchProvider, batch: Json) -> tuple[int, Json]:
    return 200, batch | {"output_file_id": None}


def with_a_file_that_is_not_there(provider: BatchProvider, batch: Json) -> tuple[int, Json]:
    return 200, batch | {"output_file_id": "file-late"}


def ended_too_early(provider: BatchProvider, batch: Json) -> tuple[int, Json]:
    counts = {"total": 2, "completed": 0, "failed": 0}
    return 200, batch | {"output_file_id": None, "status": "completed", "request_counts": counts}


@pytest.mark.parametrize("late", [without_its_file, with_a_file_that_is_not_there, ended_too_early])
@pytest.mark.parametrize("is_billed", [False, True])
async def test_results_that_come_late_are_waited_for_and_nothing_is_sent_again(
    file: str, provider: BatchProvider, late: Callable[[BatchProvider, Json], tuple[int, Json]], is_billed: bool
) -> None:
    asker = Asker(file, provider)
    if is_billed:  # by a command that was killed before it kept them
        await asker.ask(ask("a", "b"))
    left = iter(range(3))

    def answer(method: str, path: str) -> tuple[int, Json] | None:
        if method == "POST" or not path.startswith("/v1/batches/"):
            return None
        held = provider.batches[path.split("/")[-1]]
        provider.step(held)
        batch = provider.openai(held)
        is_late = (batch["status"] == "completed" or late is ended_too_early) and next(left, None) is not None
        return late(provider, batch) if is_late else (200, batch)

    provider.hooks.append(answer)
    assert texts(await asker.ask(ask("a", "b"))) == [["look"], ["look"]]
    assert next(left, None) is None
    assert len(provider.batches) == 1
    check_money(asker, provider)
    asker.close()


async def test_an_answer_that_another_process_has_taken_is_not_bought_again_by_one_that_waits_for_it(
    url: str, provider: BatchProvider
) -> None:
    first, second, taken = Asker(url, provider), Asker(url, provider), threading.Event()
    provider.polls = 10**9
    asked = asyncio.create_task(first.ask(ask("hello", "there")))
    await first.sent()
    find, looks = second.store.find, 0

    def find_late(keys: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 3:  # the first two found it under way
            provider.polls = 0
            taken.wait(60)
        return find(keys)

    second.store.find = find_late  # type: ignore[method-assign]
    also_asked = asyncio.create_task(second.ask(ask("there", "hello")))
    answers = await asked
    await first.batches.take(answers)
    taken.set()
    assert texts(await also_asked) == texts(answers)[::-1]
    assert len(provider.batches) == 1
    check_money(first, provider)
    first.close()
    second.close()


async def test_equal_requests_of_two_namespaces_are_each_their_own(file: str, provider: BatchProvider) -> None:
    asker = Asker(file, provider)
    answers = [await asker.ask(ask("a"), namespace=namespace) for namespace in ("one", "other")]
    assert [texts(a) for a in answers] == [[["look"]]] * 2
    assert len(provider.batches) == 2
    assert [asker.store.bill(namespace).requests for namespace in ("one", "other")] == [1, 1]
    await asker.batches.take(answers[0])
    assert texts(await asker.ask(ask("a"), namespace="other")) == [["look"]]
    assert len(provider.batches) == 2, "what one has taken, the other has not"
    asker.close()


@pytest.mark.parametrize(
    ("usage", "estimated"),
    [({}, True), ({"prompt_tokens": -1, "completion_tokens": 1e300}, True), ({"prompt_tokens": 0}, True)],
)
async def test_absurd_usage_is_replaced_by_what_was_sent(
    file: str, provider: BatchProvider, usage: Json, estimated: bool
) -> None:
    provider.answer = lambda body: (200, {**completion(body, ["a longer answer"]), "usage": usage})
    asker = Asker(file, provider)
    (answer,) = await asker.ask(ask("a question of some words"))
    assert answer.completion is not None
    used = answer.completion.usage
    assert answer.completion.estimated is estimated
    assert 5 <= used.prompt <= 20
    assert 3 <= used.completion <= 50
    asker.close()


async def test_a_full_queue_makes_smaller_batches_one_after_the_other(file: str, provider: BatchProvider) -> None:
    provider.limit = 3
    asker = Asker(file, provider)
    answers = await asker.ask(ask(*"abcdefgh"))
    assert texts(answers) == [["look"]] * 8
    assert [len(h.requests) for h in provider.batches.values() if h.status == "completed"] == [2, 2, 2, 2]
    assert len(provider.sent()) == 8
    check_money(asker, provider)
    asker.close()


async def test_a_provider_that_is_busy_is_asked_again_and_one_without_credit_is_not(
    file: str, provider: BatchProvider
) -> None:
    busy = (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    provider.on_creation(busy, busy)
    asker = Asker(file, provider)
    assert texts(await asker.ask(ask("a"))) == [["look"]]
    provider.on_creation((429, {"error": {"message": "no credit", "code": "insufficient_quota"}}))
    with pytest.raises(Exception, match="no credit"):
        await asker.ask(ask("b"))
    assert asker.store.newest(open_only=True) == []
    check_money(asker, provider)
    asker.close()


async def test_a_batch_that_does_not_fit_into_a_budget_is_not_sent(file: str, provider: BatchProvider) -> None:
    asker = Asker(file, provider)
    with pytest.raises(BudgetExceeded):
        await asker.ask(ask("a"), accounts=(ACCOUNT.model_copy(update={"limit": Decimal("0.000001")}),))
    assert provider.count("POST", ".*") == 0
    assert asker.store.newest() == []
    check_money(asker, provider)
    asker.close()


async def test_batches_keep_to_what_a_provider_takes(
    file: str, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIBatches, "most_requests", 3)
    monkeypatch.setattr(OpenAIBatches, "most_bytes", 900)
    asker = Asker(file, provider)
    answers = await asker.ask(ask(*"abcde", "x" * 600))
    assert texts(answers) == [["look"]] * 6
    sizes = [len(provider.files[held.input_file]) for held in provider.batches.values()]
    assert all(size <= 900 for size in sizes)
    assert [len(held.requests) for held in provider.batches.values()] == [3, 2, 1]
    asker.close()


async def test_an_endpoint_without_batches_says_so_before_anything_is_sent(file: str, provider: BatchProvider) -> None:
    provider.hooks.append(lambda method, path: (404, {"detail": "Not Found"}) if method == "GET" else None)
    asker = Asker(file, provider)
    with pytest.raises(NoBatches, match=r"openai/gpt-4o-mini: its server has no batch interface .* nothing was sent"):
        await asker.ask(ask("a"))
    assert provider.count("POST", ".*") == 0
    refused: dict[ChatModel, str] = {
        LiteLLMModel("gemini/gemini-2.5-flash"): "gemini-2.5-flash has .*: those of openai/… .* are spoken",
        ScriptedModel(["x"]): "scripted",
        LiteLLMModel("azure/gpt-4.1"): r"Azure's batches.* \(Global Batch\), are not spoken",
        ResponsesModel("openai/responses/gpt-4.1"): "Responses API are not spoken: name openai/gpt-4.1 if",
        LiteLLMModel("openai/gpt-5-mini"): "litellm's batches are not spoken",
        at_effort(AnthropicModel("anthropic/claude-sonnet-4-5"), Effort("low")): "have no effort: name the model with",
    }
    for model, words in refused.items():
        with pytest.raises(NoBatches, match=f"{words}.*nothing was sent: leave --batch"):
            await asker.batches.complete_all(
                model, ask("a"), job="t", role="teacher", purpose="other", namespace="default"
            )
    asker.close()


async def test_a_batch_that_its_provider_forgot_is_an_error_until_it_is_forgotten_here(
    file: str, provider: BatchProvider
) -> None:
    provider.polls = 10**6
    asker = Asker(file, provider)
    asking = asyncio.ensure_future(asker.ask(ask("a")))
    batch = await asker.sent()
    provider.batches.clear()
    with pytest.raises(BatchFailed, match="is not known at its provider"):
        await asking
    await asker.poller.forget(batch, asker.model)
    (spent,) = Ledger(asker.database).spending()
    assert (spent.calls, spent.estimated_calls) == (1, 1)
    assert spent.usage.output == 50
    assert float(asker.budgets.balance(ACCOUNT).spent) == float(spent.known_dollars)
    asker.close()


def test_prices_of_batches() -> None:
    listed = listed_batch_price("openai/gpt-4o-mini")
    assert listed is not None
    assert (float(listed.input), float(listed.output)) == BATCH
    assert listed_batch_price("openai/no-such-model") is None
    usage = Usage(input=1000, cached_input=500, output=100)
    own = OpenAIModel(NAME, prices=PriceTable({NAME: Price(input="10", output="20")}))
    assert BatchPriced(own).dollars(usage) == Decimal("0.0085")
    unpriced = BatchPriced(OpenAIModel("openai/no-such-model"))
    assert unpriced.dollars(usage) is None
    ordinary, batched = OpenAIModel(NAME).dollars(usage), BatchPriced(OpenAIModel(NAME)).dollars(usage)
    assert ordinary == 2 * (batched or 0)
