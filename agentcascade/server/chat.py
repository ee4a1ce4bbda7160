"""`POST /v1/chat/completions`: OpenAI's chat protocol, as JSON or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from agentcascade.episodes import identity
from agentcascade.episodes.response_json import as_json
from agentcascade.server import wire
from agentcascade.server.keepalive import COMMENT
from agentcascade.server.problem import Problem
from agentcascade.server.wire_protocol import Caller, StepRequest
from agentcascade.step.answer_options import dropped

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.server.passthrough import Api


class ChatProtocol:
    """Chat Completions, which the core itself speaks."""

    api: Api = "chat"
    keepalive = COMMENT

    async def read(self, body: bytes, caller: Caller) -> tuple[str, dict[str, Any]]:
        data = wire.parse_body(body, wire.ChatRequest)
        return data["model"], data

    async def request(self, data: dict[str, Any], cascade: Cascade, caller: Caller) -> StepRequest:
        options, ignored = wire.options_of(data)
        if metadata := identity.provider_metadata(data.get("metadata")):
            options["metadata"] = metadata
        ignored = [*ignored, *dropped(cascade.context.teacher, options)]
        stream = bool(data.get("stream"))
        if stream:
            options = {"stream_options": data.get("stream_options") or {}, **options}
        return StepRequest(data["messages"], data.get("tools"), options, data.get("metadata"), stream, ignored)

    async def answer(self, request: StepRequest, answer: Answer) -> dict[str, Any]:
        return as_json(*answer, wire.decision_fields(answer.decision))

    async def events(self, request: StepRequest, stream: StepStream) -> AsyncIterator[bytes]:
        async for chunk in stream:
            yield b"data: " + to_json(chunk) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def error(self, problem: Problem) -> dict[str, Any]:
        return problem.body()

    def error_event(self, problem: Problem) -> bytes:
        return b"data: " + to_json(problem.body()) + b"\n\n"
