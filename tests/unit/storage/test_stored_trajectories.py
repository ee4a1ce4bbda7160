"""Stored trajectories: what is read is what was banked, in every view of it."""

from __future__ import annotations

import asyncio

from agentcascade.bank.bank import Bank
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database, trajectories
from agentcascade.types import Step, Trajectory


def test_steps_read_are_those_that_were_checked() -> None:
    steps = tuple(Step(observation=f"a door {i}", reasoning="" if i else "on", action="open") for i in range(3))
    items = [Trajectory(goal=f"leave {i}", steps=steps[i:], success=True) for i in range(2)]
    database = open_database("sqlite:///:memory:")
    try:
        asyncio.run(Bank(database, HashEmbedder(8), ExactRetriever(24)).add_many(items))
        with database.begin() as connection:
            read = list(trajectories.read_trajectories(connection, range(9)).values())
    finally:
        database.close()
    assert read == items
    assert [step.model_dump_json() for t in read for step in t.steps] == [
        step.model_dump_json() for t in items for step in t.steps
    ]
    for step in (step for t in read for step in t.steps):
        assert step.model_fields_set == {"observation", "reasoning", "action"}
        assert step.model_copy() == step
    assert [len({id(step.model_fields_set) for step in t.steps}) for t in read] == [1, 1], "one more object a step"
