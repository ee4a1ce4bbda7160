"""What real models wrote: 200 recorded tool-calling conversations of gpt-4o (tau-bench, airline).

The data is not part of the repository: AGENTCASCADE_BENCH_DATA names its folder (default: shared/data beside the
checkout); without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import agentcascade
from agentcascade import conversation
from agentcascade.actions.base import AutoActions, ToolCallActions
from agentcascade.types import Message, Trajectory

FOLDER = Path(os.environ.get("AGENTCASCADE_BENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")
FILE = FOLDER / "tau_bench" / "gpt-4o-airline.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"the recorded conversations are not at {FILE}")


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


def answers(messages: list[Message]) -> list[int]:
    return [i for i, m in enumerate(messages) if m["role"] == "assistant"]


def test_every_recorded_prefix_reads_as_a_situation(runs: list[dict[str, Any]]) -> None:
    formats = AutoActions()
    for run in runs:
        messages = run["traj"]
        for step, i in enumerate(answers(messages)):
            conversation.check(messages[:i])
            situation = conversation.read(messages[:i], formats)
            assert situation.step == step
            assert situation.goal == messages[1]["content"]
            assert situation.observation == messages[i - 1]["content"]  # a tool may answer with nothing


def test_keys_ignore_call_ids_spacing_and_the_order_of_arguments(runs: list[dict[str, Any]]) -> None:
    formats, calls = ToolCallActions(), 0
    for message in (m for run in runs for m in run["traj"] if m["role"] == "assistant" and m.get("tool_calls")):
        twin = json.loads(json.dumps(message))
        for call in twin["tool_calls"]:
            call["id"] = "another"
            arguments = json.loads(call["function"]["arguments"])
            call["function"]["arguments"] = json.dumps(dict(reversed(arguments.items())), indent=3)
        assert formats.parse(twin).key == formats.parse(message).key
        calls += len(message["tool_calls"])
    assert calls > 1000


async def test_solved_runs_teach_a_student_who_repeats_them(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    """Solved trials are banked; the student says what another trial's model said; a split vote goes to the teacher."""
    formats = AutoActions()
    solved = [run for run in runs if run["reward"] == 1.0]
    banked = []
    for run in (r for r in solved if r["trial"] == 0):
        situation = conversation.read(run["traj"], formats)
        banked.append(Trajectory(goal=situation.goal, steps=situation.history, success=True, model="gpt-4o"))
    replayed = next(r for r in solved if r["trial"] == 1)["traj"]
    said = {len(replayed[:i]): replayed[i] for i in answers(replayed)}
    student = agentcascade.ScriptedModel(lambda messages, i: said[len(messages)])
    split = agentcascade.ScriptedModel(lambda messages, i: f"I say {i}")
    async with agentcascade.build(
        teacher=agentcascade.ScriptedModel(lambda messages, i: said[len(messages)]),
        student=student,
        bank={"url": f"sqlite:///{tmp_path}/bank.db"},
        retrieval={"k": 3},
    ) as cascade:
        assert cascade.bank is not None
        assert all(await cascade.bank.add_many(banked))
        episode = cascade.episode(goal=replayed[1]["content"])
        for i in answers(replayed):
            answer = (await episode.complete(replayed[:i])).choices[0].message
            assert (answer.content or "") == (replayed[i].get("content") or "")
            assert [c.function.arguments for c in answer.tool_calls or () if c.type == "function"] == [
                c["function"]["arguments"] for c in replayed[i].get("tool_calls") or ()
            ]
        assert all(d.answered_by == "student" and d.agreement == 1 for d in episode.decisions)
        assert all(len(d.demonstrations) == 3 for d in episode.decisions)
        cascade = cascade.twin(student=split)
        doubted = cascade.episode()
        await doubted.complete(replayed[: answers(replayed)[0]])
        assert doubted.decisions[0].answered_by == "teacher"
