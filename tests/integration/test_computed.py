"""What memories computed is kept over restarts, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from agentcascade.assembly.memory import make_memory
from agentcascade.assembly.resources import Resources
from agentcascade.config.load import CascadeConfig
from agentcascade.models.scripted import ScriptedModel
from agentcascade.routers.tier.baselines import FixedTiers
from agentcascade.storage import open_database
from agentcascade.storage.computed_cache import ComputedCache
from agentcascade.storage.retention import RetentionPolicy, prune
from agentcascade.types import Turn, now
from tests.memory_parts import Slow, history


def test_values_are_kept_by_kind_and_key_and_the_first_stays(url: str) -> None:
    database = open_database(url)
    kept = ComputedCache(database)
    kept.put("vector:a", {"k1": b"\x00\xff", "k2": b""})
    kept.put("vector:a", {"k1": b"other"})
    kept.put("vector:b", {"k1": b"b"})
    assert ComputedCache(database).get("vector:a", ["k1", "k2", "k3"]) == {"k1": b"\x00\xff", "k2": b""}
    assert kept.get("vector:b", ["k1"]) == {"k1": b"b"}
    many = {f"key-{i}": b"x" for i in range(2500)}
    kept.put("many", many)
    assert kept.get("many", many) == many
    prune(database, RetentionPolicy(recalls=90), at=now() + timedelta(days=91))
    assert kept.get("many", many) == {}
    database.close()


def test_a_database_that_fails_only_forgets(tmp_path: Path) -> None:
    database = open_database(tmp_path / "memory.db")
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE computed")
    kept = ComputedCache(database)
    kept.put("a", {"k": b"v"})
    assert kept.get("a", ["k"]) == {}
    database.close()


async def test_a_restart_embeds_nothing_again_and_asks_no_model_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, recalls, embedders = "What is the dog of Ann called?", [], []
    config = CascadeConfig.model_validate(
        {
            "bank": {"url": url},
            "memory": {
                "tiers": {"summary": {"low": "llm:large"}},
                "models": {"large": {"name": "openai/none"}},
            },
        }
    )
    model = ScriptedModel(["- Ann's dog is called Rex [1]"])
    for _ in range(2):
        embedder = Slow()
        embedders.append(embedder)
        monkeypatch.setattr("agentcascade.assembly.components.make_embedder", lambda name, e=embedder: e)
        monkeypatch.setattr("agentcascade.assembly.components.make_model", lambda config, count: model)
        shared = Resources()
        memory = make_memory(config, shared, router=FixedTiers("low"))
        await memory.append("ann", history(extra=50))
        recalls.append(await memory.recall(question, "ann"))
        memory.close()
        shared.close()
    first, second = recalls
    assert embedders[0].texts > 50
    assert embedders[1].texts == 1  # the question
    assert first.text == second.text == "- Ann's dog is called Rex"
    assert (len(first.calls), len(second.calls)) == (1, 0)
    assert second.runs[-1].cached
    assert len(model.requests) == 1


async def test_a_removed_history_is_gone_for_those_who_followed_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentcascade.assembly.components.make_embedder", lambda name: Slow())
    config = CascadeConfig.model_validate({"bank": {"url": url}})
    here, there = Resources(), Resources()
    one, other = (make_memory(config, shared, router=FixedTiers("low")) for shared in (here, there))
    await one.append("ann", history())
    assert "Rex" in (await other.recall("What is the dog of Ann called?", "ann")).text
    assert await one.remove("ann")
    assert not await one.remove("ann")
    assert (await other.recall("What is the dog of Ann called?", "ann")).text == ""
    await one.append("ann", [Turn(id="t9", text="The dog of Ann is called Max", speaker="Bob")])
    for memory in (one, other):
        recall = await memory.recall("What is the dog of Ann called?", "ann")
        assert "Max" in recall.text
        assert "Rex" not in recall.text
    for closing in (one, other, here, there):
        closing.close()
