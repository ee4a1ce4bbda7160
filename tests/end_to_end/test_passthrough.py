"""Pass-through: clients name the model and bring its key. The key reaches the provider's base URL, and nothing else."""

from __future__ import annotations

import io
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.ledger.ledger import Ledger
from agentcascade.server.app import create_app
from agentcascade.storage import open_database
from agentcascade.telemetry.logs import StructuredFormatter
from tests.proxy import Proxy, serving

ALICE, BOB = "sk-alice-0123456789abcdefghijkl", "sk-bob-9876543210zyxwvutsrqponm"
FORMLESS = "Zq7/plain+form=0123456789xyz"
"""A key that no pattern knows."""
STUDENT_KEY = "sk-student-5555566666777778888"
SERVERS_OWN = "sk-server-1111122222333334444"


def parts(folder: Path, *upstreams: FakeOpenAI, **more: Any) -> dict[str, Any]:
    server = {"passthrough": "default", "upstreams": {"openai": upstreams[0].url}, **more.pop("server", {})}
    return {
        "mode": "collect",
        "bank": {"url": f"sqlite:///{folder}/cascade.db"},
        "retrieval": {"embedder": "hashing", "index": "exact", "k": 0},
        "server": server,
        **more,
    }


@contextmanager
def passing(folder: Path, fake: FakeOpenAI, **more: Any) -> Iterator[Proxy]:
    with serving(CascadeConfig(**parts(folder, fake, **more))) as proxy:
        yield proxy


def ask(proxy: Proxy, key: str = ALICE, text: str = "hi", model: str = "gpt-any", **more: Any) -> Any:
    return proxy.chat(text, key=key, model=model, **more)


def keys_seen(fake: FakeOpenAI) -> list[str | None]:
    return [
        r.headers.get("authorization", "").removeprefix("Bearer ") or r.headers.get("x-api-key") for r in fake.requests
    ]


def everything_kept(folder: Path) -> str:
    """All bytes of the folder: the database with its log of writes, the journal, whatever else."""
    whole = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return whole.decode("latin-1") + "\n".join(sqlite3.connect(folder / "cascade.db").iterdump())


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_that_a_client_names_is_asked_with_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SERVERS_OWN)
    with FakeOpenAI() as fake, passing(tmp_path, fake) as proxy:
        for key, model in ((ALICE, "gpt-one"), (BOB, "org/gpt-two")):
            client = openai.OpenAI(api_key=key, base_url=f"{proxy.base}/v1", organization="org-7", max_retries=0)
            said: Any = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hi"}], stream=stream, seed=7, temperature=0.25
            )
            text = "".join(c.choices[0].delta.content or "" for c in said if c.choices) if stream else None
            assert text == "hello" if stream else said.choices[0].message.content == "hello"
    assert keys_seen(fake) == [ALICE, BOB]
    assert [r.body["model"] for r in fake.requests] == ["gpt-one", "org/gpt-two"]
    first = fake.requests[0]
    assert first.headers["openai-organization"] == "org-7"
    assert (first.body["seed"], first.body["temperature"]) == (7, 0.25)
    assert not {"x-agentcascade-episode", "cookie"} & first.headers.keys()
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    (line,) = Ledger(database).summary("mode")
    names = {s.model for s in Ledger(database).spending()}
    database.close()
    assert (line.group, line.steps, line.dollars) == ("collect", 2, None)  # whose prices those are, nobody knows
    assert names == {"127.0.0.1/gpt-one", "127.0.0.1/org/gpt-two"}


def test_responses_are_passed_through_as_well(tmp_path: Path) -> None:
    from tests.provider import Provider, whole

    with ExitStack() as stack:
        provider = stack.enter_context(Provider(lambda body, out: out.json(whole({"content": "hello"}))))
        config = parts(tmp_path, provider)  # type: ignore[arg-type]
        proxy = stack.enter_context(serving(CascadeConfig(**config)))
        client = openai.OpenAI(api_key=ALICE, base_url=f"{proxy.base}/v1", max_retries=0)
        said = client.responses.create(model="gpt-any", input="hi", reasoning={"effort": "low"})
        assert said.output_text == "hello"
    (headers,) = provider.headers
    assert headers["authorization"] == f"Bearer {ALICE}"
    assert provider.bodies[0]["reasoning"]["effort"] == "low"


def test_a_price_that_is_given_is_booked(tmp_path: Path) -> None:
    prices = {"gpt-any": {"input": "100000", "output": "0"}}
    with FakeOpenAI() as fake, passing(tmp_path, fake, server={"prices": prices}) as proxy:
        assert ask(proxy).status_code == 200
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    (line,) = Ledger(database).summary("all")
    database.close()
    assert line.dollars == 1  # ten tokens


@pytest.mark.parametrize("status", [401, 403, 404, 429])
def test_what_the_provider_refuses_of_a_clients_own_is_told_to_the_client(tmp_path: Path, status: int) -> None:
    body = {"error": {"message": f"no: {ALICE}", "type": "provider_said", "code": "some_code"}}
    with FakeOpenAI([Reply(status=status, body=body)]) as fake, passing(tmp_path, fake) as proxy:
        answers = [ask(proxy), ask(proxy, stream=True)]
    for said in answers:
        assert said.status_code == status
        assert said.json()["error"] == {
            "message": "no: [key]",
            "type": "provider_said",
            "code": "some_code",
            "param": None,
        }
    assert len(fake.requests) == 2  # agents try again themselves


def test_no_other_key_is_sent_in_place_of_a_clients_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SERVERS_OWN)
    proxys_own = "ac-0123456789ab-" + "k" * 43
    with FakeOpenAI() as fake, passing(tmp_path, fake) as proxy:
        for headers in ({}, {"authorization": f"Bearer {proxys_own}"}, {"authorization": ""}, {"x-api-key": ALICE}):
            said = proxy.chat(model="gpt-any", headers=headers)
            assert said.status_code == 401, said.text
            assert "your own key" in said.json()["error"]["message"]
    assert fake.requests == []


def test_with_keys_of_the_proxy_a_client_sends_both_and_only_its_own_goes_on(tmp_path: Path) -> None:
    with FakeOpenAI() as fake, passing(tmp_path, fake) as proxy:
        token = proxy.key()
        assert ask(proxy).status_code == 401
        assert ask(proxy, headers={"x-agentcascade-key": token}).status_code == 200
        elsewhere = proxy.key("elsewhere", cascades=("another",))
        assert ask(proxy, headers={"x-agentcascade-key": elsewhere}).status_code == 404
    assert keys_seen(fake) == [ALICE]
    assert token not in str(fake.requests)


def test_a_key_follows_no_redirect_to_another_host(tmp_path: Path) -> None:
    with FakeOpenAI() as thief:
        away = Reply(status=307, headers={"location": f"{thief.url}/chat/completions"})
        with FakeOpenAI([away]) as fake, passing(tmp_path, fake) as proxy:
            for stream in (False, True):
                assert ask(proxy, stream=stream).status_code >= 400
    assert thief.requests == []


@pytest.mark.parametrize("mode", ["collect", "shadow"])
def test_nothing_of_a_key_is_kept(tmp_path: Path, mode: str) -> None:
    """The provider says the key back in answers and errors, of which there are traces everywhere."""
    fails = iter([False, True, False, True])

    def echo(request: Request) -> Reply:
        sent = request.headers["authorization"].partition(" ")[2]
        if request.body["model"] == "student" or not next(fails):
            return Reply(texts=(f"you sent {sent}" if request.body["model"] != "student" else "hello",))
        return Reply(status=400, body={"error": {"message": f"bad {sent}", "type": "x", "code": "y"}})

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(StructuredFormatter())
    loggers = [logging.getLogger(name) for name in ("agentcascade", "httpx", "openai")]
    for logger in loggers:
        logger.addHandler(handler)
    levels = [logger.level for logger in loggers]
    try:
        with FakeOpenAI(echo) as fake:
            student = {"name": "openai/student", "api_base": fake.url, "api_key": STUDENT_KEY, "retries": 0}
            more = {"student": student, "shadow": {"samples": 1}} if mode == "shadow" else {}
            with passing(tmp_path, fake, mode=mode, **more) as proxy:
                for logger in loggers:
                    logger.setLevel("DEBUG")
                for number, stream in enumerate((False, False, True, True)):
                    ask(proxy, key=FORMLESS, text=f"task {number}", stream=stream)
                pages = "".join(proxy.http.get(p).text for p in ("/dashboard/data?hours=1", "/metrics"))
    finally:
        for logger, level in zip(loggers, levels):
            logger.removeHandler(handler)
            logger.setLevel(level)
    students = [r for r in fake.requests if r.body["model"] == "student"]
    assert len(students) == (2 if mode == "shadow" else 0)
    assert all(FORMLESS not in str(r) for r in students)
    kept = everything_kept(tmp_path)
    assert "task 0" in kept
    assert "you sent" in kept
    for place in (kept, log.getvalue(), pages):
        assert FORMLESS[:10] not in place
        assert FORMLESS[-10:] not in place


def test_configured_cascades_keep_their_names(tmp_path: Path) -> None:
    with FakeOpenAI() as fake:
        teacher = {"name": "openai/configured", "api_base": fake.url, "api_key": SERVERS_OWN, "retries": 0}
        cascades = {"free": {"mode": "collect"}, "mine": {"teacher": teacher, "mode": "teacher"}}
        with passing(tmp_path, fake, cascades=cascades, server={"passthrough": "free"}) as proxy:
            assert ask(proxy, model="mine", key=ALICE).status_code == 200
            assert ask(proxy, model="free", key=BOB).status_code == 200  # a name like any other
            listed = [m["id"] for m in proxy.http.get("/v1/models").json()["data"]]
    assert keys_seen(fake) == [SERVERS_OWN, BOB]
    assert [r.body["model"] for r in fake.requests] == ["configured", "free"]
    assert listed == ["mine"]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"passthrough": "defualt"}, "no cascade 'defualt': did you mean 'default'?"),
        ({"upstreams": {"openai": "localhost:80"}}, "give a base URL"),
        ({"prices": {"m": {"inptu": 1}}}, "unknown class 'inptu'"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(tmp_path: Path, server: dict[str, Any], words: str) -> None:
    with FakeOpenAI() as fake, pytest.raises(ConfigError, match=words):
        create_app(CascadeConfig(**parts(tmp_path, fake, server=server)))
