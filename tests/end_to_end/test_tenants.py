"""Two tenants over one bank: by no surface does one of them get anything of the other, nor learn that it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fake_openai import FakeOpenAI, Reply, Request

pytest.importorskip("fastapi", reason="needs the extra `server`")
from agentcascade.config.load import CascadeConfig
from tests.proxy import Proxy, serving, settings
from tests.waiting import until

GOAL = "unseal vault seven of acme"
ANSWER = "turn the obsidian dial to heliotrope"
OPEN_GOAL, OPEN_ANSWER = "cross the bridge", "whisper the zanzibar word"
WORD = "swordfish"
EPISODE, OPEN = "acme-run-1", "acme-run-2"
SECRETS = ("obsidian", "heliotrope", "zanzibar", "acme", "vault", "swordfish")
"""Words that only the first tenant ever said or was told."""
SHARED = ("normal", "collecting", "shadowing", "student-only", "shown-to-teacher")


def answer(request: Request) -> Reply:
    """The teacher says what is secret only after a word that the second tenant never says."""
    said = json.dumps(request.body["messages"][-1:])
    if request.body["model"] == "teacher" and WORD in said:
        return Reply(texts=(OPEN_ANSWER if OPEN_GOAL in said else ANSWER,))
    return Reply(texts=("a", "b", "c") if request.body["model"] == "wavering" else ("look around",))


class Tenants:
    """A server with a bank that holds the first tenant's demonstrations."""

    def __init__(self, proxy: Proxy, fake: FakeOpenAI) -> None:
        self.proxy, self.fake = proxy, fake
        self.owner = proxy.key("owner", namespace="acme")
        self.other = proxy.key("other", namespace="globex", cascades=SHARED)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return self.proxy.http.get(path, headers={"authorization": f"Bearer {key or self.other}"})

    def chat(self, key: str, model: str = "normal", text: str = GOAL, **more: Any) -> httpx.Response:
        return self.proxy.chat(text, key=key, model=model, **more)

    def steal(self, model: str = "normal", text: str = GOAL, **more: Any) -> dict[str, Any]:
        """What the second tenant is told, after a look at all that went upstream on its behalf."""
        before = len(self.fake.requests)
        response = self.chat(self.other, model, text, **more)
        assert response.status_code == 200, response.text
        said: dict[str, Any] = response.json()
        time.sleep(0.3 if model == "shadowing" else 0)
        own = json.dumps([text, more])
        for request in self.fake.requests[before:]:
            clean({k: v for k, v in request.body.items() if k != "metadata"}, own)
        clean(said, own)
        assert said["agentcascade"]["namespace"] == "globex"
        assert said["agentcascade"]["demonstrations"] == []
        return said


def clean(found: Any, own: str = "") -> None:
    """Nothing of the first tenant's but what the second one said itself."""
    text = found if isinstance(found, str) else json.dumps(found)
    leaked = [s for s in SECRETS if s in text.lower() and s not in own.lower()]
    assert not leaked, f"{leaked} in {text[:2000]}"


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    eager = {"prompt": {"min_demonstrations": 1}}
    cascades: dict[str, Any] = {
        "normal": {"mode": "cascade", **eager},
        "collecting": {"mode": "collect"},
        "shadowing": {"mode": "shadow"},
        "student-only": {"mode": "student"},
        "shown-to-teacher": {
            "mode": "cascade", "prompt": {"min_demonstrations": 0, "teacher_sees_demonstrations": True},
            "student": {"name": "openai/wavering"},
        },
        "acme-private": {"mode": "cascade", **eager},
    }  # fmt: skip
    with (
        FakeOpenAI(answer) as fake,
        serving(CascadeConfig(**settings(fake, folder, cascades=cascades))) as proxy,
    ):
        made = Tenants(proxy, fake)
        first = [{"role": "user", "content": GOAL}]
        grown = [
            *first,
            {"role": "assistant", "content": "look around"},
            {"role": "user", "content": f"the guard says {WORD}"},
        ]
        for messages in (first, grown):
            own = {"x-agentcascade-episode": EPISODE}
            assert made.chat(made.owner, "collecting", messages=messages, headers=own).status_code == 200
        assert proxy.feedback(EPISODE, key=made.owner).json() == {"episode": EPISODE, "banked": True}
        made.chat(made.owner, "collecting", f"{OPEN_GOAL}: {WORD}", headers={"x-agentcascade-episode": OPEN})
        yield made


def test_the_owner_itself_is_shown_its_demonstrations(tenants: Tenants) -> None:
    """Else none of the rest would prove anything."""
    said = tenants.chat(tenants.owner).json()
    assert said["agentcascade"]["demonstrations"]
    prompt = next(r.body for r in reversed(tenants.fake.requests) if r.body["model"] == "student")
    assert ANSWER in json.dumps(prompt)
    assert ANSWER not in json.dumps(said), "the decision names demonstrations, it does not quote them"


@pytest.mark.parametrize("model", SHARED)
def test_the_same_goal_is_answered_without_the_others_demonstrations(tenants: Tenants, model: str) -> None:
    tenants.steal(model)
    first = {"role": "user", "content": GOAL}
    looked = {"role": "assistant", "content": "look around"}
    tenants.steal(model, messages=[first, looked, {"role": "user", "content": "the guard says"}])


@pytest.mark.parametrize("id", [EPISODE, OPEN])
@pytest.mark.parametrize("model", SHARED)
def test_the_others_episode_id_opens_an_episode_of_ones_own(tenants: Tenants, model: str, id: str) -> None:
    said = tenants.steal(model, headers={"x-agentcascade-episode": id})
    assert said["agentcascade"]["step"] == 0
    said = tenants.steal(model, metadata={"agentcascade_episode": id, "namespace": "acme"})
    assert said["agentcascade"]["step"] == 0


@pytest.mark.parametrize(
    "tricks",
    [
        {"headers": {"x-agentcascade-goal": GOAL}},
        {"headers": {"x-agentcascade-goal": "unseal%20vault%20seven%20of%20acme"}},
        {"headers": {"x-agentcascade-namespace": "acme", "x-namespace": "acme", "x-agentcascade-key": "acme"}},
        {"headers": {"x-forwarded-user": "owner", "x-api-key": "ac-000000000000-" + "a" * 43}},
        {"metadata": {"agentcascade_goal": GOAL, "agentcascade_namespace": "acme", "namespace": "acme"}},
        {"namespace": "acme", "bank": {"namespace": "acme"}, "mode": "cascade", "accounts": [], "tenant": "owner"},
        {"extra_body": {"namespace": "acme"}, "agentcascade": {"namespace": "acme"}, "cascade": "acme-private"},
        {"user": "acme", "safety_identifier": "acme"},
    ],
)
def test_nothing_in_a_request_moves_it_into_the_other_namespace(tenants: Tenants, tricks: dict[str, Any]) -> None:
    tenants.steal("normal", **tricks)
    tenants.steal("student-only", **tricks)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", SHARED)
def test_by_messages_nothing_of_the_others_comes_either(tenants: Tenants, model: str, stream: bool) -> None:
    before = len(tenants.fake.requests)
    body = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": GOAL}], "stream": stream}
    tricks: list[dict[str, Any]] = [
        {},
        {"metadata": {"user_id": "owner", "agentcascade_episode": EPISODE, "agentcascade_goal": GOAL}},
    ]
    for trick in tricks:
        headers = {"x-api-key": tenants.other, "x-claude-code-session-id": EPISODE}
        said = tenants.proxy.http.post("/v1/messages", json=body | trick, headers=headers)
        assert said.status_code == 200, said.text
        clean(said.text, f"{GOAL} {EPISODE}")
        assert '"namespace":"globex"' in said.text
        assert '"demonstrations":[]' in said.text
    for request in tenants.fake.requests[before:]:
        clean(request.body, GOAL)
    private = tenants.proxy.http.post("/v1/messages", json=body | {"model": "acme-private"}, headers=headers)
    assert (private.status_code, private.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("model", SHARED)
def test_by_responses_nothing_of_the_others_comes_either(tenants: Tenants, model: str) -> None:
    def ask(key: str, **body: Any) -> httpx.Response:
        asked = {"model": model, "input": GOAL, **body}
        return tenants.proxy.http.post("/v1/responses", json=asked, headers={"authorization": f"Bearer {key}"})

    first = len(tenants.fake.requests)
    secret = ask(tenants.owner, input=f"{GOAL}: {WORD}").json()
    if model == "shadowing":  # the owner's own shadow comes behind its answer
        until(lambda: len(tenants.fake.requests) == first + 2)
    before = len(tenants.fake.requests)
    said = ask(tenants.other).json()
    tricks = [
        ask(tenants.other, previous_response_id=secret["id"]),
        ask(tenants.other, input=[{"type": "item_reference", "id": secret["output"][0]["id"]}]),
        tenants.get(f"/v1/responses/{secret['id']}"),
        tenants.get(f"/v1/responses/{secret['id']}/input_items"),
    ]
    assert [t.status_code for t in tricks] == [400, 400, 404, 404]
    for found in (said, *(t.json() for t in tricks), *(r.body for r in tenants.fake.requests[before:])):
        clean(found, GOAL)
    assert said["agentcascade"]["namespace"] == "globex"
    assert said["agentcascade"]["demonstrations"] == []
    unknown = ask(tenants.other, previous_response_id="resp_" + "0" * 32).json()["error"]
    assert tricks[0].json()["error"] == {**unknown, "message": unknown["message"].replace("0" * 32, secret["id"][5:])}


def test_the_others_episode_is_as_unknown_as_one_that_never_was(tenants: Tenants) -> None:
    """Before the second tenant uses those ids itself: so with a key of a third one."""
    third = tenants.proxy.key("third", namespace="initech")
    ids = (EPISODE, OPEN, "never-was-1")
    answers = [tenants.proxy.feedback(id, key=third) for id in ids]
    assert [a.status_code for a in answers] == [404] * 3
    texts = {a.text.replace(id, "ID") for a, id in zip(answers, ids, strict=True)}
    assert len(texts) == 1
    least = [a.elapsed.total_seconds() for a in answers]
    for _ in range(60):  # the least of several: whatever else the machine does comes on top
        if max(least) < 2 * min(least):
            break
        least = [min(t, tenants.proxy.feedback(id, key=third).elapsed.total_seconds()) for t, id in zip(least, ids)]
    assert max(least) < 2 * min(least), "nor does the time tell"


def test_finishing_an_episode_of_the_same_name_touches_only_ones_own(tenants: Tenants) -> None:
    tenants.steal("collecting", "mine", headers={"x-agentcascade-episode": OPEN})
    told = tenants.proxy.feedback(OPEN, success=False, key=tenants.other).json()
    assert (told["banked"], told["reason"]) == (
        False,
        "the episode did not reach its goal, and failures are not banked",
    )
    assert tenants.proxy.feedback(OPEN, key=tenants.owner).json() == {"episode": OPEN, "banked": True}
    tenants.steal("normal", OPEN_GOAL)
    tenants.steal("student-only", OPEN_GOAL)


def test_models_are_those_of_the_key_and_others_do_not_exist(tenants: Tenants) -> None:
    assert {m["id"] for m in tenants.get("/v1/models").json()["data"]} == set(SHARED)
    assert "acme-private" in tenants.get("/v1/models", tenants.owner).text
    refused = {}
    for name in ("acme-private", "never-there"):
        response = tenants.chat(tenants.other, name)
        refused[name] = (response.status_code, response.text.replace(name, "NAME"))
    assert refused["acme-private"] == refused["never-there"]
    assert refused["acme-private"][0] == 404
    tricks = (
        "ACME-PRIVATE",
        "acme/normal",
        "normal@acme",
        "normal\x00acme-private",
        " acme-private",
        "../acme-private",
    )
    for name in (*tricks, "normal ", "openai/teacher", "teacher"):
        assert tenants.chat(tenants.other, name).status_code == 404, name


def test_feedback_reaches_no_episode_of_a_cascade_that_the_key_may_not_use(tenants: Tenants) -> None:
    inside = tenants.proxy.key("inside", namespace="acme", cascades=["normal"])
    tenants.chat(tenants.owner, "acme-private", headers={"x-agentcascade-episode": "private-1"})
    found = tenants.proxy.feedback("private-1", key=inside)
    never = tenants.proxy.feedback("never-was-2", key=inside)
    assert (found.status_code, found.text.replace("private-1", "ID")) == (404, never.text.replace("never-was-2", "ID"))


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/data",
        "/dashboard/data?hours=8000&bucket=day",
        "/dashboard/data?namespace=acme",
        "/dashboard/data?namespace=",
        "/dashboard/decisions?hours=8000",
        "/dashboard/decisions?namespace=acme&hours=8000",
        "/?client=acme&period=1y",
        "/dashboard/steps?client=acme&period=1y",
        "/dashboard/episodes?client=acme&period=1y",
    ],
)
def test_the_dashboard_shows_a_key_its_own_namespace(tenants: Tenants, path: str) -> None:
    third = tenants.proxy.key("viewer", namespace="umbrella")
    tenants.proxy.chat("hello there", key=third, model="normal")
    found = tenants.get(path, third)
    assert found.status_code == 200
    clean(found.text)
    assert "globex" not in found.text
    assert "vault" in tenants.get(path, tenants.owner).text, "there is something that could leak"


def test_the_dashboards_pages_cannot_be_turned_into_the_others(tenants: Tenants) -> None:
    own = tenants.get("/dashboard/data?hours=100", tenants.owner).json()
    assert own["decisions"], "the owner has some"
    assert [b["namespace"] for b in own["bank"]] == ["acme"]
    third = tenants.proxy.key("pager", namespace="tyrell")
    assert tenants.get("/dashboard/data", third).json()["bank"] == []
    for decision in own["decisions"]:
        found = tenants.get(f"/dashboard/decisions?hours=100&before={decision['id']}", third)
        nobodys = "de_7f3a9c1e5b2d8064af13"
        never = tenants.get(f"/dashboard/decisions?hours=100&before={nobodys}", third)
        assert (found.status_code, found.text.replace(decision["id"], nobodys)) == (never.status_code, never.text)
        clean(found.text, decision["id"])


def test_what_everybody_may_read_names_nobody(tenants: Tenants) -> None:
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        clean(tenants.proxy.http.get(path).text)
        if path != "/":  # with a key it is that key's dashboard
            clean(tenants.get(path).text)
    assert tenants.get("/metrics").status_code == 401
    assert tenants.proxy.http.get("/metrics").status_code == 401
    for path in ("/v1/models", "/dashboard/data", "/dashboard/decisions", "/v1/episodes/acme-run-1/feedback"):
        response = tenants.proxy.http.request("POST" if "feedback" in path else "GET", path, json={})
        assert response.status_code == 401
        clean(response.text)


def test_one_tenants_budget_and_rate_are_not_the_others(tenants: Tenants) -> None:
    poor = tenants.proxy.key("poor", namespace="globex", requests_per_minute=1)
    assert [tenants.chat(poor).status_code for _ in range(2)] == [200, 429]
    assert tenants.chat(tenants.other).status_code == 200
    assert tenants.chat(tenants.owner).status_code == 200
