"""The outlook of a real cascade over a real bank: what collecting measured forecasts what the cascade is billed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import agentcascade
from agentcascade import ScriptedModel
from agentcascade.economics.outlook import recorded_outlook
from agentcascade.models.pricing import Price
from agentcascade.types import Message, Mode

STEPS, TEACHER, STUDENT = 5, Price(input=3, output=15), Price(input="0.4", output="1.6")
ACTION = "Thought: The mug may be behind the next door.\nAction: open door"


def build(url: str, mode: Mode, k: int = 2) -> agentcascade.Cascade:
    return agentcascade.build(
        teacher=ScriptedModel([ACTION], name="t", price=TEACHER),
        student=ScriptedModel([ACTION], name="s", price=STUDENT),
        mode=mode,
        actions={"format": "react"},
        bank={"url": url},
        retrieval={"k": k, "embedder": "hashing:64", "index": "exact", "window_before": 1, "window_after": 0},
        prompt={"place": "first"},
    )


def play(cascade: agentcascade.Cascade, episodes: range) -> None:
    async def run() -> None:
        async with cascade:
            for number in episodes:
                episode = cascade.episode(goal=f"find mug {number}")
                messages: list[Message] = [{"role": "system", "content": "Act in the house. " * 20}]
                messages.append({"role": "user", "content": f"House {number}: a hall with a door. Find the mug."})
                for step in range(STEPS):
                    answer = await episode.complete(messages)
                    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
                    messages.append({"role": "user", "content": f"Behind it is hall {number}{step} with a door."})
                await episode.finish(success=True)

    asyncio.run(run())


def test_collected_episodes_forecast_what_the_cascade_is_billed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bank.db"
    play(build(url, "collect"), range(4))
    with build(url, "cascade") as cascade:
        early = recorded_outlook(cascade.context)
    assert early is not None
    assert early.costs is not None
    assert early.measured.acceptance is None
    assert [source.what for source in early.sources if not source.measured] == ["student's answers of 21"]
    play(build(url, "cascade"), range(4, 9))
    with build(url, "cascade") as cascade:
        later = recorded_outlook(cascade.context)
    assert later is not None
    assert later.measured.acceptance == 1.0
    assert later.costs is not None
    assert later.measured.dollars is not None
    assert later.measured.teacher_alone is not None
    billed = float(later.measured.dollars)
    assert float(early.costs.most.accepted) == pytest.approx(billed, rel=0.1)
    assert float(later.costs.most.accepted) == pytest.approx(billed, rel=0.05)
    assert float(early.costs.most.teacher) == pytest.approx(float(later.measured.teacher_alone), rel=0.1)
    assert later.measured.episode_steps == STEPS
    assert "measured: 1.00 of its steps were accepted, which saves" in later.lines()[1]
