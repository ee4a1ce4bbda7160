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
from tests.prompt_caches import CachedModel, Clock

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


def make(bank, sticky="auto", price=CACHING, teacher_price=CACHING, place="first", student="student", **retrieval):
    clock = Clock()
    return Cascade(
        StepContext(
            config=CascadeConfig(
                retrieval={"k": 2, "sticky": sticky, **retrieval},
                sampling={"cached_from_tokens": 50, "staged": "never"},
                prompt={"place": place} if place != "caching off" else {},
                caching=place != "caching off",
            ),
            clock=clock,
            router=Unanimity(3),
            count=lambda text: len(text.split()),
            teacher=ScriptedModel(["go"], price=teacher_price),
            student=ScriptedModel(["look"], price=price, name=student),
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


def place_of(request):
    """Index of the message that the demonstrations stand in."""
    return next(i for i, message in enumerate(request) if "# Examples" in str(message["content"]))


@pytest.mark.parametrize(
    ("place", "price", "behind"),
    [
        ("auto", CACHING, True),
        ("last", CACHING, True),
        ("first", CACHING, False),
        ("caching off", CACHING, False),
        ("auto", Price(input="1", output="4"), False),
        ("auto", None, False),
        ("last", None, True),
    ],
    ids=["auto", "last", "first", "caching off", "nothing is cached", "price unknown", "last whatever it costs"],
)
async def test_fresh_demonstrations_stand_behind_the_history_where_that_leaves_it_in_the_cache(
    bank, place, price, behind
):
    cascade = make(bank, "never", price=price, place=place)
    await walk(cascade)
    requests = cascade.context.student.requests
    assert place_of(requests[0]) == 0
    for request in requests[2:]:  # at the second step retrieval finds the same ones, which are cached where they were
        assert place_of(request) == (len(request) - 1 if behind else 0)


async def test_places_are_chosen_by_what_the_provider_bills(bank):
    """The dollars of the student's episode, by a provider that keeps a cache, are the least where they are planned."""

    async def dollars(place, sticky="never", steps=6, long=400):
        cascade = make(bank, sticky, place=place, sticky_sensitivity=0.0)
        student = CachedModel(lambda _: "look", CACHING, cascade.context.clock, name="student")
        student.terms = student.terms._replace(minimum=50)
        cascade = cascade.twin(student=student)
        await walk(cascade, (ROOMS * 3)[:steps], start="find the cup " * long)
        return float(sum(map(student.dollars, student.usages)))

    first, last, auto, kept = [
        await dollars(p, s) for p, s in (("first", "never"), ("last", "never"), ("auto", "never"), ("auto", "auto"))
    ]
    assert auto <= last
    assert last < first
    assert kept < last, "at no loss of agreement, what is kept is read from the cache with all the rest"


async def test_what_has_expired_is_not_counted_as_cached(bank):
    cascade = make(bank, "auto", sticky_sensitivity=0.02)
    clock = cascade.context.clock
    messages, shown = [{"role": "user", "content": "find the cup " * 300}], []
    for i, room in enumerate(ROOMS):
        clock.now += 10_000 if i == 3 else 1
        answer, decision = await cascade.step(
            messages, situation=Situation(goal="find the cup", observation=room, episode="ep_1")
        )
        shown.append(tuple(sorted(decision.demonstrations)))
        messages = [*messages, answer.messages[0], {"role": "user", "content": f"you see: {room}"}]
    assert shown[0] == shown[1] == shown[2] != shown[3] == shown[4], shown


@pytest.mark.parametrize(("student", "at"), [("mistral/large", 0), ("openai/gpt-4.1-mini", 4)])
async def test_a_provider_that_takes_no_user_behind_a_tool_is_sent_none(bank, student, at):
    cascade = make(bank, "never", place="last", student=student)
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "find the cup " * 30},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a shelf"},
        {"role": "tool", "tool_call_id": "c1", "content": "a sink"},
    ]
    await cascade.step(messages, situation=Situation(goal="find the cup", observation=ROOMS[0], episode="e"))
    assert place_of(cascade.context.student.requests[0]) == at
