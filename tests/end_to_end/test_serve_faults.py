"""What goes wrong: bad input gets the right status in OpenAI's shape; faults behind the proxy still get an answer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from sqlalchemy import select, text

from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database, tables
from tests.proxy import Proxy, serving, settings

ASK = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One server for requests that never reach a model."""
    folder = tmp_path_factory.mktemp("bad")
    limits = {"max_body_bytes": 5000, "header_seconds": 0.6, "body_seconds": 0.6}
    with (
        FakeOpenAI() as fake,
        serving(CascadeConfig(**settings(fake, folder, mode="teacher", server=limits))) as running,
    ):
        yield running


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error, which must be in OpenAI's shape and tell nothing of our insides."""
    found = response.json()
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    assert "site-packages" not in response.text
    return dict(found["error"])


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
        (b"[1]", 400, "invalid_json", None),
        (b'{"model": NaN}', 400, "invalid_json", None),
        (b"\xff\xfe", 400, "invalid_json", None),
        (b"[" * 2000, 400, "invalid_json", None),
        (json.dumps({**ASK, "model": "gpt-nope"}).encode(), 404, "model_not_found", "model"),
        (json.dumps({**ASK, "model": 7}).encode(), 400, None, "model"),
        (json.dumps({"model": "default"}).encode(), 400, None, "messages"),
        (json.dumps({**ASK, "messages": []}).encode(), 400, None, "messages"),
        (json.dumps({**ASK, "messages": ["hi"]}).encode(), 400, None, "messages.0"),
        (json.dumps({**ASK, "messages": [{"role": "king", "content": "hi"}]}).encode(), 400, None, "messages.0.role"),
        (json.dumps({**ASK, "messages": [{"role": "system", "content": "x"}]}).encode(), 400, None, None),
        (json.dumps({**ASK, "n": "two"}).encode(), 400, None, "n"),
        (json.dumps({**ASK, "n": 0}).encode(), 400, None, "n"),
        (json.dumps({**ASK, "temperature": 9}).encode(), 400, None, "temperature"),
        (json.dumps({**ASK, "stream": "yes"}).encode(), 400, None, "stream"),
        (
            json.dumps({**ASK, "tools": [{"type": "function", "function": {}}]}).encode(),
            400,
            None,
            "tools.0.function.name",
        ),
        (json.dumps({**ASK, "metadata": {"agentcascade_episode": "a b"}}).encode(), 400, None, None),
        (json.dumps({**ASK, "x": "y" * 6000}).encode(), 413, "body_too_large", None),
    ],
)
def test_bad_bodies(proxy: Proxy, body: bytes, status: int, code: str | None, param: str | None) -> None:
    response = proxy.http.post("/v1/chat/completions", content=body)
    assert response.status_code == status, response.text
    error = error_of(response)
    assert error["code"] == code
    assert (error["param"] or "").startswith(param or "")


def test_a_body_that_is_too_long_is_refused_also_when_it_does_not_say_so(proxy: Proxy) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 1000

    response = proxy.http.post("/v1/chat/completions", content=parts())
    assert response.status_code == 413
    assert proxy.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("id", ["a%0d%0aSet-Cookie:x", "a b", "../../etc/passwd%00", "x" * 300, "%2e%2e"])
def test_ids_that_could_be_mistaken_for_something_else(proxy: Proxy, id: str) -> None:
    response = proxy.http.post(f"/v1/episodes/{id}/feedback", json={"success": True})
    assert response.status_code in (400, 404)
    assert "set-cookie" not in response.headers


def test_a_header_with_an_episode_is_checked_too(proxy: Proxy) -> None:
    for bad in ("a b", "x" * 300, "<script>"):
        response = proxy.chat(headers={"x-agentcascade-episode": bad})
        assert response.status_code == 400
        assert "episode id" in error_of(response)["message"]
    assert proxy.chat(headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert proxy.chat(headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"success": "yes"}', b'{"success": true, "more": 1}', b"[]"])
def test_bad_feedback(proxy: Proxy, body: bytes) -> None:
    response = proxy.http.post("/v1/episodes/none/feedback", content=body)
    assert response.status_code in (400, 404)
    error_of(response)


def test_unknown_paths_and_methods_are_answered_in_the_same_shape(proxy: Proxy) -> None:
    assert error_of(proxy.http.get("/v1/nothing"))["type"] == "invalid_request_error"
    assert proxy.http.get("/v1/chat/completions").status_code == 405
    error_of(proxy.http.get("/v1/chat/completions"))


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        b"",
    ],
)
def test_slow_clients_are_cut_off(proxy: Proxy, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(sent)
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def test_upstreams_rate_limit_is_passed_on_with_its_wait(tmp_path: Path) -> None:
    script = [Reply(status=429, headers={"retry-after": "17"})]
    with FakeOpenAI(script) as fake, serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as running:
        response = running.chat()
    assert (response.status_code, response.headers["retry-after"]) == (429, "17")
    assert error_of(response)["code"] == "upstream_rate_limit"


@pytest.mark.parametrize(("status", "told"), [(400, 400), (401, 502), (403, 502), (404, 502), (500, 502), (503, 502)])
def test_what_upstream_says_becomes_the_right_status(tmp_path: Path, status: int, told: int) -> None:
    with FakeOpenAI([Reply(status=status)]) as fake, serving(
        CascadeConfig(**settings(fake, tmp_path, mode="teacher"))
    ) as running:  # fmt: skip
        for stream in (False, True):
            response = running.chat(stream=stream)
            assert response.status_code == told
            error_of(response)


def test_a_stream_that_breaks_off_ends_in_an_error_and_without_done(tmp_path: Path) -> None:
    script = [Reply(texts=("one two three four",), truncate_after=3)]
    with FakeOpenAI(script) as fake, serving(CascadeConfig(**settings(fake, tmp_path, mode="teacher"))) as running:
        response = running.chat(stream=True)
    lines = [line for line in response.text.splitlines() if line]
    assert "one" in lines[0]
    assert "error" in json.loads(lines[-1].removeprefix("data: "))
    assert "[DONE]" not in response.text


GOOD = Reply(texts=("teacher says so",))
FAULTS: dict[str, dict[str, Any]] = {
    "teacher 429": {"teacher": Reply(status=429), "student": Reply(texts=("a", "b", "c"))},
    "teacher 500": {"teacher": Reply(status=500), "student": Reply(texts=("a", "b", "c"))},
    "teacher too slow": {"teacher": Reply(delay=90), "student": Reply(texts=("a", "b", "c"))},
    "teacher hangs up": {
        "teacher": Reply(texts=("one two three",), truncate_after=2),
        "stream": True,
        "mode": "teacher",
    },
    "student 429": {"student": Reply(status=429)},
    "student 500": {"student": Reply(status=500)},
    "student too slow": {"student": Reply(delay=90)},
    "student says nothing": {"student": Reply(texts=("",))},
    "student's garbage": {"student": Reply(body={"nonsense": True})},
    "embedding fails": {"embedding": True},
    "database gone": {"database": True},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_table(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but a failing teacher gets an answer; all of it is recorded. Run with `-s` to see the table."""
    given = FAULTS[fault]
    teacher, student = given.get("teacher", GOOD), given.get("student", Reply(texts=("student says",)))

    def answer(request: Request) -> Reply:
        reply: Reply = student if request.body["model"] == "student" else teacher
        return reply

    with ExitStack() as stack:
        fake = stack.enter_context(FakeOpenAI(answer))
        limits: dict[str, Any] = {"deadline_seconds": 3 if fault == "teacher too slow" else 60}
        if fault == "student too slow":
            limits["sampling"] = {"timeout_seconds": 0.5}
        config = settings(fake, tmp_path, mode=given.get("mode", "cascade"), **limits)
        running = stack.enter_context(serving(CascadeConfig(**config)))
        if given.get("embedding"):
            from agentcascade.retrievers.hashing import HashEmbedder

            def broken(*_: object) -> Any:
                raise RuntimeError("embedder down")

            monkeypatch.setattr(HashEmbedder, "embed", broken)
        if given.get("database"):
            _break_database(running)
        response = running.chat(stream=given.get("stream", False))
        saw = _saw(response)
        if given.get("database"):
            _mend_database(running)
    wrote = _recorded(tmp_path)
    print(f"\n| {fault} | {saw} | {'; '.join(wrote['failures']) or wrote['reason']} |")
    ok = not fault.startswith("teacher")
    assert saw.startswith("200") == (ok or fault == "teacher hangs up")
    if ok:
        assert wrote["answered_by"] == ("student" if fault == "database gone" else "teacher")
    else:
        assert any(f.startswith("step:") for f in wrote["failures"])


def _saw(response: httpx.Response) -> str:
    if response.headers["content-type"].startswith("text/event-stream"):
        return "200, then an error event in the stream"
    if response.status_code == 200:
        return f"200, the {response.json()['agentcascade']['answered_by']}'s answer"
    return f"{response.status_code} {error_of(response)['code']}"


def _recorded(folder: Path) -> dict[str, Any]:
    """The one decision, from the database or, where that was gone, from what was taken in again."""
    database = open_database(f"sqlite:///{folder}/cascade.db")
    from agentcascade.ledger.ledger import DatabaseRecorder

    DatabaseRecorder(database).close()
    with database.begin() as connection:
        (row,) = connection.execute(select(tables.decisions)).mappings()
    database.close()
    return dict(row)


def _break_database(running: Proxy) -> None:
    """Every statement fails from now on, as when the disk is full or the server gone."""
    database = open_database(running.config.bank.url)
    with database.begin(write=True) as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO decisions_gone"))
    database.close()


def _mend_database(running: Proxy) -> None:
    time.sleep(0.2)
    database = open_database(running.config.bank.url)
    with database.begin(write=True) as connection:
        connection.execute(text("ALTER TABLE decisions_gone RENAME TO decisions"))
    database.close()
