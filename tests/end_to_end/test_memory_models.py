"""Chat-model tiers over real HTTP when one of them misbehaves: the tier below, the deadline, the cap, the bill."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from agentcascade.assembly.memory import build_memory
from agentcascade.ledger.ledger import Ledger
from agentcascade.memory.memory import Memory
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.storage import open_database
from agentcascade.storage.tables import recall_calls
from agentcascade.types import Recall
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.memory_parts import history

QUESTION = "When did Ann adopt her dog?"
USAGE = {"prompt_tokens": 700, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 200}}
PRICE = {"input": "2.00", "cached_input": "0.50", "output": "8.00"}
CALL = Decimal("0.00134")  # (500 * 2.00 + 200 * 0.50 + 30 * 8.00) / 1e6 = 1000 + 100 + 240 millionths
ASKS = {"Rate how much": "filter", "people, places": "entity", "order of time": "temporal", "opinions": "topic"}


def module(request: Request) -> str:
    """The memory's module that sent this."""
    text = str(request.body["messages"])
    return next((name for words, name in ASKS.items() if words in text), "summary")


def able(request: Request) -> Reply:
    """A model that does what it is asked."""
    rating = module(request) == "filter"
    return Reply(texts=("1: 9" if rating else "- Ann adopted a dog called Rex on 7 May 2023 [1]",), usage=USAGE)


def opened(fake: FakeOpenAI, folder: Path, price: Any = PRICE, **settings: Any) -> Memory:
    """All tiers high; only the high ones ask a chat model."""
    large = {"name": "openai/large", "api_base": fake.url, "api_key": "x", "retries": 0}
    large |= {"price": price} if price else {}
    memory: Any = {"axis": "implementation", "models": {"large": large}, **settings}
    return build_memory(
        router=FixedTiers("high"),
        bank={"url": f"sqlite:///{folder / 'memory.db'}"},
        retrieval={"embedder": "hashing"},
        memory=memory,
    )


def rows(folder: Path, recall: Recall) -> list[Decimal | None]:
    """The dollars of the stored calls, in their order."""
    database = open_database(folder / "memory.db")
    with database.begin() as connection:
        found = connection.execute(
            select(recall_calls.c.dollars).where(recall_calls.c.recall == recall.id).order_by(recall_calls.c.pk)
        )
        dollars = list(found.scalars())
    database.close()
    return dollars


def billed(folder: Path) -> tuple[Decimal | None, Decimal]:
    """(dollars, dollars that are known) of the ledger."""
    database = open_database(folder / "memory.db")
    (line,) = Ledger(database).summary()
    database.close()
    return line.dollars, line.known_dollars


@pytest.mark.parametrize("broken", ["filter", "temporal", "summary"])
@pytest.mark.parametrize("how", ["500", "429", "nonsense", "empty", "hangs"])
async def test_one_module_that_fails_falls_alone(fake_openai: Any, tmp_path: Path, broken: str, how: str) -> None:
    replies = {
        "500": Reply(status=500), "429": Reply(status=429), "hangs": Reply(delay=60),
        "nonsense": Reply(texts=("I would rather not.",), usage=USAGE), "empty": Reply(texts=("",), usage=USAGE),
    }  # fmt: skip
    if how == "nonsense" and broken != "filter":
        pytest.skip("any sentence is an answer to this module")
    fake = fake_openai(able)
    with opened(fake, tmp_path) as memory:
        await memory.append("ann", history())
        await memory.prepare("ann")
        await memory.recall("Who paints?", "ann")  # what is loaded at first use is there
        fake.script = lambda request: replies[how] if module(request) == broken else able(request)
        started = time.perf_counter()
        recall = await memory.recall(QUESTION, "ann", deadline_seconds=1.5 if how == "hangs" else 20)
        took = time.perf_counter() - started
    assert took < 15
    used = {run.module: run.used for run in recall.runs}
    run = next(run for run in recall.runs if run.module == broken)
    assert run.asked == "high"
    assert run.used in {"mid", "low", None}
    assert run.failures
    assert any(line.startswith(f"{broken} ") for line in recall.left_out)
    assert "Rex" in recall.text
    if how != "hangs":
        assert used == dict.fromkeys(used, "high") | {broken: "mid"}
        paid = 5 if how in ("nonsense", "empty") else 4  # what was said is billed, useful or not
        assert recall.dollars == paid * CALL
        assert run.dollars == (CALL if paid == 5 else 0)
        assert rows(tmp_path, recall) == [CALL] * paid


async def test_the_rows_of_the_calls_and_the_runs_are_the_bill(fake_openai: Any, tmp_path: Path) -> None:
    fake = fake_openai(able)
    with opened(fake, tmp_path) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
        again = await memory.recall(QUESTION, "ann")
    assert [run.dollars for run in recall.runs] == [CALL] * 5
    assert recall.dollars == 5 * CALL == Decimal("0.0067")
    assert rows(tmp_path, recall) == [CALL] * 5
    assert rows(tmp_path, again) == []
    assert billed(tmp_path) == (Decimal("0.0067"), Decimal("0.0067"))
    with opened(fake, tmp_path) as memory:  # answers outlive the process that paid for them
        assert (await memory.recall(QUESTION, "ann")).dollars == 0
    assert len(fake.requests) == 5


async def test_a_model_without_a_price_costs_an_unknown_amount(fake_openai: Any, tmp_path: Path) -> None:
    fake = fake_openai(able)
    with opened(fake, tmp_path, price=None) as memory:
        await memory.append("ann", history())
        recall = await memory.recall(QUESTION, "ann")
    assert recall.dollars is None
    assert [run.dollars for run in recall.runs] == [None] * 5
    assert rows(tmp_path, recall) == [None] * 5
    assert billed(tmp_path) == (None, Decimal(0))
