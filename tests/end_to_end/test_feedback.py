"""Feedback while somebody else holds the database: it has a deadline, is done once, and nothing else waits for it."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.fake_openai import FakeOpenAI, Reply

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import func, select

from agentcascade.config.load import CascadeConfig
from agentcascade.episodes import stateless
from agentcascade.storage import open_database, tables
from tests.proxy import serving, settings


def banked(url: str) -> int:
    database = open_database(url)
    try:
        with database.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.trajectories)).scalar_one())
    finally:
        database.close()


def test_a_locked_database_keeps_feedback_waiting_and_nothing_else(tmp_path: Path) -> None:
    """SQLite is locked for writing: 40 feedbacks are told to come back, steps and probes go on; later all is banked."""
    episodes = 40
    with FakeOpenAI(lambda _: Reply()) as fake:
        config = settings(fake, tmp_path, mode="collect", server={"feedback_seconds": 1})
        with serving(CascadeConfig(**config)) as proxy, ThreadPoolExecutor(2 * episodes) as pool:
            asked = [proxy.chat(f"goal {i}", metadata={"agentcascade_episode": f"ep-{i}"}) for i in range(episodes)]
            assert all(a.status_code == 200 for a in asked)
            time_limit = time.monotonic() + 60
            while drafted(config["bank"]["url"]) < episodes:
                assert time.monotonic() < time_limit
                time.sleep(0.05)
            holder = sqlite3.connect(tmp_path / "cascade.db", isolation_level=None, check_same_thread=False)
            holder.execute("BEGIN IMMEDIATE")
            released = threading.Timer(12, holder.rollback)  # whatever else happens
            released.start()
            try:
                told = list(pool.map(lambda i: proxy.feedback(f"ep-{i}"), range(episodes)))
                assert {t.status_code for t in told} == {503}
                assert {t.json()["error"]["code"] for t in told} == {"feedback_pending"}
                assert all(t.headers["retry-after"] for t in told)
                again = [pool.submit(proxy.feedback, f"ep-{i}") for i in range(episodes)]
                assert proxy.http.get("/readyz").status_code == 200, "a database that can be read is ready"
                assert proxy.chat("another").status_code == 200
                assert {a.result().status_code for a in again} == {503}
            finally:
                released.cancel()
                holder.rollback()
                holder.close()
            deadline = time.monotonic() + 120
            while banked(config["bank"]["url"]) < episodes:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    assert banked(config["bank"]["url"]) == episodes, "each once, however often it was sent"


def test_feedbacks_that_wait_for_unknown_episodes_keep_no_other_waiting(tmp_path: Path) -> None:
    with FakeOpenAI(lambda _: Reply()) as fake:
        config = settings(fake, tmp_path, mode="collect", server={"feedback_seconds": 6})
        with serving(CascadeConfig(**config)) as proxy, ThreadPoolExecutor(40) as pool:
            proxy.chat("goal", metadata={"agentcascade_episode": "ep-known"})
            with patch.object(stateless, "PATIENCE", (2.0,)):  # in turn, eight at a time, they would wait for ten
                unknown = [pool.submit(proxy.feedback, f"ep-{i}") for i in range(40)]
                time.sleep(1)
                known = proxy.feedback("ep-known")
                assert (known.status_code, known.json()["banked"]) == (200, True)
                assert {u.result().json()["error"]["code"] for u in unknown} == {"episode_not_found"}


def test_more_feedbacks_on_unknown_episodes_than_may_wait_keep_no_other_out(tmp_path: Path) -> None:
    with FakeOpenAI(lambda _: Reply()) as fake:
        config = settings(fake, tmp_path, mode="collect")
        with serving(CascadeConfig(**config)) as proxy, ThreadPoolExecutor(20) as pool:
            proxy.chat("goal", metadata={"agentcascade_episode": "ep-known"})
            with (
                patch.object(stateless, "PATIENCE", (3.0,)),
                patch.multiple("agentcascade.server.feedback", WAITING=4, UNKNOWN=8),
            ):
                unknown = [pool.submit(proxy.feedback, f"ep-{i}") for i in range(20)]
                time.sleep(1)
                known = proxy.feedback("ep-known")
                assert (known.status_code, known.json().get("banked")) == (200, True)
                codes = [u.result().json()["error"]["code"] for u in unknown]
                assert set(codes) == {"episode_not_found", "overloaded"}
                assert codes.count("episode_not_found") == 8


def test_feedbacks_that_wait_for_their_judge_keep_no_other_waiting(tmp_path: Path) -> None:
    judged = [f"ep-{i}" for i in range(12)]  # more than the database is asked for at once
    with FakeOpenAI(lambda asked: Reply(texts=("yes",), delay=4.0 * (asked.body["model"] == "judge"))) as fake:
        config = settings(fake, tmp_path, mode="collect", server={"feedback_seconds": 3})
        config["judge"] = {"model": config["teacher"] | {"name": "openai/judge"}}
        with serving(CascadeConfig(**config)) as proxy, ThreadPoolExecutor(len(judged)) as pool:
            for episode in (*judged, "ep-known"):
                proxy.chat(f"goal of {episode}", metadata={"agentcascade_episode": episode})
            waiting = [pool.submit(proxy.feedback, episode, None) for episode in judged]
            deadline = time.monotonic() + 30
            while fake.waiting < len(judged):
                assert time.monotonic() < deadline, "a judge is asked for each"
                time.sleep(0.01)
            assert proxy.feedback("ep-known").json().get("banked") is True
            assert {w.result().json()["error"]["code"] for w in waiting} == {"feedback_pending"}
            assert {proxy.feedback(episode, None).status_code for episode in judged} == {200}
    assert banked(config["bank"]["url"]) == len(judged) + 1
    assert sum(r.body["model"] == "judge" for r in fake.requests) == len(judged), "each is asked once"


def drafted(url: str) -> int:
    database = open_database(url)
    try:
        with database.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(tables.drafts)).scalar_one())
    finally:
        database.close()
