"""A ladder behind the proxy as unmodified clients meet it: bodies by rung, ceilings by header and option, the books."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

pytest.importorskip("fastapi", reason="needs the extra `server`")
import anthropic

from agentcascade import build
from agentcascade.config.load import CascadeConfig
from agentcascade.errors import ConfigError
from agentcascade.ledger.recorded_steps import recorded_steps
from agentcascade.ledger.thinking import usual_thinking
from agentcascade.storage import open_database
from tests.fake_anthropic import KEY, FakeAnthropic, text
from tests.fake_openai import FakeOpenAI, Reply, Request
from tests.proxy import Proxy, serving

S, T = "hosted_vllm/Qwen/Qwen3-8B", "anthropic/claude-opus-4-8"
CHEAP, DEAR = {"input": "0.1", "output": "0.4"}, {"input": "5", "output": "25"}
HI: Any = [{"role": "user", "content": "hi"}]


class Served(NamedTuple):
    proxy: Proxy
    student: FakeOpenAI
    teacher: FakeAnthropic
    url: str


def split(request: Request) -> Reply:
    """Never the same twice."""
    usage = {"prompt_tokens": 10, "completion_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 40}}
    return Reply(texts=[f"said {i}" for i in range(request.body.get("n") or 1)], usage=usage)


def rungs(student: str, teacher: str, **more: Any) -> list[dict[str, Any]]:
    own = {"model": S, "api_base": student, "price": CHEAP, "retries": 0}
    other = {"model": T, "api_base": teacher, "api_key": KEY, "price": DEAR, "retries": 0}
    return [
        {**own, "effort": False}, {**own, "effort": "low"}, {**own, "effort": "0.5x"}, {**other, "effort": "xhigh"}
    ]  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    url = f"sqlite:///{tmp_path}/cascade.db"
    with FakeOpenAI(split) as student, FakeAnthropic([text("taught")]) as teacher:
        config = CascadeConfig(
            ladder=rungs(student.url, teacher.root),
            bank={"url": url},
            retrieval={"k": 0},
            actions={"format": "text"},
            sampling={"staged": "never"},
        )
        with serving(config) as proxy:
            yield Served(proxy, student, teacher, url)


def told(request: Any) -> tuple[Any, Any]:
    return request.body.get("chat_template_kwargs"), request.body.get("thinking_token_budget")


def test_openais_client_climbs_the_ladder_and_every_rung_is_in_its_answer_and_in_the_ledger(served: Served) -> None:
    client = openai.OpenAI(base_url=f"{served.proxy.base}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(model="default", messages=HI)
    assert answer.choices[0].message.content == "taught"
    decision: Any = answer.model_extra["agentcascade"]  # type: ignore[index]
    assert [r["model"] for r in decision["rungs"]] == [f"{S}@none", f"{S}@low", f"{S}@0.5x", f"{T}@xhigh"]
    assert [r["accepted"] for r in decision["rungs"]] == [False, False, False, True]
    assert sum(Decimal(r["dollars"]) for r in decision["rungs"]) == Decimal(decision["dollars"])
    off, on = {"enable_thinking": False}, {"enable_thinking": True}
    assert [told(r) for r in served.student.requests] == [(off, None), (on, 1024), (None, None)]
    assert len({str(r.body["messages"]) for r in served.student.requests}) == 1
    body = served.teacher.requests[-1].body
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "xhigh"})
    assert "temperature" not in body
    database = open_database(served.url)
    try:
        steps = _recorded(database)
        assert {c.model: c.dollars for c in steps[0].calls}.keys() == {r["model"] for r in decision["rungs"]}
        usual = usual_thinking(database, "default", S)
        assert usual == pytest.approx(40 / 3)  # three answers at a level; none and shares do not count
    finally:
        database.close()


def _recorded(database: Any) -> Any:
    import time

    deadline = time.monotonic() + 60
    while not (steps := recorded_steps(database)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return steps


@pytest.mark.parametrize("by", ["header", "body", "anthropic"])
def test_a_ceiling_by_header_of_any_client_or_in_a_chat_request(served: Served, by: str) -> None:
    header = {"x-agentcascade-max-effort": "none"}
    if by == "anthropic":
        messages = anthropic.Anthropic(base_url=served.proxy.base, api_key="none", max_retries=0).messages
        messages.create(model="default", max_tokens=50, messages=HI, extra_headers=header)
    else:
        client = openai.OpenAI(base_url=f"{served.proxy.base}/v1", api_key="none", max_retries=0)
        ceiling: Any = {"extra_headers": header} if by == "header" else {"extra_body": {"max_effort": "none"}}
        client.chat.completions.create(model="default", messages=HI, **ceiling)
    assert told(served.student.requests[0]) == ({"enable_thinking": False}, None)
    assert all(r.body.get("thinking_token_budget") is None for r in served.student.requests)
    body = served.teacher.requests[-1].body
    assert "thinking" not in body
    assert "max_effort" not in str(body)


def test_a_ceiling_that_is_none_is_a_400_that_says_so(served: Served) -> None:
    answer = served.proxy.chat(headers={"x-agentcascade-max-effort": "huge"})
    assert answer.status_code == 400
    assert "max_effort: an effort is one of none" in answer.json()["error"]["message"]
    assert served.student.requests == []


def test_a_relative_effort_is_of_what_this_namespace_thought_before(served: Served) -> None:
    """The records of the process before say what is usual."""
    client = httpx.Client(base_url=served.proxy.base)
    client.post("/v1/chat/completions", json={"model": "default", "messages": HI}).raise_for_status()
    database = open_database(served.url)
    try:
        _recorded(database)
    finally:
        database.close()
    served.student.requests.clear()
    settings: Any = {"bank": {"url": served.url}, "retrieval": {"k": 0}, "actions": {"format": "text"}}
    ladder: Any = rungs(served.student.url, served.teacher.root)
    with build(ladder=ladder, **settings) as cascade:
        cascade.sync_episode(goal="g").complete(HI)
    assert told(served.student.requests[-1])[1] == 7  # half of 40 / 3


LOCAL: Any = {"model": S, "api_base": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("ladder", "said"),
    [
        ([LOCAL], "at least two rungs"),
        ([{**LOCAL, "effort": "high"}, {**LOCAL, "effort": "low"}], "thinks no more than rung 0"),
        ([LOCAL, LOCAL], "is rung 0 already"),
        ([LOCAL, {"model": T, "effort": 2000}], "takes no number of tokens"),
        ([LOCAL, {"model": T, "samples": 3}], r"ladder.1.samples: the last rung"),
        (["openai/gpt-4.1", "openai/gpt-4.1-mini"], r"costs \$.* put the cheaper rung first"),
    ],
)
def test_what_is_no_ladder_is_an_error_when_it_is_built(tmp_path: Path, ladder: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(ladder=ladder, bank={"url": f"sqlite:///{tmp_path}/c.db"}, retrieval={"k": 0})


def test_thinking_that_makes_a_cheaper_model_the_dearer_rung_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ladder: Any = [{"model": "openai/gpt-5-mini", "effort": "high"}, "openai/gpt-4.1"]
    with build(ladder=ladder, bank={"url": f"sqlite:///{tmp_path}/c.db"}, retrieval={"k": 0}):
        pass
    assert "a call of openai/gpt-5-mini@high costs" in caplog.text


def test_a_model_given_beside_a_ladder_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no model may be given beside it"):
        build(ladder=[LOCAL, T], teacher=openai_model(), retrieval={"k": 0})
    with pytest.raises(ConfigError, match="ladder and teacher are both set"):
        build(ladder=[LOCAL, T], teacher="openai/gpt-4.1")


def openai_model() -> Any:
    from agentcascade import ScriptedModel

    return ScriptedModel(["x"])
