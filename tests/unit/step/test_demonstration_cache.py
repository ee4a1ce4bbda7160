"""Demonstrations that stay: what the cache would save, what staleness would cost, and when they must go."""

from __future__ import annotations

import pytest

from agentcascade import CascadeConfig, ScriptedModel
from agentcascade.actions.base import TextActions
from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.cascade import Cascade
from agentcascade.models.pricing import Price
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.routers.step.consistency import Unanimity
from agentcascade.step.context import StepContext
from agentcascade.storage import open_database
from agentcascade.types import Situation, Step, Trajectory

ROOMS = ("kitchen sink", "garden shed", "attic trunk", "cellar shelf", "garage bench", "hall mirror")
CACHING = Price(input="1", cached_input="0.1", output="4")


@pytest.fixture
async def bank(tmp_path):
    """One trajectory per room, so that every room calls for another."""
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    made = Bank(database, HashEmbedder(64), ExactRetriever(192))
    await made.add_many(
        [
            Trajectory(
                id=f"t{i}",
                goal="find the cup",
                steps=tuple(
                    Step(observation=f"{room} {j}", reasoning="word " * 60, action=f"{room} {j}") for j in "ab"
                ),
                success=True,
            )
            for i, room in enumerate(ROOMS)
        ]
    )
    yield made
    database.close()


def make(bank, sticky="auto", price=CACHING, teacher_price=CACHING, **retrieval):
    return Cascade(
        StepContext(
            config=CascadeConfig(
                retrieval={"k": 2, "sticky": sticky, **retrieval},
                sampling={"cached_from_tokens": 50, "staged": "never"},
            ),
            router=Unanimity(3),
            count=lambda text: len(text.split()),
            teacher=ScriptedModel(["go"], price=teacher_price),
            student=ScriptedModel(["look"], price=price),
            bank=bank,
            actions=TextActions(),
        )
    )


async def walk(cascade, rooms=ROOMS, episode="ep_1", start="find the cup " * 30):
    """Visit rooms; returns what was shown at each step."""
    messages, shown = [{"role": "user", "content": start}], []
    for room in rooms:
        situation = Situation(goal="find the cup", observation=room, episode=episode)
        answer, decision = await cascade.step(messages, situation=situation)
        shown.append(tuple(sorted(decision.demonstrations)))
        messages = [*messages, answer.messages[0], {"role": "user", "content": f"you see: {room}"}]
    return shown


async def test_never_follows_every_room_and_always_none(bank):
    assert len(set(await walk(make(bank, "never")))) >= 4
    cascade = make(bank, "always")
    shown = await walk(cascade)
    assert len(set(shown)) == 1
    first, *others = cascade.context.student.requests
    for request in others:
        assert request[0] == first[0], "the prefix stays the same, so that the provider's cache hits"


async def test_auto_keeps_where_the_cache_saves_more_than_a_worse_match_loses(bank):
    assert len(set(await walk(make(bank, sticky_sensitivity=0.0)))) == 1
    dear = Price(input="100", output="400")
    assert await walk(make(bank, sticky_sensitivity=1e6, teacher_price=dear)) == await walk(make(bank, "never"))


@pytest.mark.parametrize(
    "prices",
    [
        {"price": Price(input="1", output="4")},
        {"price": Price(input="1", cached_input="0.1", cache_write="1.25", output="4")},
        {"price": None},
        {"teacher_price": None},
    ],
    ids=["no cache", "a cache that must be asked for", "student's price unknown", "teacher's price unknown"],
)
async def test_auto_is_fresh_where_nothing_is_known_to_be_saved(bank, prices):
    assert await walk(make(bank, sticky_sensitivity=0.001, **prices)) == await walk(make(bank, "never"))


async def test_a_dear_teacher_makes_a_worse_match_dearer(bank):
    cheap = await walk(make(bank, teacher_price=Price(input="0.01", output="0.04")))
    dear = await walk(make(bank, teacher_price=Price(input="1000", output="4000")))
    assert len(set(cheap)) < len(set(dear))


async def test_episodes_are_remembered_one_by_one_and_a_lost_one_starts_fresh(bank):
    cascade = make(bank, "always")
    first = await walk(cascade, ROOMS[:2], "ep_1")
    second = await walk(cascade, ROOMS[3:5], "ep_2")
    assert await walk(cascade, ROOMS[2:3], "ep_1") == first[:1]
    assert second[0] != first[0]
    assert await walk(make(bank, "always"), ROOMS[2:3], "ep_1") != first[:1], "another process"


async def test_a_twin_with_another_teacher_remembers_too(bank):
    cascade = make(bank, "always")
    first = await walk(cascade, ROOMS[:1])
    twin = cascade.twin(teacher=ScriptedModel(["go"]))
    assert await walk(twin, ROOMS[3:4]) == first


async def test_what_was_removed_is_shown_no_more(bank):
    cascade = make(bank, "always")
    (shown,) = await walk(cascade, ROOMS[:1])
    gone = shown[0].rpartition(":")[0]
    Catalog(bank.database).remove(gone)
    await bank.refresh()
    (after,) = await walk(cascade, ROOMS[3:4])
    assert gone not in {w.rpartition(":")[0] for w in after}


async def test_kept_windows_are_scored_as_retrieval_would_score_them(bank):
    for room in ROOMS:
        situation = Situation(goal="find the cup", observation=f"{room} a")
        found = (await bank.retrieve(situation, 6)).demonstrations
        assert bank.scores(situation, found) == pytest.approx([d.score for d in found], abs=1e-6)
    Catalog(bank.database).remove(found[0].trajectory)
    assert bank.scores(situation, found)[0] is None
