"""Chat-model tiers over real HTTP: every dollar in the ledger, computed by hand."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentcascade.assembly.memory import build_memory
from agentcascade.config.keywords import ModelKeywords
from agentcascade.ledger.ledger import Ledger
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.storage import open_database
from agentcascade.types import Recall
from tests.fake_openai import Reply, Request
from tests.memory_parts import history

QUESTION = "When did Ann adopt her dog?"
USAGE = {
    "prompt_tokens": 900, "completion_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 500}, "completion_tokens_details": {"reasoning_tokens": 20},
}  # fmt: skip
PRICES = {
    "small": {"input": "0.10", "cached_input": "0.01", "output": "0.40"},
    "medium": {"input": "0.40", "cached_input": "0.10", "output": "1.60"},
    "large": {"input": "2.00", "cached_input": "0.50", "output": "8.00"},
}
# 400 fresh and 500 cached prompt tokens, 60 completion tokens, in dollars per million of each:
BILL = {
    "small": Decimal("0.000069"),  # 40.0 + 5.0 + 24.0 millionths
    "medium": Decimal("0.000306"),  # 160 + 50 + 96
    "large": Decimal("0.001530"),  # 800 + 250 + 480
}


def say(request: Request) -> Reply:
    """What an able model says to each of the memory's prompts."""
    text = request.body["messages"][-1]["content"]
    known = request.body["messages"][1]["content"]
    filtering = "Rate how much" in known
    said = "1: 9" if filtering else "- Ann adopted a dog called Rex on 7 May 2023 [1]"
    return Reply(texts=(f"Result:\n{said}" if "Result:" in text else said,), usage=USAGE)


async def recalled(fake: Any, tmp_path: Path, axis: Any, tiers: Any, times: int = 1) -> list[Recall]:
    models: dict[Any, ModelKeywords] = {
        size: {"name": f"openai/{size}", "api_base": fake.url, "api_key": "x", "price": price, "retries": 0}
        for size, price in PRICES.items()
    }
    with build_memory(
        router=FixedTiers(tiers),
        bank={"url": f"sqlite:///{tmp_path / 'memory.db'}"},
        retrieval={"embedder": "hashing"},
        memory={"axis": axis, "models": models},
    ) as memory:
        await memory.append("ann", history())
        return [await memory.recall(QUESTION, "ann") for _ in range(times)]


@pytest.mark.parametrize(
    ("axis", "tiers", "calls", "bill"),
    [
        ("implementation", "high", {"large": 5}, 5 * BILL["large"]),
        ("implementation", {"summary": "high", "topic": "mid"}, {"large": 1}, BILL["large"]),
        ("reasoning", "mid", {"large": 5}, 5 * BILL["large"]),
        ("reasoning", "high", {"large": 10}, 10 * BILL["large"]),
        ("capacity", "low", {"small": 5}, 5 * BILL["small"]),
        (
            "capacity",
            {"filter": "low", "entity": "mid", "temporal": "high", "topic": "low", "summary": "high"},
            {"small": 2, "medium": 1, "large": 2},
            2 * BILL["small"] + BILL["medium"] + 2 * BILL["large"],
        ),
    ],
)
async def test_the_ledger_holds_what_the_provider_bills(
    fake_openai: Any, tmp_path: Path, axis: str, tiers: Any, calls: dict[str, int], bill: Decimal
) -> None:
    fake = fake_openai(say)
    first, again = await recalled(fake, tmp_path, axis, tiers, times=2)
    assert "Rex" in first.text
    assert len(fake.requests) == sum(calls.values())
    assert first.dollars == bill
    assert sum((run.dollars or Decimal(0) for run in first.runs), Decimal(0)) == bill
    assert (again.text, again.calls, again.dollars) == (first.text, (), Decimal(0))
    database = open_database(tmp_path / "memory.db")
    ledger = Ledger(database)
    (line,) = ledger.summary()
    assert (line.dollars, line.steps, line.unpriced_calls) == (bill, 0, 0)
    n = sum(calls.values())
    assert (line.usage.input, line.usage.cached_input) == (400 * n, 500 * n)
    assert (line.usage.output, line.usage.reasoning) == (40 * n, 20 * n)
    spent = {s.model.rpartition("/")[2]: (s.calls, s.known_dollars) for s in ledger.spending()}
    assert spent == {model: (count, count * BILL[model]) for model, count in calls.items()}
    database.close()


@pytest.mark.parametrize("status", [429, 500])
async def test_a_provider_that_fails_leaves_the_lower_tier_and_no_bill(
    fake_openai: Any, tmp_path: Path, status: int
) -> None:
    fake = fake_openai([Reply(status=status)])
    (recall,) = await recalled(fake, tmp_path, "implementation", "high")
    assert {run.used for run in recall.runs} == {"mid"}
    assert recall.dollars == 0
    assert len(recall.left_out) == 5
    assert "Rex" in recall.text


async def test_usage_that_is_not_reported_is_estimated_and_not_free(fake_openai: Any, tmp_path: Path) -> None:
    fake = fake_openai(lambda request: Reply(texts=say(request).texts, usage=None))
    (recall,) = await recalled(fake, tmp_path, "implementation", {"summary": "high"})
    assert recall.dollars is not None
    assert recall.dollars > 0
    database = open_database(tmp_path / "memory.db")
    (line,) = Ledger(database).summary()
    assert (line.dollars, line.unpriced_calls, line.estimated_calls) == (recall.dollars, 0, 1)
    database.close()
