"""Batches against a local server that plays Anthropic's Message Batches; its own SDK reads the same server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import anthropic
import pytest

from agentcascade.batches.polling import BatchPoller
from agentcascade.batches.run import Batches
from agentcascade.batches.types import BatchAnswer, BatchRequest
from agentcascade.billing.batch_door import BatchDoor
from agentcascade.errors import NoBatches
from agentcascade.ledger.ledger import Ledger
from agentcascade.messages import text_of
from agentcascade.models.anthropic import AnthropicModel
from agentcascade.models.pricing import BatchPriced
from agentcascade.models.tokens import token_counter
from agentcascade.storage import open_database
from agentcascade.storage.batches import BatchStore
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Account, Usage
from tests.batch_provider import BatchProvider, Held, Json

NAME = "anthropic/claude-haiku-4-5"
ACCOUNT = Account(scope="namespace", name="default", limit=Decimal(1))


def message(body: Json) -> tuple[int, Any]:
    said = body["messages"][-1]["content"]
    said = said if isinstance(said, str) else said[-1]["text"]
    if said == "bad":
        return 400, {"type": "invalid_request_error", "error": {"type": "invalid_request_error", "message": "no"}}
    return 200, {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": said.upper()}],
        "usage": {"input_tokens": 100, "output_tokens": 10},
    }  # fmt: skip


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider(message) as running:
        yield running


class Asker:
    def __init__(self, tmp_path: Any, provider: BatchProvider) -> None:
        self.database = open_database(f"sqlite:///{tmp_path}/cascade.db")
        self.store, self.budgets = BatchStore(self.database), DatabaseBudgets(self.database)
        door = BatchDoor(token_counter(), budgets=self.budgets)
        self.said: list[str] = []
        self.poller = BatchPoller(self.store, door, tell=self.said.append, grace=timedelta(minutes=1))
        self.model = AnthropicModel(NAME, api_base=provider.root, api_key="sk-ant-test", timeout=60, max_tokens=50)

    async def ask(self, *texts: str, **options: Any) -> list[BatchAnswer]:
        requests = [BatchRequest([{"role": "user", "content": text}], options) for text in texts]
        purpose: dict[str, Any] = {"job": "test", "role": "teacher", "purpose": "other", "namespace": "default"}
        try:
            batches = Batches(self.poller, seconds=0.01)
            return await batches.complete_all(self.model, requests, accounts=(ACCOUNT,), **purpose)
        finally:
            await self.model.aclose()

    def check_money(self, provider: BatchProvider) -> None:
        prices = (float(BatchPriced(self.model).dollars(u) or 0) for u in (Usage(input=10**6), Usage(output=10**6)))
        bill = pytest.approx(provider.dollars(*prices), abs=1e-12)
        assert sum(float(s.dollars or 0) for s in Ledger(self.database).summary("mode")) == bill
        balance = self.budgets.balance(ACCOUNT)
        assert float(balance.spent) == bill
        assert balance.reserved == 0

    def close(self) -> None:
        self.budgets.close()
        self.database.close()


def texts(answers: list[BatchAnswer]) -> list[list[str]]:
    return [[text_of(m) for m in a.completion.messages] if a.completion else [] for a in answers]


async def test_samples_are_requests_of_their_own_and_failures_are_free(tmp_path: Any, provider: BatchProvider) -> None:
    asker = Asker(tmp_path, provider)
    answers = await asker.ask("a", "bad", "b", n=2)
    assert texts(answers) == [["A", "A"], [], ["B", "B"]]
    assert answers[1].error == "no"
    assert [len(held.requests) for held in provider.batches.values()] == [6]
    assert provider.sent()[0]["body"]["max_tokens"] == 50
    asker.check_money(provider)
    asker.close()


async def test_what_expires_or_is_cancelled_is_free(tmp_path: Any, provider: BatchProvider) -> None:
    provider.expires_after = 1
    asker = Asker(tmp_path, provider)
    answers = await asker.ask("a", "b")
    assert (texts(answers), answers[1].error) == ([["A"], []], "expired")
    provider.expires_after, provider.polls = None, 10**6
    asking = asyncio.ensure_future(asker.ask("c", "d"))
    while not any(b.provider_id for b in asker.store.newest(open_only=True)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asker.poller.cancel(asker.store.newest(open_only=True)[0], asker.model)
    answers = await asking
    assert (texts(answers), answers[1].error) == ([["C"], []], "canceled")
    asker.check_money(provider)
    asker.close()


async def test_a_creation_whose_answer_is_lost_is_found_by_its_custom_ids(
    tmp_path: Any, provider: BatchProvider
) -> None:
    """Somebody else's batch of the same size is not ours; as long as ours runs, nothing is sent again."""
    others = [{"custom_id": f"other-{i}", "params": {"messages": [{"content": "x"}], "model": "m"}} for i in range(2)]
    provider.create_messages({"requests": others})
    for held in provider.batches.values():
        provider.end(held, "completed")
        held.usages.clear()
    provider.on_creation("drop")
    asker = Asker(tmp_path, provider)
    asking = asyncio.ensure_future(asker.ask("a", "b"))
    while len(provider.batches) < 2 or provider.count("GET", "/v1/messages/batches") < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not asking.done()
    provider.end(list(provider.batches.values())[1], "completed")
    assert texts(await asking) == [["A"], ["B"]]
    assert provider.count("POST", "/v1/messages/batches") == 1
    assert any("found again" in line for line in asker.said)
    asker.check_money(provider)
    asker.close()


async def test_an_endpoint_without_batches_says_so(tmp_path: Any, provider: BatchProvider) -> None:
    provider.hooks.append(lambda method, path: (404, {"type": "error", "error": {"message": "no"}}))
    asker = Asker(tmp_path, provider)
    with pytest.raises(NoBatches, match="nothing was sent"):
        await asker.ask("a")
    assert provider.count("POST", ".*") == 0
    asker.close()


def test_the_sdk_reads_the_same_server(provider: BatchProvider) -> None:
    client = anthropic.Anthropic(base_url=provider.root, api_key="sk-ant-test", max_retries=0)
    params: Any = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    made = client.messages.batches.create(requests=[{"custom_id": "one", "params": params}])
    held: Held = provider.batches[made.id]
    provider.end(held, "completed")
    ended = client.messages.batches.retrieve(made.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 1)
    (result,) = client.messages.batches.results(made.id)
    assert json.loads(result.to_json())["result"]["message"]["content"][0]["text"] == "A"
