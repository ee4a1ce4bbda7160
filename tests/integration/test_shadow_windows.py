"""Shadows at several windows of demonstrations: shown, recorded, exported, and written into a rule."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import agentcascade
from agentcascade import ScriptedModel
from agentcascade.config.keywords import ShadowKeywords
from agentcascade.steplog.database import export, import_steps
from agentcascade.storage import open_database
from agentcascade.types import Mode

STEPS = 6


def test_each_shadow_is_shown_and_logs_the_window_that_it_was_drawn_with(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bank.db"

    async def play(mode: Mode, episodes: range, shadow: ShadowKeywords) -> None:
        async with agentcascade.build(
            teacher=ScriptedModel([f"open door {i}" for i in range(STEPS)] * 9, name="t"),
            student=ScriptedModel(["open door 1"], name="s"),
            mode=mode,
            bank={"url": url},
            retrieval={"k": 1, "embedder": "hashing:64", "index": "exact"},
            shadow=shadow,
        ) as cascade:
            for number in episodes:
                episode = cascade.episode(goal=f"enter house {number}", id=f"{mode}-{number}")
                messages: list[dict[str, Any]] = [{"role": "user", "content": f"House {number} has a door."}]
                for step in range(STEPS):
                    answer = await episode.complete(messages)
                    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
                    messages.append({"role": "user", "content": f"Behind it is door {step + 1}."})
                await episode.finish(success=True)

    asyncio.run(play("collect", range(2), {}))
    asyncio.run(play("shadow", range(2, 5), {"windows": [(0, 0), (3, 1)]}))
    database = open_database(url)
    logged = list(export(database))
    assert len(logged) == 3 * STEPS
    sizes: dict[str, set[int]] = {}
    for step in logged:
        (shown,) = step.student.demonstrations
        start, end = map(int, shown.rpartition(":")[2].split("-"))
        sizes.setdefault(step.student.window or "", set()).add(end - start)
    assert set(sizes) == {"0/0", "3/1"}
    assert sizes["0/0"] == {1}
    assert max(sizes["3/1"]) > 1
    database.close()
    other = open_database(f"sqlite:///{tmp_path}/other.db")
    assert import_steps(other, logged) == len(logged)
    assert {step.student.window for step in export(other)} == {"0/0", "3/1"}
    other.close()
