"""Ladders and ceilings of effort of wrapped clients: rungs through the program's own client, and what stays ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic
import openai

from agentcascade import wrap
from agentcascade.config.effort import parse_effort
from agentcascade.errors import ConfigError, InvalidRequest
from tests.fake_anthropic import KEY, FakeAnthropic, call, text
from tests.fake_openai import FakeOpenAI, Reply, Request

LOOK: Any = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
ASK: list[Any] = [{"role": "user", "content": "hi"}]
LOW, HIGH = ({"model": "client/gpt-5-mini", "effort": effort} for effort in ("low", "high"))
TOP = {"model": "client/gpt-5", "price": {"input": "1", "output": "2"}}
PARTS: dict[str, Any] = {"retrieval": {"k": 0}, "actions": {"format": "text"}, "sampling": {"staged": "never"}}
NAMES = {"extra_body": {"max_effort": "low"}}, {"extra_headers": {"X-Agentcascade-Max-Effort": "low", "x-own": "1"}}


def torn(request: Request) -> Reply:
    return Reply(texts=[f"said {i}" for i in range(request.body.get("n") or 1)])


def ladder(fake: FakeOpenAI, tmp_path: Path, *rungs: Any, **more: Any) -> Any:
    client = openai.OpenAI(base_url=fake.url, api_key="sk-own", max_retries=0)
    bank: Any = {"url": f"sqlite:///{tmp_path}/cascade.db"}
    return wrap(client, ladder=rungs or (LOW, HIGH, TOP), bank=bank, **PARTS, **more)


def asked(fake: Any) -> list[tuple[str, Any]]:
    found = []
    for request in fake.requests:
        assert "max_effort" not in str(request.body)
        assert "x-agentcascade-max-effort" not in {name.lower() for name in request.headers}
        found.append((request.body["model"], request.body.get("reasoning_effort")))
    return found


def test_a_wrapped_client_climbs_a_ladder_to_the_model_that_the_call_names(tmp_path: Path) -> None:
    with FakeOpenAI(torn) as fake, (client := ladder(fake, tmp_path)).agentcascade:
        answer = client.chat.completions.create(model="gpt-5", messages=ASK, reasoning_effort="high")
        decision = answer.agentcascade
    assert asked(fake) == [("gpt-5-mini", "low"), ("gpt-5-mini", "high"), ("gpt-5", "high")]
    assert [(r.model.split("/")[-1], r.role) for r in decision.rungs] == [
        ("gpt-5-mini@low", "student"), ("gpt-5-mini@high", "student"), ("gpt-5", "teacher"),
    ]  # fmt: skip
    assert decision.calls[-1].dollars is not None, "the last rung gives the price of the model that a call names"


@pytest.mark.parametrize("names", NAMES, ids=["body", "header"])
def test_a_ceiling_of_a_call_is_the_cascades_and_no_provider_is_sent_it(tmp_path: Path, names: Any) -> None:
    with FakeOpenAI(torn) as fake, (client := ladder(fake, tmp_path)).agentcascade:
        client.chat.completions.create(model="gpt-5", messages=ASK, reasoning_effort="high", **names)
        client.responses.create(model="gpt-5", input="hi", **names)
        with pytest.raises(InvalidRequest, match="max_effort: an effort is one of"):
            client.chat.completions.create(model="gpt-5", messages=ASK, extra_body={"max_effort": "huge"})
    assert asked(fake) == [("gpt-5-mini", "low"), ("gpt-5", "low"), ("gpt-5-mini", "low"), ("gpt-5", None)]
    if "extra_headers" in names:
        assert [r.headers.get("x-own") for r in fake.requests] == [None, "1", None, "1"]


@pytest.mark.parametrize("names", NAMES, ids=["body", "header"])
def test_the_same_of_anthropics_client(names: Any) -> None:
    name = "client/claude-opus-4-8"
    with FakeAnthropic([text("a"), text("b"), text("c"), text("d")]) as fake:
        own = anthropic.Anthropic(base_url=fake.root, api_key=KEY, max_retries=0)
        rungs: Any = [{"model": name, "effort": "low"}, {"model": name, "effort": "high"}, name]
        client: Any = wrap(own, ladder=rungs, router={"options": {"n": 2}}, **PARTS)
        with client.agentcascade:
            answer = client.messages.create(model="claude-opus-4-8", max_tokens=5000, messages=ASK, **names)
    assert [r.model.split("/")[-1] for r in answer.agentcascade.rungs] == ["claude-opus-4-8@low", "claude-opus-4-8"]
    assert len(asked(fake)) == 3


def test_a_ladder_that_a_wrapped_client_cannot_climb_says_why(tmp_path: Path) -> None:
    with FakeOpenAI(torn) as fake:
        with pytest.raises(ConfigError, match=r"ladder\.1\.effort: a wrapped client's calls name the teacher"):
            ladder(fake, tmp_path, LOW, {"model": "client/gpt-5", "effort": "high"})
        with pytest.raises(ConfigError, match="ladder and student are both set"):
            ladder(fake, tmp_path, student="client/gpt-5-nano")
        with pytest.raises(ConfigError, match="ladder and teacher are both set"):
            ladder(fake, tmp_path, teacher="client/gpt-5")


@pytest.mark.parametrize("effort", ["high", 2000, "none"])
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}, {"type": "auto"}, None])
def test_a_rung_that_may_not_think_since_a_tool_is_forced_is_noted(choice: Any, effort: Any) -> None:
    name = "claude-opus-4-8" if effort == "high" else "claude-sonnet-4-6"
    with FakeAnthropic([call("look", {})]) as fake:
        own = anthropic.Anthropic(base_url=fake.root, api_key=KEY, max_retries=0)
        rungs: Any = [{"model": f"client/{name}", "effort": effort}, f"client/{name}"]
        client: Any = wrap(own, ladder=rungs, **PARTS | {"actions": {"format": "tools"}})
        with client.agentcascade:
            asked = {} if choice is None else {"tool_choice": choice}
            answer = client.messages.create(model=name, max_tokens=9000, messages=ASK, tools=[LOOK], **asked)
    forced = choice is not None and choice["type"] != "auto"
    thinks = (fake.requests[0].body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    assert thinks == (effort != "none" and not forced)
    noted = [
        note.rpartition(": ")[0] for note in answer.agentcascade.failures if note.endswith("where a tool is forced")
    ]
    assert noted == ([f"effort {parse_effort(effort)}"] if effort != "none" and forced else [])
