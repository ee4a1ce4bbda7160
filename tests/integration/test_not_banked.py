"""A finished episode that is not banked says why: to the caller of `finish`, in the log and over HTTP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from agentcascade import ScriptedModel, build, wrap
from agentcascade.cli.ledger import command as ledger
from agentcascade.episodes.banking import why_not_banked
from tests.fake_openai import FakeOpenAI, Reply

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]


@pytest.mark.parametrize(
    ("mode", "success", "said"),
    [
        ("collect", True, ""),
        ("collect", False, "did not reach its goal"),
        ("cascade", True, "only episodes of mode 'collect' are banked, this one is of mode 'cascade'"),
        ("teacher", True, "only episodes of mode 'collect' are banked, this one is of mode 'teacher'"),
    ],
)
async def test_an_episode_says_why_it_was_not_banked(
    mode: Any, success: bool, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, student = ScriptedModel(["look"] * 2, name="dear"), ScriptedModel(["look"] * 6, name="cheap")
    parts: Any = {"retrieval": {"embedder": "hashing"}, "bank": {"url": f"sqlite:///{tmp_path}/c.db"}}
    parts |= {"mode": mode, "prompt": {"min_demonstrations": 0}}
    with caplog.at_level(logging.INFO, "agentcascade.episodes"):
        async with build(None, teacher=teacher, student=student, **parts) as cascade:
            episode = cascade.episode(goal="find the mug")
            await episode.complete(ASK)
            assert await episode.finish(success) is (not said)
            assert said in episode.not_banked
            again = cascade.episode(goal="find the mug")
            await again.complete(ASK)
            if mode == "collect" and success:
                assert await again.finish(True) is False
                assert "the bank holds one with the same goal" in again.not_banked
    assert (said in caplog.text) or not success


def test_a_wrapped_client_says_why(tmp_path: Path) -> None:
    with FakeOpenAI([Reply(texts=("look",), ignore_n=True)]) as fake:
        client = openai.OpenAI(base_url=fake.url, api_key="k", max_retries=0)
        parts: Any = {"retrieval": {"k": 0}, "bank": {"url": f"sqlite:///{tmp_path}/c.db"}}
        ours: Any = wrap(client, student="client/s", prompt={"min_demonstrations": 0}, **parts)
        with ours.agentcascade:
            with ours.agentcascade.episode(goal="find the mug") as running:
                ours.chat.completions.create(model="m", messages=ASK)
            assert ours.agentcascade.finish(running, success=True) is False
            assert "of mode 'cascade'" in running.not_banked
    said = CliRunner().invoke(ledger, ["--url", f"sqlite:///{tmp_path}/c.db"]).output
    assert "what the teacher alone would have cost is not known for 1 step" in " ".join(said.split())
    assert "left out of alone" not in said


def test_a_step_without_an_action_is_no_demonstration() -> None:
    assert "actions.format" in why_not_banked(banked=False, success=True, mode="collect", steps=0)
    assert why_not_banked(banked=True, success=True, mode="collect", steps=1) == ""
