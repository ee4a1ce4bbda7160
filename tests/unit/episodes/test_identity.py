"""Callers without a session: whose step it is, how its episode is found again, and whose it never is."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentcascade import ScriptedModel, build
from agentcascade.cascade import Cascade
from agentcascade.episodes import drafting, identity, stateless
from agentcascade.errors import InvalidRequest, ProviderError, UnknownEpisode
from agentcascade.storage.recorder import DatabaseRecorder
from agentcascade.types import Draft, Situation

ASK = [{"role": "system", "content": "rules"}, {"role": "user", "content": "find the mug"}]


@pytest.fixture
def cascade(tmp_path: Path) -> Any:
    built = build(
        teacher=ScriptedModel(["look", "take the mug"]),
        mode="collect",
        bank={"url": f"sqlite:///{tmp_path}/a.db"},
        retrieval={"embedder": "hashing", "index": "exact"},
    )
    yield built
    built.close()


def test_an_episode_that_names_itself_is_taken_at_its_word_and_headers_win(cascade: Cascade) -> None:
    metadata = {"agentcascade_episode": "run-1", "agentcascade_goal": "mug"}
    assert identity.episode_of(cascade.engine, ASK, metadata=metadata).id == "run-1"
    headers = {"x-agentcascade-episode": "run-2", "x-agentcascade-goal": "caf%C3%A9"}
    episode = identity.episode_of(cascade.engine, ASK, metadata=metadata, headers=headers)
    assert (episode.id, episode.goal) == ("run-2", "café")


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\r\nSet-Cookie: x=1", "a\0b", "x" * 201, "-a", "ü", 7])
def test_an_id_that_could_be_mistaken_for_something_else_is_refused(cascade: Cascade, bad: Any) -> None:
    with pytest.raises(InvalidRequest, match="episode id"):
        identity.episode_of(cascade.engine, ASK, metadata={"agentcascade_episode": bad})


@pytest.mark.parametrize("given", [
    {"metadata": {"agentcascade_goal": "x" * 4001}},
    {"headers": {"x-agentcascade-goal": quote("長" * 4001)}},
    {"metadata": {"agentcascade_goal": 7}},
])  # fmt: skip
def test_a_goal_that_is_too_long_is_refused_and_never_cut(cascade: Cascade, given: Any) -> None:
    with pytest.raises(InvalidRequest, match="goal"):
        identity.episode_of(cascade.engine, ASK, **given)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(goal=st.text(min_size=1, max_size=300))
def test_a_goal_is_kept_as_it_is_and_only_headers_are_decoded(cascade: Cascade, goal: str) -> None:
    assert identity.episode_of(cascade.engine, ASK, metadata={"agentcascade_goal": goal}).goal == goal
    encoded = {"x-agentcascade-goal": quote(goal, safe="", errors="surrogatepass")}
    assert identity.episode_of(cascade.engine, ASK, headers=encoded).goal == goal


def test_a_header_that_is_not_encoded_is_taken_as_it_is(cascade: Cascade) -> None:
    assert identity.episode_of(cascade.engine, ASK, headers={"x-agentcascade-goal": "5%ad spend"}).goal == "5%ad spend"


@given(st.text(), st.text(), st.text())
def test_the_derived_id_depends_on_the_beginning_alone(first: str, later: str, other: str) -> None:
    begin = [{"role": "system", "content": "rules"}, {"role": "user", "content": first}]
    grown = [*begin, {"role": "assistant", "content": later}, {"role": "user", "content": other}]
    id = identity.derived(begin, "default", "c")
    assert identity.derived(grown, "default", "c") == id
    assert identity.checked_id(id) == id
    assert identity.derived(begin, "another", "c") != id
    assert identity.derived(begin, "default", "d") != id
    if other != first:
        assert identity.derived([begin[0], {"role": "user", "content": other}], "default", "c") != id


def test_our_keys_do_not_go_upstream() -> None:
    assert identity.provider_metadata({"agentcascade_episode": "a", "agentcascade_goal": "b", "mine": "c"}) == {
        "mine": "c"
    }
    assert identity.provider_metadata({"agentcascade_episode": "a"}) is None
    assert identity.provider_metadata(None) is None


async def play(cascade: Cascade, namespace: str = "default") -> str:
    """Two steps by requests that know nothing of each other."""
    messages = list(ASK)
    for observation in ("a table", "done"):
        episode = identity.episode_of(cascade.engine, messages, namespace=namespace)
        answer = await episode.complete(messages)
        said = answer.choices[0].message.content
        assert said is not None
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": observation}]
    return str(answer.agentcascade.episode)


async def test_the_steps_of_separate_requests_become_one_demonstration(cascade: Cascade) -> None:
    id = await play(cascade)
    found = await stateless.find_recorded(cascade.engine, "default", id)
    assert [(s.observation, s.action) for s in found.steps] == [("find the mug", "look"), ("a table", "take the mug")]
    assert await stateless.finish(cascade.engine, found, True)
    assert cascade.bank is not None
    situation = Situation(goal="find the mug", observation="a table", episode="another")
    (shown,) = (await cascade.bank.retrieve(situation, 3)).demonstrations
    assert [s.action for s in shown.steps] == ["look", "take the mug"]
    same_words = Situation(goal="find the mug", observation="a table", episode=id)
    assert (await cascade.bank.retrieve(same_words, 3)).demonstrations == [shown], "another run of the same task"


async def test_drafts_go_when_the_episode_is_closed_and_a_second_word_banks_nothing(cascade: Cascade) -> None:
    id = await play(cascade)
    assert await stateless.finish(cascade.engine, await stateless.find_recorded(cascade.engine, "default", id), True)
    again = await stateless.find_recorded(cascade.engine, "default", id)
    assert again.steps == ()
    assert again.taken == 2
    assert not await stateless.finish(cascade.engine, again, True)


async def test_a_failure_is_recorded_and_not_banked(cascade: Cascade) -> None:
    found = await stateless.find_recorded(cascade.engine, "default", await play(cascade))
    assert not await stateless.finish(cascade.engine, found, False)
    assert len(cascade.bank.retriever) == 0  # type: ignore[union-attr]


async def test_a_step_that_another_process_has_yet_to_write_is_waited_for(cascade: Cascade, tmp_path: Path) -> None:
    """Its decision was in one transaction, its draft comes in the next."""
    drafts: list[Draft] = []
    with patch.object(DatabaseRecorder, "record_draft", lambda self, draft: drafts.append(draft)):
        id = await play(cascade)
    database = cascade.context.database
    assert database is not None
    other = DatabaseRecorder(database, tmp_path / "other.jsonl")
    other.record_draft(drafts[0])
    other.flush()
    finding = asyncio.create_task(stateless.find_recorded(cascade.engine, "default", id))
    await asyncio.sleep(0.2)
    assert not finding.done()
    other.record_draft(drafts[1])
    assert [step.action for step in (await finding).steps] == ["look", "take the mug"]
    other.close()


async def test_a_step_before_others_that_another_process_has_yet_to_write_is_waited_for(
    cascade: Cascade, tmp_path: Path
) -> None:
    """Its database was busy for longer than its answer waited; the next step was another process'."""
    drafts: list[Draft] = []
    with patch.object(DatabaseRecorder, "record_draft", lambda self, draft: drafts.append(draft)):
        id = await play(cascade)
    assert cascade.context.database is not None
    other = DatabaseRecorder(cascade.context.database, tmp_path / "other.jsonl")
    other.record_draft(drafts[1])
    other.flush()
    finding = asyncio.create_task(stateless.find_recorded(cascade.engine, "default", id))
    await asyncio.sleep(0.2)
    assert not finding.done()
    other.record_draft(drafts[0])
    assert [step.action for step in (await finding).steps] == ["look", "take the mug"]
    other.close()


async def test_nothing_is_waited_for_behind_a_step_that_broke_or_an_episode_that_ended(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stateless, "PATIENCE", (60.0,))
    id = await play(cascade)
    messages = [*ASK, *({"role": role, "content": "x"} for _ in range(2) for role in ("assistant", "user"))]
    assert isinstance(cascade.context.teacher, ScriptedModel)
    down = patch.object(cascade.context.teacher, "complete", side_effect=ProviderError("down"))
    with down, pytest.raises(ProviderError):
        await identity.episode_of(cascade.engine, messages).complete(messages)
    async with asyncio.timeout(30):
        found = await stateless.find_recorded(cascade.engine, "default", id)
        assert (len(found.steps), found.taken) == (2, 3)
        assert await stateless.finish(cascade.engine, found, True)
        assert (await stateless.find_recorded(cascade.engine, "default", id)).steps == ()


async def test_an_episode_of_another_namespace_does_not_exist(
    cascade: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stateless, "PATIENCE", (0.01,))
    id = await play(cascade, namespace="a")
    await stateless.find_recorded(cascade.engine, "a", id)
    for namespace, episode in (("b", id), ("a", "ep_none")):
        with pytest.raises(UnknownEpisode):
            await stateless.find_recorded(cascade.engine, namespace, episode)


async def test_a_plan_made_at_the_first_request_is_followed_at_the_next(tmp_path: Path) -> None:
    teacher = ScriptedModel(["1. look 2. take", "look", "take the mug"])
    with build(
        teacher=teacher,
        mode="collect",
        collect={"plan": True},
        bank={"url": f"sqlite:///{tmp_path}/b.db"},
        retrieval={"embedder": "hashing", "index": "exact"},
    ) as cascade:
        messages = list(ASK)
        first = await identity.episode_of(cascade.engine, messages).complete(messages)
        messages += [{"role": "assistant", "content": "look"}, {"role": "user", "content": "a table"}]
        await identity.episode_of(cascade.engine, messages).complete(messages)
        assert "1. look 2. take" in teacher.requests[-1][1]["content"]
        found = await stateless.find_recorded(cascade.engine, "default", first.agentcascade.episode)
        assert found.plan == "1. look 2. take"


async def test_a_database_that_is_busy_keeps_no_answer_back(
    cascade: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "SECONDS", 0.2)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(4):  # its recorder waits for longer
        id = await play(cascade)
    other.execute("COMMIT")
    other.close()
    assert len((await stateless.find_recorded(cascade.engine, "default", id)).steps) == 2
