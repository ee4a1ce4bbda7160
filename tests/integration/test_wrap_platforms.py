"""`wrap` of clients of other platforms: Claude at Bedrock, Vertex AI and Foundry, GPT at Azure; whole and streamed."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import openai
import pytest

pytest.importorskip("anthropic", reason="needs the extra `anthropic`")
import anthropic

from agentcascade import ScriptedModel, wrap
from agentcascade.integrations.anthropic_client import AnthropicClientModel
from agentcascade.models.openai_client import provider
from tests.provider import Out, Provider, last, part, whole

ASK: list[Any] = [{"role": "user", "content": "Where is the mug?"}]
PARTS: dict[str, Any] = {
    "retrieval": {"k": 0},
    "bank": {"url": "sqlite:///:memory:"},
    "prompt": {"min_demonstrations": 0},
}
USAGE = {"input_tokens": 10, "output_tokens": 2}
HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None, "usage": USAGE}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**HEAD, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "On the desk."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
    {"type": "message_stop"},
]


def frame(event: dict[str, Any]) -> bytes:
    """One event as AWS frames it (application/vnd.amazon.eventstream)."""
    said = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in said.items()
    )
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    body = prelude + headers + payload
    return body + struct.pack("!I", zlib.crc32(body))


def answer(body: dict[str, Any], out: Any) -> None:
    """Each platform by its route: the model is part of it."""
    path = out._handler.path
    paths.append(path)
    text = [{"type": "text", "text": "On the desk."}]
    if path.endswith("/invoke-with-response-stream"):
        data, kind = b"".join(map(frame, EVENTS)), "application/vnd.amazon.eventstream"
        Out.raw(out, data, 200, {"content-type": kind})
    elif "deployments" in path:
        if body.get("stream"):
            out.events([part({"role": "assistant", "content": "On the desk."}), part({}, "stop"), last()])
        else:
            out.json(whole({"content": "On the desk."}))
    elif body.get("stream"):
        sent = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
        Out.raw(out, sent.encode(), 200, {"content-type": "text/event-stream"})
    else:
        data = json.dumps({**HEAD, "content": text, "stop_reason": "end_turn"}).encode()
        Out.raw(out, data, 200, {"content-type": "application/json"})


paths: list[str] = []
AWS: dict[str, Any] = {"aws_region": "us-east-1", "aws_access_key": "AKIAEXAMPLE", "aws_secret_key": "s" * 40}
PLATFORMS: dict[str, Any] = {
    "bedrock": (anthropic.AnthropicBedrock, anthropic.AsyncAnthropicBedrock, AWS),
    "vertex": (anthropic.AnthropicVertex, anthropic.AsyncAnthropicVertex,
               {"region": "r", "project_id": "p", "access_token": "token-0123456789"}),
    "foundry": (anthropic.AnthropicFoundry, anthropic.AsyncAnthropicFoundry, {"api_key": "k-0123456789"}),
}  # fmt: skip


def made(platform: str, root: str, kind: int, **more: Any) -> Any:
    arguments = PLATFORMS[platform][2]
    return wrap(PLATFORMS[platform][kind](base_url=root, max_retries=0, **arguments), **PARTS, **more)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "claude-any", "max_tokens": 50, "messages": ASK, **more}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_claude_at_another_platform_is_cascaded(platform: str) -> None:
    if platform == "bedrock":
        pytest.importorskip("botocore", reason="needs anthropic[bedrock]")
    student = ScriptedModel(["On the bed."] * 9, name="cheap")
    paths.clear()
    with Provider(answer) as server:
        ours = made(platform, server.root, 0, mode="teacher")
        with ours.agentcascade:
            for client in (ours, ours.with_options(timeout=30)):
                said = client.messages.create(**asked())
                assert said.content[0].text == "On the desk."
                assert said.agentcascade.answered_by == "teacher"
                assert said.agentcascade.calls[0].model == "127.0.0.1/claude-any"
                assert said.agentcascade.calls[0].dollars is None  # whose prices those are, nobody knows
            with ours.messages.stream(**asked()) as stream:
                assert stream.get_final_message().content[0].text == "On the desk."
        assert len(server.bodies) == 3
        ours = made(platform, server.root, 0, mode="cascade", student=student)
        with ours.agentcascade:
            assert ours.messages.create(**asked()).agentcascade.answered_by == "student"
        assert len(server.bodies) == 3
    signed = [h.get("authorization", "") + h.get("x-api-key", "") + h.get("api-key", "") for h in server.headers]
    assert all(signed)
    if platform == "bedrock":  # what is signed is what is sent
        assert all("accept-encoding" in s and h["accept-encoding"] == "gzip, deflate"
                   for s, h in zip(signed, server.headers))  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_asynchronous_clients_too(platform: str) -> None:
    if platform == "bedrock":
        pytest.importorskip("botocore", reason="needs anthropic[bedrock]")
    with Provider(answer) as server:
        ours = made(platform, server.root, 1, mode="teacher")
        with ours.agentcascade:
            said = await ours.messages.create(**asked())
            assert said.agentcascade.answered_by == "teacher"
            async with ours.messages.stream(**asked()) as stream:
                assert (await stream.get_final_message()).content[0].text == "On the desk."
    assert len(server.bodies) == 2


def test_models_are_named_by_the_platform_that_is_talked_to() -> None:
    """By which their prices are listed."""
    key: dict[str, Any] = {"api_key": "k-0123456789"}
    vertex = anthropic.AnthropicVertex(region="us-east5", project_id="p", access_token="t-0123456789")
    for client, name in (
        (anthropic.AnthropicBedrock(aws_region="us-east-1", **key), "bedrock/m"),
        (vertex, "vertex_ai/m"),
        (anthropic.Anthropic(base_url="https://api.anthropic.com", **key), "anthropic/m"),
        (anthropic.AnthropicFoundry(resource="acme", **key), "acme.services.ai.azure.com/m"),
        (anthropic.Anthropic(base_url="https://anthropic.com.example", **key), "anthropic.com.example/m"),
    ):
        assert AnthropicClientModel(client, "m").name == name
    azure = openai.AzureOpenAI(azure_endpoint="https://acme.openai.azure.com", api_version="2024-10-21", **key)
    assert provider(azure) == "azure"


@pytest.mark.parametrize("stream", [False, True])
def test_azures_clients_are_cascaded(stream: bool) -> None:
    with Provider(answer) as server:
        azure = openai.AzureOpenAI(
            azure_endpoint=server.root, api_key="k-0123456789", api_version="2024-10-21", max_retries=0
        )
        ours: Any = wrap(azure, mode="teacher", **PARTS)
        with ours.agentcascade:
            said = ours.chat.completions.create(model="gpt-any", messages=ASK, stream=stream)
            decision = [*said][-1].agentcascade if stream else said.agentcascade
    assert decision.answered_by == "teacher"
    assert decision.calls[0].model == "127.0.0.1/gpt-any"
    assert server.headers[0]["api-key"] == "k-0123456789"
