"""The proxy as its clients see it: answers, streams, feedback, keys, roll-out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select

from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database, tables
from agentcascade.storage.switch import Switch
from tests.proxy import UPSTREAM_KEY, Proxy, serving, settings

Serve = Callable[..., tuple[Proxy, FakeOpenAI]]


def by_model(student: Reply | None = None, teacher: Reply | None = None) -> Callable[[Request], Reply]:
    student, teacher = student or Reply(texts=("student says",)), teacher or Reply(texts=("teacher says so",))
    return lambda request: student if request.body["model"] == "student" else teacher


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(script: Any = None, **more: Any) -> tuple[Proxy, FakeOpenAI]:
            fake = stack.enter_context(FakeOpenAI(script or by_model()))
            proxy = stack.enter_context(serving(CascadeConfig(**settings(fake, tmp_path, **more))))
            return proxy, fake

        yield start


def events(proxy: Proxy, **body: Any) -> list[Any]:
    asked = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": True} | body
    with proxy.http.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def words(found: list[Any]) -> str:
    return "".join(c["delta"].get("content") or "" for e in found if e != "[DONE]" for c in e.get("choices", ()))


def test_an_answer_says_who_answered_and_what_it_cost(serve: Serve) -> None:
    proxy, _ = serve()
    response = proxy.chat()
    said = response.json()
    assert said["choices"][0]["message"]["content"] == "student says"
    assert said["agentcascade"]["answered_by"] == "student"
    assert float(said["agentcascade"]["saved_dollars"]) > -1
    assert said["agentcascade"]["overhead_ms"] > 0
    assert response.headers["x-agentcascade-answered-by"] == "student"
    assert response.headers["x-request-id"]


def test_an_accepted_answer_is_streamed_with_usage_last(serve: Serve) -> None:
    proxy, _ = serve()
    found = events(proxy)
    assert words(found) == "student says"
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["prompt_tokens"] == 10
    assert found[-2]["agentcascade"]["answered_by"] == "student"


def test_a_deferral_is_streamed_live_and_shows_no_sample(serve: Serve) -> None:
    proxy, _ = serve(
        by_model(Reply(texts=("secret a", "secret b", "c")), Reply(texts=("one two three",), chunk_delay=0.4))
    )
    asked = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    times = []
    with proxy.http.stream("POST", "/v1/chat/completions", json=asked) as response:
        found = []
        for line in response.iter_lines():
            if line:
                times.append(time.monotonic())
                found.append(line)
    assert times[-1] - times[0] > 0.2, "the first words came before the last were made"
    assert "secret" not in "".join(line for line in found if "choices" in line and '"agentcascade"' not in line)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_what_is_under_way_upstream(serve: Serve, stream: bool) -> None:
    reply = Reply(texts=("word " * 200,), chunk_delay=0.1) if stream else Reply(texts=("late",), delay=2.5)
    proxy, fake = serve(by_model(teacher=reply), mode="teacher")
    body = json.dumps({"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(head + body)
        while not fake.requests:
            time.sleep(0.01)
        if stream:
            client.recv(300)
    if stream:
        assert fake.disconnected.wait(60)
    failures = until(lambda: recorded(proxy)[0]["failures"] if recorded(proxy) else None)
    assert any("Cancelled" in f for f in failures)


def recorded(proxy: Proxy) -> list[Any]:
    database = open_database(proxy.config.bank.url)
    try:
        with database.begin() as connection:
            return list(connection.execute(select(tables.decisions).order_by(tables.decisions.c.created_at)).mappings())
    finally:
        database.close()


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
    return found


def test_collect_feedback_cascade(serve: Serve) -> None:
    modes = {"collecting": {"mode": "collect"}, "normal": {"mode": "cascade", "prompt": {"min_demonstrations": 1}}}
    proxy, fake = serve(cascades=modes)
    assert proxy.chat("find the mug", model="normal").json()["agentcascade"]["answered_by"] == "teacher"
    episode = proxy.chat("find the mug", model="collecting").json()["agentcascade"]["episode"]
    assert proxy.feedback(episode).json() == {"episode": episode, "banked": True}
    said = until(
        lambda: (s := proxy.chat("find the mug", model="normal").json()["agentcascade"])["demonstrations"] and s
    )
    assert said["answered_by"] == "student"
    prompt = next(json.dumps(r.body) for r in reversed(fake.requests) if r.body["model"] == "student")
    assert "teacher says so" in prompt
    assert [m["id"] for m in proxy.http.get("/v1/models").json()["data"]] == ["collecting", "normal"]


def test_a_judge_decides_where_nobody_says(serve: Serve, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return Reply(texts=("yes",) if "Did the agent" in json.dumps(request.body) else ("look",))

    with FakeOpenAI(answer) as fake:
        base = settings(fake, tmp_path)
        with serving(CascadeConfig(**base | {"mode": "collect", "judge": {"model": base["teacher"]}})) as proxy:
            episode = proxy.chat().json()["agentcascade"]["episode"]
            assert proxy.feedback(episode, success=None).json()["banked"]
    plain, _ = serve(mode="collect")
    episode = plain.chat("another").json()["agentcascade"]["episode"]
    assert plain.feedback(episode, success=None).json()["error"]["param"] == "success"


def test_shadow_answers_as_the_teacher_and_logs_the_student(serve: Serve) -> None:
    proxy, _ = serve(mode="shadow")
    said = proxy.chat().json()
    assert said["choices"][0]["message"]["content"] == "teacher says so"
    database = open_database(proxy.config.bank.url)

    def logged() -> list[Any]:
        with database.begin() as connection:
            return list(connection.execute(select(tables.shadows)).mappings())

    (row,) = until(logged)
    assert row["decision"] == said["agentcascade"]["id"]
    assert [s["text"] for s in row["samples"]] == ["student says"] * 3
    database.close()


def test_the_kill_switch_needs_no_restart(serve: Serve) -> None:
    proxy, _ = serve()
    database = open_database(proxy.config.bank.url)
    switch = Switch(database)
    assert proxy.chat().json()["agentcascade"]["mode"] == "cascade"
    switch.set(True)
    until(lambda: proxy.chat().json()["agentcascade"]["mode"] == "teacher")
    switch.set(False)
    until(lambda: proxy.chat().json()["agentcascade"]["mode"] == "cascade")
    switch.close()
    database.close()


def test_a_share_of_the_episodes_is_in_the_cascade(serve: Serve) -> None:
    proxy, _ = serve(rollout={"share": 0.5})
    modes = [proxy.chat(f"goal {i}").json()["agentcascade"]["mode"] for i in range(40)]
    assert 8 < modes.count("cascade") < 32
    assert modes[:5] == [proxy.chat(f"goal {i}").json()["agentcascade"]["mode"] for i in range(5)]


def test_what_only_the_server_may_set_does_not_go_upstream(serve: Serve) -> None:
    proxy, fake = serve(mode="teacher")
    evil: Any = {"api_base": "http://evil", "api_key": "mine", "base_url": "http://evil", "extra_headers": {"x": "y"}}
    evil |= {"mock_response": "hacked", "custom_llm_provider": "x", "num_retries": 9, "model_list": [], "timeout": 999}
    assert proxy.chat(**evil, top_p=0.5).json()["choices"][0]["message"]["content"] == "teacher says so"
    (request,) = fake.requests
    assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert not evil.keys() & request.body.keys()
    assert request.body["top_p"] == 0.5


def test_keys_budgets_and_rates(serve: Serve) -> None:
    proxy, _ = serve(mode="teacher")
    assert proxy.chat().status_code == 200, "open as long as there is no key"
    good = proxy.key("good")
    for key, status in ((good, 200), ("", 401), ("nonsense", 401), (good[:-1] + "x", 401)):
        assert proxy.chat(key=key).status_code == status
    refused = proxy.chat()
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert refused.headers["www-authenticate"] == "Bearer"
    poor = proxy.key("poor", budget=Decimal("0.0005"))
    over = proxy.chat(key=poor, max_tokens=400).json()["error"]
    assert (over["type"], over["code"], over["param"]) == ("insufficient_quota", "budget_exceeded", "key")
    assert proxy.chat(key=poor, max_tokens=10).status_code == 200
    slow = proxy.key("slow", requests_per_minute=1)
    statuses = [proxy.chat(key=slow) for _ in range(3)]
    assert statuses[-1].status_code == 429
    assert 0 < int(statuses[-1].headers["retry-after"]) <= 60


def test_a_full_house_says_come_back(serve: Serve) -> None:
    proxy, fake = serve(by_model(teacher=Reply(delay=1.5)), mode="teacher", server={"max_requests": 1})
    first = threading.Thread(target=proxy.chat)
    first.start()
    while not fake.requests:
        time.sleep(0.01)
    busy = proxy.chat()
    first.join()
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
    assert busy.json()["error"]["code"] == "overloaded"
    assert proxy.chat().status_code == 200


def test_nothing_secret_is_kept_or_told(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proxy, _ = serve(by_model(teacher=Reply(status=500)), mode="teacher")
    key = proxy.key("k")
    told = proxy.chat("my key is sk-clients-own-0123456789", key=key)
    assert told.status_code == 502
    proxy.http.get("/metrics", headers={"authorization": f"Bearer {key}"})
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()).decode(errors="replace")
    for secret in (UPSTREAM_KEY, key.split("-", 2)[2], "sk-clients-own-0123456789"):
        assert secret not in kept
        assert secret not in told.text + caplog.text
    assert "Traceback" not in told.text


def test_metrics_count_what_happened(serve: Serve) -> None:
    proxy, _ = serve()
    proxy.chat()
    proxy.chat(model="nope")
    text = proxy.http.get("/metrics").text
    assert 'agentcascade_steps_total{agentcascade_answered_by="student"' in text
    assert 'http_response_status_code="404"' in text
    assert "gen_ai_client_token_usage" in text
    key = proxy.key("plain")
    assert proxy.http.get("/metrics", headers={"authorization": f"Bearer {key}"}).status_code == 401
    admin = proxy.key("boss", admin=True)
    assert proxy.http.get("/metrics", headers={"authorization": f"Bearer {admin}"}).status_code == 200


def test_a_stopping_server_waits_for_its_audits(tmp_path: Path) -> None:
    """As for its shadows: the teacher's answer to the step that the student took is in the log."""
    script = by_model(teacher=Reply(texts=("teacher says so",), delay=1.0))
    with FakeOpenAI(script) as fake:
        config = CascadeConfig(**settings(fake, tmp_path, audit={"rate": 1.0}))
        with serving(config) as proxy:
            assert proxy.chat().json()["agentcascade"]["answered_by"] == "student"
        database = open_database(config.bank.url)
        with database.begin() as connection:
            (row,) = connection.execute(select(tables.shadows)).mappings()
        database.close()
    assert (row["kind"], row["failures"]) == ("audit", [])
    assert row["teacher_action"]
