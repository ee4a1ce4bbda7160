"""What the bare client shows, the wrapped one shows: fields, silent answers, log-probabilities, history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

import agentcascade
from agentcascade.config.keywords import ModelKeywords
from agentcascade.errors import ConfigError
from agentcascade.types import Mode
from tests.provider import Answer, Out, Provider, part, whole

ASK: Any = [{"role": "user", "content": "go"}]
TOLD = {"content": [{"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": list[Any]()}], "refusal": None}
LOOK = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def bare(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="k", max_retries=0)


def wrapped(url: str, folder: Path, mode: Mode = "teacher", **options: Any) -> Any:
    return agentcascade.wrap(
        bare(url),
        student="client/s",
        mode=mode,
        bank={"url": f"sqlite:///{folder}/a.db"},
        retrieval={"embedder": "hashing", "k": 0},
        **options,
    )


def shown(answer: Any) -> dict[str, Any]:
    """What of an answer the provider said: all but ids, times and what is ours."""
    found: dict[str, Any] = answer.model_dump(mode="json", exclude={"id", "created", "agentcascade", "usage"})
    for choice in found["choices"]:
        choice["message"] = {k: v for k, v in choice["message"].items() if v is not None}
    return {k: v for k, v in found.items() if v is not None}


ANSWERS: dict[str, dict[str, Any]] = {
    "fields beside the choices": whole(
        {"content": "x"}, service_tier="flex", system_fingerprint="fp_1", citations=["https://example.org"]
    ),
    "thoughts": whole({"content": "x", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text"}]}),
    "blocks": whole({"content": "x", "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]}),
    "annotations": whole({"content": "x", "annotations": []}),
    "a refusal": whole({"content": None, "refusal": "I must not."}),
    "a call": whole({"content": None, "function_call": {"name": "look", "arguments": "{}"}}, "function_call"),
    "nothing but thoughts at the limit": whole({"content": None, "reasoning_content": "hm"}, "length"),
    "nothing": whole({"content": ""}),
    "filtered": whole({"content": None}, "content_filter"),
    "a field of tomorrow": whole({"content": "x", "tomorrow": {"a": 1}}, tomorrow=[1]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_bare_clients(tmp_path: Path, name: str) -> None:
    with Provider(lambda b, o: o.json(ANSWERS[name])) as provider:
        plain = bare(provider.url).chat.completions.create(model="t", messages=ASK)
        client = wrapped(provider.url, tmp_path)
        with client.agentcascade:
            answer = client.chat.completions.create(model="t", messages=ASK)
            assert shown(answer) == shown(plain)
            assert answer._request_id == answer.id, "what the SDK notes of an answer's header, and programs log"
    assert len(provider.bodies) == 2, "asked once by each"


def both(body: dict[str, Any], out: Out) -> None:
    """Tells log-probabilities, whole and streamed."""
    if body.get("stream"):
        out.events([part({"role": "assistant", "content": "x"}, logprobs=TOLD), part({}, "stop")])
    else:
        said = whole({"content": "x"})
        said["choices"][0]["logprobs"] = TOLD
        out.json(said)


def test_log_probabilities_and_the_providers_name_of_the_model_whole_and_streamed(tmp_path: Path) -> None:
    with Provider(both) as provider:
        asking = wrapped(provider.url, tmp_path)
        answer = asking.chat.completions.create(model="t", messages=ASK, logprobs=True)
        chunks = list(asking.chat.completions.create(model="t", messages=ASK, logprobs=True, stream=True))
        asking.agentcascade.close()
    assert (answer.model, {c.model for c in chunks}) == ("m-2026", {"m-2026"})
    assert answer.choices[0].logprobs.content[0].logprob == -0.1
    assert [c.choices[0].logprobs.content[0].logprob for c in chunks if c.choices and c.choices[0].logprobs] == [-0.1]


def test_the_teacher_gets_no_seed_that_nobody_asked_for(tmp_path: Path) -> None:
    teacher: ModelKeywords = {"name": "openai/m", "api_key": "k", "retries": 0}
    with (
        Provider(lambda b, o: o.json(whole({"content": "x"}))) as provider,
        agentcascade.build(teacher={**teacher, "api_base": provider.url}, mode="teacher") as cascade,
    ):
        cascade.sync_episode().complete(ASK)
        cascade.sync_episode().complete(ASK, seed=5)
    assert [b.get("seed") for b in provider.bodies] == [None, 5]


def deepseek(body: dict[str, Any], out: Out) -> None:
    if body["model"] == "s":
        out.json(whole({"content": "I look.", "tool_calls": [LOOK]}, "tool_calls"))
    elif any(m.get("tool_calls") and not m.get("reasoning_content") for m in body["messages"]):
        out.json({"error": {"message": "The `reasoning_content` in the thinking mode must be passed back."}}, 400)
    else:
        out.json(whole({"content": "done", "reasoning_content": "hm"}))


def test_a_thinking_teacher_goes_on_after_a_students_call(tmp_path: Path) -> None:
    with Provider(deepseek) as provider:
        client = wrapped(provider.url, tmp_path, "cascade", router={"options": {"n": 1}})
        first = client.chat.completions.create(model="deepseek-reasoner", messages=ASK, tools=TOOLS)
        assert first.agentcascade.answered_by == "student"
        message = first.choices[0].message
        history = [*ASK, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "a bed"}]
        asked = {
            "model": "deepseek-reasoner",
            "messages": history,
            "tools": TOOLS,
            "n": 2,
        }  # two answers: the teacher's
        assert client.chat.completions.create(**asked).choices[0].message.content == "done"
        client.agentcascade.close()
    sent = provider.bodies[-1]["messages"][1]
    assert sent["reasoning_content"] == "I look.", "its own words stand for thoughts that it had not"


def test_a_null_stays_a_null_in_the_history(tmp_path: Path) -> None:
    answer: Answer = lambda b, o: o.json(whole({"content": None, "tool_calls": [LOOK]}, "tool_calls"))  # noqa: E731
    with Provider(answer) as provider:
        client = wrapped(provider.url, tmp_path)
        message = client.chat.completions.create(model="t", messages=ASK, tools=TOOLS).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "a bed"}
        client.chat.completions.create(model="t", messages=[*ASK, message, result], tools=TOOLS)
        client.agentcascade.close()
    assert provider.bodies[-1]["messages"][1]["content"] is None


def test_mistakes_are_answered_with_what_to_do(tmp_path: Path) -> None:
    with Provider(lambda b, o: o.json(whole({"content": "x"}))) as provider:
        client = wrapped(provider.url, tmp_path)
        with pytest.raises(TypeError, match="missing required argument: messages"):
            client.chat.completions.create(model="t")
        with pytest.raises(ConfigError, match="takes a client"):
            agentcascade.wrap("gpt-4.1", student="client/s")  # type: ignore[type-var]
        client.agentcascade.close()
