"""A committee over real HTTP: a wrapped client's, a proxy's; its calls in the ledger, its budget in the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fake_openai import FakeOpenAI, Reply, Request
from openai import OpenAI
from proxy import PRICE, serving, settings

import agentcascade
from agentcascade.config.load import CascadeConfig
from agentcascade.storage import open_database
from agentcascade.storage.tables import calls, decisions

SAID = {"a": "look", "b": "look", "c": "go", "teacher": "teach"}
ASK: list[Any] = [{"role": "user", "content": "hi"}]


def reply(request: Request) -> Reply:
    model = str(request.body["model"]).removeprefix("openai/")
    return Reply(status=500) if model == "down" else Reply(texts=(SAID[model],))


def asked(fake: FakeOpenAI) -> list[str]:
    return [str(request.body["model"]) for request in fake.requests]


def test_members_behind_the_programs_own_client(tmp_path: Path) -> None:
    with FakeOpenAI(reply) as fake:
        client = agentcascade.wrap(
            OpenAI(base_url=fake.url, api_key="sk-own", max_retries=0),
            student={"name": "client/c", "price": {"input": "2", "output": "2"}},
            students=[{"name": "client/b", "price": PRICE}, {"name": "client/a", "price": PRICE}],
            sampling={"across": "students"},
            router={"name": "threshold", "options": {"needed": 2}},
            bank={"url": f"sqlite:///{tmp_path}/a.db"},
            retrieval={"k": 0},
        )
        answer = client.chat.completions.create(model="teacher", messages=ASK)
        assert answer.choices[0].message.content == "look"
        assert answer.model == "b"
        assert sorted(asked(fake)) == ["a", "b"]
        client.agentcascade.close()  # type: ignore[attr-defined]


def test_a_proxys_committee_within_a_budget_with_a_member_that_is_down(tmp_path: Path) -> None:
    with FakeOpenAI(reply) as fake:
        shared = {"api_base": fake.url, "api_key": "sk-upstream-0123456789abcdefghij", "retries": 0, "price": PRICE}
        config = settings(
            fake,
            tmp_path,
            student={"name": "openai/down", **shared},
            students=[{"name": "openai/a", **shared}, {"name": "openai/b", **shared, "weight": 2}],
            router={"name": "threshold", "options": {"needed": 3}},
            sampling={"across": "students", "staged": "never"},
            budgets={"per_namespace": "1"},
        )
        with serving(CascadeConfig.load(None, **config)) as proxy:
            answer = proxy.chat().json()
        assert answer["choices"][0]["message"]["content"] == "look"
        assert answer["model"] == "a"  # as its provider calls it
        assert answer["agentcascade"]["reason"] == "agreement 3/4, answer of openai/a"
        assert answer["agentcascade"]["votes"] == {"look": 3}
    database = open_database(f"sqlite:///{tmp_path}/cascade.db")
    try:
        with database.begin() as connection:
            decision = connection.execute(decisions.select()).one()
            billed = connection.execute(calls.select()).all()
    finally:
        database.close()
    failures = decision.failures if isinstance(decision.failures, list) else json.loads(decision.failures)
    assert failures[0].endswith("(openai/down)")
    assert sorted((c.model, c.role, c.purpose) for c in billed if c.dollars) == [
        ("openai/a", "student", "sample"),
        ("openai/b", "student", "sample"),
    ]
