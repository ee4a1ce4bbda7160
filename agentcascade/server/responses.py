"""`POST /v1/responses`: OpenAI's Responses, as JSON or as server-sent events; those that are stored, by their id."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from agentcascade._util.threads import apart
from agentcascade.episodes import identity
from agentcascade.episodes.responses_api import ResponsesStep, Shelf, begin_step, models_of
from agentcascade.messages import text_of
from agentcascade.server import wire
from agentcascade.server.errors import Told, explain, invalid
from agentcascade.server.keepalive import COMMENT
from agentcascade.server.problem import Problem
from agentcascade.server.responses_body import ResponsesRequest
from agentcascade.server.wire_protocol import Caller, StepRequest
from agentcascade.step.answer_options import dropped
from agentcascade.storage.responses import KeptResponse, ResponseStore
from agentcascade.types import Message
from agentcascade.wire.responses_events import Event

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.server.auth import Tenant
    from agentcascade.server.passthrough import Api

CONTEXT = re.compile(r"\s*<([\w-]+)>.*</\1>\s*", re.DOTALL)
"""What an agent's program says of its surroundings in the user's name, before the task: Codex."""
LONGEST_CONTEXT = 100_000
FAILURES = {"rate_limit_exceeded", "server_error", "invalid_prompt", "context_length_exceeded"}
"""Codes of failed responses that clients know."""


class ResponsesProtocol:
    """Responses, as the proxy speaks it.

    Args:
        store: Where responses are kept.
        stores: Whether new ones are.
    """

    api: Api = "responses"
    keepalive = COMMENT

    def __init__(self, store: ResponseStore, *, stores: bool) -> None:
        self._store, self._stores = store, stores

    async def read(self, body: bytes, caller: Caller) -> tuple[str, dict[str, Any]]:
        data = wire.parse_body(body, ResponsesRequest)
        return data["model"], data

    async def request(self, data: dict[str, Any], cascade: Cascade, caller: Caller) -> StepRequest:
        shelf = Shelf(self._store if self._stores else None, namespace_of(caller.tenant))
        native = bool(getattr(cascade.context.teacher, "speaks_responses", False))
        step = await begin_step(data, shelf, models_of(cascade.context), native=native)
        options, metadata = dict(step.read.options), dict(data.get("metadata") or {})
        options.pop("metadata", None)
        if providers := identity.provider_metadata(metadata):
            options["metadata"] = providers
        if episode := step.episode or conversation_of(caller.headers):
            metadata.setdefault(identity.EPISODE, episode)
        if goal := goal_of(step.read.messages):
            metadata.setdefault(identity.GOAL, goal)
        ignored = dropped(cascade.context.teacher, options)
        return StepRequest(
            step.read.messages, step.read.tools, options, metadata, bool(data.get("stream")), ignored, wire=step
        )  # fmt: skip

    async def answer(self, request: StepRequest, answer: Answer) -> dict[str, Any]:
        step: ResponsesStep = request.wire
        return await step.whole(answer, wire.decision_fields)

    async def events(self, request: StepRequest, stream: StepStream) -> AsyncIterator[bytes]:
        step: ResponsesStep = request.wire
        problems: list[Problem] = []

        def failed(error: Exception) -> dict[str, str]:
            problems.append(explain(error))
            return failure(problems[0])

        async for event in step.events(stream, wire.decision_fields, failed):
            yield _sent(event)
        if problems:
            raise Told(problems[0])

    def error(self, problem: Problem) -> dict[str, Any]:
        return problem.body()

    def error_event(self, problem: Problem) -> bytes:
        detail = problem.body()["error"]
        return _sent({"type": "error", "sequence_number": 0, **{k: detail[k] for k in ("code", "message", "param")}})

    async def kept(self, id: str, namespace: str) -> KeptResponse:
        """A response that is stored. Raises `Refused` (404) for any other."""
        found = await apart(self._store.find, namespace, id)
        if found is None:
            raise not_kept(id)
        return found

    async def forget(self, id: str, namespace: str) -> None:
        """Delete a response that is stored. Raises `Refused` (404) for any other."""
        if not await apart(self._store.delete, namespace, id):
            raise not_kept(id)


def failure(problem: Problem) -> dict[str, str]:
    """The ``error`` of a response that failed in the middle."""
    detail = problem.body()["error"]
    code = detail["code"] if detail["code"] in FAILURES else "rate_limit_exceeded" if problem.status == 429 else None
    return {"code": code or "server_error", "message": detail["message"]}


def namespace_of(tenant: Tenant) -> str:
    """The namespace that a caller's responses are kept in; "" where the server is open."""
    return tenant.namespace or ""


def not_kept(id: str) -> Exception:
    """There is no such response, or not any more, or not of this tenant."""
    return invalid(f"Response with id '{id[:100]}' not found.", status=404, param="id", code="response_not_found")


def conversation_of(headers: Mapping[str, str]) -> str:
    """The episode's id that a program's own headers give, "" without any: Codex names its threads."""
    thread = headers.get("thread-id", "") if headers.get("originator", "").startswith("codex") else ""
    return f"codex:{thread}" if thread and identity.ID.fullmatch(f"codex:{thread}") else ""


def goal_of(messages: Sequence[Message]) -> str:
    """The task, where the first thing said in the user's name is only of the surroundings; else ""."""
    said = [text_of(m)[:LONGEST_CONTEXT] for m in messages if m["role"] == "user"]
    if len(said) < 2 or not CONTEXT.fullmatch(said[0]):
        return ""
    return next((text for text in said if not CONTEXT.fullmatch(text)), "")[: identity.GOAL_CHARACTERS]


def _sent(event: Event) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + to_json(event) + b"\n\n"
