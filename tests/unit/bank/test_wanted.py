"""Where demonstrations are wanted: by what deferrals cost beside what the teacher costs, of one namespace's records."""

from __future__ import annotations

import asyncio
from contextlib import closing
from decimal import Decimal

from click.testing import CliRunner

from agentcascade.bank.bank import Bank
from agentcascade.bank.wanted import wanted
from agentcascade.cli import main
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, Shadow, Step, Trajectory, Usage

COOL, HEAT, LAMP = "cool an apple in the fridge", "heat some bread", "look at a book under the lamp"


def decided(goal, episode, answered_by, dollars, *, alone="0.04", namespace="default", audit=None):
    call = Call(role="teacher", model="t", usage=Usage(), dollars=None if dollars is None else Decimal(dollars))
    decision = Decision(
        episode=episode, namespace=namespace, step=0, goal=goal, mode="cascade", answered_by=answered_by, reason="",
        samples=3, action="mine", calls=(call,) if answered_by == "teacher" else (), teacher_dollars=Decimal(alone),
    )  # fmt: skip
    common = {"decision": decision.id, "episode": episode, "namespace": namespace, "step": 0}
    return [decision, *([Shadow(kind="audit", teacher_action=audit, **common)] if audit else [])]


def test_clusters_come_where_the_teacher_pays_soonest_and_namespaces_do_not_mix(tmp_path):
    url = f"sqlite:///{tmp_path}/cascade.db"
    records = [
        *decided(COOL, "a", "teacher", "0.03"),
        *decided(COOL, "a", "student", None, audit="mine"),
        *decided(f"{COOL} 2", "b", "teacher", "0.05"),
        *decided(HEAT, "c", "teacher", "0.01"),
        *decided(HEAT, "c", "student", None, audit="other"),
        *decided(LAMP, "d", "teacher", None),
        *decided("of somebody else", "e", "teacher", "9", namespace="others"),
    ]
    with closing(open_database(url)) as database:
        embedder = HashEmbedder()
        bank = Bank(database, embedder, ExactRetriever(3 * embedder.dimension))
        steps = (Step(observation="o", action="a"),)
        asyncio.run(bank.add_many([Trajectory(goal=goal, steps=steps, success=True) for goal in (HEAT, "juggle")]))
        with database.begin(write=True) as connection:
            write_records(connection, records)
        cool, heat, lamp = wanted(bank, "default", 0.75)
        assert wanted(bank, "nobody", 0.75) == []
    assert (cool.goals, cool.episodes, cool.steps, cool.deferred, cool.banked) == (2, 2, 3, 2, 0)
    assert (cool.saves, cool.price, cool.pays_after) == (Decimal("0.04"), Decimal("0.06"), 1.5)
    assert (heat.saves, heat.price, heat.pays_after, heat.banked) == (Decimal("0.01"), Decimal("0.08"), 8.0, 1)
    assert ((cool.audited, cool.wrong), (heat.audited, heat.wrong)) == ((1, 0), (1, 1))
    assert (lamp.saves, lamp.pays_after) == (None, None)  # a price that is not known is not zero
    environment = {"AGENTCASCADE_RETRIEVAL__EMBEDDER": "hashing"}
    result = CliRunner().invoke(main, ["bank", "wanted", "--url", url], env=environment, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1.5 episodes" in result.output
    assert "3 of 3 clusters of default" in " ".join(result.output.split())
