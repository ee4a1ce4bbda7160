"""A better bank: detours are cut where the world confirms it, near-duplicates go, and teachers are told apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import closing
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcascade import registry
from agentcascade.bank.bank import Bank
from agentcascade.bank.catalog import Catalog
from agentcascade.bank.coverage import cover
from agentcascade.bank.detours import replay, without_detours
from agentcascade.bank.teachers import teacher_utilities
from agentcascade.cli import main
from agentcascade.retrievers.hashing import HashEmbedder
from agentcascade.retrievers.numpy_index import ExactRetriever
from agentcascade.storage import bank_metadata, open_database
from agentcascade.storage.record_rows import write_records
from agentcascade.storage.tables import trajectories as table
from agentcascade.storage.tables import uses
from agentcascade.types import Decision, LoggedSample, Shadow, Situation, Step, Trajectory

EXITS = {"hall": ("cellar", "attic", "study"), "cellar": ("hall",), "attic": ("hall",), "study": ("hall",)}
NOTHING = "Nothing happens."


class House:
    """Find the key, which is in a room that the task names, and open the chest in another one."""

    def reset(self, task: str) -> str:
        self.room, self.held, self.open = "hall", False, False
        self.key_in, self.chest_in = task.split()
        return f"You are in the hall. Open the chest in the {self.chest_in}."

    def step(self, action: str) -> tuple[str, bool]:
        verb, _, what = action.partition(" ")
        if verb == "enter" and what in EXITS[self.room]:
            self.room = what
        elif action == "take key 7" and self.room == self.key_in and not self.held:
            self.held = True
            return "You have key 7.", False
        elif action == "open chest with key 7" and self.room == self.chest_in and self.held:
            self.open = True
            return "The chest is open.", True
        else:
            return NOTHING, False
        there = " Here is key 7." if self.room == self.key_in and not self.held else ""
        return f"You are in the {self.room}.{there}", False

    @property
    def success(self) -> bool:
        return self.open

    def close(self) -> None:
        pass


SHORTEST = ("enter attic", "take key 7", "enter hall", "enter study", "open chest with key 7")
TASK = "attic study"


def played(actions: Sequence[str] = SHORTEST, task: str = TASK, **values: Any) -> Trajectory:
    seen = replay(House(), task, actions, str).observations
    steps = tuple(Step(observation=o, reasoning=f"because {a}", action=a) for o, a in zip(seen, actions))
    return Trajectory(**{"goal": "open the chest", "steps": steps, "success": True} | values)


def actions_of(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.action for step in steps)


@pytest.mark.parametrize(
    "detour",
    [
        (3, "enter cellar", "enter hall"),
        (1, "dance"),
        (0, "sing"),
        (4, "enter hall", "enter study"),
        (3, "enter attic", "enter hall"),
    ],
)
def test_loops_and_failed_actions_are_cut(detour):
    at, *more = detour
    improvement = without_detours(played((*SHORTEST[:at], *more, *SHORTEST[at:])), House(), TASK, marks=[NOTHING])
    assert (improvement.outcome, actions_of(improvement.steps)) == ("cut", SHORTEST)
    assert improvement.steps == played().steps


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_what_is_left_wins_and_knows_nothing_that_it_has_not_seen(seed):
    rng, house = random.Random(seed), House()
    actions: list[str] = []
    house.reset(TASK)
    for wanted in SHORTEST:  # wanders, comes back, goes on
        for _ in range(rng.randrange(3) if actions else 0):
            room = house.room
            there = rng.choice([*EXITS[room], "moon"])
            actions.append(f"enter {there}")
            house.step(actions[-1])
            if house.room != room:
                back = [room] if room in EXITS[house.room] else []
                actions += [f"enter {r}" for r in back]
                for r in back:
                    house.step(f"enter {r}")
        actions.append(wanted)
        house.step(wanted)
    improvement = without_detours(played(actions), House(), TASK, marks=[NOTHING])
    left = actions_of(improvement.steps)
    assert replay(House(), TASK, left, str) == ([s.observation for s in improvement.steps], True)
    assert [actions[i] for i in improvement.kept] == list(left)
    assert left == SHORTEST, (actions, improvement)


class Note(House):
    """The cellar holds a note with the number of the safe, which opens whether one has read it or not."""

    def step(self, action):
        if action == "dial 4711":
            self.open = True
            return "The safe is open.", True
        observation, done = super().step(action)
        return f"{observation} A note says 4711." if self.room == "cellar" else observation, done


def test_what_a_loop_found_out_stays_if_a_later_action_needs_it():
    actions = ("enter study", "enter hall", "enter cellar", "enter hall", "dial 4711")
    seen = replay(Note(), TASK, actions, str).observations
    trajectory = Trajectory(
        goal="open the safe", steps=tuple(Step(observation=o, action=a) for o, a in zip(seen, actions)), success=True
    )
    assert replay(Note(), TASK, ["dial 4711"], str).won
    assert actions_of(without_detours(trajectory, Note(), TASK).steps) == actions
    read_at_once = ("enter cellar", "enter hall", "enter study", "enter hall", "dial 4711")
    seen = replay(Note(), TASK, read_at_once, str).observations
    trajectory = trajectory.model_copy(
        update={"steps": tuple(Step(observation=o, action=a) for o, a in zip(seen, read_at_once))}
    )
    assert actions_of(without_detours(trajectory, Note(), TASK).steps) == ("enter cellar", "enter hall", "dial 4711")


@pytest.mark.parametrize(
    ("actions", "task", "outcome"),
    [
        (SHORTEST, "cellar study", "does not replay alike"),
        (SHORTEST[:-1], TASK, "was not won"),
        (SHORTEST, TASK, "nothing to cut"),
        (("dance",) * 401, TASK, "too long"),
    ],
)
def test_what_the_world_does_not_confirm_stays_as_it_is(actions, task, outcome):
    trajectory = played(actions)
    improvement = without_detours(trajectory, House(), task, marks=[NOTHING])
    assert (improvement.outcome, improvement.steps) == (outcome, trajectory.steps)


@given(
    st.lists(st.lists(st.sampled_from(range(6)), min_size=1, max_size=3), min_size=1, max_size=6), st.integers(0, 99)
)
@settings(max_examples=30, deadline=None)
def test_greedy_coverage_is_within_its_bound_of_the_best(groups, seed):
    points = np.abs(np.random.default_rng(seed).normal(size=(6, 4)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    keys = [points[group] for group in groups]
    order, coverage = cover(keys)
    whole = np.concatenate(keys)

    def value(chosen):
        return float(np.maximum((whole @ np.concatenate([keys[i] for i in chosen]).T).max(axis=1), 0).mean())

    assert sorted(order) == list(range(len(keys)))
    for n, kept in enumerate(coverage, 1):
        assert kept == pytest.approx(value(order[:n]), abs=1e-5)
        assert kept >= (1 - 1 / np.e) * max(map(value, combinations(range(len(keys)), n))) - 1e-5
    assert coverage[-1] == pytest.approx(1.0, abs=1e-5)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/cascade.db"


ENVIRONMENT = {"AGENTCASCADE_RETRIEVAL__EMBEDDER": "hashing"}


def fill(url, *items):
    with closing(open_database(url)) as database:
        embedder = HashEmbedder()
        bank = Bank(database, embedder, ExactRetriever(3 * embedder.dimension))
        assert all(asyncio.run(bank.add_many(items)))


def run(url, *arguments):
    result = CliRunner().invoke(main, ["bank", *arguments, "--url", url], env=ENVIRONMENT, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


class Houses:
    """A suite of two houses that begin alike."""

    dropped = (NOTHING,)

    class defaults:
        splits = ("train",)

    def check(self):
        pass

    def environment(self, *, expert):
        assert not expert
        return House()

    def tasks(self, split, count, seed, *, workers, on_progress):
        class Task:
            def __init__(self, path):
                self.path = path

        return [Task("cellar study"), Task("attic study")], "generated"


def test_improve_replaces_what_the_world_confirms_and_goes_back(url, monkeypatch):
    construct = registry.construct
    monkeypatch.setattr(
        registry, "construct", lambda kind, *a, **k: Houses() if kind == "suites" else construct(kind, *a, **k)
    )
    long = played(
        (*SHORTEST[:3], "enter cellar", "enter hall", "dance", *SHORTEST[3:]), id="long", metadata={"episode": "e"}
    )
    fill(
        url,
        long,
        played(id="short", goal="another"),
        Trajectory(goal="g", steps=(Step(observation="?", action="x"),), success=True),
    )
    with closing(open_database(url)) as database, database.begin(write=True) as connection:
        pk = connection.execute(table.select().where(table.c.id == "long")).one().pk
        connection.execute(uses.insert(), [{"trajectory": pk, "episodes": 5, "successes": 4}])
        bank_metadata.write_shortened(connection, pk, {3: "cut away", 6: "to the study"}, "m")
    said = run(url, "improve", "--dry-run")
    assert "1 cut" in said
    assert "Could leave 11 of 14 steps" in said
    assert run(url, "improve") == said.replace("Could leave", "Left")
    with closing(open_database(url)) as database:
        [better] = [t for t in Catalog(database).all() if t.metadata.get("original")]
        assert (actions_of(better.steps), better.metadata["episode"]) == (SHORTEST, "e")
        with database.begin() as connection:
            pk = connection.execute(table.select().where(table.c.id == better.id)).one().pk
            assert bank_metadata.read_uses(connection, [pk]) == {pk: (5, 4)}
            assert bank_metadata.read_shortened(connection, [pk]) == {pk: {3: "to the study"}}
        bank = Bank(database, embedder := HashEmbedder(), ExactRetriever(3 * embedder.dimension))
        found = asyncio.run(bank.retrieve(Situation(goal="open the chest", observation="You are in the study."), 1))
        assert found.demonstrations[0].trajectory == better.id
    assert "0 cut" not in run(url, "improve")  # nothing is left to cut
    assert run(url, "improve", "--undo").startswith("1 trajectories are as they were banked")
    with closing(open_database(url)) as database:
        assert Catalog(database).get("long").steps == long.steps


def test_prune_for_coverage_keeps_what_nothing_else_is_near_to(url):
    def one(name, words, **values):
        return Trajectory(
            id=name, goal=words, steps=(Step(observation=words, action=f"do {name}"),), success=True, **values
        )

    twins = [one(f"twin{i}", "put a clean mug on the desk") for i in range(4)]
    fill(url, *twins, one("rare", "examine alarmclock under lamp"), one("other", "elsewhere", namespace="others"))
    said = run(url, "prune", "--cover", "2", "--dry-run", "--namespace", "default")
    assert "2 1.000 ← kept" in said
    assert "removed" not in said
    assert "removed 3 trajectories of default: 1.000" in run(
        url, "prune", "--cover", "0.99", "--yes", "--namespace", "default"
    )
    with closing(open_database(url)) as database:
        assert {t.goal for t in Catalog(database).all()} == {
            twins[0].goal,
            "examine alarmclock under lamp",
            "elsewhere",
        }
    refused = CliRunner().invoke(main, ["bank", "prune", "--cover", "1", "--keep", "1", "--url", url], env=ENVIRONMENT)
    assert "leave --keep" in refused.output


def test_each_teacher_is_told_what_its_demonstrations_brought(url):
    steps = (Step(observation="o", action="a"),)
    fill(
        url, *(Trajectory(id=name, goal=name, steps=steps, success=True, model=name[0]) for name in ("a1", "a2", "b1"))
    )

    def decided(i, answered_by, *windows, namespace="default"):
        common = {"episode": f"e{i}", "namespace": namespace, "step": 0}
        decision = Decision(
            id=f"de{i}", mode="cascade", answered_by=answered_by, reason="", samples=3, demonstrations=windows, **common
        )
        samples = (LoggedSample(action="x"), LoggedSample(action="y"), LoggedSample(action="x"))
        shadow = Shadow(
            decision=decision.id,
            teacher_action="x" if i % 2 else "y",
            samples=samples,
            demonstrations=windows,
            **common,
        )
        return decision, shadow

    records = [
        *decided(1, "student", "a1:0-1", "b1:0-1"),
        *decided(2, "teacher", "b1:0-1"),
        *decided(3, "student", "a1:0-1", "a2:0-1"),
        *decided(4, "student", "gone:0-1"),
        *decided(5, "student", "b1:0-1", namespace="others"),
    ]
    with closing(open_database(url)) as database:
        with database.begin(write=True) as connection:
            write_records(connection, records)
        a, b = teacher_utilities(database, "default")
    assert (a.model, a.trajectories, a.shown, a.accepted, a.compared, a.right) == ("a", 2, 1.5, 1.5, 1.5, 1.5)
    assert (b.model, b.trajectories, b.shown, b.accepted, b.compared, b.right) == ("b", 1, 1.5, 0.5, 1.5, 0.5)
    assert "default a 2 1.5 1.00 [" in run(url, "teachers")


def test_a_suite_without_a_world_is_refused_by_name(url):
    fill(url, played())
    refused = CliRunner().invoke(main, ["bank", "improve", "--suite", "locomo", "--url", url], env=ENVIRONMENT)
    assert (refused.exit_code, "locomo has no world that could replay" in refused.output) == (2, True)
