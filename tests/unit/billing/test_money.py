"""The books against the provider's own bill: any sequence of calls, failures, cancellations, and a killed process."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade.billing import door, reservation
from agentcascade.billing.door import Door, Tab
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.pricing import PriceTable
from agentcascade.storage import budgets as module
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets
from agentcascade.types import Usage, now
from tests.billed import ASK, KEY, PRICE, CancelledAt, Provider, over
from tests.fake_openai import FakeOpenAI, Reply, Request

CALLS = st.fixed_dictionaries(
    {
        "words": st.integers(1, 60),
        "n": st.integers(1, 3),
        "stream": st.booleans(),
        "reports": st.booleans(),
        "fails": st.sampled_from([None, None, ConnectionError, TimeoutError, asyncio.CancelledError]),
        "cancelled": st.one_of(st.none(), st.integers(0, 8)),
        "limit": st.sampled_from([{}, {"max_tokens": 20}, {"max_completion_tokens": 1, "max_tokens": 30}]),
        "linger": st.sampled_from([0.0, 5.0]),
    }
)


class Own(Provider):
    """Takes any limit, or none; what it gives nobody asked for is billed too."""

    async def complete(self, messages: Any, **options: Any) -> Any:
        return await super().complete(messages, **{"max_tokens": 10**6, **options})

    async def stream(self, messages: Any, on_delta: Any, **options: Any) -> Any:
        return await super().stream(messages, on_delta, **{"max_tokens": 10**6, **options})


async def one(entrance: Door, call: dict[str, Any]) -> tuple[Own, bool]:
    """Make the call; the provider with its bill, and whether it said so."""
    provider = Own(call["words"], call["reports"], call["fails"])
    show = (lambda delta: None) if call["stream"] else None
    work = entrance.call(
        provider, ASK, {"n": call["n"], **call["limit"]}, role="teacher", purpose="act", bill=Tab(), accounts=[KEY],
        on_delta=show,
    )  # fmt: skip
    at = call["cancelled"]
    cancelled = CancelledAt(work, -1 if at is None else at)
    with suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
        await cancelled
    if cancelled.hit:
        await asyncio.sleep(0.005)  # what is not cancelled goes on
    exact = call["reports"] and call["fails"] is None and not cancelled.hit
    return provider, exact


@settings(max_examples=40, deadline=None)
@given(st.lists(CALLS, min_size=1, max_size=12), st.booleans())
def test_no_sequence_of_calls_is_booked_below_its_bill(calls: list[dict[str, Any]], at_once: bool) -> None:
    async def run() -> None:
        database = open_database("sqlite:///:memory:")
        kept = DatabaseBudgets(database)
        entrance, lingered = Door(budgets=kept), door.LINGER_SECONDS
        door.LINGER_SECONDS = calls[0]["linger"]
        try:
            if at_once:
                done = list(await asyncio.gather(*(one(entrance, call) for call in calls)))
            else:
                done = [await one(entrance, call) for call in calls]
            await over(kept)
        finally:
            door.LINGER_SECONDS = lingered
        spent, reserved = kept.balance(KEY)
        bill = sum((provider.bill for provider, _ in done), Decimal(0))
        assert reserved == 0
        assert spent >= bill
        if all(exact for _, exact in done):
            assert spent == bill
        database.close()

    asyncio.run(run())


class Unhurried(Own):
    """Bills what it is asked for, and never answers."""

    reached: asyncio.Event

    async def complete(self, messages: Any, **options: Any) -> Any:
        self.generate(messages, 30)
        self.reached.set()
        await asyncio.Event().wait()


def test_a_call_whose_caller_and_event_loop_end_is_booked_and_let_go(tmp_path: Path) -> None:
    kept, bill = DatabaseBudgets(open_database(tmp_path / "a.db")), Decimal(0)

    async def run(provider: Unhurried) -> None:
        provider.reached = asyncio.Event()
        work = Door(budgets=kept).call(
            provider, ASK, {"n": 1}, role="teacher", purpose="act", bill=Tab(), accounts=[KEY]
        )  # fmt: skip
        asking = asyncio.ensure_future(work)
        await provider.reached.wait()
        asking.cancel()
        await asyncio.sleep(0)  # its caller is gone, and then everything ends

    for _ in range(3):
        provider = Unhurried()
        asyncio.run(run(provider))
        bill += provider.bill
    kept.close()
    spent, reserved = kept.balance(KEY)
    assert spent >= bill > 0 == reserved
    assert sum(work.get_loop().is_closed() for work in reservation.background) <= 1, "those of earlier loops are let go"


class Billing:
    """A provider over HTTP that bills each request as it arrives, for all that it then gives."""

    def __init__(self) -> None:
        self.bill, self.requests = Decimal(0), 0

    def __call__(self, request: Request) -> Reply:
        kind, words = request.body["user"].split()
        text = "word " * int(words)
        usage = {"prompt_tokens": 9, "completion_tokens": int(words)}
        self.requests += 1
        if kind == "refused":
            return Reply(status=400)
        n = 1 if kind == "alone" else request.body.get("n") or 1
        given = 7 if kind == "broken" else int(words) * n
        self.bill += PRICE.dollars(Usage(input=9, output=given))
        usage["completion_tokens"] *= n
        if kind == "silent":
            return Reply(texts=(text,), usage=None)
        if kind == "nonsense":
            return Reply(texts=(text,), usage={"prompt_tokens": -4, "completion_tokens": "many"})
        if kind == "broken":
            return Reply(texts=(text,), truncate_after=8)
        if kind == "slow":
            return Reply(texts=(text,), usage=usage, delay=0.2)
        return Reply(texts=(text,), usage=usage, ignore_n=kind == "alone")


KINDS = ("told", "silent", "nonsense", "broken", "slow", "refused", "alone")


@pytest.mark.parametrize("kinds", [("told", "alone", "refused"), KINDS])
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_the_books_hold_over_http_whatever_the_provider_does(
    where: str, kinds: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database = open_database(tmp_path / "a.db" if where == "sqlite" else request.getfixturevalue("postgres_url"))
    kept, billing, rng = DatabaseBudgets(database), Billing(), random.Random(f"{where} {kinds}")
    with FakeOpenAI(billing) as fake:
        model = OpenAIModel(
            "openai/m", prices=PriceTable({"openai/m": PRICE}), api_base=fake.url, api_key="x", retries=0
        )

        async def call() -> None:
            kind, stream = rng.choice(kinds), rng.random() < 0.5
            options = {"user": f"{kind} {rng.randrange(10, 60)}", "max_tokens": 80}
            if kind == "alone":
                options["n"] = rng.randrange(1, 4)
            work = asyncio.ensure_future(
                Door(budgets=kept).call(
                    model, ASK, options, role="teacher", purpose="act", bill=Tab(), accounts=[KEY], seconds=60,
                    on_delta=(lambda delta: None) if stream or kind == "broken" else None,
                )
            )  # fmt: skip
            if kind == "slow":
                await asyncio.sleep(rng.random() * 0.1)
                work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

        for _ in range(4):
            await asyncio.gather(*(call() for _ in range(12)))
        await over(kept)
    spent, reserved = kept.balance(KEY)
    assert reserved == 0
    assert spent == billing.bill if kinds != KINDS else spent >= billing.bill > 0
    database.close()


KILLED = """
import asyncio, sys
from tests.billed import ASK, KEY, PRICE
from agentcascade.billing import reservation
from agentcascade.billing.door import Door, Tab
from agentcascade.models.openai import OpenAIModel
from agentcascade.models.pricing import PriceTable
from agentcascade.storage import open_database
from agentcascade.storage.budgets import DatabaseBudgets

async def main(url, database):
    reservation.BUDGET_SECONDS = 60
    kept = DatabaseBudgets(open_database(database))
    model = OpenAIModel("openai/m", prices=PriceTable({"openai/m": PRICE}), api_base=url, api_key="x", retries=0)
    options = {"user": "slow 30", "max_tokens": 40}
    async def call():
        while True:
            await Door(budgets=kept).call(
                model, ASK, options, role="teacher", purpose="act", bill=Tab(), accounts=[KEY], seconds=30)
    await asyncio.gather(*(call() for _ in range(6)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_the_reservations_of_a_killed_process_end_as_spent(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/a.db" if where == "sqlite" else request.getfixturevalue("postgres_url")
    database = open_database(url)
    kept, billing, began = DatabaseBudgets(database), Billing(), now()
    with FakeOpenAI(billing) as fake:
        monkeypatch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parents[3]), *sys.path]))
        process = subprocess.Popen([sys.executable, "-c", KILLED, fake.url, url])
        while billing.requests < 20:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        bill = billing.bill
    monkeypatch.setattr(module, "now", lambda: began)
    spent, reserved = kept.balance(KEY)
    assert reserved > 0
    assert spent + reserved >= bill > spent
    later = now() + timedelta(seconds=120)
    monkeypatch.setattr(module, "now", lambda: later)
    assert kept.balance(KEY) == (spent + reserved, Decimal(0))
    database.close()
