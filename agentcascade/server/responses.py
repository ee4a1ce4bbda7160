"""`POST /v1/responses`: OpenAI's Responses, as JSON or as server-sent events; those that are stored, by their id."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic_core import to_json

from agentcascade._util.threads import apart
from agentcascade.episodes import identity
from agentcascade.errors import AgentCascadeError, describe
from agentcascade.messages import text_of
from agentcascade.server import wire
from agentcascade.server.errors import explain, invalid
from agentcascade.server.problem import Problem
from agentcascade.server.responses_body import ResponsesRequest
from agentcascade.server.wire_protocol import Caller, StepRequest
from agentcascade.storage.responses import KeptResponse, ResponseStore
from agentcascade.types import Message
from agentcascade.wire import responses_answer
from agentcascade.wire.responses_events import Event, EventWriter
from agentcascade.wire.responses_request import read_request
from agentcascade.wire.responses_tools import ToolBook

if TYPE_CHECKING:
    from agentcascade.cascade import Cascade
    from agentcascade.episodes.stream import Answer, StepStream
    from agentcascade.server.auth import Tenant
    from agentcascade.server.passthrough import Api

log = logging.getLogger("agentcascade.server")
MOST_REFERENCES = 200
"""Responses that the items of one request may refer to."""
CONTEXT = re.compile(r"\s*<([\w-]+)>.*</\1>\s*", re.DOTALL)
"""What an agent's program says of its surroundings in the user's name, before the task: Codex."""
FAILURES = {"rate_limit_exceeded", "server_error", "invalid_prompt", "context_length_exceeded"}
"""Codes of failed responses that clients know."""


@dataclass(frozen=True)
class Asked:
    """What is needed of a request to write its answer, and to keep it."""

    head: Mapping[str, Any]
    book: ToolBook
    namespace: str
    earlier: Sequence[str] = ()
    input: Sequence[Any] = field(default_factory=list)


class ResponsesProtocol:
    """Responses, as the proxy speaks it.

    Args:
        store: Where responses are kept.
        stores: Whether any are kept.
    """

    api: Api = "responses"

    def __init__(self, store: ResponseStore, *, stores: bool) -> None:
        self._store, self._stores = store, stores

    async def read(self, body: bytes, caller: Caller) -> tuple[str, dict[str, Any]]:
        data = wire.parse_body(body, ResponsesRequest)
        return data["model"], data

    async def request(self, data: dict[str, Any], cascade: Cascade, caller: Caller) -> StepRequest:
        namespace = namespace_of(caller.tenant)
        given = data.get("input")
        own = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given or ())
        own = await self._with_references(own, namespace)
        conversation = await self._earlier(data.get("previous_response_id"), namespace)
        items = [item for kept in conversation for item in (*kept.input, *kept.response["output"])]
        context = cascade.context
        models = {m.name for m in (context.teacher, context.student, *(s.model for s in context.students)) if m}
        native = bool(getattr(context.teacher, "speaks_responses", False))
        read = read_request({**data, "input": own}, items, models=models, native=native)
        options, metadata = dict(read.options), dict(data.get("metadata") or {})
        options.pop("metadata", None)
        if kept_by_provider := identity.provider_metadata(metadata):
            options["metadata"] = kept_by_provider
        episode = conversation[-1].episode if conversation else conversation_of(caller.headers)
        if episode:
            metadata.setdefault(identity.EPISODE, episode)
        if goal := goal_of(read.messages):
            metadata.setdefault(identity.GOAL, goal)
        store = self._stores and data.get("store") is not False
        id = f"resp_{uuid4().hex}"
        head = responses_answer.head({**data, "store": store}, id, int(time.time()))
        earlier = [kept.id for kept in conversation]
        asked = Asked(head, read.book, namespace, earlier, own)
        return StepRequest(
            read.messages, read.tools, options, metadata, stream=bool(data.get("stream")), wire=asked
        )  # fmt: skip

    async def answer(self, request: StepRequest, answer: Answer) -> dict[str, Any]:
        asked: Asked = request.wire
        message, completion = answer.messages[0], answer.completion
        told = completion.choice_fields[0].get("logprobs") if completion.choice_fields else None
        logprobs = told.get("content") if isinstance(told, Mapping) else None
        items = responses_answer.output(message, asked.book, asked.head["id"], completion.model, logprobs)
        return await self._kept(asked, answer, items)

    async def events(self, request: StepRequest, stream: StepStream) -> AsyncIterator[bytes]:
        asked: Asked = request.wire
        writer = EventWriter(asked.head, asked.book)
        for event in writer.begin():
            yield _sent(event)
        try:
            async for chunk in stream:
                for choice in chunk["choices"]:
                    told = choice.get("logprobs") or {}
                    for event in writer.delta(choice.get("delta") or {}, told.get("content") or ()):
                        yield _sent(event)
            assert stream.answer is not None
            for event in writer.end(stream.answer.messages[0], stream.answer.completion.model):
                yield _sent(event)
            response = await self._kept(asked, stream.answer, writer.items)
        except Exception as error:
            response = failed(asked.head, explain(error), writer.items)
        for event in writer.last(response):
            yield _sent(event)

    def error(self, problem: Problem) -> dict[str, Any]:
        return problem.body()

    def error_event(self, problem: Problem) -> bytes:
        detail = problem.body()["error"]
        event = {"type": "error", "sequence_number": 0, **{k: detail[k] for k in ("code", "message", "param")}}
        return _sent(event)

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

    async def _earlier(self, id: str | None, namespace: str) -> list[KeptResponse]:
        """The responses that a request continues, oldest first."""
        if id is None:
            return []
        found = await apart(self._store.conversation, namespace, id)
        if found is None:
            why = "" if self._stores else ": this server keeps none (server.store_responses), send the whole input"
            raise invalid(
                f"Previous response with id '{id[:100]}' not found{why}",
                param="previous_response_id", status=400, code="previous_response_not_found",
            )  # fmt: skip
        return list(found)

    async def _with_references(self, items: list[Any], namespace: str) -> list[Any]:
        """The items, with those of stored responses in place of references to them."""
        places = {
            item["id"]: place
            for item in items
            if item.get("type") == "item_reference" or (item.keys() == {"id"})
            if isinstance(item.get("id"), str) and (place := responses_answer.place_of(item["id"]))
        }
        ids = sorted({id for id, _ in places.values()})
        if not ids:
            return items
        if len(ids) > MOST_REFERENCES:
            raise invalid(f"input: items of more than {MOST_REFERENCES} responses are referred to", param="input")
        found = await apart(self._store.find_all, namespace, ids)

        def resolved(item: Any) -> Any:
            id, index = places.get(item.get("id"), ("", 0))
            output = found[id].response["output"] if id in found else []
            return output[index] if index < len(output) else item

        return [resolved(item) for item in items]

    async def _kept(self, asked: Asked, answer: Answer, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The whole response, stored where it is to be."""
        completion = answer.completion
        reason = completion.finish_reasons[0] if completion.finish_reasons else "stop"
        model = str(completion.fields.get("model") or completion.model)
        usage, done = completion.usage, int(time.time())
        response = responses_answer.finished(asked.head, items, model, reason, usage, done)
        response["agentcascade"] = wire.decision_fields(answer.decision)
        if response["store"]:
            kept = KeptResponse(asked.head["id"], answer.decision.episode, asked.earlier, asked.input, response)
            try:
                await apart(self._store.save, asked.namespace, kept)
            except AgentCascadeError as error:  # the answer is paid for, and whoever needs it stored is told
                log.error("a response is not stored: %s", describe(error))
                response["store"] = False
        return response


def failed(head: Mapping[str, Any], problem: Problem, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The response of a stream that went wrong, with what came of it."""
    detail = problem.body()["error"]
    code = detail["code"] if detail["code"] in FAILURES else "rate_limit_exceeded" if problem.status == 429 else None
    error = {"code": code or "server_error", "message": detail["message"]}
    return {**head, "status": "failed", "error": error, "output": list(items), "store": False}


def namespace_of(tenant: Tenant) -> str:
    """The namespace that a caller's responses are kept in; "" where the server is open."""
    return tenant.namespace or ""


def not_kept(id: str) -> Exception:
    """There is no such response, or not any more, or not of this tenant."""
    return invalid(f"Response with id '{id[:100]}' not found.", status=404, param="id", code="response_not_found")


def conversation_of(headers: Mapping[str, str]) -> str:
    """The episode's id that a program's own headers give, "" without any: Codex names its threads."""
    thread = headers.get("thread-id", "") if headers.get("originator", "").startswith("codex") else ""
    return f"codex:{thread}" if identity.ID.fullmatch(f"codex:{thread}") and thread else ""


def goal_of(messages: Sequence[Message]) -> str:
    """The task, where the first thing said in the user's name is only of the surroundings; else ""."""
    said = [text_of(m) for m in messages if m["role"] == "user"]
    if len(said) < 2 or not CONTEXT.fullmatch(said[0][:100_000]):
        return ""
    return next((text for text in said if not CONTEXT.fullmatch(text[:100_000])), "")[: identity.GOAL_CHARACTERS]


def _sent(event: Event) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + to_json(event) + b"\n\n"
