"""Active choice of demonstrations: by need, price and what is banked; it stops where nothing pays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade import conversation
from agentcascade.actions.base import RegexActions
from agentcascade.bank.active import ActiveChooser
from agentcascade.bank.bank import Bank
from agentcascade.bank.needs import Evidence, GoalVectors, fit_curve, nearest, read_evidence, support
from agentcascade.bank.realised import realised
from agentcascade.episodes.active_collect import single_step
from agentcascade.episodes.batch_collect import Task
from agentcascade.errors import UnknownPrice
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.types import Call, Decision, EpisodeEnd, Shadow, Step, Trajectory, Usage, now

COOL, HEAT, LAMP = "cool an apple in the fridge", "heat some bread", "look at a book under the lamp"
K = 3


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    embedder = HashEmbedder(128)
    with closing(open_database(f"sqlite:///{tmp_path}/a.db")) as database:
        yield Bank(database, embedder, ExactRetriever(3 * embedder.dimension))


def teach(bank: Bank, *goals: str, ago: float = 0.0) -> None:
    step = Step(observation="o", action="a")
    asyncio.run(
        bank.add_many(
            [
                Trajectory(goal=g, steps=(step, step), success=True, created_at=now() - timedelta(seconds=ago))
                for g in goals
            ]
        )
    )


def live(
    bank: Bank, goal: str, episode: str, *, deferred: int, accepted: int, price: str | None = "0.04", ago: float = 0.0
) -> None:
    """An episode of mode cascade: so many steps of each kind; a deferral costs 0.03 for the teacher."""
    records = []
    for step in range(deferred + accepted):
        teacher = step < deferred
        call = Call(role="teacher", model="t", usage=Usage(), dollars=Decimal("0.03") if price else None)
        decision = Decision(
            episode=episode, step=step, goal=goal, mode="cascade", answered_by="teacher" if teacher else "student",
            reason="", samples=3, action="mine", calls=(call,) if teacher else (), dollars=Decimal("0.001"),
            teacher_dollars=None if price is None else Decimal(price), created_at=now() - timedelta(seconds=ago),
        )  # fmt: skip
        records.append(decision)
    with bank.database.begin(write=True) as connection:
        write_records(connection, records)


def chooser(bank: Bank, *pool: str, horizon: int = 1000, live: bool = False) -> ActiveChooser:
    return ActiveChooser(
        GoalVectors(bank.embedder), read_evidence(bank, "default", K), pool, k=K, horizon=horizon, live=live
    )


def test_the_teacher_is_sent_where_it_saves_most_and_less_with_each_demonstration_there(bank: Bank) -> None:
    for n in range(6):
        live(bank, COOL, f"c{n}", deferred=4, accepted=0)
        live(bank, HEAT, f"h{n}", deferred=0, accepted=4)
    choices = chooser(bank, f"{HEAT} 1", f"{COOL} 1", f"{COOL} 2", f"{HEAT} 2", LAMP)
    order = []
    while (best := choices.best()) is not None:
        order.append(best)
        choices.take(best.number)
    assert {c.number for c in order[:2]} == {1, 2}
    first, second = order[:2]
    assert first.saving is not None
    assert second.saving is not None
    assert first.saving > second.saving > 0
    assert first.price == Decimal("0.16")  # four steps at 0.04
    assert first.need > 0.7
    assert order[-1].number == 4
    assert order[-1].saving is not None
    assert order[-1].saving < first.saving / 5


def test_nothing_pays_over_a_short_horizon_and_a_live_task_costs_only_what_the_cascade_would_not(bank: Bank) -> None:
    for n in range(6):
        live(bank, COOL, f"c{n}", deferred=2, accepted=2)
    short = chooser(bank, COOL, horizon=1).best()
    long = chooser(bank, COOL, horizon=1000).best()
    assert short is not None
    assert long is not None
    assert not short.pays
    assert long.pays
    assert long.saving is not None
    assert short.saving is not None
    assert float(long.saving) == pytest.approx(1000 * float(short.saving), rel=1e-3)
    alive = chooser(bank, COOL, live=True).best()
    assert alive is not None
    assert alive.price == Decimal("0.156")


def test_support_is_of_what_was_banked_before_the_episode(bank: Bank) -> None:
    live(bank, COOL, "before", deferred=1, accepted=0, ago=100)
    teach(bank, COOL, ago=50)
    live(bank, COOL, "after", deferred=0, accepted=1)
    evidence = read_evidence(bank, "default", 1)
    found = dict(zip(evidence.needs, evidence.supports))
    assert found[1.0] == 0.0
    assert found[0.0] == pytest.approx(1.0, abs=1e-6)
    assert read_evidence(bank, "another", 1).goals == []


def test_audited_errors_are_needs_and_the_teachers_failures_lower_what_is_expected(bank: Bank) -> None:
    for n in range(4):
        live(bank, COOL, f"c{n}", deferred=1, accepted=3)
    before = chooser(bank, COOL).best()
    evidence = read_evidence(bank, "default", K)
    with bank.database.begin(write=True) as connection:
        ids = [row[0] for row in connection.exec_driver_sql("select id from decisions where answered_by = 'student'")]
        write_records(
            connection,
            [
                Shadow(kind="audit", teacher_action="other", decision=id, episode="c", namespace="default", step=0)
                for id in ids
            ],
        )
    wrong = read_evidence(bank, "default", K)
    assert evidence.needs.tolist() == [0.25] * 4
    assert wrong.needs.tolist() == [1.0] * 4
    with bank.database.begin(write=True) as connection:
        ends = [
            EpisodeEnd(
                episode=f"e{n}",
                namespace="default",
                goal=COOL,
                mode="collect",
                success=False,
                steps=1,
                started_at=now(),
            )
            for n in range(9)
        ]
        write_records(connection, ends)
    after = ActiveChooser(GoalVectors(bank.embedder), evidence, [COOL], k=K, horizon=1000).best()
    failing = ActiveChooser(GoalVectors(bank.embedder), read_evidence(bank, "default", K), [COOL], k=K, horizon=1000)
    assert before is not None
    assert after is not None
    assert before.saving == after.saving
    assert failing.evidence.teacher_succeeds < 0.1 < evidence.teacher_succeeds


def test_a_cold_start_covers_the_pool_and_claims_no_saving(bank: Bank) -> None:
    teach(bank, LAMP)
    choices = chooser(bank, f"{COOL} 1", f"{COOL} 2", f"{COOL} 3", HEAT, LAMP)
    assert choices.cold
    first = choices.best()
    assert first is not None
    assert first.saving is None
    assert first.pays
    choices.take(first.number)
    second = choices.best()
    assert second is not None
    assert first.number in (0, 1, 2)
    assert "by diversity" in str(first)
    numbers = [first.number, second.number]
    while (best := choices.best()) is not None:
        numbers.append(best.number)
        choices.take(best.number)
    assert sorted(numbers[:1] + numbers[2:]) == [0, 1, 2, 3, 4]
    assert numbers.index(3) < numbers.index(4)  # what is banked already comes last of what is alike


def test_what_was_collected_is_told_beside_the_need_before_and_since(bank: Bank) -> None:
    live(bank, COOL, "before", deferred=3, accepted=1, ago=100)
    live(bank, HEAT, "other", deferred=1, accepted=1, ago=100)
    call = Call(role="teacher", model="t", usage=Usage(), dollars=Decimal("0.05"))
    step = Decision(
        episode="wanted", step=0, goal=COOL, mode="collect", answered_by="teacher", calls=(call,),
        reason="wanted: expected to save $1.5000 for $0.0500: 0.75 of steps there need the teacher",
        dollars=Decimal("0.05"), created_at=now() - timedelta(seconds=50),
    )  # fmt: skip
    with bank.database.begin(write=True) as connection:
        write_records(connection, [step])
    assert realised(bank, "nobody", K) == []
    (early,) = realised(bank, "default", K)
    assert (early.banked, early.expected, early.after.share, early.saved) == (0, Decimal(0), None, None)
    steps = (Step(observation="o", action="a"),)
    asyncio.run(bank.add(Trajectory(goal=COOL, steps=steps, success=True, metadata={"episode": "wanted"})))
    live(bank, COOL, "since", deferred=1, accepted=3)
    (found,) = realised(bank, "default", K)
    assert (found.collected, found.banked, found.paid, found.expected) == (1, 1, Decimal("0.05"), Decimal("1.5"))
    assert (found.before, found.after) == ((1, 0.75), (1, 0.25))
    assert found.saved == Decimal("0.06")  # half of four steps, at 0.03 a deferral


def test_a_goal_without_a_word_is_near_to_none_and_breaks_nothing(bank: Bank) -> None:
    live(bank, COOL, "c", deferred=2, accepted=0)
    live(bank, "", "without", deferred=2, accepted=0)
    choices = chooser(bank, " ", COOL)
    best = choices.best()
    assert best is not None
    assert best.number == 1
    choices.take(1)
    last = choices.best()
    assert last is not None
    assert last.saving == 0


def test_what_is_not_priced_is_not_weighed(bank: Bank) -> None:
    live(bank, COOL, "c", deferred=1, accepted=1, price=None)
    with pytest.raises(UnknownPrice, match=r"give the models prices \(teacher.price"):
        chooser(bank, COOL)


@given(st.lists(st.floats(0, 1), min_size=0, max_size=5), st.floats(-1, 1), st.integers(1, 4))
@settings(max_examples=30)
def test_what_a_task_adds_to_a_support_is_what_it_is_after_it_was_added(held: list[float], new: float, k: int) -> None:

    class Embedded:
        dimension, name = 2, "angles"

        def embed(self, texts: list[str]) -> np.ndarray:
            cosines = [float(text) for text in texts]
            return np.array([[c, (1 - c * c) ** 0.5] for c in cosines])

    evidence = Evidence(
        ["1"], np.ones(1), np.ones(1), np.zeros(1), [str(c) for c in held], Decimal(1), [Decimal(1)], [Decimal(0)]
    )
    choices = ActiveChooser(GoalVectors(Embedded()), evidence, [str(new)], k=k, horizon=10)  # type: ignore[arg-type]
    added = choices._added(choices._likeness)[0, 0]
    before = support(nearest(np.array([held]) if held else np.zeros((1, 0)), k))[0]
    after = support(nearest(np.array([[*held, new]]), k))[0]
    assert added == pytest.approx(after - before, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
@settings(max_examples=30)
def test_the_curve_is_finite_and_never_rises(seen: list[tuple[float, float]]) -> None:
    curve = fit_curve(np.array([s for s, _ in seen]), np.array([n for _, n in seen]))
    low, high = curve.at(np.array([0.0, 1.0]))
    assert 0 < high <= low < 1


def test_a_tasks_goal_is_the_text_of_its_first_user_message_in_parts_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "Which mug"}, image, {"type": "text", "text": " is blue?"}]
    task = Task("t", [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}])
    with_parts = single_step(task, judged=False).goal
    assert with_parts == conversation.read(task.messages, RegexActions()).goal
    assert "base64" not in with_parts
    assert "{" not in with_parts
